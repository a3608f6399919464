"""One mail to several recipients, sent as one to each: what to tell the client, who gets one answer for all of them
(RFC 5321, 3.3).

250 means that every copy was accepted. If some were and others were not, the client hears of a failure: of a temporary
one as long as trying again can help. Until then the relay remembers who has their copy, and leaves them out when the
same message comes again. What it remembers is in memory: a restart in between costs a second copy, and never a lost
one.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

from postbox_hooks.relay.answers import Answer

__all__ = ["MOST_RECIPIENTS", "Accepted", "summary"]

MOST_RECIPIENTS: Final = 100
"""Of one mail that is to be split; for more, the client begins another one (RFC 5321, 4.5.3.1.10)."""

MOST_MESSAGES: Final = 10_000
SECONDS: Final = 5 * 86400.0
"""How long mail servers try to deliver a mail, as a rule (RFC 5321, 4.5.4.1)."""


class Accepted:
    """Who has their copy of messages whose other copies were refused."""

    def __init__(self) -> None:
        self._known: Final[OrderedDict[bytes, tuple[float, frozenset[str]]]] = OrderedDict()

    @staticmethod
    def key(sender: str, message: bytes) -> bytes:
        """What a message is known by when it comes again, byte for byte the same.

        :param sender: the reverse-path.
        :param message: as it came.
        """
        return hashlib.sha256(sender.encode("utf-8", "surrogateescape") + b"\0" + message).digest()

    def by(self, key: bytes) -> frozenset[str]:
        """The addresses that have it."""
        since, addresses = self._known.get(key, (0.0, frozenset[str]()))
        return addresses if since > time.monotonic() - SECONDS else frozenset()

    def remember(self, key: bytes, addresses: Iterable[str]) -> None:
        """These have it, and others do not."""
        self._known[key] = (time.monotonic(), frozenset(addresses))
        self._known.move_to_end(key)
        while len(self._known) > MOST_MESSAGES:
            self._known.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """All have it, or nobody has."""
        self._known.pop(key, None)


def summary(answers: Collection[Answer], recipients: int) -> Answer:
    """The one answer for all copies.

    :param answers: what the upstream server said to each copy that was sent.
    :param recipients: how many copies there were to send.
    """
    refused = [answer for answer in answers if not answer.accepts]
    if not refused:
        return Answer(250, "\n".join(answer.text for answer in answers))
    worst = next((answer for answer in refused if answer.temporary), refused[0])
    accepted = len(answers) - len(refused)
    status = "4.5.0" if worst.temporary else "5.5.0"
    lines = dict.fromkeys(answer.text for answer in refused)  # said once, also if it was said to many
    return Answer(worst.code, "\n".join([*lines, f"{status} {accepted} of {recipients} recipients have this mail"]))
