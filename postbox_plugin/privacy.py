"""How much of who clicked is kept."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["blurred_address", "blurred_user_agent", "stricter"]

_LEVELS: Final = ("full", "truncated", "none")
_VERSION = re.compile(r"(?<!\d)(\d++)(?:[._]\d++)+")


def stricter(one: str, other: str) -> str:
    """The level that keeps less: ``full``, ``truncated``, ``none``."""
    return one if one == other else max(one, other, key=_LEVELS.index)


def blurred_address(address: str, level: str) -> str:
    """An IP address as far as the level keeps it: truncated to the /24 (IPv4) or /48 (IPv6) it is in."""
    if level == "full":
        return address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if level == "none":
        return ""
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    network = ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False)
    return str(network.network_address)


def blurred_user_agent(user_agent: str, level: str) -> str:
    """A user agent as far as the level keeps it: truncated, each version has only its first number."""
    if level == "none":
        return ""
    return _VERSION.sub(r"\1", user_agent) if level == "truncated" else user_agent
