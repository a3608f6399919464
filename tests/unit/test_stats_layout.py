"""The layout of a mail: its HTML with the links marked as clicks number them, and made harmless."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

import lxml.html
import pytest
from conformance.corpus import files, needs_corpus

from postbox_plugin import Postbox, Settings, new_key
from postbox_plugin.errors import PostboxError
from postbox_plugin.stats.layout import MARK, layout_of
from postbox_plugin.testing import sample_message

HTML = """<!DOCTYPE html><html><head><title>News</title></head><body>
<a href="https://example.com/a?x=1&amp;y=2">one</a> <A HREF='https://example.com/a?x=1&amp;y=2' class=x>one again</A>
<!--[if mso]><v:roundrect href="https://example.com/outlook"></v:roundrect><![endif]-->
<a href=https://example.com/unquoted><img src="cid:logo@shop" alt="the  logo"></a>
<map name="m"><area href="https://example.com/area" alt="west"></map><a name="here">no link</a>
<a href="mailto:shop@example.com">write</a> <a href="#top">up</a> <a postbox:no-track href="https://example.com/no">no</a>
<a href="www.example.com:8080/x">host</a> <a href="">empty</a> <a href>bare</a>
<img src="https://example.com/pixel.gif"><img src="//example.com/other.gif">
</body></html>"""


@pytest.fixture
def message() -> EmailMessage:
    """A mail with a picture inside, an HTML attachment, and every kind of link."""
    message = sample_message(HTML)
    body = message.get_body(("html",))
    assert isinstance(body, EmailMessage)
    body.add_related(b"\x89PNG", "image", "png", cid="<logo@shop>")
    message.add_attachment('<a href="https://example.com/attached">x</a>', subtype="html", filename="x.html")
    return message


@pytest.fixture
def postbox() -> Postbox:
    """An installation that swallows nothing."""
    return Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))


def test_links_are_numbered_as_clicks_number_them(message: EmailMessage, postbox: Postbox) -> None:
    """The index of each tracking link is that of the link it stands for, in the mail as written and as sent."""
    written, sent = layout_of(message), layout_of(postbox.before_send(message).as_bytes())
    assert [(link.index, link.text) for link in written.links] == [(link.index, link.text) for link in sent.links]
    report = postbox.explain(message)
    assert [link.index for link in written.links] == [link.index for link in report.links]
    tracked = {link.index: link.url for link in report.tracked}
    assert len(tracked) == 6
    for link in sent.links:
        if link.index in tracked:
            opened = postbox.open(link.address)
            assert (opened.index, opened.url) == (link.index, tracked[link.index])


def test_what_is_known_of_a_link(message: EmailMessage) -> None:
    """What a reader sees of it, whether only Outlook shows it, and whether it can have clicks."""
    found = [(link.address, link.text, link.hidden, link.trackable) for link in layout_of(message).links]
    assert found == [
        ("https://example.com/a?x=1&y=2", "one", False, True),
        ("https://example.com/a?x=1&y=2", "one again", False, True),
        ("https://example.com/outlook", "", True, True),
        ("https://example.com/unquoted", "the logo", False, True),
        ("https://example.com/area", "west", False, True),
        ("mailto:shop@example.com", "write", False, False),
        ("#top", "up", False, False),
        ("https://example.com/no", "no", False, False),
        ("www.example.com:8080/x", "host", False, True),
        ("", "empty", False, False),
        ("", "bare", False, False),
    ]


def test_links_within_a_link_have_their_own_texts() -> None:
    """Links do not nest in a browser: what is within the second is the second's, be it text or a picture."""
    html = """<a href="x.example/1"><img src="x" alt="shop"><!-- y --><a href="x.example/2">in<img alt="z"></a></a>
        <a href="x.example/3"> <a href="x.example/4"><img alt="picture"></a></a>"""
    assert [link.text for link in layout_of(html).links] == ["shop", "in", "", "picture"]


def test_a_megabyte_is_laid_out_in_time() -> None:
    """It takes no time that grows with the square of the size: read with all that it holds, each link would."""
    unit = '<a href="https://example.com/">'
    count = 1_000_000 // len(unit)
    links = layout_of(unit * count + "x").links
    assert [link.text for link in links] == [""] * (count - 1) + ["x"]


def test_the_links_lead_nowhere(message: EmailMessage, postbox: Postbox) -> None:
    """No address of a link is left in the mail, for whoever has a reader's tracking link can click for that reader."""
    (part,) = layout_of(postbox.before_send(message)).parts
    document = lxml.html.document_fromstring(part)
    hrefs = [element.get("href") for element in document.iter("a", "area") if element.get("href") is not None]
    assert hrefs == ["#"] * 8 + ["", ""]
    assert "click.example.com" not in part
    assert part.count('tabindex="-1"') == 11


def test_links_that_work_are_left_as_they_are(message: EmailMessage) -> None:
    """Where links are to work, all that is added is the mark, and that they open elsewhere."""
    (part,) = layout_of(message, working_links=True).parts
    added = re.compile(rf' {MARK}="\d+" target="_blank"')
    assert len(added.findall(part)) == 11
    assert added.sub("", part).replace("data:image/png;base64,iVBORw==", "cid:logo@shop").rstrip() == HTML


def test_pictures_inside_the_message_are_put_in(message: EmailMessage) -> None:
    """As data, wherever the HTML names them; those of no part stay as they are; those elsewhere are counted."""
    layout = layout_of(message)
    assert 'src="data:image/png;base64,iVBORw=="' in layout.parts[0]
    assert layout.remote_images == 2
    (part,) = layout_of('<img src="cid:nobody@shop"><p style="background:url(cid:x)">').parts
    assert "cid:nobody@shop" in part
    assert "cid:x" in part


def test_several_html_parts_count_on(postbox: Postbox) -> None:
    """The second part goes on where the first ended, as rewriting does."""
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", "reader@example.com"
    message.set_content('<a href="https://example.com/1">1</a><a href="https://example.com/2">2</a>', subtype="html")
    message.make_mixed()
    second = EmailMessage()
    second.set_content('<a href="https://example.com/3">3</a>', subtype="html")
    message.attach(second)
    layout = layout_of(postbox.before_send(message))
    assert [link.text for link in layout.links] == ["1", "2", "3"]
    assert [postbox.open(link.address).index for link in layout.links] == [0, 1, 2]
    assert f'{MARK}="2"' in layout.parts[1]


def test_a_mail_out_of_an_inbox_will_do(message: EmailMessage, postbox: Postbox) -> None:
    """Signed after it was tracked: it could not be rewritten any more, and is shown all the same."""
    raw = b"DKIM-Signature: v=1; a=rsa-sha256; b=x\r\n" + postbox.before_send(message).as_bytes()
    assert postbox.explain(raw).reason.startswith("already signed")
    assert [link.text for link in layout_of(raw).links] == [link.text for link in layout_of(message).links]


def test_subject_and_sender_are_decoded() -> None:
    """And a message without them, or with one that cannot be decoded, is shown too."""
    raw = b"Subject: =?utf-8?b?0J3QvtCy0L7RgdGC0Lg=?=\nFrom: =?utf-8?q?Caf=C3=A9?= <a@example.com>\n"
    html = b"Content-Type: text/html\n\n<p>x"
    layout = layout_of(raw + html)
    assert (layout.subject, layout.sender) == ("Новости", "Café <a@example.com>")
    assert layout_of(html).subject == ""
    assert layout_of(b"Subject: =?no-such-charset?q?x?=\n" + html).subject == "=?no-such-charset?q?x?="
    assert layout_of(HTML).subject == "News"


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [("us-ascii", "чай".encode(), "чай"), ("utf-8", b"caf\xe9", "café"), ("koi8-r", "чай".encode("koi8-r"), "чай")],
)
def test_a_wrong_charset_is_guessed(charset: str, body: bytes, text: str) -> None:
    """What is not in the charset that it names is shown as what it most likely is."""
    raw = (
        b"Content-Type: text/html; charset="
        + charset.encode()
        + b"\n\n<a href='https://example.com/'>"
        + body
        + b"</a>"
    )
    assert layout_of(raw).links[0].text == text


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"Subject: x\n\ntext", "the message has no HTML part"),
        (b"Content-Type: text/html; charset=utf-16\n\n<p>", "its body is not valid utf-16"),
        (b"Content-Type: text/html\nContent-Transfer-Encoding: x-own\n\n<p>", "'x-own' is not known"),
        (b"Content-Type: text/html\nContent-Disposition: attachment\n\n<p>", "the message has no HTML part"),
    ],
)
def test_a_mail_that_cannot_be_shown(raw: bytes, problem: str) -> None:
    """It is an error that says what is wrong."""
    with pytest.raises(PostboxError, match=f"^there is no mail to show clicks on: .*{problem}"):
        layout_of(raw)


def test_html_with_nothing_in_it() -> None:
    """Nothing to see is no error."""
    assert layout_of("<!-- nothing -->").links == ()
    assert layout_of("").parts == ("",)


@needs_corpus
@pytest.mark.parametrize("path", [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in files("html")])
def test_every_link_that_lxml_sees_bears_its_mark(path: Path) -> None:
    """In every template of the corpus: each link is marked, in order, and nothing else is."""
    html = path.read_text("utf-8", "replace")
    layout = layout_of(html)
    document = lxml.html.document_fromstring(layout.parts[0].encode("utf-8", "replace"))
    elements = [element for element in document.iter("a", "area") if element.get("href") is not None]
    marks = [int(element.get(MARK, "-1")) for element in elements]
    assert marks == [link.index for link in layout.links if not link.hidden]
    assert not [element for element in document.iter() if element.get(MARK) is not None and element not in elements]


@needs_corpus
@pytest.mark.parametrize("path", [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in files("eml")])
def test_no_message_is_too_odd(path: Path) -> None:
    """Every message of the corpus either has a layout, with a mark for each link, or an error of ours says why not."""
    raw = path.read_bytes()
    for message in (raw, message_from_bytes(raw)):
        try:
            layout = layout_of(message)
        except PostboxError:
            continue
        marks = sum(part.count(f'{MARK}="') for part in layout.parts)
        assert marks == len(layout.links)
