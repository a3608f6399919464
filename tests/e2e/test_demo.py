"""``postbox demo`` as a newcomer runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from postbox_plugin import Click

Browsing = Callable[..., AbstractAsyncContextManager[Any]]

POSTBOX = str(Path(sys.executable).with_name("postbox"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which the demo's temporary files can be found."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return {**os.environ, "TMPDIR": str(folder), "PYTHONWARNINGS": "error"}


@asynccontextmanager
async def running(environment: dict[str, str]) -> AsyncIterator[str]:
    """The demo, until it was interrupted as by Ctrl-C; where its inbox is."""
    process = await asyncio.create_subprocess_exec(
        POSTBOX, "demo", "--no-browser", env=environment, stderr=asyncio.subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while (address := re.search(r"The inbox: +(http://localhost:\d+)/", said)) is None:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        yield address[1]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            said += (await process.stderr.read()).decode()
            assert await process.wait() == 0, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "Traceback" not in said
    _assert_nothing_is_left(environment)


def test_clicks_itself_and_prints_the_notifications(environment: dict[str, str]) -> None:
    """``postbox demo --click`` prints one notification per click, in Postbox's format, with tags, and exits 0."""
    result = subprocess.run([POSTBOX, "demo", "--click"], env=environment, capture_output=True, timeout=90, check=False)

    assert result.returncode == 0, result.stderr.decode()
    notifications = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert len(notifications) == 5
    assert len({notification["eventId"] for notification in notifications}) == 5
    assert {urlsplit(notification["click"]["url"]).scheme for notification in notifications} == {"http", "https"}
    for notification in notifications:
        _assert_documented_format(notification)
        Click.from_json(json.dumps(notification))
    _assert_nothing_is_left(environment)


def _assert_nothing_is_left(environment: dict[str, str]) -> None:
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def _assert_documented_format(notification: dict[str, Any]) -> None:
    mail, click = notification["mail"], notification["click"]
    assert set(notification) == {"eventType", "mail", "click", "eventId", "tracking"}
    assert notification["eventType"] == "Click"
    assert set(mail) == {"timestamp", "messageId", "identityId", "commonHeaders", "tags"}
    assert mail["identityId"] == "paper-lantern.example"
    assert mail["tags"] == {"campaign": ["lantern-week"], "letter": ["2026-11"]}
    headers = mail["commonHeaders"]
    assert set(headers) == {"from", "date", "to", "messageId", "originalMessageId", "subject"}
    assert headers["from"] == ["Paper Lantern <letters@paper-lantern.example>"]
    assert len(headers["to"]) == 1
    assert headers["messageId"] == mail["messageId"] != ""
    assert set(click) == {"ipAddress", "timestamp", "userAgent", "url", "linkTags"}
    assert click["ipAddress"] in ("127.0.0.1", "::1")
    assert all(isinstance(values, list) and values for values in click["linkTags"].values())
    assert click["linkTags"]
    for moment in (mail["timestamp"], click["timestamp"]):
        assert datetime.fromisoformat(moment).tzinfo is not None
    assert set(notification["tracking"]) == {"linkIndex", "verdict", "reason"}


def test_the_page_shows_a_notification_live(environment: dict[str, str], browsing: Browsing) -> None:
    """A pressed link opens in a new tab; its notification arrives without a reload, and late joiners get it too."""

    async def scenario() -> None:
        async with running(environment) as address, browsing(ignore_https_errors=True) as context:
            asked: list[str] = []
            complaints: list[str] = []
            context.on("request", lambda request: asked.append(request.url))
            context.on("console", lambda message: complaints.extend([message.text] * (message.type == "error")))
            page = context.pages[0]
            await page.goto(address)
            await page.get_by_text("No clicks yet").wait_for()
            mail = page.frame_locator('iframe[title="The mail as sent"]')

            shop = await _press(context, mail, "Lantern week")
            assert shop.url.startswith(f"{address}/shop/lantern-week?")
            await shop.get_by_role("heading", name="Lantern week").wait_for()
            first = page.locator("#feed li").filter(has_text="/shop/lantern-week?")
            await first.get_by_text("campaign: lantern-week").wait_for()
            assert await page.locator("#empty").is_hidden()

            # The address without a scheme, and the one on https.
            assert (await _press(context, mail, "www.localhost")).url.startswith("http://www.localhost:")
            assert (await _press(context, mail, "open the members' page")).url.startswith("https://localhost:")
            await page.locator("#feed li").nth(2).wait_for()
            assert not complaints

            # An error of the shop is shown as it is.
            gone = await _press(context, mail, "Last winter's almanac")
            await gone.get_by_text("410 Gone").wait_for()
            await page.locator("#feed li").nth(3).wait_for()

            late = await context.new_page()
            await late.goto(f"{address}/mail/1")
            await late.locator("#feed li").nth(3).wait_for()
            assert {urlsplit(url).hostname for url in asked} == {"localhost", "www.localhost"}

    asyncio.run(scenario())


async def _press(context: Any, mail: Any, name: str) -> Any:
    async with context.expect_page() as opened:
        await mail.get_by_role("link", name=name).first.click()
    tab = await opened.value
    await tab.wait_for_load_state()
    return tab


def test_the_click_map_grows_as_one_clicks(environment: dict[str, str], browsing: Browsing) -> None:
    """A press on a link of the map opens it, and the badge, the totals and the row of the link say so at once."""
    # With the browser's own name, which says that it has no head, each click would be a machine's.
    person = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

    async def scenario() -> None:
        async with running(environment) as address, browsing(user_agent=person) as context:
            complaints: list[str] = []
            context.on("console", lambda message: complaints.extend([message.text] * (message.type == "error")))
            page = context.pages[0]
            await page.goto(address)
            await page.get_by_role("button", name="Click map").click()
            map_ = page.frame_locator("#map")
            badge = map_.locator("#mark-10")
            await badge.wait_for()
            assert await badge.text_content() == "0"
            # What comes sooner after the mail was sent would be a machine's.
            await page.wait_for_timeout(2000)
            for times in (1, 2):
                await _press(context, map_.frame_locator("iframe"), "See the programme")
                await map_.locator("#mark-10").filter(has_text=f"{times}100%").wait_for()
                assert await map_.locator("dd").first.text_content() == str(times)
                assert await map_.locator("#link-10").get_attribute("data-clicks") == str(times)
            assert not complaints

    asyncio.run(scenario())


def test_the_page_works_by_keyboard_and_on_a_small_screen(environment: dict[str, str], browsing: Browsing) -> None:
    """The views are buttons that the keyboard reaches; nothing is wider than the screen; mails are sandboxed."""

    async def scenario() -> None:
        async with running(environment) as address, browsing(viewport={"width": 380, "height": 800}) as context:
            page = context.pages[0]
            await page.goto(address)
            await page.get_by_role("button", name="Links").focus()
            await page.keyboard.press("Enter")
            table = page.get_by_role("table")
            await table.get_by_text("no: ").first.wait_for()
            assert await page.get_by_role("button", name="Links").get_attribute("aria-pressed") == "true"
            for place in ("html", ".links"):
                assert await page.locator(place).evaluate("(element) => element.scrollWidth") <= 380
            await page.get_by_role("button", name="Side by side").click()
            frames = page.locator("iframe:visible")
            assert await frames.count() == 2
            for index in range(2):
                assert await frames.nth(index).get_attribute("sandbox") == (
                    "allow-popups allow-popups-to-escape-sandbox"
                )

    asyncio.run(scenario())
