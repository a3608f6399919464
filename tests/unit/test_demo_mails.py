"""The demo's mails: as large and as mixed as real ones, valid, and with a link of every kind."""

from __future__ import annotations

import re
import sys
from collections import Counter
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from urllib.parse import urlsplit

import html5lib
import pytest

from postbox_hooks.demo.mails import compile_newsletter, newsletter, note
from postbox_plugin import Postbox, Report, Settings, new_key
from postbox_plugin.errors import MissingExtra

pytestmark = pytest.mark.extra("demo")

SHOP, SECURE = "http://localhost:8025/shop", "https://localhost:8443/shop"


@pytest.fixture(scope="module")
def message() -> EmailMessage:
    """The newsletter."""
    return newsletter(SHOP, SECURE)


@pytest.fixture(scope="module")
def html(message: EmailMessage) -> str:
    """The newsletter's HTML."""
    return _html(message)


@pytest.fixture(scope="module")
def postbox() -> Postbox:
    """Click tracking for the demo's addresses."""
    return Postbox(Settings(domain="localhost", http_port=8081, https_port=8082, keys=[new_key()], strict=True))


@pytest.fixture(scope="module")
def report(message: EmailMessage, postbox: Postbox) -> Report:
    """What becomes of the newsletter."""
    return postbox.explain(message)


def _html(message: EmailMessage) -> str:
    part = message.get_body(("html",))
    assert part is not None
    return str(part.get_content())


def _hrefs(html: str) -> list[str]:
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
    tree: Any = parser.parse(html)
    assert parser.errors == []
    return [element.get("href") for element in tree.iter() if element.tag in ("a", "area") and element.get("href")]


def test_is_valid_html_of_a_real_newsletter_s_size(html: str) -> None:
    """html5lib finds nothing wrong with it, no placeholder is left, and it has the size of what shops send."""
    assert 50_000 < len(html.encode()) < 100_000
    assert 40 <= len(_hrefs(html)) <= 60
    assert "{{" not in html


def test_ampersands_survive_mjml(html: str) -> None:
    """mjml writes the attributes of its components unescaped, and yet every address arrives as it was meant."""
    hrefs = _hrefs(html)

    assert f"{SHOP}/lantern-week?utm_source=letter&utm_medium=email&utm_content=button" in hrefs
    assert f"{SHOP}/tea/lapsang?weight=100g&copy=1" in hrefs
    assert not re.search(r'href="[^"]*&(?!amp;)', html)


def test_links_lead_to_the_demo_and_one_of_them_by_https(html: str) -> None:
    """No link and no picture leads anywhere else, so the demo works without a network."""
    hrefs = _hrefs(html)
    schemes = Counter(urlsplit(href).scheme for href in hrefs if not href.startswith(("#", "www.")))

    assert schemes["https"] == schemes["mailto"] == schemes["tel"] == 1
    for href in hrefs:
        assert href.startswith((SHOP, SECURE, "www.localhost:8025/shop/", "mailto:", "tel:", "#"))
    for source in re.findall(r'(?:src|background)="([^"]*)"|url\(([^)]*)\)', html):
        assert "".join(source).startswith((f"{SHOP}/images/", "cid:logo@paper-lantern"))
    assert "your browser will warn" in html


def test_every_kind_of_link_is_there(report: Report) -> None:
    """Elements, tags, and each reason to leave a link alone."""
    assert report.reason == ""
    assert {link.tag for link in report.links} == {"a", "area", "v:roundrect"}
    assert {urlsplit(link.url).scheme for link in report.links if not link.track} == {"mailto", "tel", "http", ""}
    assert len(report.links) - len(report.tracked) == 4
    assert max(Counter(link.url for link in report.tracked).values()) >= 3
    assert [link.tags["genre"] for link in report.tracked if len(link.tags.get("genre", ())) > 1] == [
        ("fiction", "poetry")
    ]
    assert all(not link.url.startswith("www.") for link in report.tracked)
    assert "http://www.localhost:8025/shop/journal/route.gpx" in {link.url for link in report.tracked}


def test_stays_below_what_gmail_clips(message: EmailMessage, postbox: Postbox) -> None:
    """With its tracking links the HTML is smaller than 102 KB, and its tags are gone."""
    sent = _html(postbox.before_send(message))

    assert len(sent.encode()) < 102_000
    assert "postbox:" not in sent


def test_the_message_has_text_html_and_the_logo(message: EmailMessage) -> None:
    """It reads the same after a journey as bytes: non-ASCII headers, alternatives, the picture inside."""
    received = message_from_bytes(message.as_bytes(), policy=default)
    assert isinstance(received, EmailMessage)

    assert received["To"].addresses[0].display_name == "Вера Орлова"  # noqa: RUF001 - a name
    assert received["Subject"] == "The harbour is lit again: ноябрьское письмо"
    assert received["Message-ID"].endswith("@paper-lantern.example>")
    text = received.get_body(("plain",))
    assert text is not None
    assert "из Выборга" in text.get_content()
    assert "😊" in _html(received)
    logo = next(part for part in received.walk() if part["Content-ID"] == "<logo@paper-lantern>")
    assert logo.get_content().startswith(b"\x89PNG")
    assert logo.get_content_disposition() == "inline"


def test_the_note_goes_to_two_readers_and_is_left_alone(postbox: Postbox) -> None:
    """A click on it could not say whose it was."""
    message = note(SHOP)

    assert len(message["To"].addresses) == 2
    assert postbox.explain(message).reason
    assert postbox.before_send(message) is message


def test_without_mjml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the library and the command."""
    monkeypatch.setitem(sys.modules, "mjml", None)

    with pytest.raises(MissingExtra, match=r'mjml.*pip install "postbox-plugin\[demo\]"'):
        compile_newsletter({})
