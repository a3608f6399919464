"""MJML: tags that arrive on links, addresses and texts that arrive as written, and errors that say where."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from email.mime.text import MIMEText
from pathlib import Path

import html5lib  # type: ignore[import-untyped]
import pytest

from postbox_hooks.mjml import MjmlCompiler, MjmlError, to_html
from postbox_plugin import Postbox, Settings, new_key
from postbox_plugin.errors import MissingExtra

pytestmark = pytest.mark.extra("mjml")

SETTINGS = Settings(domain="click.example.com", keys=[new_key()], strict=True)
URL = "https://example.com/"


def page(body: str, head: str = "") -> str:
    """A template with this in its one column."""
    return (
        f"<mjml><mj-head>{head}</mj-head><mj-body><mj-section><mj-column>\n{body}\n"
        "</mj-column></mj-section></mj-body></mjml>"
    )


def links(html: str) -> Iterator[dict[str, str]]:
    """The attributes of each link, also of those in conditional comments."""
    for tag in re.findall(r"<a\s[^>]*>", html):
        tree = html5lib.parseFragment(tag, namespaceHTMLElements=False)
        yield dict(tree.find("a").attrib)


def tags(html: str) -> list[tuple[str, str | None]]:
    """Address and tags of each link that has some."""
    return [(one["href"], one.get("postbox:tags")) for one in links(html) if "postbox:tags" in one]


def refused(text: str, file: str = "newsletter.mjml") -> list[str]:
    """What is wrong with a template."""
    with pytest.raises(MjmlError) as caught:
        to_html(text, file=file)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return str(caught.value).splitlines()


def without_ids(html: str) -> str:
    """The same without the random names of a carousel, and without white space that is about to be."""
    return re.sub("[0-9a-f]{16}", "", html).replace('" >', '">')


@pytest.mark.parametrize(
    ("component", "count"),
    [
        ('<mj-button href="{0}" {1}>x</mj-button>', 1),
        ('<mj-image src="x.png" href="{0}" {1} />', 1),
        ('<mj-navbar><mj-navbar-link href="{0}" {1}>x</mj-navbar-link></mj-navbar>', 1),
        ('<mj-navbar base-url="https://example.com/"><mj-navbar-link href="" {1}>x</mj-navbar-link></mj-navbar>', 1),
        ('<mj-social><mj-social-element name="web" href="{0}" {1}>x</mj-social-element></mj-social>', 2),
        ('<mj-social mode="vertical"><mj-social-element href="{0}" icon-size="9px" {1} /></mj-social>', 1),
        ('<mj-carousel><!-- first --><mj-carousel-image src="x.png" href="{0}" {1} /></mj-carousel>', 2),
        ('<mj-text><a href="{0}" {1}>x</a></mj-text>', 1),
        ('<mj-table><tr><td><a href="{0}" {1}>x</a></td></tr></mj-table>', 1),
        ('<mj-raw><tr><td><a href="{0}" {1}>x</a></td></tr></mj-raw>', 1),
    ],
)
def test_tags_arrive_on_the_links_that_components_make(component: str, count: int) -> None:
    """Every link of a component has the tags, or the opt-out, and the component's address; Outlook's have them too."""
    html = to_html(page(component.format(URL, 'postbox:tags="product:book;genre:scifi;"')))
    assert tags(html) == [(URL, "product:book;genre:scifi;")] * count
    html = to_html(page(component.format(URL, "postbox:no-track")))
    assert [one["href"] for one in links(html) if "postbox:no-track" in one] == [URL] * count
    plain = to_html(page(component.format(URL, "")))
    assert "postbox:" not in plain
    assert without_ids(html.replace(" postbox:no-track", "")) == without_ids(plain)


def test_addresses_that_components_put_together() -> None:
    """A navigation bar's base and a social network's sharing address are around the component's own."""
    link = '<mj-navbar-link href="a?b=1&c=2" postbox:tags="n:1">x</mj-navbar-link>'
    pin = f'<mj-social-element name="pinterest" href="{URL}" postbox:tags="s:1">x</mj-social-element>'
    html = to_html(page(f'<mj-navbar base-url="{URL}">{link}</mj-navbar><mj-social>{pin}</mj-social>'))
    share = f"https://pinterest.com/pin/create/button/?url={URL}&media=&description="
    assert tags(html) == [(f"{URL}a?b=1&c=2", "n:1"), (share, "s:1"), (share, "s:1")]


def test_tags_are_inherited_as_other_attributes_are() -> None:
    """mj-all, a component's defaults, its classes and itself: each outweighs those before it."""
    head = """
    <mj-attributes>
      <mj-all postbox:tags="by:all" />
      <mj-button postbox:tags="by:button" href="https://example.com/default" />
      <mj-class name="one" postbox:tags="by:one" />
      <mj-class name="two" href="https://example.com/two" postbox:tags="by:two" />
      <mj-class name="quiet" postbox:no-track />
    </mj-attributes>
    """
    body = """
    <mj-image src="x.png" href="https://example.com/i" />
    <mj-button>x</mj-button>
    <mj-button mj-class="one">x</mj-button>
    <mj-button mj-class="one two">x</mj-button>
    <mj-button mj-class="one two" postbox:tags="by:itself" href="https://example.com/own">x</mj-button>
    <mj-button mj-class="quiet">x</mj-button>
    <mj-image src="x.png" />
    """
    html = to_html(page(body, head))
    assert tags(html) == [
        ("https://example.com/i", "by:all"),
        ("https://example.com/default", "by:button"),
        ("https://example.com/default", "by:one"),
        ("https://example.com/two", "by:two"),
        ("https://example.com/own", "by:itself"),
    ]
    assert [one["href"] for one in links(html) if "postbox:no-track" in one] == ["https://example.com/default"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"?a=1&copy=2"', "?a=1&copy=2"),
        ('"?a=1&amp;copy=2"', "?a=1&copy=2"),
        ('"?q=&amp;copy;x"', "?q=&copy;x"),
        ("'?q=\"x\"&amp;y'", '?q="x"&y'),
        ('"?q=&quot;x&quot;"', '?q="x"'),
        ('"?q=&#8364;&eacute;"', "?q=€é"),
        ('"?q=<b>"', "?q=<b>"),
        ("?q=bare", "?q=bare"),
        ('"{{ unsubscribe | default: 1 }}"', "{{ unsubscribe | default: 1 }}"),
        ('"\n  ?q=1\n"', "\n  ?q=1\n"),
    ],
)
def test_addresses_mean_what_their_authors_wrote(written: str, meant: str) -> None:
    """An address means in the HTML what it means in the template; no quote breaks out of its attribute."""
    for component in ("<mj-button href={}>x</mj-button>", "<mj-text><a href={}>x</a></mj-text>"):
        (link,) = links(to_html(page(component.format(written))).replace("<b>", "&lt;b&gt;"))
        assert link["href"] == meant


def test_what_is_in_components_arrives_as_it_was_written() -> None:
    """HTML in components is not parsed and serialised: not a byte of it changes."""
    html = (
        "<p>a<p>b &nbsp;&copy; 1 < 2 {% if a > b %}<br><a HREF=x?a&copy=1 Title='\"'>c</A>"
        "<![if !mso]>d<![endif]> --><!--[if mso]>e<![endif]-->"
    )
    for name in ("mj-text", "mj-raw", "mj-table", "mj-button"):
        assert html in to_html(page(f"<{name}>\n {html} </{name}\n>"))
    style = 'a > b { background: url("x?a&b") } /* & < */'
    assert style in to_html(page("<mj-text>x</mj-text>", f"<mj-style>{style}</mj-style>"))
    assert "<!-- a & b -- c -->" in to_html(page("<!-- a & b -- c --><mj-text>x</mj-text>"))


def test_fonts_and_styles_work_for_what_is_kept_aside() -> None:
    """A font that only a text names is loaded, with its address as it is; inline styles reach a text's elements."""
    fonts = "https://fonts.example.com/css?family=A&amp;subset=b&display=swap"
    head = (
        f"<mj-font name='Raleway' href='{fonts}' /><mj-font name='Unused' href='https://fonts.example.com/unused' />"
        "<mj-font name='Roboto' href='https://fonts.example.com/roboto' />"
    )
    body = (
        "<mj-text><b style=\"font-family: 'Raleway', sans-serif\">x</b></mj-text>"
        "<mj-text font-family='Roboto'>x</mj-text>"
    )
    html = to_html(page(body, head))
    assert "@import url(https://fonts.example.com/css?family=A&subset=b&display=swap);" in html
    assert "https://fonts.example.com/roboto" in html
    assert "unused" not in html
    inlined = to_html(page(body, "<mj-style inline='inline'>b { color: red } .c > a { color: blue }</mj-style>"))
    assert re.search(r"<b style=\"[^\"]*color: red", inlined)
    assert 'href="https://example.com/" postbox:tags="a:b"' in to_html(
        page(
            f'<mj-button href="{URL}" postbox:tags="a:b">x</mj-button>',
            "<mj-style inline='inline'>a { margin: 0 }</mj-style>",
        )
    )


@pytest.mark.parametrize(
    "content", ["x", '<b style="font-family: Lato">x</b>', '<!-- x --><i style="font-family:a--b">x</i>']
)
def test_nothing_is_left_of_what_was_put_in(content: str) -> None:
    """What we make is what the library makes, where that makes no mistake: no mark or comment of ours is in it."""
    template = page(f"<mj-text>{content}</mj-text>")
    from mjml import mjml_to_html  # type: ignore[import-untyped]

    assert to_html(template) == mjml_to_html(template).html


def test_defaults_in_several_places_are_one() -> None:
    """mj-attributes may name a component twice, which the library alone refuses."""
    defaults = "<mj-text color='red' /><mj-text font-size='9px' /><mj-class name='a' color='blue' />"
    head = f"<mj-attributes>{defaults}</mj-attributes>"
    html = to_html(page("<mj-text>x</mj-text><mj-text mj-class='a'>y</mj-text>", head))
    assert re.search(r"font-size:9px;[^>]*color:red;?\">x", html)
    assert re.search(r"font-size:9px;[^>]*color:blue;?\">y", html)


def test_html_attributes_reach_components() -> None:
    """mj-html-attributes puts attributes on what a component with that class makes."""
    head = (
        "<mj-html-attributes><mj-selector path='.cta a[target=\"_blank\"]'>"
        "<mj-html-attribute name='data-id'>a&b\"c</mj-html-attribute></mj-selector></mj-html-attributes>"
    )
    html = to_html(page(f"<mj-button css-class='cta' href='{URL}' postbox:tags='a:b'>x & y</mj-button>", head))
    (link,) = links(html)
    assert (link["data-id"], link["href"], link["postbox:tags"]) == ('a&b"c', URL, "a:b")


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (
            page(f'<mj-text>\n</mj-text>\n<mj-buton href="{URL}"></mj-buton>'),
            ["newsletter.mjml:4: mj-buton: there is no such component; did you mean mj-button?"],
        ),
        (
            page('<mj-button\n  hreff="x"\n  colour="red">x</mj-button><mj-text href="x">x</mj-text>'),
            [
                "newsletter.mjml:2: mj-button: it has no attribute hreff; did you mean href?",
                "newsletter.mjml:2: mj-button: it has no attribute colour; did you mean color?",
                "newsletter.mjml:4: mj-text: it has no attribute href",
            ],
        ),
        (
            page('<mj-text postbox:tags="a:b">x</mj-text>'),
            [
                (
                    "newsletter.mjml:2: mj-text: postbox:tags is for components that make links: "
                    "mj-button, mj-image, mj-navbar-link, mj-social-element, mj-carousel-image"
                )
            ],
        ),
        (
            page('<mj-button postbox:tag="a:b">x</mj-button>'),
            ["newsletter.mjml:2: mj-button: it has no attribute postbox:tag; did you mean postbox:tags?"],
        ),
        (
            "<mjml>\n<mj-body>\n<mj-section>\n</mj-body></mjml>",
            ["newsletter.mjml:3: mj-section: is not closed before </mj-body> in line 4"],
        ),
        ("<mjml>\n<mj-body>\n", ["newsletter.mjml:2: mj-body: is never closed"]),
        (
            "<mjml><mj-body></mj-body></mjml>\n</mj-section>",
            ["newsletter.mjml:2: mj-section: </mj-section> closes nothing"],
        ),
        (page("<mj-text>\nx</mj-txt>"), ["newsletter.mjml:2: mj-text: is never closed"]),
        (
            page('<mj-image src="x"" />'),
            ["newsletter.mjml:2: mj-image: '\"' is no attribute's name: is a quote missing?"],
        ),
        (page('<mj-image src="x />'), ["newsletter.mjml:2: this tag or comment does not end"]),
        (page("<!-- x"), ["newsletter.mjml:2: this tag or comment does not end"]),
        (page("<mj-all />"), ["newsletter.mjml:2: mj-all: there is no such component"]),
        ("<mj-text>x</mj-text>", ["newsletter.mjml: it has no mjml"]),
        ("<mjml></mjml>", ["newsletter.mjml: it has no mj-body"]),
        ("", ["newsletter.mjml: it has no mjml"]),
    ],
)  # fmt: skip
def test_errors_say_file_line_and_component(text: str, errors: list[str]) -> None:
    """What is unknown or malformed is named with its place, all of it at once where that can be told."""
    assert refused(text) == errors


def test_what_the_library_cannot_do_is_an_error_of_ours() -> None:
    """Whatever it raises, it is said which template it was."""
    text = page("", "<mj-attributes><mj-class name='a'><mj-text color='red' /></mj-class></mj-attributes>")
    assert refused(text) == ["newsletter.mjml: the mjml library cannot compile it (AssertionError not yet implemented)"]
    with pytest.raises(MjmlError, match=r"^MJML: the mjml library"):
        to_html(text)


def test_text_outside_of_components_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """As MJML does, for there are templates that have some; the log says where."""
    assert "stray" not in to_html(page("<mj-text>x</mj-text>\n  stray\n"), file="newsletter.mjml")
    assert "newsletter.mjml:3: 'stray' is in no component, and left out" in caplog.text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of templates that include one another."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "footer.mjml").write_text(
        '<mj-section><mj-column><mj-button href="https://example.com/f" mj-class="f">é</mj-button>'
        '<mj-include path="more.mjml" /></mj-column></mj-section>', "utf-8"
    )  # fmt: skip
    (tmp_path / "parts" / "more.mjml").write_text(
        "<mjml><mj-head><mj-attributes><mj-class name='f' postbox:tags='in:footer' /></mj-attributes></mj-head>"
        "<mj-body><mj-text><a href='https://example.com/m' postbox:tags='in:more'>x</a></mj-text></mj-body></mjml>"
    )
    (tmp_path / "parts" / "style.css").write_text("p > a { color: red }")
    (tmp_path / "parts" / "raw & more.html").write_text("<tr><td>1 < 2</td></tr>")
    return tmp_path


def test_includes(folder: Path) -> None:
    """An included file, and what that includes, is as if it stood there; its tags arrive."""
    text = page(
        "<mj-include path='./parts/raw &amp; more.html' type='html' /></mj-column></mj-section>"
        "<mj-include path='parts/footer.mjml' /><mj-section><mj-column>",
        "<mj-include path='parts/style.css' type='css' />",
    )
    for html in (to_html(text, file=str(folder / "newsletter.mjml")), to_html(text, folder=folder)):
        assert tags(html) == [("https://example.com/f", "in:footer"), ("https://example.com/m", "in:more")]
        assert "<tr><td>1 < 2</td></tr>" in html
        assert "p > a { color: red }" in html
        assert "é" in html


def test_errors_in_what_is_included_name_that_file(folder: Path) -> None:
    """The line is that of the included file."""
    (folder / "parts" / "more.mjml").write_text("<mj-text>x</mj-text>\n<mj-txt>y</mj-txt>")
    with pytest.raises(MjmlError) as caught:
        to_html(
            page("</mj-column></mj-section><mj-include path='parts/footer.mjml' /><mj-section><mj-column>"),
            folder=folder,
        )
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.component) == (str(folder / "parts" / "more.mjml"), 2, "mj-txt")


def test_includes_that_go_wrong(folder: Path) -> None:
    """A missing file, a circle, a way out of the folder, and a template of no folder: each is said, with its line."""
    (folder / "circle.mjml").write_text("<mj-include path='parts/../circle.mjml' />")
    include = "\n<mj-include path='{}' />"
    for path, reason in (
        ("parts/none.mjml", "none.mjml: No such file or directory"),
        ("circle.mjml", "circle.mjml includes itself"),
        ("../secret.mjml", f"../secret.mjml is outside of {folder}, where nothing is included from"),
        ("/etc/passwd", f"/etc/passwd is outside of {folder}, where nothing is included from"),
    ):
        with pytest.raises(MjmlError, match=rf"mj-include: .*{re.escape(reason)}"):
            to_html(page(include.format(path)), folder=folder)
    with pytest.raises(
        MjmlError, match=r"^MJML:3: mj-include: this template comes from no folder: give the plugin one"
    ):
        to_html(page(include.format("parts/footer.mjml")))


def test_a_part_of_a_message_is_compiled_and_tracked(folder: Path) -> None:
    """A text/mjml part is the HTML part of the mail that is sent, tracked with the tags of its components."""
    message = EmailMessage()
    message["From"], message["To"] = "Shop <shop@example.com>", "reader@example.org"
    message.set_content("plain")
    message.add_alternative(page(f'<mj-button href="{URL}" postbox:tags="a:b">é</mj-button>'), subtype="mjml")
    postbox = Postbox(SETTINGS)
    for sent in (postbox.before_send(message), postbox.before_send(message.as_bytes())):
        raw = sent if isinstance(sent, bytes) else sent.as_bytes()
        assert b"text/mjml" not in raw
        assert b"mj-button" not in raw
    (link,) = postbox.explain(message).links
    assert (link.url, dict(link.tags), link.track) == (URL, {"a": ("b",)}, True)

    single = MIMEText(page("<mj-include path='parts/footer.mjml' />"), "mjml", "utf-8")
    single["From"], single["To"] = "shop@example.com", "reader@example.org"
    block = {"use": "mjml", "folder": str(folder)}
    configured = Postbox.from_mapping(
        {"domain": "c.example.com", "keys": [new_key()], "strict": True, "plugin": [block]}
    )
    assert len(configured.explain(single).tracked) == 2
    with pytest.raises(MjmlError, match="give the plugin one"):
        postbox.before_send(single)


def test_a_part_that_is_wrong_keeps_no_mail_back(caplog: pytest.LogCaptureFixture) -> None:
    """The mail goes out as it came, and the log has file, line and component."""
    message = MIMEText(page("<mj-buton>x</mj-buton>"), "mjml", "utf-8")
    message["From"], message["To"] = "shop@example.com", "reader@example.org"
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    assert postbox.before_send(message) is message
    assert "a text/mjml part goes out as it came: MJML:2: mj-buton: there is no such component" in caplog.text
    assert "Traceback" not in caplog.text


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the library and the command, and comes with the first text/mjml part, not before."""
    plugin = MjmlCompiler()
    monkeypatch.setitem(sys.modules, "mjml", None)
    assert plugin.postbox_convert(content_type="text/calendar", text="", file="") is None
    with pytest.raises(MissingExtra, match=r'mjml.*pip install "postbox-plugin\[mjml\]"'):
        plugin.postbox_convert(content_type="text/mjml", text=page(""), file="")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "css_inline", None)
    with pytest.raises(MissingExtra, match=r'css-inline.*pip install "postbox-plugin\[mjml\]"'):
        to_html(page("", "<mj-style inline='inline'>a{}</mj-style>"))
