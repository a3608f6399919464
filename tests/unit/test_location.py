"""``Location``: the address as its author wrote it where a header can hold it so, else as a browser requests it."""

from __future__ import annotations

import re

import pytest

from postbox_plugin.location import location


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://EXAMPLE.com/Path?a=1&b=2#c",
        "HTTPS://example.com",
        "http://example.com:80/../a/./b",
        "http://example.com/%EF%zz",
        "http://example.com/a?q=[x]'!$()*+,;=:@~_-.",
        "http://[::1]:8080/",
    ],
)
def test_plain_ascii_is_handed_back_as_it_was_written(url: str) -> None:
    """No character of an address that every browser reads alike is changed."""
    assert location(url) == url


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("https://example.com/?token=valueééé", "https://example.com/?token=value%C3%A9%C3%A9%C3%A9"),
        ("http://пример.рф/путь", "http://xn--e1afmkfd.xn--p1ai/%D0%BF%D1%83%D1%82%D1%8C"),
        ("https://example.com/a b.png", "https://example.com/a%20b.png"),
        ('http://example.com/"<>`{}', "http://example.com/%22%3C%3E%60%7B%7D"),
        ("http:\\\\example.com\\a", "http://example.com/a"),
        ("http:example.com", "http://example.com/"),
        ("http:///example.com", "http://example.com/"),
        ("http://example.com/\x7f", "http://example.com/%7F"),
        ("http://example.com/a\u2028b", "http://example.com/a%E2%80%A8b"),
    ],
)
def test_everything_else_is_encoded_as_a_browser_does(url: str, header: str) -> None:
    """What is not plain ASCII has the form in which a browser would request it."""
    assert location(url) == header


@pytest.mark.parametrize(
    "url",
    ["http://example.com/\r\nSet-Cookie: a=b", "http://example.com/\n", "http://example.com\x00", "http://e\tx.com/"],
)
def test_no_header_can_be_smuggled(url: str) -> None:
    """A line break, or any control character, never gets into a header."""
    try:
        header = location(url)
    except ValueError:
        return
    assert re.fullmatch(r"[!-~]+", header)


@pytest.mark.parametrize(
    "url", ["", "example.com", "//example.com", "javascript:alert(1)", "mailto:a@example.com", "http://", "/path"]
)
def test_only_http_and_https_addresses_have_a_location(url: str) -> None:
    """What is no http or https address is an error, never a redirect."""
    with pytest.raises(ValueError, match=r"."):
        location(url)
