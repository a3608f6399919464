"""Connections that are there to keep readers out: many that say nothing, slow ones, endless ones. Clicks go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from services import Service, notified

from postbox_plugin import Postbox, Settings, new_key
from postbox_plugin.service import serve
from postbox_plugin.settings import ServeSettings

LIMIT = 100
FLOOD = 3 * LIMIT
LONG = "https://example.com/" + "x" * 100_000
"""On the page for links that do not open, so that a few of them fill the buffers of a connection."""

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Nuisance = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Only takes a place."""


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A request that goes on by the byte and never ends."""
    writer.write(b"GET /c/x HTTP/1.1\r\nHost: localhost\r\nX: ")
    while True:
        await asyncio.sleep(0.02)
        writer.write(b"x")
        await writer.drain()


async def sends_an_endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much as the service takes."""
    writer.write(b"GET /c/x HTTP/1.1\r\nHost: localhost\r\n")
    while True:
        writer.write(b"X-Header: " + b"x" * 2000 + b"\r\n")
        await writer.drain()


async def owes_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body that was announced and does not come."""
    writer.write(b"POST /c/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n")


async def sends_a_huge_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chunk after chunk."""
    writer.write(b"POST /c/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


async def takes_no_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks and asks, and reads nothing."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        writer.write(b"GET /c/x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        await writer.drain()


async def sends_rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing that HTTP knows, again and again."""
    while True:
        writer.write(b"\x16\x03\x01\x00\xff\r\n\r\n" * 50)
        await writer.drain()


NUISANCES = (
    says_nothing,
    drips,
    sends_an_endless_header,
    owes_the_body,
    sends_a_huge_body,
    takes_no_answer,
    sends_rubbish,
)


@contextlib.asynccontextmanager
async def flood(port: int, nuisance: Nuisance, count: int) -> AsyncIterator[list[Peer]]:
    """So many connections, each of which is a nuisance for as long as the service bears with it."""
    peers: list[Peer] = []
    tasks: list[asyncio.Task[None]] = []

    async def bother(peer: Peer) -> None:
        with contextlib.suppress(ConnectionError):
            await nuisance(*peer)

    try:
        for _ in range(count):
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that unread answers do not fit in it
            small.setblocking(False)
            await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", port))
            peers.append(await asyncio.open_connection(sock=small))
            tasks.append(asyncio.create_task(bother(peers[-1])))
        yield peers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in peers:
            writer.transport.abort()


async def is_closed(peer: Peer) -> None:
    """Wait until the service has closed a connection."""
    reader, writer = peer
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


@pytest.mark.parametrize("nuisance", NUISANCES)
def test_a_flood_keeps_no_reader_out(tmp_path: Path, nuisance: Nuisance) -> None:
    """Three times as many connections as there may be; every click is answered and notified, during it and after it."""

    async def main() -> str:
        service = Service(tmp_path, settings=f'home_url = "{LONG}"', serve=f"max_connections = {LIMIT}")
        async with service:
            before = service.open_files()
            async with flood(service.port, nuisance, FLOOD), asyncio.timeout(60):
                await service.click(range(100))
                # For each that was too many an older one went.
                assert service.open_files() <= before + LIMIT + 1
            await service.click(range(100, 120))
            assert await service.stop() == 0
        assert notified(service).keys() == {str(number) for number in range(120)}
        return service.log.read_text()

    log = asyncio.run(main())
    # A nuisance is no news.
    assert "Traceback" not in log
    assert "127.0.0.1" not in log.replace("http://127.0.0.1", "")
    assert len([line for line in log.splitlines() if "postbox.access" not in line]) < 10


def test_readers_are_let_in_where_files_are_few(tmp_path: Path) -> None:
    """A process that may open few files holds fewer connections than were set, and says so; it never runs out."""

    async def main() -> str:
        few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))"
        service = Service(tmp_path, before=few)
        async with service:
            async with flood(service.port, says_nothing, 400), asyncio.timeout(60):
                await service.click(range(50))
            assert await service.stop() == 0
        assert len(notified(service)) == 50
        return service.log.read_text()

    log = asyncio.run(main())
    assert "at most 80 connections, not 4096: a process may have 160 files open here" in log
    assert "Too many open files" not in log


@pytest.mark.parametrize("nuisance", [says_nothing, drips, owes_the_body, takes_no_answer])
def test_a_connection_has_its_time_and_no_more(
    tmp_path: Path, nuisance: Nuisance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody else wants its place."""
    monkeypatch.setattr("postbox_plugin.service.connections.REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(logging.getLogger("postbox.access"), "disabled", True)
    asyncio.run(_all_are_closed(tmp_path, "http", nuisance))


def test_a_handshake_has_its_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to the https port that never shakes hands is closed like any other."""
    monkeypatch.setattr("postbox_plugin.service.connections.REQUEST_SECONDS", 0.3)
    asyncio.run(_all_are_closed(tmp_path, "https", says_nothing))


async def _all_are_closed(folder: Path, scheme: str, nuisance: Nuisance) -> None:
    pem = folder / "chain.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = {"http": "", scheme: f"127.0.0.1:{port}"}
    listen = ServeSettings(**where, cert=str(pem), key=str(pem))
    settings = Settings(
        domain="localhost",
        keys=[new_key()],
        spool=str(folder / "spool"),
        serve=listen,
        home_url=LONG,
    )
    postbox = Postbox(settings)
    stopping, serving = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(postbox, stopping=stopping, ready=lambda _: serving.set()))
    await serving.wait()
    try:
        async with flood(port, nuisance, 20) as peers, asyncio.timeout(20):
            if nuisance is takes_no_answer:  # it does not see that it was closed before it reads
                await asyncio.sleep(2)
            await asyncio.gather(*(is_closed(peer) for peer in peers))
    finally:
        stopping.set()
        await task
