"""What the mail adapters share: who the envelope names, and which of several adapters has a message first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parseaddr
from typing import Final

__all__ = ["envelope", "outermost"]

_in_hand: Final = ContextVar("postbox_message_in_hand", default=False)


def envelope(addresses: Iterable[object]) -> list[str]:
    """Recipients as the envelope names them (RFC 5321, 3.3): addresses without display names, as smtplib takes them
    out.

    :param addresses: ``reader@example.com`` or ``Reader <reader@example.com>`` each.
    """
    return [parseaddr(address)[1] or address for address in map(str, addresses)]


@contextmanager
def outermost() -> Iterator[bool]:
    """Put around the rewriting and the sending: whether no other adapter has the message in hand already.

    Adapters meet where one framework sends by another. Only the outermost may rewrite: in what it hands on,
    ``X-Postbox-Track`` and ``postbox:no-track`` are no longer there to be heeded.
    """
    first = not _in_hand.get()
    token = _in_hand.set(True)
    try:
        yield first
    finally:
        _in_hand.reset(token)
