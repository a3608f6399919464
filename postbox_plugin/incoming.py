"""The way in: an opened link and a request become a click, and the click is kept."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from postbox_plugin.click import Click, ClickDetail, ClickedMail, CommonHeaders, Tracking, Verdict, timestamp
from postbox_plugin.counts import Counts
from postbox_plugin.errors import OutboxError
from postbox_plugin.mail import OpenedLink
from postbox_plugin.plugins import PluginHost
from postbox_plugin.privacy import blurred_address, blurred_user_agent, stricter
from postbox_plugin.settings import Settings

if TYPE_CHECKING:
    from postbox_plugin.outbox import Outbox

__all__ = ["ClickRecorder"]

MAX_USER_AGENT: Final = 1024
"""The most characters of a user agent that are kept."""

_HUMAN: Final = Verdict("human")

_log = logging.getLogger("postbox.redirect")
_lost = logging.getLogger("postbox.lost")


class ClickRecorder:
    """Makes clicks and hands them to the outbox.

    :ivar outbox: where clicks are kept; ``None`` while the ``Postbox`` is not running.
    """

    def __init__(self, settings: Settings, plugins: PluginHost, counts: Counts) -> None:
        self._settings: Final = settings
        self._plugins: Final = plugins
        self._counts: Final = counts
        self._deadlines: Final = _Deadlines(settings.journal_deadline)
        self.outbox: Outbox | None = None

    def record(
        self, link: OpenedLink, *, address: str, user_agent: str, headers: Mapping[str, str], then: Callable[[], None]
    ) -> None:
        """Keep a click, then let the reader go on; lets no exception of its own through.

        :param then: called once: when the click is on disk, when that has taken ``journal_deadline`` seconds, or at
            once where it cannot be kept on disk now.
        """
        reader = _Reader(then)
        try:
            click = self._click(link, address, user_agent, headers)
            if self.outbox is None:
                self._lose(click, "the Postbox is not running: wrap the server in `async with postbox.running()`")
            else:
                self._keep(self.outbox, click, reader)
                return
        except Exception:
            _log.exception("a click could not be recorded; the reader is redirected all the same")
        reader.go_on()

    def _keep(self, outbox: Outbox, click: Click, reader: _Reader) -> None:
        def done(error: OutboxError | None) -> None:
            # Whether or not somebody still waits for it, a click that could not be written must not vanish.
            if error is not None:
                self._lose(click, str(error))
            reader.go_on()

        try:
            outbox.put(click, done)
        except OutboxError as error:
            done(error)
        else:
            if outbox.error:  # then nobody knows how long
                reader.go_on()
            else:
                self._deadlines.add(reader)

    def _lose(self, click: Click, reason: str) -> None:
        """The last resort, and the one place where a log holds personal data."""
        self._counts.lost += 1
        _lost.error("%s", click.to_json().decode(), extra={"reason": reason})
        _log.error("a click could not be kept and went to the logger postbox.lost: %s", reason)

    @property
    def readers_waiting(self) -> int:
        """How many readers wait for the disk."""
        return self._deadlines.waiting

    def _click(self, link: OpenedLink, address: str, user_agent: str, headers: Mapping[str, str]) -> Click:
        headers_of_mail = link.headers
        click = Click(
            mail=ClickedMail(
                timestamp=timestamp(link.sent_at),
                message_id=link.message_id,
                identity_id=link.identity,
                common_headers=CommonHeaders(
                    from_=headers_of_mail.get("from", ()),
                    date="".join(headers_of_mail.get("date", ())),
                    to=headers_of_mail.get("to", ()),
                    message_id=link.message_id,
                    original_message_id="".join(headers_of_mail.get("message-id", ())),
                    subject="".join(headers_of_mail.get("subject", ())),
                ),
                tags=link.message_tags,
            ),
            click=ClickDetail(
                ip_address=address,
                timestamp=timestamp(datetime.now(UTC)),
                user_agent=user_agent[:MAX_USER_AGENT],
                url=link.url,
                link_tags=link.tags,
            ),
            event_id=_new_event_id(),
            tracking=Tracking(link_index=link.index),
        )
        verdict = self._plugins.classify(click, headers)
        self._counts.clicks[verdict.verdict] += 1
        level = stricter(self._settings.privacy, link.privacy)
        if level == "full" and verdict == _HUMAN:
            return click
        return msgspec.structs.replace(
            click,
            click=msgspec.structs.replace(
                click.click,
                ip_address=blurred_address(click.click.ip_address, level),
                user_agent=blurred_user_agent(click.click.user_agent, level),
            ),
            tracking=Tracking(link_index=link.index, verdict=verdict.verdict, reason=verdict.reason),
        )


class _Reader:
    """Somebody who waits for a redirect.

    :param then: lets them go on.
    :ivar went_on: whether they do not wait any more.
    """

    __slots__ = ("_then", "went_on")

    def __init__(self, then: Callable[[], None]) -> None:
        self._then: Final = then
        self.went_on = False

    def go_on(self) -> None:
        """Let them go on, if they still wait."""
        if self.went_on:
            return
        self.went_on = True
        try:
            self._then()
        except Exception:
            _log.exception("a reader could not be redirected")


class _Deadlines:
    """Lets readers go on who have waited long enough; with one timer for all of them.

    :param seconds: how long that is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        self._readers: Final[deque[tuple[float, _Reader]]] = deque()
        self._watching = False

    def add(self, reader: _Reader) -> None:
        """From now on, wait for this one too."""
        loop = asyncio.get_running_loop()
        readers = self._readers
        while readers and readers[0][1].went_on:
            readers.popleft()
        readers.append((loop.time() + self._seconds, reader))
        if not self._watching:
            self._watching = True
            loop.call_later(self._seconds, self._check)

    @property
    def waiting(self) -> int:
        """How many readers wait."""
        return sum(not reader.went_on for _, reader in self._readers)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        readers = self._readers
        while readers and (readers[0][1].went_on or readers[0][0] <= loop.time()):
            readers.popleft()[1].go_on()
        self._watching = bool(readers)
        if readers:
            loop.call_at(readers[0][0], self._check)


def _new_event_id() -> str:
    """As Postbox's look: 21 characters, a colon, and the number of the event."""
    return base64.urlsafe_b64encode(os.urandom(16))[:21].decode("ascii") + ":0"
