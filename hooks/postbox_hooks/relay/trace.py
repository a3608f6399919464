"""The ``Received`` header that every relay puts on top of what it relays (RFC 5321, 4.4)."""

from __future__ import annotations

import re
import time
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

__all__ = ["goes_round", "received"]

MOST_HOPS: Final = 100
"""RFC 5321, 6.3: a relay that sees more than a large number of these, at least 100, is part of a loop."""

_UNCLEAR: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_RECEIVED: Final = re.compile(rb"^Received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE: Final = b"\r\n\r\n"


def received(*, helo: str, address: str, by: str, protocol: str) -> bytes:
    """The header, in three lines.

    :param helo: what the client calls itself.
    :param address: its IP address.
    :param by: our own name.
    :param protocol: how it sent the mail: ``ESMTPSA`` (RFC 3848).
    """
    literal = f"IPv6:{address}" if ":" in address else address
    named = _UNCLEAR.sub("?", helo)[:255]
    when = _date(int(time.time()))
    lines = (f"Received: from {named} ([{literal}])", f"\tby {by} (postbox relay) with {protocol};", f"\t{when}", "")
    return "\r\n".join(lines).encode()


@lru_cache(1)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second).astimezone())


def goes_round(message: bytes) -> bool:
    """Whether a message has been through so many servers that it must be going round in circles.

    :param message: as it came.
    """
    end = message.find(_BLANK_LINE)
    headers = message if end < 0 else message[: end + 2]
    return sum(1 for _ in _RECEIVED.finditer(headers)) >= MOST_HOPS
