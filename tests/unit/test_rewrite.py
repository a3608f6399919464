"""Rewriting an HTML text: what is replaced, what is removed, and that nothing else is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from postbox_plugin import Link, Mail, Postbox, Settings
from postbox_plugin.links.rewrite import MAX_LINK, Rewritten, apply, rewrite
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.tokens.keyring import KeyRing

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
RULES = AddressRules(Settings(domain="click.example.com", keys=[KEY]), KeyRing([KEY]))
URL = "https://example.com/"


def keep(link: Link, _: Mapping[str, str]) -> Link:
    return link


def rewritten(html: str, *, longest: int = MAX_LINK, faithful: bool = True, seal: str = "T") -> Rewritten:
    return rewrite(
        html,
        RULES,
        first_index=0,
        decide=keep,
        seal=lambda url, index, tags: f"{seal}{index}",
        faithful=faithful,
        longest=longest,
    )


def after(html: str) -> str:
    return apply(html, rewritten(html).edits)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (f'<p><a href="{URL}">x</a></p>', '<p><a href="T0">x</a></p>'),
        (f"<a href='{URL}'>", "<a href='T0'>"),
        (f"<a href={URL}>", "<a href=T0>"),
        (f"<a href={URL}/>", "<a href=T0>"),  # the slash is the value's
        (f'<a href="{URL}"/>', '<a href="T0"/>'),
        (f'<A  CLASS=x\nHREF = "\n{URL} "\tid=y >', '<A  CLASS=x\nHREF = "T0"\tid=y >'),
        (f"<a href={URL} href={URL}>", f"<a href=T0 href={URL}>"),  # the second one means nothing to anybody
        (f'<map><area href="{URL}"></map>', '<map><area href="T0"></map>'),
        (f'<!--[if mso]><v:rect href="{URL}"><![endif]-->', '<!--[if mso]><v:rect href="T0"><![endif]-->'),
        (
            f'<link href="{URL}"><base href="{URL}"><img src="{URL}">{URL}',
            f'<link href="{URL}"><base href="{URL}"><img src="{URL}">{URL}',
        ),
        ('<a href="mailto:a@example.com">', '<a href="mailto:a@example.com">'),
        ('<a href="#x"><a name=y><a>', '<a href="#x"><a name=y><a>'),
        (f"<!-- <a href={URL}> --><style>a{{}}</style>", f"<!-- <a href={URL}> --><style>a{{}}</style>"),
        ("", ""),
    ],
)
def test_only_the_values_of_links_change(html: str, expected: str) -> None:
    """A tracked link's value is replaced where it stands, without its white space; all else stays."""
    assert after(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (f'<a postbox:tags="a:b;" href="{URL}">', '<a href="T0">'),
        (f'<a href="{URL}" postbox:tags="a:b;">', '<a href="T0">'),
        (f'<a\n  postbox:tags="a:b;"\n  href="{URL}">', '<a\n  href="T0">'),
        (f'<a href="{URL}" POSTBOX:TAGS=a:b class=x>', '<a href="T0" class=x>'),
        (f'<a href="{URL}" postbox:tags class=x>', '<a href="T0" class=x>'),
        (f"<a href={URL} postbox:tags='a:b'/>", "<a href=T0 />"),  # without the space the slash would be the value's
        (f'<a href={URL} postbox:tags="a:b"class=x>', "<a href=T0 class=x>"),
        (f'<a href="{URL}"postbox:tags="a:b"class=x>', '<a href="T0"class=x>'),
        (f'<a href="{URL}"postbox:tags="a:b">', '<a href="T0">'),
        (f'<a/postbox:tags="a:b"/href={URL}>', "<a//href=T0>"),
        (f'<a title postbox:tags="a:b" =c href={URL}>', "<a title / =c href=T0>"),  # "=c" is an attribute, no value
        (f'<a title postbox:tags="a:b"=c href={URL}>', "<a title /=c href=T0>"),
        (f'<a postbox:tags="a:b" href={URL} postbox:no-track>', f'<a postbox:tags="a:b" href={URL}>'),
        (f"<a postbox:no-track href={URL}>", f"<a href={URL}>"),
        (f"<a href={URL} postbox:no-track='' class=x>", f"<a href={URL} class=x>"),
        ("<a href=mailto:a@b.example postbox:no-track>", "<a href=mailto:a@b.example>"),
        ("<a href=mailto:a@b.example postbox:tags=a:b>", "<a href=mailto:a@b.example postbox:tags=a:b>"),
        ("<p postbox:tags=a:b postbox:no-track>", "<p postbox:tags=a:b postbox:no-track>"),
    ],
)
def test_our_attributes_are_removed(html: str, expected: str) -> None:
    """``postbox:tags`` goes from tracked links and ``postbox:no-track`` from every link, with the white space before
    them where what follows needs none.
    """
    assert after(html) == expected


def test_tags_come_with_their_link() -> None:
    """A link's ``postbox:tags``, its references decoded, are its tags."""
    links = rewritten(f'<a href={URL} postbox:tags="a:&quot;1&quot;;b:2"><a href={URL}>').links
    assert [link.tags for link in links] == [{"a": ('"1"',), "b": ("2",)}, {}]


def test_every_link_is_reported_in_its_place() -> None:
    """Links, tracked or not, have their index, element, place and reason."""
    html = (
        f'<a href="#x"><area href={URL}><a postbox:no-track href={URL}><!--[if mso]><v:oval href="{URL}"><![endif]-->'
    )
    links = rewritten(html).links
    assert [(link.index, link.tag, link.track, link.reason) for link in links] == [
        (0, "a", False, "a fragment of the mail itself"),
        (1, "area", True, ""),
        (2, "a", False, "postbox:no-track"),
        (3, "v:oval", True, ""),
    ]
    assert [html[link.start : link.end] for link in links] == ["#x", URL, URL, URL]
    assert links[1].url == URL


def test_indices_go_on_from_part_to_part() -> None:
    """The first link of a second part has the index after the last of the first."""
    found = rewrite(
        f"<a href={URL}>", RULES, first_index=7, decide=keep, seal=lambda url, index, tags: str(index)
    ).links
    assert [link.index for link in found] == [7]


def test_a_plugins_word_is_heard() -> None:
    """What a plugin does not want tracked is left alone, with its attributes; other tags are sealed."""
    html = f'<a href={URL}no postbox:tags="a:b"><a href={URL}yes>'

    def decide(link: Link, _: Mapping[str, str]) -> Link:
        return link.replace(track=False, reason="no") if link.url.endswith("no") else link.replace(tags={"x": "y"})

    edits, links = rewrite(html, RULES, first_index=0, decide=decide, seal=lambda url, index, tags: f"T{dict(tags)}")
    assert apply(html, edits) == f"<a href={URL}no postbox:tags=\"a:b\"><a href=T{{'x': ('y',)}}>"
    assert [link.reason for link in links] == ["no", ""]


def test_a_plugin_is_not_asked_about_what_cannot_be_tracked() -> None:
    """Neither about other schemes nor about links whose author opted out."""
    asked: list[str] = []

    def decide(link: Link, _: Mapping[str, str]) -> Link:
        asked.append(link.url)
        return link

    rewrite(
        f"<a href=tel:1><a href={URL}1 postbox:no-track><a href={URL}2>",
        RULES,
        first_index=0,
        decide=decide,
        seal=lambda url, index, tags: url,
    )
    assert asked == [f"{URL}2"]


def test_a_plugin_sees_the_attributes_of_the_tag() -> None:
    """All of them, by name in lower case, decoded as HTML says; of two with one name the first."""
    seen: list[Mapping[str, str]] = []

    def decide(link: Link, attributes: Mapping[str, str]) -> Link:
        seen.append(attributes)
        return link

    html = f"<A HREF={URL} Data-X='a&amp;b&copy=1' data-x=no ses:no-track title=\"x\">"
    rewrite(html, RULES, first_index=0, decide=decide, seal=lambda *_: "T")
    (attributes,) = seen
    assert dict(attributes) == {"href": URL, "data-x": "a&b&copy=1", "ses:no-track": "", "title": "x"}
    assert "href" in attributes
    assert attributes.get("class") is None
    assert len(attributes) == 4


def test_a_tracking_link_may_not_become_too_long() -> None:
    """A tracking link over the limit is not made, unless the original was as long itself."""
    html = f"<a href={URL}>"
    assert rewritten(html, seal="T" * (MAX_LINK - 1)).edits == [(8, 28, "T" * (MAX_LINK - 1) + "0")]
    too_long = rewritten(html, seal="T" * MAX_LINK)
    assert too_long.edits == []
    assert too_long.links[0].reason == f"its tracking link would be over {MAX_LINK} characters"
    long_itself = f"<a href={URL}{'x' * MAX_LINK}>"
    assert rewritten(long_itself, seal="T" * MAX_LINK).links[0].track


def test_an_address_that_nobody_can_read_is_left_alone() -> None:
    """Where a text is read byte by byte, what is not ASCII may be anything: only ASCII addresses are tracked."""
    links = rewritten(f"<p>\xe9<a href={URL}\xe9><a href={URL}>", faithful=False).links
    assert [link.reason for link in links] == ["not readable in the charset of its part", ""]


def test_the_scheme_of_a_tracking_link_is_that_of_the_original() -> None:
    """https stays https, http stays http, and without a scheme it is http, each with its port."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY], https_port=8443))
    mail = Mail(sender="a@example.com", recipient="b@example.com")
    html = "<a href=HTTPS://a.example/><a href=http://a.example/><a href=//a.example/><a href=www.a.example>"
    tracked = postbox.track_html(html, mail)
    origins = [piece.partition("/c/")[0] for piece in tracked.split("<a href=")[1:]]
    assert origins == ["https://click.example.com:8443", *["http://click.example.com"] * 3]


def test_tracking_twice_changes_nothing() -> None:
    """A tracked text has nothing left to track."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    mail = Mail(sender="a@example.com", recipient="b@example.com")
    once = postbox.track_html(f'<a href="{URL}"><a href="www.example.com">', mail)
    assert postbox.track_html(once, mail) == once


def test_headers_of_a_mail_count_as_those_of_a_message() -> None:
    """Tags and id from them are in the links, and one switches the mail off."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    given = [("X-Postbox-Tags", "campaign=spring, cohort=b"), ("X-Postbox-Message-Id", "QA_JPkU2fkpIWdkx")]
    html = f'<a href="{URL}">x</a>'
    mail = Mail(headers=given, recipients=["b@example.com"], tags={"cohort": "c"})
    link = postbox.open(postbox.track_html(html, mail).split('"')[1])
    assert link.message_tags == {"campaign": ("spring",), "cohort": ("c",)}
    assert link.message_id == mail.message_id == "QA_JPkU2fkpIWdkx"
    off = Mail(headers=[*given, ("x-postbox-track", "no")], recipients=["b@example.com"])
    assert postbox.track_html(html, off) == html


@pytest.mark.parametrize(
    ("recipient", "links"),
    [
        ("reader@example.com", 1),
        ("Reader <reader@example.com>", 1),
        ("\N{CYRILLIC CAPITAL LETTER CHE} <reader@example.com>", 1),
        ("one@example.com, two@example.com", 0),
        ("nobody", 0),
        ("", 0),
    ],
)
def test_html_for_anybody_but_one_reader_is_left_alone(recipient: str, links: int) -> None:
    """As a message is, whose click could not say whose it was."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    tracked = postbox.track_html(f'<a href="{URL}">x</a>', Mail(sender="a@example.com", recipient=recipient))
    assert tracked.count("https://click.example.com/c/") == links


def test_arguments_that_are_none_are_named() -> None:
    """At once, with what to write; a mail is not sent untracked for them."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    mail: Any = Mail(sender="a@example.com", recipient="b@example.com")
    for html, given in ((mail, "<a>"), (b"<a>", mail), ("<a>", {"to": "b@example.com"})):
        with pytest.raises(TypeError, match=r"track_html needs a text and a Mail, not .*: write track_html"):
            postbox.track_html(html, given)
    with pytest.raises(TypeError, match="recipient is one address, not list"):
        Mail(recipient=["b@example.com"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"recipients is a list of addresses: write \['b@example.com'\]"):
        Mail(recipients="b@example.com")
    with pytest.raises(TypeError, match=r"headers are pairs of name and value: write headers=HEADERS.items\(\)"):
        Mail(headers={"From": "a@example.com"})  # type: ignore[dict-item]
    for field in ("From: a@example.com", ("From",), ("Subject", 7), None, ("a", "b", "c"), "ab"):
        with pytest.raises(TypeError, match=r"headers are pairs of name and value, both text, not "):
            Mail(headers=[field])  # type: ignore[list-item]


def test_headers_are_found_by_name() -> None:
    """Without regard to case; of several with one name, each or the first."""
    mail = Mail(headers=[("Received", "one"), ("Subject", ""), ("RECEIVED", "two")])
    assert list(mail.headers) == [("Received", "one"), ("Subject", ""), ("RECEIVED", "two")]
    assert mail.headers.all("received") == ["one", "two"]
    assert (mail.header("reCeived"), mail.headers.first("Subject"), mail.headers.first("To")) == ("one", "", "")
    assert not mail.headers.all("To")
    assert Mail(sender="a@example.com", headers=Mail().headers).sender == "a@example.com"


@pytest.mark.parametrize(
    "unit",
    ["<a href=http://x.example/>", "<a postbox:tags=a:b>", "<a href=x postbox:no-track ", "<a ", "postbox:tags=a "],
)
def test_a_megabyte_of_links_is_rewritten_in_time(unit: str) -> None:
    """Nor does rewriting take more than the time that a test has."""
    html = f"<a {unit * (1_000_000 // len(unit))}>"
    assert len(after(html)) <= len(html)
