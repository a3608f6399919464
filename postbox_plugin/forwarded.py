"""Whose request it is, behind proxies: RFC 7239 ``Forwarded`` and ``X-Forwarded-For``, believed only from trusted
peers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["TrustedProxies"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([0-9.]+):\d+")


class TrustedProxies:
    """The networks whose word on where a request came from is taken.

    :param networks: in CIDR notation.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: Final = tuple(ipaddress.ip_network(network) for network in networks)

    def client(self, peer: str, forwarded: Sequence[str], x_forwarded_for: Sequence[str]) -> str:
        """The client's address: the nearest that no trusted proxy stands at.

        Each proxy appends whom it heard from, so the list is read from the right, and only as long as everyone so
        far is trusted: what an untrusted client wrote there itself is never reached.

        :param peer: the other end of the connection.
        :param forwarded: the values of all ``Forwarded`` headers; where there are any, the other header is passed over.
        :param x_forwarded_for: the values of all ``X-Forwarded-For`` headers.
        """
        if not self._networks:
            return peer
        claims = _forwarded_for(forwarded) if forwarded else _split(x_forwarded_for)
        client = peer
        while claims and self._trusts(client):
            claimed = _address(claims.pop())
            if claimed is None:  # "unknown", or an obfuscated name: nobody further can be told
                break
            client = str(claimed)
        return client

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _split(values: Sequence[str]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",")]


def _forwarded_for(values: Sequence[str]) -> list[str]:
    found = []
    for element in _split(values):
        match = _FOR.search(element)
        found.append((match[1] or match[2] or "") if match else "")
    return found


def _address(text: str) -> Address | None:
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
