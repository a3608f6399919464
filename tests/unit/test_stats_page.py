"""The click map as a file: what it says, what it lets in, and what becomes of what strangers wrote."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import lxml.html
import pytest
from clicks import click

from postbox_plugin import Click
from postbox_plugin.stats import Aggregation, click_map

EVIL = "<script>alert(1)</script>"
HTML = '<p><a href="https://example.com/a">one</a> <a href="https://example.com/a">two</a> <a href="tel:1">call</a></p>'


def page_of(*clicks: Click, message: Any = HTML, **options: bool) -> Any:
    """The page, parsed."""
    aggregation = Aggregation()
    for one in clicks:
        aggregation.add(one.to_json())
    return lxml.html.document_fromstring(click_map(message, aggregation, **options))


def cells(page: Any, table: str) -> list[list[str]]:
    """The rows of a table, as text."""
    return [
        [" ".join(cell.text_content().split()) for cell in row.iter("td", "th")]
        for row in page.get_element_by_id(table).findall(".//tbody/tr")
    ]


def totals(page: Any) -> dict[str, str]:
    return {
        pair.find("dt").text: pair.find("dd").text
        for pair in page.get_element_by_id("totals").iter("div")
        if pair.find("dt") is not None
    }


def policy(page: Any) -> dict[str, str]:
    content = page.xpath('//meta[@http-equiv="Content-Security-Policy"]/@content')[0]
    return dict(rule.split(" ", 1) for rule in content.split("; "))


def test_the_tables_say_what_was_clicked() -> None:
    """Each link with its clicks, share, unique and machines, the same address twice as two; tags; machines' reasons."""
    page = page_of(
        *(click(0, "https://example.com/a", message=f"m{number}", link_tags={"k": ("v",)}) for number in range(2)),
        click(1, "https://example.com/a", message="m0", tags={"campaign": ("spring",)}),
        click(1, "https://example.com/a", machine="prefetch"),
    )
    assert totals(page) == {"Clicks": "3", "Unique: messages": "2", "Links clicked": "2 of 2", "By machines": "1"}
    assert cells(page, "links") == [
        ["0", "one example.com/a", "2", "67%", "2", "0"],
        ["1", "two example.com/a", "1", "33%", "1", "1"],
        ["2", "call tel:1 not tracked", "0", "0%", "0", "0"],
    ]
    assert cells(page, "tags") == [
        ["link", "k: v", "2", "67%", "2", "0"],
        ["message", "campaign: spring", "1", "33%", "1", "0"],
    ]
    assert cells(page, "machines") == [["prefetch", "1"]]
    rows = page.xpath('//*[@id="links"]//tr[@data-link]')
    assert [(row.get("data-link"), row.get("data-level")) for row in rows] == [("0", "5"), ("1", "4"), ("2", "0")]


def test_without_clicks() -> None:
    """The page of a mail that nobody clicked in is a page all the same."""
    page = page_of()
    assert totals(page)["Links clicked"] == "0 of 2"
    assert page.get_element_by_id("tags").text_content() == "TagsNo click had a tag."
    assert page.get_element_by_id("machines").text_content() == "MachinesNo machine clicked."
    assert "This mail has no links." in page_of(message="<p>x").get_element_by_id("links").text_content()


def test_clicks_that_are_on_no_link_of_the_mail_are_told() -> None:
    """Most likely they are of another mail: nothing is left out without a word."""
    page = page_of(click(0), click(77), click(78, machine="crawler"))
    (warning,) = page.find_class("warning")
    assert warning.text == "2 clicks are on links that this mail does not have. Are they clicks of another mail?"
    assert page_of(click(0)).find_class("warning") == []


def test_it_is_whole_in_itself() -> None:
    """One file that loads nothing: the policy lets in its own style and its own script, and pictures as data."""
    page = page_of(click(0))
    (script,) = page.findall(".//script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy(page) == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "font-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.xpath("//link|//*[@src]|//*[@background]") == []
    assert all(href.startswith("#") for href in page.xpath("//@href"))


def test_the_mail_is_in_a_sandbox() -> None:
    """No script of the mail runs, and none of its forms is sent; our script may look at it."""
    (frame,) = page_of(message=f"<form>{EVIL}</form>").findall(".//iframe")
    assert frame.get("sandbox") == "allow-same-origin"
    assert frame.get("srcdoc") == f"<form>{EVIL}</form>"


def test_pictures_from_elsewhere_are_let_in_when_asked_for() -> None:
    """And otherwise it is said that they are missing."""
    html = '<img src="https://example.com/1.png"><img src="http://example.com/2.png">'
    assert "2 pictures are elsewhere, and not loaded" in page_of(message=html).text_content()
    page = page_of(message=html, remote_images=True)
    assert policy(page)["img-src"] == "data: http: https:"
    assert "not loaded" not in page.text_content()


def test_working_links_open_in_new_tabs() -> None:
    """For a page that is shown live: nothing more is allowed than that."""
    (frame,) = page_of(working_links=True).findall(".//iframe")
    assert frame.get("sandbox") == "allow-same-origin allow-popups allow-popups-to-escape-sandbox"
    assert 'href="https://example.com/a"' in frame.get("srcdoc")


def test_what_strangers_wrote_is_text() -> None:
    """A subject, an address, a link's text, a tag or a reason with markup in it is shown, and not run."""
    message = f"Subject: {EVIL}\nFrom: {EVIL}\nContent-Type: text/html\n\n<a href='x:{EVIL}'>&lt;script&gt;alert(1)</a>"
    evil_tags = {EVIL: (f'" onmouseover="{EVIL}',)}
    page = page_of(
        click(0, f'https://example.com/"{EVIL}', tags=evil_tags, link_tags=evil_tags),
        click(0, machine=f"{EVIL}\u202e\x00"),
        message=message.encode(),
    )
    assert len(page.findall(".//script")) == 1
    assert page.xpath("//@onmouseover") == []
    assert page.find(".//h1").text == EVIL
    assert EVIL in page.get_element_by_id("tags").text_content()
    assert page.get_element_by_id("machines").text_content().count(EVIL) == 1
    assert "\u202e" not in page.text_content()


def test_no_reader_s_token_is_in_it() -> None:
    """The address of a tracking link that nobody clicked is cut short, for whoever has it can click."""
    token = "EsqCgqghg44R-7rP85Q1afcvETSNQcysKvcVsqdjiHtkJDiuqla8lAz1u5VEMn3GG2VFfUCLBxg32U9QzU1WPvChhNINSeh55a9dY6l"
    source = click_map(f'<a href="https://click.example.com/c/{token}">x</a>', Aggregation())
    assert "click.example.com/c/EsqCgqgh…" in source
    assert token[:12] not in source


def test_numbers_are_grouped() -> None:
    """Thousands are told apart."""
    page = page_of(*(click(0, message=f"m{number}") for number in range(1234)))
    assert totals(page)["Clicks"] == "1,234"
    assert cells(page, "links")[0][2:] == ["1,234", "100%", "1,234", "0"]


@pytest.mark.parametrize("element", ["title", "h1", "main", "header", "footer"])
def test_it_is_a_page_that_others_can_read(element: str) -> None:
    """Landmarks, one heading at the top, a language, and a way past the mail."""
    page = page_of(click(0))
    assert len(page.findall(f".//{element}")) == 1
    assert page.get("lang") == "en"
    assert [heading.text for heading in page.iter("h2")] == ["The mail", "Links", "Tags", "Machines"]
    assert page.xpath('//a[@class="skip"]/@href') == ["#links"]
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    for reference in page.xpath("//@aria-labelledby"):
        assert reference in ids
    for table in page.iter("table"):
        assert all(header.get("scope") in ("col", "row") for header in table.iter("th"))


def test_every_text_has_contrast() -> None:
    """4.5 or more between each colour of text and its ground (WCAG 2.2, 1.4.3), in light and in dark, and on badges."""
    style = page_of().find(".//style").text
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    for colours in (light, {**light, **dark}):
        for text in ("ink", "quiet", "accent"):
            for ground in ("ground", "surface", "raised"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["warn"], colours["warn-ground"]) >= 4.5
    for level, text in enumerate(["#14161a"] * 4 + ["#ffffff"] * 2):
        assert contrast(light[f"level-{level}"], text) >= 4.5, level


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
