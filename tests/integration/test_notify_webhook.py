"""The notifier ``webhook`` against real servers: what counts as delivered, what does not, and what errors give away."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import ssl
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from pytest_httpserver import HTTPServer
from servers import get, hrefs, redirecting
from standardwebhooks import Webhook
from werkzeug import Request, Response

from postbox_hooks.notify import webhook
from postbox_hooks.notify.webhook import WebhookError, WebhookNotifier
from postbox_plugin import Click, Mail
from postbox_plugin.errors import MissingExtra, PauseNotifier, RetryLater, SettingsError
from postbox_plugin.settings import NotifySettings
from postbox_plugin.testing import sample_click

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the Standard Webhooks specification
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


async def deliver(url: str, count: int = 1, **options: Any) -> None:
    """Start a notifier, deliver so many clicks one after the other, and stop it."""
    async with started(url, **options) as notifier:
        for number in range(count):
            await notifier.postbox_click(sample_click(f"event:{number}"))


@contextlib.asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[WebhookNotifier]:
    """A notifier between its start and its stop."""
    notifier = WebhookNotifier(url=url, secret=SECRET, **options)
    await notifier.postbox_start()
    try:
        yield notifier
    finally:
        await notifier.postbox_stop()


class RawServer:
    """A server that answers in bytes of the test's own making.

    :param answer: called with the connection and the number of its request, from 0; an exception closes the connection.
    :ivar url: its address.
    :ivar requests: how many requests each connection brought.
    :ivar heads: the head of each request.
    """

    def __init__(self, answer: Answer, certificate: trustme.LeafCert | None = None) -> None:
        self._answer = answer
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._context)
        self._open: set[asyncio.Task[Any]] = set()
        self.requests: list[int] = []
        self.heads: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{port}/hook?token=query-secret"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        connection = len(self.requests)
        self.requests.append(0)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.splitlines() if line.lower().startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.heads.append(head)
                self.requests[connection] += 1
                await self._answer(writer, self.requests[connection] - 1)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()


async def ok(writer: asyncio.StreamWriter, _: int) -> None:
    """The answer of a receiver that works."""
    writer.write(OK)


async def silence(_: asyncio.StreamWriter, __: int) -> None:
    """No answer."""
    await asyncio.Event().wait()


def raw(answer: bytes) -> Answer:
    """An answer of these bytes, after which the connection is closed."""

    async def write(writer: asyncio.StreamWriter, _: int) -> None:
        writer.write(answer)
        await writer.drain()
        raise ConnectionError

    return write


def failing(answer: Answer, **options: Any) -> WebhookError:
    """The error of a delivery to a raw server."""

    async def run() -> WebhookError:
        async with RawServer(answer) as server:
            with pytest.raises(WebhookError) as caught:
                await deliver(server.url, **options)
            return caught.value

    return asyncio.run(run())


def test_a_signed_notification(httpserver: HTTPServer) -> None:
    """What arrives is the notification as JSON, and the receiver's library of Standard Webhooks takes its signature."""
    seen: list[tuple[bytes, dict[str, str]]] = []

    def receive(request: Request) -> Response:
        seen.append((request.get_data(), dict(request.headers)))
        return Response(status=204)

    httpserver.expect_request("/hook", "POST", query_string="token=%2F+a").respond_with_handler(receive)
    asyncio.run(deliver(httpserver.url_for("/hook?token=%2F+a"), 2, headers={"Authorization": "Bearer header-secret"}))
    (body, headers), (_, second) = seen
    assert Click.from_json(body) == sample_click("event:0")
    assert Webhook(SECRET).verify(body, headers)["eventId"] == "event:0"
    assert headers["Content-Type"] == "application/json"
    assert headers["Webhook-Id"] == "event:0"
    assert headers["Authorization"] == "Bearer header-secret"
    assert second["Webhook-Id"] == "event:1"
    assert second["Webhook-Signature"] != headers["Webhook-Signature"]


def test_the_user_agent_can_be_changed(httpserver: HTTPServer) -> None:
    """We say who we are, unless a header is to say something else, in whatever case it is written."""
    httpserver.expect_request("/hook").respond_with_data(b"")
    asyncio.run(deliver(httpserver.url_for("/hook")))
    asyncio.run(deliver(httpserver.url_for("/hook"), headers={"user-agent": "shop"}))
    assert [request.headers.get_all("User-Agent") for request, _ in httpserver.log] == [["postbox-plugin"], ["shop"]]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_acknowledges(httpserver: HTTPServer, status: int) -> None:
    """Any status of 2xx means that the click was taken."""
    httpserver.expect_request("/hook").respond_with_data(b"" if status == 204 else b"thanks", status)
    asyncio.run(deliver(httpserver.url_for("/hook")))
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(httpserver: HTTPServer, status: int) -> None:
    """A redirect is an error that says where it leads, without anything that may be secret, and what to change."""
    elsewhere = "https://other.example.com/path-secret?query-secret"
    httpserver.expect_request("/hook").respond_with_data(b"", status, {"Location": elsewhere})
    with pytest.raises(WebhookError) as caught:
        asyncio.run(deliver(httpserver.url_for("/hook")))
    assert f"answered {status} " in str(caught.value)
    assert "leads to https://other.example.com. Redirects are not followed" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(httpserver.log) == 1


def test_a_redirect_to_the_same_server_is_not_followed(httpserver: HTTPServer) -> None:
    """A relative redirect is not followed either."""
    httpserver.expect_request("/hook").respond_with_data(b"", 307, {"Location": "/taken"})
    httpserver.expect_request("/taken").respond_with_data(b"ok")
    with pytest.raises(WebhookError, match="leads to another address"):
        asyncio.run(deliver(httpserver.url_for("/hook")))
    assert [request.path for request, _ in httpserver.log] == ["/hook"]


@pytest.mark.parametrize(
    ("status", "described"),
    [
        (400, "400 Bad Request"),
        (401, "401 Unauthorized"),
        (404, "404 Not Found"),
        (429, "429 Too Many Requests"),
        (500, "500 Internal Server Error"),
        (503, "503 Service Unavailable"),
        (599, "599"),
    ],
)
def test_other_statuses_are_errors(httpserver: HTTPServer, status: int, described: str) -> None:
    """Everything else means again later, and the error says which host answered what."""
    httpserver.expect_request("/hook").respond_with_data(b"no", status)
    with pytest.raises(WebhookError) as caught:
        asyncio.run(deliver(httpserver.url_for("/hook?query-secret")))
    assert str(caught.value) == f"{httpserver.host}:{httpserver.port} answered {described}"


def test_410_pauses(httpserver: HTTPServer) -> None:
    """410 Gone pauses the notifier, whatever else the answer says."""
    httpserver.expect_request("/hook").respond_with_data(b"", 410, {"Retry-After": "5"})
    with pytest.raises(PauseNotifier, match="410 Gone"):
        asyncio.run(deliver(httpserver.url_for("/hook")))


def _dates(moment: datetime) -> list[str]:
    """A moment in the three forms of RFC 9110, 5.6.7."""
    return [
        format_datetime(moment, usegmt=True),
        moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        moment.strftime("%a %b %e %H:%M:%S %Y"),
    ]


@pytest.mark.parametrize("status", [429, 503, 500, 302])
def test_retry_after_in_seconds(httpserver: HTTPServer, status: int) -> None:
    """Whatever the status, a number of seconds in Retry-After is what the host is asked to wait."""
    httpserver.expect_request("/hook").respond_with_data(b"", status, {"Retry-After": "120"})
    with pytest.raises(RetryLater) as caught:
        asyncio.run(deliver(httpserver.url_for("/hook")))
    assert caught.value.after == 120.0
    assert f"answered {status}" in str(caught.value)


@pytest.fixture
def _far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not UTC."""
    monkeypatch.setenv("TZ", "XYZ+5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_from_greenwich")
@pytest.mark.parametrize("form", range(3))
def test_retry_after_as_a_date(httpserver: HTTPServer, form: int) -> None:
    """A date in Retry-After, in each of the forms that HTTP has had, is waited for."""
    date = _dates(datetime.now(UTC) + timedelta(seconds=600))[form]
    httpserver.expect_request("/hook").respond_with_data(b"", 503, {"Retry-After": date})
    with pytest.raises(RetryLater) as caught:
        asyncio.run(deliver(httpserver.url_for("/hook")))
    assert 580 < caught.value.after <= 600


@pytest.mark.parametrize(
    "value",
    ["0", "-5", "soon", "1.5", "", "٣", *_dates(datetime(2020, 2, 29, tzinfo=UTC)), "Fri, 99 Foo 2026 99:99:99 GMT"],
)
def test_a_retry_after_that_says_nothing(value: str) -> None:
    """A Retry-After that is past, or that can't be read, leaves the wait to the host."""
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    assert "answered 503 Service Unavailable" in str(failing(raw(answer)))


def test_an_endless_retry_after(httpserver: HTTPServer) -> None:
    """A Retry-After beyond all numbers still is a wait; how long it may be is the host's to say."""
    httpserver.expect_request("/hook").respond_with_data(b"", 503, {"Retry-After": "9" * 5000})
    with pytest.raises(RetryLater) as caught:
        asyncio.run(deliver(httpserver.url_for("/hook")))
    assert caught.value.after > 86400


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken, so that nobody else takes it, and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_connection_refused(unused_port: int) -> None:
    """Where nobody listens, the error names the host and why."""
    with pytest.raises(WebhookError) as caught:
        asyncio.run(deliver(f"http://127.0.0.1:{unused_port}/hook?query-secret"))
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{unused_port}: Connection refused"


def test_tls_where_there_is_none(httpserver: HTTPServer) -> None:
    """https to a server that speaks http is an error of the connection."""
    with pytest.raises(WebhookError, match=r"cannot connect to localhost:\d+: .*SSL"):
        asyncio.run(deliver(httpserver.url_for("/hook").replace("http:", "https:")))


def test_unknown_host() -> None:
    """A host that has no address is an error like any other."""
    with pytest.raises(WebhookError, match=r"cannot connect to nowhere\.invalid: "):
        asyncio.run(deliver("http://nowhere.invalid/hook"))


def test_no_answer() -> None:
    """A server that never answers is given up after the total timeout."""
    begin = time.monotonic()
    error = failing(silence, request_timeout=0.3)
    assert 0.3 <= time.monotonic() - begin < 5
    assert str(error).endswith(" did not answer within 0.3 s")


def test_a_dripping_head() -> None:
    """A server that sends its status line byte by byte is given up after the total timeout."""

    async def drip(writer: asyncio.StreamWriter, _: int) -> None:
        for byte in OK * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    begin = time.monotonic()
    error = failing(drip, request_timeout=0.3)
    assert time.monotonic() - begin < 5
    assert "did not answer within 0.3 s" in str(error)


def test_no_handshake() -> None:
    """A server that takes the connection and never shakes hands is given up after the connect timeout."""

    async def run() -> None:
        async with RawServer(silence) as server:
            with pytest.raises(WebhookError, match=r"no connection to 127\.0\.0\.1:\d+ within 0\.3 s"):
                await deliver(server.url.replace("http:", "https:"), connect_timeout=0.3)

    asyncio.run(run())


def test_a_dripping_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that drips after a 2xx costs the connection and not the click."""
    monkeypatch.setattr(webhook, "BODY_TIME", 0.2)

    async def drip(writer: asyncio.StreamWriter, _: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def run() -> None:
        async with RawServer(drip) as server:
            await deliver(server.url, 2)
            assert server.requests == [1, 1]

    begin = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - begin < 5


def test_an_endless_body_is_not_read() -> None:
    """A body without end costs the connection and not the click, and is not taken in."""
    written = 0

    async def flood(writer: asyncio.StreamWriter, _: int) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            written += 0x10000

    async def run() -> None:
        async with RawServer(flood) as server:
            await deliver(server.url, 2)
            assert server.requests == [1, 1]

    asyncio.run(run())
    assert written < 32 << 20  # what socket buffers hold


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\nsh", b"Transfer-Encoding: chunked\r\n\r\n5\r\nsh"])
def test_a_body_that_is_cut_off_after_2xx(body: bytes) -> None:
    """A body that is cut off after a 2xx does not bring the click again."""

    async def run() -> None:
        async with RawServer(raw(b"HTTP/1.1 200 OK\r\n" + body)) as server:
            await deliver(server.url)
            assert server.requests == [1]

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer", [b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02\r\n\r\n"]
)
def test_what_is_not_http(answer: bytes) -> None:
    """An answer that is not HTTP is an error that says so."""
    assert "did not answer in HTTP" in str(failing(raw(answer)))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + bytes(4000),
    ],
)
def test_one_connection_for_many_clicks(tmp_path: Path, secure: bool, answer: bytes) -> None:
    """One click after the other goes over one and the same connection, whatever the form of the answers."""
    ca_file, certificate = authority(tmp_path)

    async def write(writer: asyncio.StreamWriter, _: int) -> None:
        head, end, body = answer.partition(b"\r\n\r\n")
        writer.write(head + end)
        await writer.drain()
        await asyncio.sleep(0.01)  # the body comes when the head has been seen
        writer.write(body)

    async def run() -> None:
        async with RawServer(write, certificate if secure else None) as server:
            await deliver(server.url, 20, ca_file=ca_file)
            assert server.requests == [20]

    asyncio.run(run())


def test_many_clicks_at_once_reuse_their_connections() -> None:
    """Sixty-four clicks at once make sixty-four connections, and the next sixty-four none."""

    async def run() -> None:
        async with RawServer(ok) as server, started(server.url) as notifier:
            for _ in range(3):
                await asyncio.gather(*(notifier.postbox_click(sample_click(f"event:{n}")) for n in range(64)))
            assert server.requests == [3] * 64

    asyncio.run(run())


@pytest.mark.parametrize("reset", [False, True])
def test_an_idle_connection_that_was_closed(reset: bool) -> None:
    """Where the receiver closes an idle connection just when it is used again, the click goes over a new one."""

    async def second_is_too_late(writer: asyncio.StreamWriter, number: int) -> None:
        if number and reset:
            writer.transport.abort()
        elif number:
            raise ConnectionError
        else:
            writer.write(OK)

    async def run() -> None:
        async with RawServer(second_is_too_late) as server:
            await deliver(server.url, 2)
            assert server.requests == [2, 1]
            assert server.heads[1].split(b"webhook-id")[1][:12] == server.heads[2].split(b"webhook-id")[1][:12]

    asyncio.run(run())


def test_a_server_that_closes_without_an_answer() -> None:
    """A server that only ever closes is an error, after one more attempt and not a thousand."""

    async def run() -> None:
        async with RawServer(raw(b"")) as server:
            with pytest.raises(WebhookError, match="closed the connection without an answer"):
                await deliver(server.url)
            assert server.requests == [1, 1]

    asyncio.run(run())


def test_a_call_that_is_cut_harms_no_other() -> None:
    """A delivery that the host cancels takes its connection with it, and the next delivery gets its own answer."""

    async def first_is_late(writer: asyncio.StreamWriter, _: int) -> None:
        if len(server.heads) == 1:
            await asyncio.Event().wait()
        writer.write(OK)

    server = RawServer(first_is_late)

    async def run() -> None:
        async with server, started(server.url) as notifier:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(notifier.postbox_click(sample_click()), 0.2)
            await notifier.postbox_click(sample_click())
            assert server.requests == [1, 1]

    asyncio.run(run())


def authority(folder: Path, name: str = "127.0.0.1") -> tuple[str, trustme.LeafCert]:
    """A private authority's file, and a certificate that it issued."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem"), ca.issue_cert(name)


def test_tls_with_a_private_authority(tmp_path: Path) -> None:
    """With ca_file a private authority's certificate is trusted; without it the click is not sent."""
    ca_file, certificate = authority(tmp_path)

    async def run() -> None:
        async with RawServer(ok, certificate) as server:
            await deliver(server.url, ca_file=ca_file)
            with pytest.raises(WebhookError, match=r"certificate of 127\.0\.0\.1:\d+ is not trusted: .*ca_file"):
                await deliver(server.url)
            assert sum(server.requests) == 1

    asyncio.run(run())


def test_tls_for_another_host(tmp_path: Path) -> None:
    """A trusted certificate for another host is refused."""
    ca_file, certificate = authority(tmp_path, "other.example.com")

    async def run() -> None:
        async with RawServer(ok, certificate) as server:
            with pytest.raises(WebhookError, match=r"is not trusted: .*127"):
                await deliver(server.url, ca_file=ca_file)

    asyncio.run(run())


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("no certificate", "NO_CERTIFICATE")])
def test_a_wrong_ca_file(tmp_path: Path, content: str | None, reason: str) -> None:
    """A missing file, or one without a certificate, is an error at the start that names it."""
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(SettingsError) as caught:
        asyncio.run(deliver("https://example.com/", ca_file=str(tmp_path / "ca.pem")))
    assert caught.value.key == "ca_file"
    assert str(tmp_path / "ca.pem") in str(caught.value)
    assert reason in str(caught.value)


def test_cookies_are_not_kept() -> None:
    """What a receiver sets as a cookie is not sent back."""

    async def run() -> None:
        async with RawServer(cookie) as server:
            # By name, for nobody keeps cookies of a bare address.
            await deliver(server.url.replace("127.0.0.1", "localhost"), 2)
            assert len(server.heads) == 2
            assert not any(b"cookie" in head.lower() for head in server.heads)

    async def cookie(writer: asyncio.StreamWriter, _: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /?query-secret\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"",
    ],
)
def test_no_secret_in_any_error(secure: bool, answer: bytes, tmp_path: Path) -> None:
    """Neither the secret, the query, nor a header's value is in an error, its traceback, or the notifier's repr."""
    _, certificate = authority(tmp_path)

    async def run() -> None:
        async with RawServer(raw(answer), certificate if secure else None) as server:
            async with started(server.url, headers={"Authorization": "header-secret"}) as notifier:
                with pytest.raises((WebhookError, PauseNotifier, RetryLater)) as caught:
                    await notifier.postbox_click(sample_click())
            for text in (*traceback.format_exception(caught.value), str(caught.value), repr(notifier)):
                assert "query-secret" not in text
                assert "header-secret" not in text
                assert SECRET.removeprefix("whsec_") not in text

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [
        ({"url": ""}, "url", "https://app.example.com"),
        ({"url": "app.example.com/hooks"}, "url", "https://app.example.com"),
        ({"url": "ftp://app.example.com/"}, "url", "http or https"),
        ({"url": "https:///hooks"}, "url", "with a host"),
        ({"url": "https://app.example.com:99999/"}, "url", "is not an address"),
        ({"url": "https://[::1/"}, "url", "is not an address"),
        ({"url": "https://app.example.com/a b"}, "url", "Percent-encode"),
        ({"url": "https://bücher.example/"}, "url", "xn--"),
        ({"url": "https://user:pass-secret@app.example.com/"}, "url", "Authorization"),
        ({"secret": ""}, "secret", "openssl rand -base64 32"),
        ({"secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "secret", "whsec_"),
        ({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa"}, "secret", "24 to 64 bytes"),
        ({"secret": "whsec_" + "A" * 88}, "secret", "24 to 64 bytes"),
        ({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_"}, "secret", "base64"),
        ({"secret": "whsec_MfKQ9r8GKYqrTwjU PD8ILPZIo2LaLaSw"}, "secret", "base64"),
        ({"headers": {"Content-Type": "text/plain"}}, "headers.Content-Type", "Remove it"),
        ({"headers": {"Webhook-Id": "1"}}, "headers.Webhook-Id", "Remove it"),
        ({"headers": {"a b": "1"}}, "headers", "is no header name"),
        ({"headers": {"A": "1\r\nB: pass-secret"}}, "headers.A", "printable ASCII"),
        ({"headers": {"A": ""}}, "headers.A", "is empty"),
        ({"connect_timeout": 0}, "connect_timeout", "5.0"),
        ({"request_timeout": float("nan")}, "request_timeout", "5.0"),
    ],
)
def test_wrong_options(options: dict[str, Any], key: str, told: str) -> None:
    """An option that cannot work is an error when the settings are read: it names the option and says what to write."""
    with pytest.raises(SettingsError) as caught:
        WebhookNotifier(**{"url": "https://app.example.com/hooks", "secret": SECRET} | options)
    assert caught.value.key == key
    assert told in str(caught.value)
    assert "pass-secret" not in str(caught.value)
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa" not in str(caught.value)


@pytest.mark.parametrize("library", ["aiohttp", "standardwebhooks"])
def test_a_missing_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of its libraries the error says what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf'needs {library}, .* pip install "postbox-plugin\[webhook\]"'):
        WebhookNotifier(url="https://app.example.com/hooks", secret=SECRET)


def test_from_link_to_webhook(tmp_path: Path, httpserver: HTTPServer) -> None:
    """A [[notify]] block is all it takes: a click on a tracked link reaches the webhook."""
    arrived: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def receive(request: Request) -> Response:
        request.get_data()
        arrived.put(request)
        return Response(status=204)

    httpserver.expect_request("/hook").respond_with_handler(receive)
    options = {"url": httpserver.url_for("/hook"), "secret": SECRET}

    async def run() -> Request:
        async with redirecting(tmp_path, notify=[NotifySettings(use="webhook", options=options)]) as postbox:
            mail = Mail(sender="shop@example.com", recipient="reader@example.com")
            (link,) = hrefs(postbox.track_html('<a href="http://shop.example/book">Book</a>', mail))
            assert (await get(link)).code == 302
            return await asyncio.to_thread(arrived.get, timeout=10)

    request = asyncio.run(run())
    notification = Webhook(SECRET).verify(request.get_data(), dict(request.headers))
    assert notification["click"]["url"] == "http://shop.example/book"
