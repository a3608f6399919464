"""Whose click it was, behind proxies: nobody untrusted has a say in it."""

from __future__ import annotations

import pytest

from postbox_plugin.forwarded import TrustedProxies

LOCAL = TrustedProxies(["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"])


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    """Headers are not looked at where no proxy is trusted."""
    assert TrustedProxies([]).client("127.0.0.1", ["for=192.0.2.1"], ["192.0.2.2"]) == "127.0.0.1"


def test_an_untrusted_peer_is_the_client() -> None:
    """What somebody writes who is not trusted counts for nothing."""
    assert LOCAL.client("198.51.100.9", ["for=192.0.2.1"], ["192.0.2.2"]) == "198.51.100.9"


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.5, 192.0.2.1"], "192.0.2.1"),  # the client wrote the first itself
        (["192.0.2.1, 10.0.0.1"], "192.0.2.1"),  # a second trusted proxy
        (["192.0.2.1", "10.0.0.1"], "192.0.2.1"),  # in a header of its own
        (["10.0.0.2, 10.0.0.1"], "10.0.0.2"),  # trusted all the way
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["unknown"], "127.0.0.1"),
        (["192.0.2.1, unknown"], "127.0.0.1"),
        (["<script>"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(values: list[str], client: str) -> None:
    """The client is the nearest that no trusted proxy stands at."""
    assert LOCAL.client("127.0.0.1", [], values) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=192.0.2.1"], "192.0.2.1"),
        (['For="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (["for=192.0.2.43;proto=http;by=203.0.113.43"], "192.0.2.43"),
        (["by=203.0.113.43 ; for=192.0.2.43"], "192.0.2.43"),
        (["for=203.0.113.9, for=192.0.2.1, for=10.0.0.1"], "192.0.2.1"),
        (["for=203.0.113.9", "for=192.0.2.1"], "192.0.2.1"),
        (["for=_hidden"], "127.0.0.1"),
        (["proto=https"], "127.0.0.1"),
        (["notfor=192.0.2.1"], "127.0.0.1"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_says(values: list[str], client: str) -> None:
    """``Forwarded`` outweighs the other header, and obfuscated names end the search."""
    assert LOCAL.client("127.0.0.1", values, ["198.51.100.1"]) == client


def test_a_trusted_peer_in_ipv6_notation_is_known() -> None:
    """A dual-stack socket shows IPv4 peers as ``::ffff:127.0.0.1``."""
    assert LOCAL.client("::ffff:127.0.0.1", [], ["192.0.2.1"]) == "192.0.2.1"


def test_long_headers_are_read_in_time() -> None:
    """A hundred thousand claims take no more than the time that a test has."""
    assert LOCAL.client("127.0.0.1", [], ["10.0.0.1," * 100_000 + "192.0.2.1"]) == "192.0.2.1"
    assert LOCAL.client("127.0.0.1", ["for=10.0.0.1;" * 50_000], []) == "10.0.0.1"
    assert LOCAL.client("127.0.0.1", ["; " * 100_000], []) == "127.0.0.1"
    assert LOCAL.client("127.0.0.1", [";" + " " * 100_000 + "x"], []) == "127.0.0.1"
