"""Do no harm, tried on made-up HTML: our links are html5lib's, and what is not a link comes through unchanged."""

from __future__ import annotations

from itertools import pairwise

from conformance.corpus import DOMAIN, KEY, TRACKING_LINK, installation
from conformance.opinions import Tag, links, our_tags, reference_tags, reference_value
from conformance.profiles import many, patient
from hypothesis import example, given
from hypothesis import strategies as st

from postbox_plugin import Link, Mail, Settings
from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.rewrite import Edit, apply, rewrite
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.tokens.keyring import KeyRing

pytestmark = patient

TAGS = [
    "<a ",
    "<area ",
    "<A\t",
    "<a/",
    "</a ",
    "</a>",
    "<p>",
    "<br/>",
    "<ab ",
    "<b href=x>",
    "<v:rect ",
    "</v:rect>",
    "<a\0 ",
]
ATTRIBUTES = [
    *(
        "href=",
        "HREF = ",
        "href",
        'href="',
        "href='",
        "=",
        '"',
        "'",
        ">",
        "/>",
        "/",
        " title",
        " class=x",
        ' x="y"href=z',
        "`",
    ),
    *(
        " postbox:tags=",
        ' postbox:tags="a:b;"',
        " postbox:no-track",
        ' postbox:no-track=""',
        "\n postbox:tags='a:1;a:2'",
    ),
    *("postbox:tags", "postbox:no-trac\N{KELVIN SIGN}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"),
]
ADDRESSES = [
    *(
        "http://x.example/?a&copy=2",
        "https://x.example/",
        "//x.example",
        "www.x.example",
        "mailto:a@x.example",
        "{{ x }}",
    ),
    *(
        "&amp",
        "&notit;",
        "&#x80;",
        "&#0",
        "&lt;",
        "&#13;",
        "&NotEqualTilde;",
        "&CounterClockwiseContourIntegral",
        "&#9999999999",
    ),
]
COMMENTS = [
    *("<!--", "-->", "--!>", "<!-->", "<!--->", "<!-", "-", "--", "!", "<![CDATA[", "]]>", "<?xml", "<!doctype html>"),
    *(
        "<![if !mso]>",
        "<![endif]>",
        "<!--[if mso]>",
        "<![endif]-->",
        "<!--[if gte mso 9]>",
        "<!--[if ",
        "<!--[if !mso]><!-->",
    ),
    *("<!-- <![endif]-->", "<!--[IF mso | IE]>", "<!--[ifx]>"),
]
RAW_TEXT = [
    *("<script>", "</script>", "<script ", "</script ", "<SCRIPT/", "<style>", "</style>", "<textarea>", "</textarea"),
    *("<title>", "</title>", "<plaintext>", "<xmp>", "</xmp>", "<iframe>", "</iframe/", "<noembed>", "<noframes>"),
    *("<noscript>", "</noscript>"),
]
TEXT = ["<", "</", "</>", "</3", "<3", "\0", "x", "é", " ", "\t", "\n", "\r\n", "\r", "\f"]
WHOLE = [
    *(
        "<a href=q>",
        "<a href='w'/>",
        '<a x="y"href="http://x.example/">',
        "<a =href=n>",
        "<area/href=https://x.example/>",
    ),
    *('<v:rect href="http://x.example/">', '<a postbox:tags="a:b"=c href=http://x.example/ postbox:no-track =d>'),
    *("<a title postbox:tags='a:b' =c href=http://x.example/>", '<a href=http://x.example/ postbox:tags="a:b"/>'),
    *('<a href="http://x.example/"postbox:tags="a:b"class=c>', "<a href=http://x.example/ postbox:tags>"),
]

nasty_html = st.lists(
    st.sampled_from([TAGS, ATTRIBUTES, ADDRESSES, COMMENTS, RAW_TEXT, TEXT, WHOLE]).flatmap(st.sampled_from),
    max_size=40,
).map("".join)


def rules() -> AddressRules:
    return AddressRules(Settings(domain=DOMAIN, keys=[KEY]), KeyRing([KEY]))


def tracking(link: Link) -> str:
    return f"https://{DOMAIN}/c/{link.index}"


def undone(edits: list[Edit], html: str) -> list[Edit]:
    """The edits that lead back, at their places in the edited text."""
    inverse = []
    shift = 0
    for edit in edits:
        start = edit.start + shift
        inverse.append(Edit(start, start + len(edit.text), html[edit.start : edit.end]))
        shift += len(edit.text) - (edit.end - edit.start)
    return inverse


def without_marks(tag: Tag) -> Tag:
    """A tag without the attributes that are meant for us."""
    return tag._replace(
        attributes={name: value for name, value in tag.attributes.items() if not name.startswith("postbox:")}
    )


@many
@given(nasty_html)
@example("<script><!--<!--></script><a href=x>")
@example("<!--[if mso]><!--[if mso]><a href=x><![endif]-->")
def test_our_links_are_those_of_html5lib(html: str) -> None:
    """In any mixture of tags, quotes, comments and raw text we see html5lib's links, with all their attributes."""
    assert links(our_tags(html)) == links(reference_tags(html))


@many
@given(nasty_html)
@example("<a href postbox:no-track='' =http://x.example/>")
@example("<a title postbox:tags='a:b' =c href=http://x.example/>")
def test_a_rewritten_text_means_the_same_but_for_its_tracking_links(html: str) -> None:
    """html5lib sees the same link elements afterwards, with the same attributes but for tracked addresses and the
    attributes that are meant for us.
    """
    before = links(reference_tags(html))
    edits, found = rewrite(html, rules(), first_index=0, decide=lambda link, _: link, seal=tracking)
    after = links(reference_tags(apply(html, edits)))
    assert len(before) == len(after) == len(found)
    for old, new, link in zip(before, after, found, strict=True):
        expected = without_marks(old)
        if link.track:
            expected.attributes["href"] = tracking(link)
        assert without_marks(new) == expected
        assert "postbox:no-track" not in old.attributes or not link.track


@many
@given(nasty_html)
def test_undoing_the_edits_gives_the_text_that_was(html: str) -> None:
    """The edits stand in order, do not overlap, and lie within tags of links; undone, every character is as it was."""
    edits, found = rewrite(html, rules(), first_index=0, decide=lambda link, _: link, seal=tracking)
    assert all(one.end <= other.start for one, other in pairwise(edits))
    assert sum(bool(edit.text.startswith("https:")) for edit in edits) == sum(link.track for link in found)
    assert apply(apply(html, edits), undone(edits, html)) == html


@many
@given(st.text() | nasty_html)
def test_no_text_raises(text: str) -> None:
    """Whatever the text, tracking it raises nothing, and tracking it once more tracks no tracking link."""
    postbox = installation()
    mail = Mail(sender="shop@example.com", recipient="reader@example.com")
    tracked = postbox.track_html(text, mail)
    again = links(our_tags(postbox.track_html(tracked, mail)))
    for once, twice in zip(links(our_tags(tracked)), again, strict=True):
        if TRACKING_LINK.fullmatch(once.attributes["href"]):
            assert twice == once


@many
@given(
    st.lists(st.sampled_from(ADDRESSES) | st.text("&#xX;=019aAfF copynotlt\r\n\0", max_size=6), max_size=8).map("".join)
)
def test_attribute_values_read_as_in_html5lib(value: str) -> None:
    """An attribute's references, NULs and line endings decode as html5lib decodes them."""
    assert decode_attribute(value) == reference_value(value)
