"""Mails a second through the relay, beside the same relay that rewrites nothing, and beside the least that can be
built of aiosmtpd and aiosmtplib.

Each relay is a process of its own, and so is the mail server behind it; the clients keep their connections and send
one mail after the other. The relays have one core, and all else another. They take turns, several rounds long, and the
table shows the median of each::

    python tests/benchmarks/bench_relay.py [--rounds 15] [--seconds 1]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import statistics
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from multiprocessing.connection import Connection
from typing import Any, Final

import aiosmtplib
from aiosmtpd.smtp import SMTP
from rich.console import Console
from rich.table import Table

from postbox_hooks.relay.delivery import Rewrite
from postbox_hooks.relay.server import relay
from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin import Postbox, Settings, new_key

CLIENTS: Final = 20
PRODUCT: Final = """<tr><td align="center" style="padding: 0 12px 24px; font-family: Arial, sans-serif; color: #222">
<a href="https://www.example.com/books/{n}/some-title?utm_source=newsletter&amp;utm_medium=email&amp;utm_content={n}"
 style="color: #1a4d8f; text-decoration: none" target="_blank"><img src="https://cdn.example.com/covers/{n}.jpg"
 width="180" height="270" alt="The cover of book number {n}" style="display: block; border: 0"></a>
<p style="margin: 0 0 12px">Some sentences stand between the products of a newsletter, and <b>most of them</b> hold no
link &mdash; only text, a little markup and an image: <img src="https://cdn.example.com/i/{n}.png" alt=""></p></td></tr>
"""


def mail(links: int) -> bytes:
    """A mail with so many links, as it goes over the wire, the last dot included."""
    message = EmailMessage(policy=WIRE)
    message["From"] = "Bookshop <news@example.com>"
    message["To"] = "Reader <reader@example.org>"
    message["Subject"] = "New this week"
    message["Date"] = "Sat, 25 Apr 2026 18:08:03 +0000"
    message["Message-ID"] = "<1@news.example.com>"
    message.set_content("New this week: see the HTML part.")
    rows = "".join(PRODUCT.format(n=n) for n in range(links))
    message.add_alternative(f"<!DOCTYPE html><html><body><table>{rows}</table></body></html>", "html", cte="7bit")
    return bytes(message) + b".\r\n"


MAILS: Final = {"5 links": mail(5), "60 links": mail(60)}


class Sink(asyncio.Protocol):
    """A mail server that accepts everything and does nothing else, so that the relay is what is measured."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._reading = False
        self._tail = b""
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        if self._reading:
            self._tail = (self._tail + data)[-5:]
            if self._tail == b"\r\n.\r\n":
                self._reading = False
                self._transport.write(b"250 OK\r\n")
            return
        verb = data[:4].upper()
        self._reading, self._tail = verb == b"DATA", b""
        self._transport.write(
            b"354 Go on\r\n" if self._reading else b"221 Bye\r\n" if verb == b"QUIT" else b"250 OK\r\n"
        )
        if verb == b"QUIT":
            self._transport.close()


class Bare:
    """What a relay is at the least: each client's mails go over one connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        if not hasattr(session, "upstream"):
            session.upstream = aiosmtplib.SMTP(
                hostname="127.0.0.1", port=self._port, start_tls=False, local_hostname="localhost"
            )
            await session.upstream.connect()
        _, text = await session.upstream.sendmail(envelope.mail_from, envelope.rcpt_tos, envelope.content)
        return f"250 {text}"


def ours(port: int, rewrite: Rewrite, ready: Connection) -> Any:
    settings = RelaySettings(
        upstream=f"127.0.0.1:{port}",
        upstream_tls="none",
        listen="127.0.0.1:0",
        hostname="localhost",
        connections=CLIENTS,
    )
    return relay(
        settings,
        rewrite,
        quick=True,
        stop_limit=1.0,
        stopping=asyncio.Event(),
        ready=lambda address: ready.send(address.port),
    )


def rewriting(port: int, ready: Connection) -> Any:
    """``postbox relay``."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))

    def rewrite(message: bytes, recipients: Sequence[str], tags: Mapping[str, str]) -> bytes:
        return postbox.before_send(message, recipients=recipients, message_tags=tags)

    return ours(port, rewrite, ready)


def passing_on(port: int, ready: Connection) -> Any:
    """The same, with rewriting switched off."""
    return ours(port, lambda message, _recipients, _tags: message, ready)


async def serve(factory: Any, ready: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def bare(port: int, ready: Connection) -> None:
    """aiosmtpd and aiosmtplib."""
    handler, loop = Bare(port), asyncio.get_running_loop()
    await serve(lambda: SMTP(handler, hostname="localhost", enable_SMTPUTF8=True, loop=loop), ready)


async def sink(_port: int, ready: Connection) -> None:
    """The mail server."""
    await serve(Sink, ready)


RELAYS: Final = {
    "postbox relay": rewriting,
    "the same, without rewriting": passing_on,
    "bare aiosmtpd and aiosmtplib": bare,
}


def use_core(number: int) -> None:
    """Keep this process to one of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})


def process(what: Any, port: int, ready: Connection) -> None:
    """The process of a relay, or of the mail server."""
    use_core(0 if what is sink else 1)
    logging.disable(logging.CRITICAL)
    asyncio.run(what(port, ready))


async def client(port: int, raw: bytes, seconds: float) -> int:
    """Send one mail after the other, as fast as they are taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say(data: bytes, expected: bytes) -> None:
        writer.write(data)
        while (line := await reader.readline())[3:4] == b"-":
            pass
        assert line.startswith(expected), line

    async def send() -> None:
        await say(b"MAIL FROM:<news@example.com>\r\n", b"250")
        await say(b"RCPT TO:<reader@example.org>\r\n", b"250")
        await say(b"DATA\r\n", b"354")
        await say(raw, b"250")

    await say(b"", b"220")
    await say(b"EHLO localhost\r\n", b"250")
    await send()  # connections are made before the clock starts
    loop, sent = asyncio.get_running_loop(), 0
    until = loop.time() + seconds
    while loop.time() < until:
        await send()
        sent += 1
    writer.close()
    return sent


async def rate(port: int, raw: bytes, seconds: float) -> float:
    """Mails a second."""
    return sum(await asyncio.gather(*(client(port, raw, seconds) for _ in range(CLIENTS)))) / seconds


def show(results: dict[str, dict[str, list[float]]]) -> None:
    """The table."""
    table = Table(
        title=f"Mails a second from {CLIENTS} connections: median (lowest to highest), ratio of medians to ours"
    )
    table.add_column("relay")
    for size, raw in MAILS.items():
        table.add_column(f"{size}, {len(raw) / 1000:.0f} KB", justify="right")
    for name, by_size in results.items():
        cells = []
        for size, rates in by_size.items():
            ratio = statistics.median(results["postbox relay"][size]) / statistics.median(rates)
            cells.append(f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}), {ratio:.2f}")
        table.add_row(name, *cells)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each relay has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn is")
    arguments = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    processes = []

    def start(what: Any, port: int) -> int:
        here, there = spawn.Pipe()
        one = spawn.Process(target=process, args=(what, port, there), daemon=True)
        processes.append(one)
        one.start()
        return int(here.recv())

    try:
        server = start(sink, 0)
        ports = {name: start(what, server) for name, what in RELAYS.items()}
        use_core(0)
        results: dict[str, dict[str, list[float]]] = {name: {size: [] for size in MAILS} for name in RELAYS}
        for _ in range(arguments.rounds):
            for size, raw in MAILS.items():
                for name, port in ports.items():
                    results[name][size].append(asyncio.run(rate(port, raw, arguments.seconds)))
        show(results)
    finally:
        for one in processes:
            one.terminate()
            one.join()


if __name__ == "__main__":
    main()
