"""Webhook deliveries a second over TLS: the notifier, and the HTTP clients that it could be built on.

Each client sends the same signed clicks to a receiver in another process, first one at a time, then 64 at once. The
clients take turns, several rounds long, and the table shows the median of each. A client that is not installed is
left out::

    python tests/benchmarks/bench_webhook.py --rounds 5 --seconds 2
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import re
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import trustme
from rich.console import Console
from rich.table import Table
from standardwebhooks import Webhook

from postbox_hooks.notify.webhook import WebhookNotifier
from postbox_plugin import Click
from postbox_plugin.testing import sample_click

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the specification
IN_FLIGHT = (1, 64)
CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
CLOSE = re.compile(rb"(?i)\r\nconnection: *close")

CLICK = sample_click()

Send = Callable[[Click], Awaitable[None]]
Client = Callable[[str, str], AbstractAsyncContextManager[Send]]


class Receiver(asyncio.Protocol):
    """Answers 204 to every request, and does nothing else, so that the client is what is measured."""

    def __init__(self, connections: Synchronized[int]) -> None:
        self._connections = connections
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.value += 1

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while True:
            head, end, rest = self._waiting.partition(b"\r\n\r\n")
            length = CONTENT_LENGTH.search(head)
            if not end or length is None or len(rest) < int(length[1]):
                return
            self._waiting = rest[int(length[1]) :]
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            if CLOSE.search(head):
                self._transport.close()


def receive(certificate: str, connections: Synchronized[int], ready: Connection) -> None:
    """The receiver's process."""

    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Receiver(connections), "127.0.0.1", 0, ssl=context)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def signed(click: Click) -> tuple[bytes, dict[str, str]]:
    """The body and the headers that every client has to send, made anew each time as the notifier has to."""
    body, now = click.to_json(), datetime.now(UTC)
    return body, {
        "Content-Type": "application/json",
        "webhook-id": click.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(click.event_id, now, body.decode()),
    }


@asynccontextmanager
async def notifier(url: str, ca_file: str) -> AsyncIterator[Send]:
    """Ours."""
    webhook = WebhookNotifier(url=url, secret=SECRET, ca_file=ca_file)
    await webhook.postbox_start()
    yield webhook.postbox_click
    await webhook.postbox_stop()


@asynccontextmanager
async def httpx_client(url: str, ca_file: str) -> AsyncIterator[Send]:
    """httpx, bare."""
    import httpx

    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file)) as client:

        async def send(click: Click) -> None:
            body, headers = signed(click)
            (await client.post(url, content=body, headers=headers)).raise_for_status()

        yield send


@asynccontextmanager
async def aiohttp_client(url: str, ca_file: str) -> AsyncIterator[Send]:
    """aiohttp, bare."""
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_file))
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as client:

        async def send(click: Click) -> None:
            body, headers = signed(click)
            async with client.post(url, data=body, headers=headers) as response:
                await response.read()

        yield send


@asynccontextmanager
async def tornado_simple(url: str, ca_file: str) -> AsyncIterator[Send]:
    """Tornado's own client, bare."""
    from tornado.simple_httpclient import SimpleAsyncHTTPClient

    client = SimpleAsyncHTTPClient(force_instance=True, max_clients=max(IN_FLIGHT))

    async def send(click: Click) -> None:
        body, headers = signed(click)
        await client.fetch(url, method="POST", body=body, headers=headers, ca_certs=ca_file)

    yield send
    client.close()


@asynccontextmanager
async def tornado_curl(url: str, ca_file: str) -> AsyncIterator[Send]:
    """Tornado's client over libcurl, bare."""
    from tornado.curl_httpclient import CurlAsyncHTTPClient

    client = CurlAsyncHTTPClient(force_instance=True, max_clients=max(IN_FLIGHT))

    async def send(click: Click) -> None:
        body, headers = signed(click)
        await client.fetch(url, method="POST", body=body, headers=headers, ca_certs=ca_file)

    yield send
    client.close()


CLIENTS: dict[str, Client] = {
    "postbox webhook notifier": notifier,
    "aiohttp": aiohttp_client,
    "httpx": httpx_client,
    "tornado curl_httpclient": tornado_curl,
    "tornado simple_httpclient": tornado_simple,
}


async def rate(send: Send, in_flight: int, seconds: float) -> float:
    """Deliveries a second, with so many in flight."""
    sent = 0
    await asyncio.gather(*(send(CLICK) for _ in range(in_flight)))  # the connections are made before the clock starts
    begin = time.perf_counter()

    async def worker() -> None:
        nonlocal sent
        while time.perf_counter() - begin < seconds:
            await send(CLICK)
            sent += 1

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return sent / (time.perf_counter() - begin)


async def measure(
    url: str, ca_file: str, connections: Synchronized[int], rounds: int, seconds: float
) -> dict[str, dict[int, tuple[list[float], int]]]:
    """For each client and each number in flight: the rates of all rounds, and the connections of the last one."""
    results: dict[str, dict[int, tuple[list[float], int]]] = {}
    for _ in range(rounds):
        for name, client in CLIENTS.items():
            for in_flight in IN_FLIGHT:
                before = connections.value
                try:
                    async with client(url, ca_file) as send:
                        result = await rate(send, in_flight, seconds)
                except ImportError:
                    continue
                rates, _ = results.setdefault(name, {}).get(in_flight, ([], 0))
                results[name][in_flight] = ([*rates, result], connections.value - before)
    return results


def show(results: dict[str, dict[int, tuple[list[float], int]]]) -> None:
    """The table."""
    table = Table(title="Webhook deliveries a second, over TLS: median (lowest to highest), connections made")
    table.add_column("client")
    for in_flight in IN_FLIGHT:
        table.add_column(f"{in_flight} in flight", justify="right")
    for name, by_number in results.items():
        cells = []
        for rates, made in by_number.values():
            cells.append(f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}), {made:,}")
        table.add_row(name, *cells)
    Console(width=120).print(table)
    missing = [name for name in CLIENTS if name not in results]
    if missing:
        print("Not installed:", ", ".join(missing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each client has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn is")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        certificate, ca_file = Path(folder, "server.pem"), Path(folder, "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(ca_file)

        processes = multiprocessing.get_context("spawn")
        here, there = processes.Pipe()
        connections: Synchronized[int] = processes.Value("i")
        receiver = processes.Process(target=receive, args=(str(certificate), connections, there), daemon=True)
        receiver.start()
        try:
            url = f"https://127.0.0.1:{here.recv()}/clicks?token=1"
            show(asyncio.run(measure(url, str(ca_file), connections, arguments.rounds, arguments.seconds)))
        finally:
            receiver.terminate()
            receiver.join()


if __name__ == "__main__":
    main()
