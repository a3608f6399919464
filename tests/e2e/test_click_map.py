"""The click map in a real browser: every badge on its link, on a telephone and on a desk, in light and in dark; and no
way out for what is in the mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clicks import click
from pytest_httpserver import HTTPServer

from postbox_plugin.stats import Aggregation, click_map

Browsing = Callable[..., AbstractAsyncContextManager[Any]]
Showing = Callable[..., AbstractAsyncContextManager[Any]]

MAIL = """<!DOCTYPE html>
<html><head><meta name="color-scheme" content="light dark"><style>
body { margin: 0; padding: 20px; font: 16px/1.5 Arial, sans-serif; background: %s; color: %s }
.small { display: none } @media (max-width: 500px) { .small { display: inline } }
</style></head><body>
<h1>News</h1>
<p>Read <a href="https://example.com/same">the story</a> or <a href="https://example.com/same">the same again</a>,
<a class="small" href="https://example.com/small">on a small screen</a>.</p>
<p><a href="https://example.com/button" style="display:inline-block;padding:14px;background:#224;color:#fff">Go</a></p>
<p>Page <a href="https://example.com/1">1</a> <a href="https://example.com/2">2</a> <a href="https://example.com/3">3</a></p>
<map name="m"><area shape="rect" coords="10,10,90,60" href="https://example.com/area" alt="west"></map>
<img usemap="#m" width="200" height="100" alt="chart"
src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">
<p><a href="mailto:shop@example.com">Write to us</a></p>
</body></html>"""
LIGHT, DARK = MAIL % ("#fff", "#222"), MAIL % ("#0d0f14", "#ddd")
BADGES = 8  # one for each link but that to write to the shop, which is not tracked

OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll(".marks .badge")].map((one) => one.getBoundingClientRect());
  return boxes.filter((one, at) => boxes.slice(at + 1).some((other) =>
    one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom)).length;
}"""
# How far the outline of each link is from the link itself, in pixels: all of its lines within the outlines.
DISTANCES = """() => {
  const frame = document.querySelector("iframe");
  const origin = frame.getBoundingClientRect();
  const tracked = "a[data-postbox-link]:not([data-postbox-link='8'])";
  return [...frame.contentDocument.querySelectorAll(tracked)].flatMap((link) => {
    const outlines = [...document.querySelectorAll(`.box[data-link="${link.dataset.postboxLink}"]`)];
    return [...link.getClientRects()].map((rect, line) => {
      const outline = outlines[line].getBoundingClientRect();
      return Math.hypot(outline.left - origin.left - rect.left, outline.top - origin.top - rect.top);
    });
  });
}"""


@pytest.fixture
def showing(tmp_path: Path, browsing: Browsing) -> Showing:
    """Opens the map of a mail: ``async with showing(html) as page``. What the page asks for, and every
    error of its script, is in ``page.asked`` and ``page.errors``.
    """

    @asynccontextmanager
    async def shown(html: str, *, remote_images: bool = False, **options: Any) -> AsyncIterator[Any]:
        clicks = Aggregation()
        for index, times in enumerate([40, 9, 3, 1, 2, 2, 0, 5, 0]):
            for number in range(times):
                clicks.add(click(index, f"https://example.com/{index}", message=f"m{number}").to_json())
        clicks.add(click(1, machine="prefetch").to_json())
        file = tmp_path / "map.html"
        file.write_text(click_map(html, clicks, remote_images=remote_images), "utf-8")
        async with browsing(viewport={"width": 1200, "height": 800}, **options) as context:
            page = context.pages[0]
            page.asked, page.errors = [], []
            context.on("request", lambda request: page.asked.append(request.url))
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            await page.goto(file.as_uri())
            if options.get("java_script_enabled", True):
                await page.locator(".drawn").wait_for()
            yield page

    return shown


@pytest.fixture
def elsewhere() -> Iterator[HTTPServer]:
    """Where a mail would load things from. Threaded: a browser keeps connections open that it does not use."""
    with HTTPServer(threaded=True) as server:
        yield server


def seen(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@pytest.mark.parametrize("mail", [LIGHT, DARK], ids=["light mail", "dark mail"])
def test_every_link_has_its_badge(showing: Showing, mail: str) -> None:
    """Outlined where it is, with its clicks and share beside it; no badge over another; nothing too wide; no error."""

    async def scenario() -> None:
        async with showing(mail) as page:
            for width in (1200, 380):
                for scheme in ("light", "dark"):
                    await page.set_viewport_size({"width": width, "height": 800})
                    await page.emulate_media(color_scheme=scheme)
                    await page.reload()
                    await page.locator(".drawn").wait_for()
                    await check(page, width)
            assert page.errors == []
            assert {url.partition(":")[0] for url in page.asked} == {"file"}

    seen(scenario())


async def check(page: Any, width: int) -> None:
    small = width == 380
    assert await page.locator(".marks .badge").count() == (BADGES if small else BADGES - 1)
    assert max(await page.evaluate(DISTANCES)) <= 4
    assert await page.evaluate(OVERLAPS) == 0
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    first = page.locator("#mark-0")
    assert await first.text_content() == "4065%"
    assert await first.get_attribute("aria-label") == "Link 0, the story: 40 clicks, 65%. Go to its row"
    assert await page.locator("#mark-6").text_content() == "0"
    assert await page.locator("#mark-8").count() == 0
    assert await page.locator("#link-8").get_by_text("not tracked").count() == 1
    assert await page.locator("#link-2").get_by_text("not in view").count() == (0 if small else 1)
    # The whole mail is there, without a bar to scroll it by.
    mail = page.frame_locator("iframe").locator("html")
    assert await mail.evaluate("(root) => root.scrollHeight - root.clientHeight") == 0


def test_an_area_is_outlined_on_its_picture(showing: Showing) -> None:
    """An area of an image map has no box of its own."""

    async def scenario() -> None:
        async with showing(LIGHT) as page:
            picture = await page.frame_locator("iframe").get_by_alt_text("chart").bounding_box()
            outline = await page.locator('.box[data-link="7"]').bounding_box()
            assert outline["x"] - picture["x"] == pytest.approx(8, abs=1)
            assert outline["y"] - picture["y"] == pytest.approx(8, abs=1)
            assert (outline["width"], outline["height"]) == (pytest.approx(84, abs=1), pytest.approx(54, abs=1))

    seen(scenario())


def test_the_keyboard_leads_from_badge_to_row_and_back(showing: Showing) -> None:
    """Past the mail by the first link of the page; a badge and the number of its row are links to one another."""

    async def scenario() -> None:
        async with showing(LIGHT) as page:
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.textContent") == "Skip the mail"
            await page.locator("#mark-7").focus()
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.querySelector(':target').id") == "link-7"
            assert await page.locator('.box[data-link="7"].pointed').count() == 1
            await page.locator("#link-1").get_by_role("link").focus()
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.querySelector(':target').id") == "mark-1"
            # What is in the mail is never reached: its links are pictures of links.
            for _ in range(40):
                await page.keyboard.press("Tab")
                assert await page.evaluate("document.activeElement?.localName") != "iframe"

    seen(scenario())


def test_a_press_on_the_mail_leads_nowhere(showing: Showing) -> None:
    """Looking at clicks makes none."""

    async def scenario() -> None:
        async with showing(LIGHT) as page:
            box = await page.frame_locator("iframe").get_by_text("Go", exact=True).bounding_box()
            await page.mouse.click(box["x"] + 10, box["y"] + box["height"] - 4)
            assert await page.frame_locator("iframe").get_by_text("News").count() == 1
            assert len(page.asked) == 1

    seen(scenario())


def test_another_width_is_drawn_anew(showing: Showing) -> None:
    """A telephone that is turned: the badges follow their links, and what was hidden has one now."""

    async def scenario() -> None:
        async with showing(LIGHT) as page:
            await page.set_viewport_size({"width": 380, "height": 800})
            await page.locator("#mark-2").wait_for()
            assert max(await page.evaluate(DISTANCES)) <= 4

    seen(scenario())


EVIL = """<!DOCTYPE html><html><head><base href="https://evil.example/">
<meta http-equiv="refresh" content="0;url=https://evil.example/away">
<link rel="stylesheet" href="https://evil.example/style.css"><script src="https://evil.example/script.js"></script>
<style>@import "https://evil.example/import.css"; * { color: red !important; background: url(https://evil.example/bg) }
.badge, .box, .marks, h1, table { display: none !important }</style></head>
<body onload="parent.document.title = 'owned'">
<script>parent.document.title = "owned"; top.location = "https://evil.example/top"</script>
<img src="x" onerror="parent.document.title = 'owned'"><img src="https://evil.example/pixel.gif">
<iframe src="https://evil.example/frame"></iframe><object data="https://evil.example/object"></object>
<form action="https://evil.example/form"><input name="a"></form><svg onload="parent.document.title = 'owned'"></svg>
<p><a href="javascript:parent.document.title='owned'">one</a> <a href="https://evil.example/a" target="_top">two</a></p>
</body></html>"""


def test_nothing_gets_out_of_the_mail(showing: Showing, elsewhere: HTTPServer) -> None:
    """No script of the mail runs, nothing is loaded from elsewhere, it goes nowhere, and its style stays its own."""
    evil = EVIL.replace("https://evil.example", elsewhere.url_for("").rstrip("/"))

    async def scenario() -> None:
        async with showing(evil) as page:
            await page.wait_for_timeout(500)
            assert await page.title() == "Click map: A mail without a subject"
            assert page.url.startswith("file:")
            assert len(page.context.pages) == 1
            assert await page.locator("h1").is_visible()
            assert await page.locator("#mark-1").is_visible()
            colour = await page.locator("h1").evaluate("(element) => getComputedStyle(element).color")
            assert colour == "rgb(29, 33, 41)"
            # And the other way round: what the page's style says of paragraphs is not said of the mail's.
            paragraph = page.frame_locator("iframe").first.locator("p")
            assert await paragraph.evaluate("(element) => getComputedStyle(element).marginTop") == "16px"

    seen(scenario())
    assert elsewhere.log == []


def test_pictures_from_elsewhere_and_nothing_else(showing: Showing, elsewhere: HTTPServer) -> None:
    """Where they are let in, they come, and do not learn from where; all else stays out."""
    evil = EVIL.replace("https://evil.example", elsewhere.url_for("").rstrip("/"))
    for path in ("/pixel.gif", "/bg"):
        elsewhere.expect_request(path).respond_with_data(b"", content_type="image/gif")

    async def scenario() -> None:
        async with showing(evil, remote_images=True) as page:
            async with asyncio.timeout(20):
                while not elsewhere.log:
                    await page.wait_for_timeout(50)
            await page.wait_for_timeout(500)

    seen(scenario())
    assert {request.path for request, _ in elsewhere.log} == {"/pixel.gif", "/bg"}
    assert not any("Referer" in request.headers for request, _ in elsewhere.log)


def test_without_script_the_tables_have_it_all(showing: Showing) -> None:
    """The mail is there to be looked at, and it is said what is missing."""

    async def scenario() -> None:
        async with showing(LIGHT, java_script_enabled=False) as page:
            row = page.locator("#link-0")
            assert " ".join((await row.text_content()).split()) == "0the story example.com/04065%400"
            assert await page.get_by_text("The labels need JavaScript").is_visible()
            assert (await page.locator("iframe").bounding_box())["height"] > 400

    seen(scenario())
