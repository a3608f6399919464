"""Who a message goes to. Only a message to exactly one is tracked: a link of two readers would tell neither from the
other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import getaddresses
from typing import Final

from postbox_plugin.mail import Headers
from postbox_plugin.message import flanker

__all__ = ["recipients_of"]

MAX_VALUE: Final = 4096
"""The longest recipient header that is read, in characters: one address never fills it, and parsers are slow."""

_PLAIN = re.compile(r"[^@\s]+@[^@\s]+")
# What nearly all recipient headers are, which no two readers of RFC 5322 read in different ways.
_ADDRESS = r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*+@(?![a-z0-9.-]*xn--)[a-z0-9-]+(?:\.[a-z0-9-]+)++"
_USUAL = re.compile(rf"(?:({_ADDRESS})|[A-Za-z0-9 ]*+<({_ADDRESS})>)")


def recipients_of(headers: Headers, envelope: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """The recipients, and why they cannot be told; ``""`` if they can.

    :param headers: the message's headers.
    :param envelope: the envelope's recipients, which are taken as they are; ``None`` to read To, Cc and Bcc.
    """
    if envelope is not None:
        return tuple(dict.fromkeys(envelope)), ""
    recipients: dict[str, None] = {}
    for name in ("To", "Cc", "Bcc"):
        for value in headers.all(name):
            addresses = _addresses(value) if len(value) <= MAX_VALUE else [""]
            if not all(_PLAIN.fullmatch(address) for address in addresses):
                return (), f"the recipients in {name} are unclear"
            recipients.update(dict.fromkeys(addresses))
    return tuple(recipients), ""


def _addresses(value: str) -> list[str]:
    """The addresses of one header; ``""`` in the place of what is none."""
    usual = _USUAL.fullmatch(value)
    if usual:
        return [usual[1] or usual[2]]
    addresses, unread = flanker.parse_addresses(value)
    if not unread:
        return addresses
    # flanker gives up on the whole list for one odd address; the standard library is more patient.
    try:
        return [address for _, address in getaddresses([value])]
    except RecursionError:  # comments nested too deep for its parser
        return [""]
