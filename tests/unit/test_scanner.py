"""The scanner: which start tags are links, and where their attributes stand (HTML standard, 13.2.5)."""

from __future__ import annotations

import pytest

from postbox_plugin.links.scanner import scan


def found(html: str) -> list[tuple[str, str | None]]:
    """Each link element's name, and its href as it is written."""
    result = []
    for element in scan(html):
        href = element.attributes.get("href")
        result.append((element.name, None if href is None else html[href.value_start : href.value_end]))
    return result


def hrefs(html: str) -> list[str | None]:
    return [href for _, href in found(html)]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<a href=x>", ["x"]),
        ("<A HREF='x'>", ["x"]),
        ('<a\nhref\t=\r\n"x"\f>', ["x"]),
        ("<a/href=x>", ["x"]),
        ("<a / href=x>", ["x"]),
        ("<a href=x/>", ["x/"]),
        ('<a href="x"/>', ["x"]),
        ('<a href="x"class=y>', ["x"]),
        ('<a class="y"href=x>', ["x"]),
        ("<a href=x href=y>", ["x"]),
        ("<a href href=y>", [""]),
        ("<a href=>", [""]),
        ("<a href= >", [""]),
        ("<a href>", [""]),
        ("<a =href=x href=y>", ["y"]),
        ("<a href==x>", ["=x"]),
        ("<a href=a\"b'c`d>", ["a\"b'c`d"]),
        ("<a href='a\"b'>", ['a"b']),
        ("<a href=<b>", ["<b"]),
        ("<a title='>' href=x>", ["x"]),
        ("<a title=> href=x>", [None]),
        ("<a>", [None]),
        ("<area href=x>", ["x"]),
        ("<ab href=x><address href=y><b href=z><link href=q>", []),
        ("<a\0 href=x>", []),
        ("< a href=x>", []),
        ("</a href=x>", []),
        ("<a href=x", []),  # the text ends inside the tag: no token
        ("<a href='x>", []),
        ("<a href=x><a href='", ["x"]),
        ("<b title='<a href=x>'>", []),
        ("a < b <a href=x>", ["x"]),
        ("<3 <a href=x>", ["x"]),
        ("</ <a href=x> <a href=y>", ["y"]),
        ("</><a href=x>", ["x"]),
    ],
)
def test_tags_and_attributes(html: str, expected: list[str | None]) -> None:
    """What a tag is, where it ends, and which of its attributes is the href."""
    assert hrefs(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<!--<a href=x>--><a href=y>", ["y"]),
        ("<!--><a href=y>", ["y"]),
        ("<!---><a href=y>", ["y"]),
        ("<!----><a href=y>", ["y"]),
        ("<!-- --!><a href=y>", ["y"]),
        ("<!-- -- ><a href=x>--><a href=y>", ["y"]),
        ("<!-- <!-- --><a href=y>-->", ["y"]),
        ("<!-- <a href=x>", []),
        ("<!-x><a href=y>", ["y"]),
        ("<!x <a href=x><a href=y>", ["y"]),
        ("<?xml <a href=x>?><a href=y>", ["y"]),
        ("<![CDATA[<a href=x>]]><a href=y>", ["y"]),
        ("<!doctype html <a href=x>><a href=y>", ["y"]),
        ("<!", []),
        # Right before a link in its usual form, which is looked at from behind.
        ('<!--><a href="x">', ["x"]),
        ('<!---><a href="x">', ["x"]),
        ('<!-- <!--><a href="x">', ["x"]),
        ('<!-- <!-- --><a href="x">', ["x"]),
        ('<!-- --!><a href="x">', ["x"]),
        ('<!-- -- ><a href="x">--><a href="y">', ["y"]),
        ('<!-- -><a href="x">--><a href="y">', ["y"]),
        ('<b x="--><a href="y">', []),
        ('<b x=\'--><a href="y">\'><a href="z">', ["z"]),
        ('<b x=-->\n<a href="y">', ["y"]),
        ('<b x="y" --> It\'s <a href="z">', ["z"]),
    ],
)
def test_comments_and_their_kin(html: str, expected: list[str | None]) -> None:
    """A comment ends as the standard says; bogus comments, CDATA sections and doctypes end at the first ``>``."""
    assert hrefs(html) == expected


@pytest.mark.parametrize("name", ["style", "xmp", "iframe", "noembed", "noframes", "textarea", "title", "script"])
def test_raw_text(name: str) -> None:
    """In raw text nothing is a link until its own end tag, in either case, with or without more in it."""
    for end in (f"</{name}>", f"</{name.upper()} x='>'>", f"</{name}/>"):
        assert hrefs(f"<{name}><a href=x></b></{name}x>{end}<a href=y>") == ["y"]
    assert hrefs(f"<{name.upper()} class=q><a href=x>") == []
    assert hrefs(f"<{name}x><a href=y>") == ["y"]


def test_after_plaintext_there_is_only_text() -> None:
    """``plaintext`` has no end."""
    assert hrefs("<a href=x><plaintext></plaintext><a href=y>") == ["x"]


def test_noscript_is_read_for_scripting_is_off() -> None:
    """Mail programs run no scripts: what is in ``noscript`` is shown."""
    assert hrefs("<noscript><a href=x></noscript>") == ["x"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("<script></script><a href=y>", ["y"]),
        ("<script><!-- </script><a href=y>", ["y"]),
        ("<script><!-- <script> </script><a href=x> --></script><a href=y>", ["y"]),
        ("<script><!-- <script> </script></script><a href=y>", ["y"]),
        ("<script><!-- <scripts> </script><a href=y>", ["y"]),
        ("<script><!--><script></script><a href=y>", ["y"]),
        ("<script><!---><script></script><a href=y>", ["y"]),
        ("<script><!--<!--><script></script><a href=y>", ["y"]),
        ("<script><!-- <script> --><a href=x></script><a href=y>", ["y"]),
        ("<script><!-- <script> <!--></script><a href=y>", ["y"]),
    ],
)
def test_the_escape_states_of_scripts(script: str, expected: list[str | None]) -> None:
    """Which ``</script>`` is the end of a script depends on ``<!--``, ``-->`` and ``<script>`` in it."""
    assert hrefs(script) == expected


def test_conditional_comments_are_opened() -> None:
    """What only Outlook reads has links too, and VML shapes among them; elsewhere ``v:rect`` is an element like any."""
    html = '<!--[if mso]><a href=x><v:roundrect href="y"><v:textbox href=n><![endif]--><v:rect href=z>'
    assert found(html) == [("a", "x"), ("v:roundrect", "y")]
    assert hrefs("<!--[IF gte mso 9 | IE]><area href=x><![endif]-->") == ["x"]
    assert hrefs("<!-- [if mso]><a href=x><![endif]-->") == []
    assert hrefs("<!--[iffy]><a href=x><![endif]-->") == []
    assert hrefs("<!--[if mso]><style><a href=x></style><![endif]--><a href=y>") == ["y"]
    assert hrefs("<!--[if mso]><style><![endif]--><a href=y>") == ["y"]
    assert hrefs("<!--[if mso]><a title='--><a href=y>") == ["y"]


def test_downlevel_revealed_comments_hide_nothing() -> None:
    """``<![if !mso]>`` and ``<!--[if !mso]><!-->`` are comments of their own, and what follows is shown."""
    assert hrefs("<![if !mso]><a href=x><![endif]>") == ["x"]
    assert hrefs("<!--[if !mso]><!--><a href=x><!--<![endif]-->") == ["x"]
    assert hrefs("<!--[if !mso]>--><a href=x><!--<![endif]-->") == ["x"]


def test_conditions_within_conditions() -> None:
    """Comments do not nest: a further condition is passed over, and another comment hides what is left."""
    assert hrefs("<!--[if mso]><!--[if gte mso 9]><a href=x><![endif]--><a href=y>") == ["x", "y"]
    assert hrefs("<!--[if mso]><a href=w><!-- <a href=x><![endif]--><a href=y>") == ["w", "y"]


def test_spans_are_those_of_the_attribute() -> None:
    """An attribute's span reaches from its name to its closing quote, its value's lies between the quotes."""
    html = '<p><a title=q HREF = "x y" data-z>'
    (element,) = scan(html)
    href = element.attributes["href"]
    assert html[href.start : href.end] == 'HREF = "x y"'
    assert html[href.value_start : href.value_end] == "x y"
    assert set(element.attributes) == {"title", "href", "data-z"}
    assert html[slice(*element.attributes["data-z"][:2])] == "data-z"


def test_names_are_lowered_as_ascii() -> None:
    """Only A to Z have a lower case here: a Kelvin sign is no k."""
    (element,) = scan("<a POSTBOX:NO-TRAC\N{KELVIN SIGN} HREF=x>")
    assert set(element.attributes) == {"postbox:no-trac\N{KELVIN SIGN}", "href"}


HOSTILE = [
    *("<", "<a ", "<a href=", '<a href="', "<a x", "<a / ", "<b ", "<b a=", "</", "</b ", "<a =", "a= ", "= ", "/ "),
    *(
        "<!--",
        "<!",
        "<?",
        "<!-",
        "-->",
        "--!",
        "<!--[if ",
        "<!--[if mso]>",
        "<!--[if mso]><a href=x>",
        "<!--[if mso]>-->",
        "<!--[if mso]>href<![endif]-->",
    ),
    *("<script>", "<script><!--", "<script><!--<script>", "<script></script", "<style>", "<style></style", "</style>"),
    *("<title></", "<textarea><", '"', "'", ">", "&", "\0", "\n", "<a href=x>", "<v:rect ", "<plaintext", "<a\0"),
]


@pytest.mark.parametrize(
    "around",
    [
        ("", ""),
        ("<a ", ">"),
        ("<a href='", "'>"),
        ("<!--[if mso]>", "-->"),
        ("<script>", "</script>"),
        ("", '<!-- <a href="x"> -->'),
        ("", '<b title="<a href="x">'),
    ],
)
@pytest.mark.parametrize("unit", HOSTILE)
def test_a_megabyte_of_anything_is_scanned_in_time(unit: str, around: tuple[str, str]) -> None:
    """Nothing that is repeated a million times takes more than the time that a test has."""
    html = around[0] + unit * (1_000_000 // len(unit)) + around[1]
    assert all(
        0 <= element.attributes["href"].end <= len(html) for element in scan(html) if "href" in element.attributes
    )
