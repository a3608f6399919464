"""The redirect routes on a real server: what is answered, what is kept, and what is never told."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from servers import get, hrefs, redirecting, settings
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from postbox_plugin import Click, Mail, Postbox, Verdict, hookimpl, new_key
from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import Entry
from postbox_plugin.redirect import routes
from postbox_plugin.testing import RecordingNotifier


@pytest.fixture(autouse=True)
def _clicks_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests click sooner than any person."""
    monkeypatch.setenv("POSTBOX_DISABLED_PLUGINS", "machines")


MAIL = Mail(sender="Shop <shop@example.com>", recipient="reader@example.com", subject="Order shipped")


def link(postbox: Postbox, url: str = "http://example.com/?a=1&b=2") -> str:
    """A tracking link to an address."""
    (found,) = hrefs(postbox.track_html(f'<a href="{url.replace("&", "&amp;")}">x</a>', MAIL))
    assert "/c/" in found
    return found


def test_a_click_is_answered_with_a_redirect_and_notified(tmp_path: Path) -> None:
    """GET gives 302, kept out of caches, referrers and search engines; the notifier gets the click."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            response = await get(link(postbox), headers={"User-Agent": "Mozilla/5.0 Test"})
            assert response.code == 302
            assert response.headers["Location"] == "http://example.com/?a=1&b=2"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["X-Robots-Tag"] == "noindex"
            assert response.body == b""
            (click,) = await recording.wait_for(1)
            assert click.url == "http://example.com/?a=1&b=2"
            assert click.click.user_agent == "Mozilla/5.0 Test"
            assert click.click.ip_address == "127.0.0.1"
            assert click.mail.common_headers.from_ == ("Shop <shop@example.com>",)
            assert click.mail.common_headers.to == ("reader@example.com",)
            assert click.mail.common_headers.subject == "Order shipped"
            assert click.mail.identity_id == "example.com"
            assert not click.is_machine

    asyncio.run(run())


def test_head_redirects_and_is_no_click(tmp_path: Path) -> None:
    """HEAD leads where GET would, and notifies nobody."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            url = link(postbox)
            response = await get(url, "HEAD")
            assert (response.code, response.headers["Location"]) == (302, "http://example.com/?a=1&b=2")
            await get(url)
            assert len(await recording.wait_for(1)) == 1

    asyncio.run(run())
    assert len(recording.clicks) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed(tmp_path: Path, method: str) -> None:
    """A method that is neither GET nor HEAD gives 405 with what is allowed."""

    async def run() -> None:
        async with redirecting(tmp_path) as postbox:
            response = await get(link(postbox), method)
            assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD")

    asyncio.run(run())


def mutations(token: str) -> list[str]:
    """The token forged, cut, altered in each of its regions, and not in its canonical form."""
    flipped = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in (0, 4, 20, len(token) - 1)]
    return [token[:-1], token[:10], token + "A", token + "=", "A" * len(token), *flipped, "", "x", "%00", "..", "я"]


def test_a_bad_token_is_a_404_that_says_nothing(tmp_path: Path) -> None:
    """Forged, cut, altered or foreign tokens: a small page, no redirect, no click."""
    recording = RecordingNotifier()
    foreign = Postbox(settings(tmp_path, keys=[new_key()]))

    async def run() -> None:
        async with redirecting(tmp_path, recording, home_url="https://example.com/?a&b") as postbox:
            good = link(postbox)
            start, _, token = good.rpartition("/")
            for bad in [*mutations(token), link(foreign).rpartition("/")[2]]:
                response = await get(f"{start}/{bad}")
                assert response.code == 404, bad
                assert "Location" not in response.headers
                assert b"This link does not work" in response.body
                assert b'href="https://example.com/?a&amp;b"' in response.body
                assert b"key" not in response.body
            assert (await get(good)).code == 302
            await recording.wait_for(1)

    asyncio.run(run())
    assert len(recording.clicks) == 1


def test_the_log_names_the_unknown_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sender and a service that share no key are the commonest mistake: the log says which key is missing."""
    foreign = Postbox(settings(tmp_path, keys=[new_key()]))

    async def run() -> None:
        async with redirecting(tmp_path) as postbox:
            token = link(foreign).rpartition("/")[2]
            await get(link(postbox).rpartition("/")[0] + "/" + token)
            assert f"sealed with key {token[:4]}, which is not in the ring" in caplog.text
            assert token[4:] not in caplog.text

    asyncio.run(run())


def test_every_key_of_the_ring_opens(tmp_path: Path) -> None:
    """Rotation: links that an older key sealed go on working after a new key moved to the front."""
    old, new = new_key(), new_key()

    async def run() -> None:
        before = Postbox(settings(tmp_path, keys=[old]))
        token = link(before).rpartition("/")[2]
        async with redirecting(tmp_path, keys=[new, old]) as postbox:
            assert link(postbox).rpartition("/")[2][:4] != token[:4]
            assert (await get(link(postbox).rpartition("/")[0] + "/" + token)).code == 302

    asyncio.run(run())


def test_what_gateways_append_does_not_matter(tmp_path: Path) -> None:
    """A query string after the token is ignored."""

    async def run() -> None:
        async with redirecting(tmp_path) as postbox:
            response = await get(link(postbox) + "?utm_source=gateway&fbclid=1")
            assert response.headers["Location"] == "http://example.com/?a=1&b=2"

    asyncio.run(run())


def test_a_broken_outbox_does_not_strand_the_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the click cannot be written, the reader is redirected, and the click is in the log postbox.lost as JSON."""

    async def run() -> None:
        async with redirecting(tmp_path) as postbox:

            def put(click: Click, done: object) -> None:
                raise OutboxError("disk on fire")

            postbox._recorder.outbox.put = put  # type: ignore[union-attr, method-assign]
            assert (await get(link(postbox))).code == 302

    asyncio.run(run())
    (lost,) = (record for record in caplog.records if record.name == "postbox.lost")
    assert Click.from_json(lost.getMessage()).url == "http://example.com/?a=1&b=2"


def test_a_slow_disk_does_not_hold_the_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reader waits no longer than journal_deadline; the click goes on being written."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording, journal_deadline=0.05) as postbox:
            outbox: Any = postbox._recorder.outbox
            put, held = outbox.put, []
            outbox.put = lambda *arguments: held.append(arguments)
            assert (await get(link(postbox))).code == 302
            assert postbox.readers_waiting == 0
            assert recording.clicks == []
            put(*held[0])
            await recording.wait_for(1)

    asyncio.run(run())
    assert not [record for record in caplog.records if record.name == "postbox.lost"]


def test_while_the_disk_fails_no_reader_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the outbox knows that it cannot write, readers go on at once; their clicks are written when it can."""
    monkeypatch.setattr("postbox_plugin.outbox.writer.RETRY", 0.05)
    recording = RecordingNotifier()
    commit = Journal.append

    def failing(self: Journal, entries: Iterable[Entry]) -> None:
        if list(entries):  # other work of the outbox may go on
            raise sqlite3.OperationalError("database or disk is full")

    async def run() -> None:
        async with redirecting(tmp_path, recording, journal_deadline=60.0) as postbox:
            outbox: Any = postbox._recorder.outbox
            monkeypatch.setattr(Journal, "append", failing)
            first = asyncio.create_task(get(link(postbox)))
            while not outbox.error:
                await asyncio.sleep(0.005)
            assert (await get(link(postbox))).code == 302
            assert not first.done()
            assert outbox.waiting == 2
            monkeypatch.setattr(Journal, "append", commit)
            assert (await first).code == 302
            await recording.wait_for(2)
            assert outbox.error == ""

    asyncio.run(run())
    assert not [record for record in caplog.records if record.name == "postbox.lost"]


def test_without_running_the_reader_is_redirected_and_the_click_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who forgot postbox.running() strands no reader, and is told."""

    async def run() -> None:
        (listening,) = bind_sockets(0, "127.0.0.1")
        postbox = Postbox(settings(tmp_path, listening.getsockname()[1]))
        server = HTTPServer(Application([*routes(postbox)]))
        server.add_socket(listening)
        assert (await get(link(postbox))).code == 302
        server.stop()
        await server.close_all_connections()

    asyncio.run(run())
    assert "async with postbox.running()" in caplog.text
    assert [record.name for record in caplog.records if record.name == "postbox.lost"]


def test_a_notifier_that_raises_hangs_or_floods_is_not_noticed(tmp_path: Path) -> None:
    """The redirect and the other notifiers do not notice what one notifier does."""
    recording = RecordingNotifier()

    class Raises:
        @hookimpl
        def postbox_click(self, click: Click) -> None:
            raise RuntimeError("no")

    class Hangs:
        @hookimpl
        async def postbox_click(self, click: Click) -> None:
            await asyncio.sleep(3600)

    class Floods:
        @hookimpl
        async def postbox_click(self, click: Click) -> None:
            raise RuntimeError("x" * 1_000_000)

    async def run() -> None:
        async with redirecting(tmp_path, Raises(), Hangs(), Floods(), recording) as postbox:
            url = link(postbox)
            for _ in range(5):
                assert (await get(url)).code == 302
            await recording.wait_for(5)

    asyncio.run(run())
    assert len({click.event_id for click in recording.clicks}) == 5


def test_the_verdict_is_decided_at_the_click_and_kept_with_it(tmp_path: Path) -> None:
    """A prefetch is a click with a verdict; the classify hook sees the request's headers without regard to case."""
    recording = RecordingNotifier()

    class Prefetch:
        @hookimpl
        def postbox_classify(self, click: Click, request_headers: Any) -> Verdict | None:
            assert click.click.ip_address == "127.0.0.1"  # in full, whatever privacy keeps
            return Verdict("machine", "prefetch") if request_headers.get("sec-purpose") == "prefetch" else None

    async def run() -> None:
        async with redirecting(tmp_path, recording, Prefetch(), privacy="none") as postbox:
            await get(link(postbox), headers={"Sec-Purpose": "prefetch", "User-Agent": "X/1.2"})
            (click,) = await recording.wait_for(1)
            assert (click.tracking.verdict, click.tracking.reason) == ("machine", "prefetch")
            assert (click.click.ip_address, click.click.user_agent) == ("", "")

    asyncio.run(run())


def test_forwarded_addresses_are_believed_from_trusted_proxies_only(tmp_path: Path) -> None:
    """X-Forwarded-For counts behind a trusted proxy, X-Real-Ip never."""
    recording = RecordingNotifier()
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "203.0.113.66"}

    async def run() -> None:
        async with redirecting(tmp_path / "a", recording, trusted_proxies=["127.0.0.0/8"]) as postbox:
            await get(link(postbox), headers=headers)
            await recording.wait_for(1)
        async with redirecting(tmp_path / "b", recording) as postbox:
            await get(link(postbox), headers=headers)
            await recording.wait_for(2)

    asyncio.run(run())
    assert [click.click.ip_address for click in recording.clicks] == ["203.0.113.9", "127.0.0.1"]


def test_the_access_log_has_no_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is logged of a request says neither which link it was nor what came after it."""
    caplog.set_level(logging.DEBUG)

    async def run() -> str:
        async with redirecting(tmp_path) as postbox:
            url = link(postbox)
            await get(url + "?secret=query")
            return url.rpartition("/")[2]

    token = asyncio.run(run())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("postbox")]
    assert any(message.startswith("302 GET") for message in ours)
    assert not [message for message in ours if token in message or "secret=query" in message]


def test_a_reader_who_hangs_up_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is closed before the answer still is a click, and leaves no error behind."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            url = link(postbox)
            path = url[url.index("/c/") :]
            with socket.create_connection(("127.0.0.1", postbox.settings.http_port)) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await recording.wait_for(1)
            assert (await get(url)).code == 302

    asyncio.run(run())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_routes_are_mounted_beside_others(tmp_path: Path) -> None:
    """An application's own pages go on working next to the routes."""

    class Home(RequestHandler):
        def get(self) -> None:
            self.write("home")

    async def run() -> None:
        (listening,) = bind_sockets(0, "127.0.0.1")
        port = listening.getsockname()[1]
        postbox = Postbox(settings(tmp_path, port))
        server = HTTPServer(Application([*routes(postbox), (r"/", Home)]))
        server.add_socket(listening)
        async with postbox.running():
            assert (await get(f"http://127.0.0.1:{port}/")).body == b"home"
            assert (await get(link(postbox))).code == 302
            assert (await get(f"http://127.0.0.1:{port}/other")).code == 404
        server.stop()
        await server.close_all_connections()

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["link", "/c/nothing"])
def test_each_way_of_writing_gives_the_same_response(method: str, path: str, tmp_path: Path) -> None:
    """A response on a connection that stays open is put together here, any other by Tornado: they differ in what they
    say of the connection and the time.
    """

    async def answer(port: int, request: str) -> dict[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = b"" if method == "HEAD" else await reader.readexactly(int(fields["Content-Length"]))
        if "Connection: close" in request:
            assert await reader.read() == b"", "something follows the response"
        writer.close()
        await writer.wait_closed()
        assert fields.pop("Connection", "") == ("close" if "Connection: close" in request else "")
        assert fields.pop("Date").endswith(" GMT")
        return {"": head.split("\r\n")[0], "body": body.decode(), **fields}

    async def run() -> None:
        async with redirecting(tmp_path) as postbox:
            url = link(postbox)
            target = url[url.index("/c/") :] if path == "link" else path
            request = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
            port = postbox.settings.http_port
            ours = await answer(port, request + "\r\n")
            assert ours == await answer(port, request + "Connection: close\r\n\r\n")
            assert ours[""].startswith(
                "HTTP/1.1 405" if method == "POST" else "HTTP/1.1 302" if path == "link" else "HTTP/1.1 404"
            )

    asyncio.run(run())
