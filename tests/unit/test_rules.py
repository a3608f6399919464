"""Which addresses are tracked, rule by rule, and what the reason is where one is not."""

from __future__ import annotations

import pytest

from postbox_plugin import Mail, Postbox, Settings
from postbox_plugin.links.rules import AddressRules, parse_tags
from postbox_plugin.tokens.keyring import KeyRing

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
OTHER_KEY = "HxAeHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE"


def rules(**changes: object) -> AddressRules:
    settings = Settings(**{"domain": "click.example.com", "keys": [KEY], **changes})  # type: ignore[arg-type]
    return AddressRules(settings, KeyRing(settings.keys))


def read(value: str) -> tuple[str, str]:
    address = rules().read(value)
    return address.url, address.reason


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://example.com/", "http://example.com/"),
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM/Path", "HTTPS://Example.COM/Path"),  # as it was written
        ("  \n\thttp://example.com/ \r\n", "http://example.com/"),
        ("ht\ntp://exa\tmple.com/a\r\nb", "http://example.com/ab"),  # WHATWG URL drops them
        ("\x01http://example.com\x1f", "http://example.com"),
        ("http://example.com/?a=1&amp;b=2&copy=3", "http://example.com/?a=1&b=2&copy=3"),
        ("&#104;ttp://example.com", "http://example.com"),
        ("http://example.com/a b", "http://example.com/a b"),
        ("http://пример.рф/ж", "http://пример.рф/ж"),
        ("http:example.com", "http:example.com"),  # a browser opens it
        ("https:\\\\example.com", "https:\\\\example.com"),
        ("http://user:password@example.com:8080/", "http://user:password@example.com:8080/"),
        ("http://[::1]/", "http://[::1]/"),
        ("http://localhost/", "http://localhost/"),
        ("http://0x7f.1/", "http://0x7f.1/"),
        ("http://example.com/{id}", "http://example.com/{id}"),  # one brace is no placeholder
        ("http://example.com/%%41", "http://example.com/%%41"),
    ],
)
def test_http_and_https_are_tracked(value: str, url: str) -> None:
    """What a browser takes for an http or https address is tracked, in the words of its author."""
    assert read(value) == (url, "")


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("//example.com/x", "http://example.com/x"),
        ("www.example.com", "http://www.example.com"),
        ("WWW.example.internal/x", "http://WWW.example.internal/x"),
        ("www.example.com:8080/x", "http://www.example.com:8080/x"),
        ("example.com", "http://example.com"),
        ("example.co.uk/x?y#z", "http://example.co.uk/x?y#z"),
        ("example.com:8080", "http://example.com:8080"),
        ("example.com?x", "http://example.com?x"),
        ("example.com#x", "http://example.com#x"),
        ("sub-domain.example.shop", "http://sub-domain.example.shop"),
        ("EXAMPLE.COM", "http://EXAMPLE.COM"),
        ("example.com.", "http://example.com."),
        ("пример.рф/ж", "http://пример.рф/ж"),
        ("xn--e1afmkfd.xn--p1ai", "http://xn--e1afmkfd.xn--p1ai"),
    ],
)
def test_without_a_scheme_http_is_meant_where_a_host_is(value: str, url: str) -> None:
    """``http://`` is put before what begins with a host: ``www.``, or a name under a public suffix."""
    assert read(value) == (url, "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("#top", "a fragment of the mail itself"),
        ("?query", "relative"),
        ("/path", "relative"),
        ("\\path", "relative"),
        ("page.html", "relative"),
        ("images/logo.png", "relative"),
        ("user@example.com", "relative"),
        ("localhost", "relative"),
        ("127.0.0.1", "relative"),
        ("example.invalid-suffix", "relative"),
        ("exam ple.com", "relative"),
        ("mailto:a@example.com", "scheme mailto"),
        ("TEL:+123", "scheme tel"),
        ("ftp://example.com/", "scheme ftp"),
        ("javascript:alert(1)", "scheme javascript"),
        ("data:text/html,x", "scheme data"),
        ("cid:part1", "scheme cid"),
        ("https+notrack://example.com", "scheme https+notrack"),
        ("example:80", "scheme example"),
    ],
)
def test_everything_else_is_left_alone(value: str, reason: str) -> None:
    """Other schemes, relative addresses and what is no address are not tracked, and the report says why."""
    assert read(value) == (value.strip(), reason)


@pytest.mark.parametrize(
    "value",
    [
        "{{ url }}",
        "http://example.com/{{ id }}",
        "https://example.com/?u={% if x %}1{% endif %}",
        "*|UNSUB|*",
        "http://example.com/?e=*|EMAIL|*",
        "<% url %>",
        "&lt;%= url %&gt;",
        "%%unsubscribe%%",
        "http://example.com/%%id%%",
        "http://example.com/{{\nid\n}}",
    ],
)
def test_placeholders_are_left_alone(value: str) -> None:
    """An address that a template did not fill in is not tracked."""
    assert read(value)[1] == "a placeholder of the template was not filled in"


@pytest.mark.parametrize(
    "value",
    ["http://", "https://", "http://exa mple.com/", "http://a:b:c/", "http://[::1", "http://example.com:99999/", "//"],
)
def test_what_no_browser_could_open_is_left_alone(value: str) -> None:
    """An address that the URL standard cannot parse is not tracked."""
    assert read(value)[1] == "no browser can open it"


def test_own_links_are_left_alone() -> None:
    """A tracking link is known by host, port, path and a key id of the ring; other links to the domain are links."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    mail = Mail(sender="a@example.com", recipient="b@example.com")
    own = postbox.track_html("<a href=https://example.com/>", mail)[8:-1]
    for value in (own, own.replace("https://", "HTTPS://").replace("click.", "CLICK."), f" {own}?x=1"):
        assert read(value)[1] == "already a tracking link"
    assert read(own.replace("https:", "http:"))[1] == "already a tracking link"
    assert read(own.replace("https:", ""))[1] == "already a tracking link"
    for value in (
        "https://click.example.com/",
        "https://click.example.com/c/",
        "https://click.example.com/c/abcd-of-no-key",
        own.replace("click.", "clock."),
        own.replace("/c/", "/d/"),
        own.replace(".com/", ".com:8443/"),
    ):
        assert read(value)[1] == ""


def test_own_links_have_the_ports_and_keys_of_the_installation() -> None:
    """Of another port, or of a key that is not in the ring, a link is somebody else's."""
    ring = rules(https_port=8443, keys=[OTHER_KEY, KEY])
    sealed = Postbox(Settings(domain="click.example.com", keys=[KEY], https_port=8443))
    own = sealed.track_html("<a href=https://example.com/>", Mail(sender="a@example.com", recipient="b@example.com"))[
        8:-1
    ]
    assert own.startswith("https://click.example.com:8443/c/")
    assert ring.read(own).reason == "already a tracking link"
    assert ring.read(own.replace(":8443", "")).reason == ""
    assert rules(https_port=8443, keys=[OTHER_KEY]).read(own).reason == ""


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", {}),
        ("product:book", {"product": ("book",)}),
        (
            "product:book;genre:fiction;subgenre:scifi;type:newrelease;",
            {"product": ("book",), "genre": ("fiction",), "subgenre": ("scifi",), "type": ("newrelease",)},
        ),
        (" product : book ; genre:fiction", {"product": ("book",), "genre": ("fiction",)}),
        ("a:1;a:2;b:3;a:1", {"a": ("1", "2", "1"), "b": ("3",)}),
        ("url:http://x/y:z", {"url": ("http://x/y:z",)}),  # at the first colon
        ("flag", {"flag": ("",)}),
        (":value;;;", {}),
        ("ключ:значение", {"ключ": ("значение",)}),
    ],
)
def test_link_tags(text: str, tags: dict[str, tuple[str, ...]]) -> None:
    """``key:value;key:value;`` is split at semicolons and the first colon of each, and trimmed."""
    assert parse_tags(text) == tags


@pytest.mark.parametrize(
    "unit", ["{{", "{%", "*|", "<%", "%%", "%%a", "a.", "a.b@", "x:", "/", "&amp;", "%41", "\t", "a", "@", "[", "é."]
)
def test_a_megabyte_of_address_is_read_in_time(unit: str) -> None:
    """No address, however long, takes more than the time that a test has."""
    for prefix in ("", "http://example.com/", "http://"):
        address = rules().read(prefix + unit * (1_000_000 // len(unit)))
        assert address.reason or address.url.startswith("http")


@pytest.mark.parametrize("unit", ["a:b;", "a;", ";", ":", "a"])
def test_a_megabyte_of_tags_is_read_in_time(unit: str) -> None:
    """Nor do tags."""
    assert len(parse_tags(unit * (1_000_000 // len(unit)))) <= 1
