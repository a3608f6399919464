"""Do no harm, tried on made-up HTML: our links are html5lib's, and what is not a link comes through unchanged."""

from __future__ import annotations

from itertools import pairwise

from conformance.corpus import DOMAIN, KEY, TRACKING_LINK, installation
from conformance.opinions import Tag, links, our_tags, reference_tags, reference_value
from conformance.profiles import many, patient
from hypothesis import example, given
from hypothesis import strategies as st

from postbox_plugin import Mail, Settings
from postbox_plugin.links import scanner
from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.rewrite import Edit, apply, rewrite
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.links.scanner import Element
from postbox_plugin.mail import Tags
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


# What the scanner leaps over, with pieces among it that must make it go tag by tag.
tidy_html = st.lists(
    st.sampled_from(
        [
            *('<a href="http://x.example/">', '<A class="y" href="z" id="q" />', "<area href=x>", "<a>", '<a x="y">'),
            *("<p>", "</p>", '<td width="5">', "<td width=5>", "<td width='5'>", '<img alt="', '<img alt= "', "<b x='"),
            *('"', "'", ' "', " '", '="', "='", "don't", '"so"', ">", "/>", "<", "-->", "<!--", "<!-->", "<!-- x -->"),
            *('<!--[if mso]><a href="z"><![endif]-->', "<!--[if mso]><td><![endif]-->", "<![endif]>", "<!x '>", "<?x>"),
            *("<style>", "</style>", "<strong>", "<title>", "</title>", "<img>", "<v:rect>", "<script>", "</script>"),
        ]
    ),
    max_size=25,
).map("".join)


def rules() -> AddressRules:
    return AddressRules(Settings(domain=DOMAIN, keys=[KEY]), KeyRing([KEY]))


def tracking(_url: str, index: int, _tags: Tags) -> str:
    return f"https://{DOMAIN}/c/{index}"


def by_steps(html: str) -> list[Element]:
    """The link elements as the scanner finds them where it does not dare to leap."""
    return list(scanner._steps(html, 0, len(html), conditional=False))


def undone(edits: list[Edit], html: str) -> list[Edit]:
    """The edits that lead back, at their places in the edited text."""
    inverse = []
    shift = 0
    for start, end, new in edits:
        inverse.append((start + shift, start + shift + len(new), html[start:end]))
        shift += len(new) - (end - start)
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
            expected.attributes["href"] = tracking(link.url, link.index, link.tags)
        assert without_marks(new) == expected
        assert "postbox:no-track" not in old.attributes or not link.track


@many
@given(nasty_html)
def test_undoing_the_edits_gives_the_text_that_was(html: str) -> None:
    """The edits stand in order, do not overlap, and lie within tags of links; undone, every character is as it was."""
    edits, found = rewrite(html, rules(), first_index=0, decide=lambda link, _: link, seal=tracking)
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(edits))
    assert sum(new.startswith("https:") for _, _, new in edits) == sum(link.track for link in found)
    assert apply(apply(html, edits), undone(edits, html)) == html


@many
@given(tidy_html | nasty_html)
@example('<b x=\'><a href="y"> <a href="z">')
@example('<b x="><!-- "<a href="z">-->')
@example('<b x= "> <a href="z">')
@example("<!-- --><a href='<!--'><a href=\"z\">")
def test_leaps_lead_where_steps_do(html: str) -> None:
    """Going from candidate to candidate, the scanner finds what it finds going tag by tag."""
    assert list(scanner.scan(html)) == by_steps(html)
    assert links(our_tags(html)) == links(reference_tags(html))


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
