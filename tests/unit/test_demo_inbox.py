"""The demo's web pages: what strangers wrote stays text, and only a signed webhook gets in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from clicks import click
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from postbox_hooks.demo.feed import Feed
from postbox_hooks.demo.inbox import Letter, inbox_routes, verifier
from postbox_hooks.demo.shop import shop_routes
from postbox_plugin import Postbox, Settings, new_key

pytestmark = pytest.mark.extra("demo")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVIL = "<script>alert(1)</script>"

Fetch = Callable[..., Awaitable[HTTPResponse]]


def letter() -> Letter:
    """A mail that would like to be a program."""
    message = EmailMessage()
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "vera@example.org"
    message["Subject"] = f"News {EVIL}"
    message.set_content(
        f'<html><head><title>x</title></head><body>{EVIL}<img src="cid:logo@shop">'
        f'<a href="http://localhost/shop/?q=%3Cscript&amp;r={EVIL}" postbox:tags="k:{EVIL}">go</a></body></html>',
        subtype="html",
    )
    message.add_related(b"\x89PNG", "image", "png", cid="<logo@shop>")
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))
    return Letter.received(message, postbox.before_send(message).as_bytes(), postbox.explain(message), postbox)


@asynccontextmanager
async def served(feed: Feed, mail: Letter | None = None) -> AsyncIterator[Fetch]:
    """The inbox and the shop on a free port; how to fetch from there."""
    sockets = bind_sockets(0, "127.0.0.1")
    rules = [*inbox_routes([mail or letter()], feed, SECRET, ["http://localhost:1"]), *shop_routes()]
    server = HTTPServer(Application(rules, log_function=lambda _handler: None))
    server.add_sockets(sockets)
    origin = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    client = AsyncHTTPClient(force_instance=True)

    async def fetch(path: str, **options: Any) -> HTTPResponse:
        return await client.fetch(origin + path, raise_error=False, **options)

    try:
        yield fetch
    finally:
        feed.close()
        server.stop()
        await server.close_all_connections()
        client.close()


def fetched(path: str, **options: Any) -> HTTPResponse:
    """The answer to one request."""

    async def scenario() -> HTTPResponse:
        async with served(Feed()) as fetch:
            return await fetch(path, **options)

    return asyncio.run(scenario())


def test_the_page_shows_what_strangers_wrote_as_text() -> None:
    """A subject, an address or a tag with markup in it is shown, not run, and the policy lets no inline script run."""
    response = fetched("/")
    page = response.body.decode()

    assert response.code == 200
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "script-src 'self';" in response.headers["Content-Security-Policy"]
    assert "1 of 1 links tracked" in page
    assert "http://click.example.com/c/" in page


def test_a_mail_s_own_html_is_shown_in_a_sandbox() -> None:
    """Byte for byte but for the pictures inside it and where links open; its response forbids scripts by itself."""
    sent, written = fetched("/mail/0/sent"), fetched("/mail/0/written")

    for response in (sent, written):
        policy = response.headers["Content-Security-Policy"]
        assert "sandbox allow-popups allow-popups-to-escape-sandbox" in policy
        assert "script-src" not in policy
        assert "default-src 'none'" in policy
        assert b'<head><base target="_blank">' in response.body
        assert b'<img src="/mail/0/image/logo@shop">' in response.body
    assert b"http://click.example.com/c/" in sent.body
    assert b"http://click.example.com/c/" not in written.body
    assert b"postbox:tags" in written.body


def test_a_picture_inside_the_mail_is_served_as_one() -> None:
    """And nothing else of the mail is."""
    picture = fetched("/mail/0/image/logo@shop")

    assert picture.headers["Content-Type"] == "image/png"
    assert picture.body == b"\x89PNG"
    assert fetched("/mail/0/image/other").code == 404


def test_the_click_map_counts_the_clicks_of_its_mail() -> None:
    """Those that have come in so far, of this mail and of no other; only the demo's own page may frame it."""
    mail = letter()

    async def scenario() -> None:
        feed = Feed()
        for number, message in enumerate((mail.message_id, mail.message_id, "another-message")):
            feed.add(json.loads(click(0, message=message, event=f"event:{number}").to_json()))
        async with served(feed, mail) as fetch:
            response = await fetch("/mail/0/map")
            page = response.body.decode()
            assert 'data-clicks="2" data-share="100%"' in page
            assert EVIL not in page
            assert "http://click.example.com/c/" in page, "its links work"
            assert response.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
            assert "frame-src 'self'" in (await fetch("/")).headers["Content-Security-Policy"]

    asyncio.run(scenario())


def test_what_is_not_there_is_not_found() -> None:
    """Mails that do not exist, and files that are no part of the page."""
    for path in ("/mail/1", "/mail/1/sent", "/mail/1/map", "/page/inbox.html", "/page/../inbox.py", "/nothing"):
        assert fetched(path).code == 404, path


def _signed(body: bytes, secret: str = SECRET) -> dict[str, Any]:
    now = datetime.now(UTC)
    signature = verifier(secret).sign("event:0", now, body.decode())
    headers = {"webhook-id": "event:0", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    return {"method": "POST", "body": body, "headers": headers}


def test_only_a_signed_webhook_gets_in() -> None:
    """Unsigned, malformed, changed or signed with another secret: refused, and nothing reaches the page."""
    body = json.dumps({"eventId": "event:0"}).encode()
    malformed = {**_signed(body), "headers": {**_signed(body)["headers"], "webhook-signature": "v1,%%%"}}

    async def scenario() -> None:
        feed = Feed()
        async with served(feed) as fetch:
            for refused in (
                {"method": "POST", "body": body},
                malformed,
                {**_signed(body), "body": body + b" "},
                _signed(body, "whsec_b3RoZXIgc2VjcmV0"),
            ):
                assert (await fetch("/hooks/clicks", **refused)).code == 401
            assert (await fetch("/hooks/clicks", **_signed(body))).code == 204
            feed.close()
            assert [event async for event in feed.follow()] == [(0, {"eventId": "event:0"})]

    asyncio.run(scenario())


def test_notifications_are_sent_as_events_and_taken_up_where_they_were_left() -> None:
    """Those so far and each new one, numbered; a browser that comes back names the last it has."""

    async def scenario() -> None:
        feed = Feed()
        for number in range(2):
            feed.add({"eventId": f"event:{number}"})
        async with served(feed) as fetch:
            got: list[bytes] = []

            def take(chunk: bytes) -> None:
                got.append(chunk)
                if b"event:1" in chunk:
                    feed.add({"eventId": "event:2", "note": "line\nbreak"})
                if b"event:2" in chunk:
                    feed.close()

            first = await fetch("/notifications", streaming_callback=take)
            assert first.headers["Content-Type"] == "text/event-stream"
            events = b"".join(got).decode().split("\n\n")
            assert [event.split("\n")[0] for event in events[:-1]] == ["id: 0", "id: 1", "id: 2"]
            assert json.loads(events[2].split("\n")[1].removeprefix("data: "))["note"] == "line\nbreak"
            again = await fetch("/notifications", headers={"Last-Event-ID": "1"})
            assert again.body.decode().startswith("id: 2\n")

    asyncio.run(scenario())


def test_the_shop_says_where_one_arrived() -> None:
    """Every address of the shop is a page that shows it, as text; one kind answers with an error."""
    page = fetched("/shop/%D1%87%D0%B0%D0%B9?%D0%BA=%3Cscript%3E")

    assert page.code == 200
    assert "/shop/чай" in page.body.decode()
    assert "&lt;script&gt;" in page.body.decode()
    assert b"<script" not in page.body
    assert fetched("/shop/sold-out/almanac").code == 410
    assert fetched("/shop/images/hero.png").headers["Content-Type"] == "image/png"
    assert fetched("/shop/style/shop.css").code == 200
