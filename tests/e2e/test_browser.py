"""A reader opens a tracked mail in a real browser and presses a link."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import redirecting
from standardwebhooks import Webhook
from werkzeug import Request, Response

from postbox_plugin import Postbox
from postbox_plugin.settings import NotifySettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Browsing = Callable[..., AbstractAsyncContextManager[Any]]
Notification = dict[str, Any]


class Reader:
    """Someone with a mail open in the browser.

    :ivar page: what the browser shows.
    """

    def __init__(self, page: Any, notifications: asyncio.Queue[Notification]) -> None:
        self.page = page
        self._notifications = notifications

    async def press(self) -> None:
        """Press the mail's one link."""
        await self.page.get_by_role("link", name="Read the story").click()

    async def notification(self) -> Notification:
        """The next notification that came in by webhook."""
        return await asyncio.wait_for(self._notifications.get(), 20)


Reading = Callable[[str], AbstractAsyncContextManager[Reader]]


@pytest.fixture
def httpserver() -> Iterator[HTTPServer]:
    """The target site and the webhook's receiver. Threaded: a browser keeps connections open that it does not use."""
    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def reading(tmp_path: Path, httpserver: HTTPServer, browsing: Browsing) -> Reading:
    """Sends a mail with a link to the address, and opens it: ``async with reading(address) as reader``."""

    @asynccontextmanager
    async def read(address: str) -> AsyncIterator[Reader]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Notification] = asyncio.Queue()

        def receive(request: Request) -> Response:
            notification = Webhook(SECRET).verify(request.data, dict(request.headers))
            assert request.headers["webhook-id"] == notification["eventId"]
            loop.call_soon_threadsafe(arrived.put_nowait, notification)
            return Response(status=204)

        httpserver.expect_request("/hook", method="POST").respond_with_handler(receive)
        httpserver.expect_request("/favicon.ico").respond_with_data(status=404)
        webhook = NotifySettings(use="webhook", options={"url": httpserver.url_for("/hook"), "secret": SECRET})
        async with redirecting(tmp_path, notify=[webhook]) as postbox, browsing() as context:
            html = _tracked_html(postbox, address)
            assert address not in html
            httpserver.expect_request("/mail").respond_with_data(html, content_type="text/html; charset=utf-8")
            page = context.pages[0]
            await page.goto(httpserver.url_for("/mail"))
            yield Reader(page, arrived)
        httpserver.check()

    return read


def _tracked_html(postbox: Postbox, address: str) -> str:
    message = EmailMessage()
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "vera@example.org"
    message["Subject"] = "News"
    message.set_content(
        f'<!DOCTYPE html><p><a postbox:tags="product:book;genre:fiction;" href="{address}">Read the story</a></p>',
        subtype="html",
    )
    return str(postbox.before_send(message).get_content())


@pytest.fixture
def refused() -> Iterator[int]:
    """A port that nobody listens on, and that nobody can take meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_pressed_link_arrives_and_is_notified(reading: Reading, httpserver: HTTPServer) -> None:
    """The browser lands on the original address, query and fragment included, and the webhook hears of it."""
    httpserver.expect_request("/story", query_string="page=2").respond_with_data("Once upon a time")
    address = httpserver.url_for("/story?page=2#end")

    async def scenario() -> None:
        async with reading(address) as reader:
            await reader.press()
            await reader.page.wait_for_url(address)
            assert "Once upon a time" in await reader.page.content()
            assert await reader.page.evaluate("document.referrer") == ""

            notification = await reader.notification()
            assert notification["eventType"] == "Click"
            assert notification["click"]["url"] == address
            assert notification["click"]["linkTags"] == {"product": ["book"], "genre": ["fiction"]}
            assert notification["click"]["userAgent"] == await reader.page.evaluate("navigator.userAgent")
            assert notification["mail"]["commonHeaders"]["from"] == ["Shop <shop@example.com>"]
            assert notification["tracking"]["linkIndex"] == 0

    asyncio.run(scenario())


def test_a_target_that_fails_is_notified_and_the_reader_sees_its_error(
    reading: Reading, httpserver: HTTPServer
) -> None:
    """A 500 of the target is the target's: the browser shows it, and the click counts."""
    httpserver.expect_request("/broken").respond_with_data("out of order", status=500)
    address = httpserver.url_for("/broken")

    async def scenario() -> None:
        async with reading(address) as reader:
            await reader.press()
            await reader.page.wait_for_url(address)
            assert "out of order" in await reader.page.content()
            assert (await reader.notification())["click"]["url"] == address

    asyncio.run(scenario())


def test_a_target_that_refuses_is_notified_and_the_reader_sees_the_error(reading: Reading, refused: int) -> None:
    """Where nobody listens the browser shows its own error page, and the click counts."""
    address = f"http://127.0.0.1:{refused}/gone"

    async def scenario() -> None:
        async with reading(address) as reader:
            await reader.press()
            await reader.page.get_by_text("ERR_CONNECTION_REFUSED").wait_for()
            assert (await reader.notification())["click"]["url"] == address

    asyncio.run(scenario())


def test_two_presses_are_two_notifications(reading: Reading, httpserver: HTTPServer) -> None:
    """Pressing a link, going back and pressing it again notifies twice, with an eventId each."""
    httpserver.expect_request("/story").respond_with_data("Once upon a time", content_type="text/html")

    async def scenario() -> None:
        async with reading(httpserver.url_for("/story")) as reader:
            events = set()
            for _ in range(2):
                await reader.press()
                await reader.page.wait_for_url("**/story")
                events.add((await reader.notification())["eventId"])
                await reader.page.go_back()
            assert len(events) == 2

    asyncio.run(scenario())
