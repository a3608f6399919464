"""The demo's feed of notifications, and the clicker that waits on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from postbox_hooks.demo.clicker import USER_AGENT, click, some_of
from postbox_hooks.demo.feed import Feed
from postbox_plugin.errors import PostboxError


def notification(number: int) -> dict[str, Any]:
    """The part of a notification that matters here."""
    return {"eventId": f"event:{number}", "click": {"userAgent": USER_AGENT}}


def test_a_late_follower_gets_the_earlier_ones_then_the_live_ones() -> None:
    """In their order, each once, to the end of the feed."""

    async def scenario() -> list[int]:
        feed = Feed()
        feed.add(notification(0))
        got = []
        async for event in feed.follow():
            assert event is not None
            assert event[1] == notification(event[0])
            got.append(event[0])
            if event[0] < 3:
                asyncio.get_running_loop().call_soon(feed.add, notification(event[0] + 1))
            else:
                feed.close()
        return got

    assert asyncio.run(scenario()) == [0, 1, 2, 3]


def test_a_repetition_is_dropped_and_a_follower_may_begin_later() -> None:
    """Delivery is at least once; the eventId tells."""

    async def scenario() -> list[Any]:
        feed = Feed()
        for number in (0, 1, 0, 2, 1):
            feed.add(notification(number))
        feed.close()
        return [event async for event in feed.follow(1)]

    assert asyncio.run(scenario()) == [(1, notification(1)), (2, notification(2))]


def test_a_quiet_feed_gives_a_sign_of_life() -> None:
    """So that whoever follows for somebody else can see whether they are still there."""

    async def scenario() -> None:
        async for event in Feed().follow(pause=0.01):
            assert event is None
            return

    asyncio.run(scenario())


def test_some_links_come_from_all_over_the_mail_with_one_on_https() -> None:
    """As many as asked for, spread, in order."""
    links = [f"http://localhost/{number}" for number in range(20)]

    assert some_of(links, 5) == [f"http://localhost/{number}" for number in (0, 4, 8, 12, 16)]
    assert some_of([*links, "https://localhost/20"], 5)[-1] == "https://localhost/20"
    assert some_of(links[:2], 5) == links[:2]


def test_a_missing_notification_is_an_error(tmp_path: Path) -> None:
    """The clicker says how many did not come, and how long it waited."""
    feed = Feed()
    arrived: list[Any] = []

    class Redirect(RequestHandler):
        def get(self, number: str) -> None:
            if number == "0":
                feed.add(notification(0))
            self.redirect("/")

    async def scenario() -> None:
        async with _serving(Redirect, 2) as links:
            await click(links, feed, arrived.append, certificate=tmp_path / "none.pem", deadline=0.05)

    with pytest.raises(PostboxError, match=r"1 of 2 notifications did not come within 0\.05 s"):
        asyncio.run(scenario())
    assert arrived == [notification(0)]


def test_a_link_that_does_not_redirect_is_an_error(tmp_path: Path) -> None:
    """The clicker names the link and its answer."""

    class NotFound(RequestHandler):
        def get(self, _number: str) -> None:
            self.set_status(404)

    async def scenario() -> None:
        async with _serving(NotFound, 1) as links:
            await click(links, Feed(), print, certificate=tmp_path / "none.pem")

    with pytest.raises(PostboxError, match="answered 404 instead of a redirect"):
        asyncio.run(scenario())


@asynccontextmanager
async def _serving(handler: type[RequestHandler], count: int) -> AsyncIterator[list[str]]:
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([(r"/(\d)", handler)], log_function=lambda _handler: None))
    server.add_sockets(sockets)
    try:
        yield [f"http://127.0.0.1:{sockets[0].getsockname()[1]}/{number}" for number in range(count)]
    finally:
        server.stop()
        await server.close_all_connections()
