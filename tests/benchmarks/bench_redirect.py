"""Redirects a second, every click on disk first (SQLite, synchronous=FULL) and a log notifier, beside a bare Tornado
handler that only calls ``self.redirect``: the most that Tornado can do here.

Both run as processes of their own and take turns, several rounds long; wrk asks, and the table shows medians::

    python tests/benchmarks/bench_redirect.py [--rounds 5] [--seconds 4] [--workers 2]

With ``--workers``, the service with one worker and with so many take their turns too; both write their access log, to
nowhere, as ``postbox serve`` does. wrk needs a processor of its own: two workers and wrk do not fit on two of them.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from postbox_plugin import Mail, Postbox, Settings, new_key

CONNECTIONS = (1, 32, 128)
ADDRESS = "https://www.example.com/books/17/some-title?utm_source=newsletter&utm_medium=email"

BARE = f"""
import asyncio, logging, tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

class Redirect(tornado.web.RequestHandler):
    def get(self, token):
        self.redirect({ADDRESS!r})

async def main():
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(tornado.web.Application([("/c/(.*)", Redirect)]))
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

OURS = """
import asyncio, sys
from postbox_plugin import Postbox
from postbox_plugin.service import serve, serve_with_workers

def ready(addresses):
    print(addresses[0].rpartition(":")[2], flush=True)

postbox = Postbox.from_file(sys.argv[1])
if "workers" in sys.argv:
    asyncio.run(serve_with_workers(postbox.settings, sys.argv[1], ready=ready))
else:
    asyncio.run(serve(postbox, ready=ready))
"""


class Measured(NamedTuple):
    """What wrk says: requests a second, and milliseconds of which half and 99 of 100 requests took no more."""

    requests: float
    p50: float
    p99: float


@contextlib.contextmanager
def server(*command: str) -> Iterator[int]:
    """A process that prints its port."""
    with subprocess.Popen(
        [sys.executable, "-c", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def ask(port: int, token: str, connections: int, seconds: float) -> Measured:
    """Let wrk follow one link over and over."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", f"http://127.0.0.1:{port}/c/{token}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(said)
    requests = re.search(r"Requests/sec: +([\d.]+)", said)
    latencies = dict(re.findall(r"(50|99)% +([\d.]+[a-z]+)", said))
    assert requests
    return Measured(float(requests[1]), milliseconds(latencies["50"]), milliseconds(latencies["99"]))


def milliseconds(text: str) -> float:
    """What wrk writes as ``830.00us``, ``1.20ms`` or ``1.02s``."""
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each has its turn")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a turn is")
    parser.add_argument("--workers", type=int, default=1, help="also measure so many processes")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed (Debian: apt-get install wrk)")
    key = new_key()
    html = Postbox(Settings(domain="click.example.com", keys=[key])).track_html(
        f'<a href="{ADDRESS}">', Mail(sender="News <news@example.com>", recipient="reader@example.org", subject="New")
    )
    token = html.split("/c/")[1].split('"')[0]
    results: dict[tuple[str, int], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        ports = {"bare Tornado": running.enter_context(server(BARE))}
        ours: dict[str, tuple[int, tuple[str, ...]]] = {"with journal": (1, ())}
        if options.workers > 1:
            ours |= {"1 worker": (1, ("workers",)), f"{options.workers} workers": (options.workers, ("workers",))}
        for name, (workers, how) in ours.items():
            config = Path(folder, f"{name}.toml")
            config.write_text(
                f'domain = "click.example.com"\nkeys = ["{key}"]\nspool = "{folder}/spool {name}"\n'
                f'[serve]\nhttp = "127.0.0.1:0"\nworkers = {workers}\n'
                f'[[notify]]\nuse = "log"\npath = "{folder}/{name}.jsonl"\n'
            )
            ports[name] = running.enter_context(server(OURS, str(config), *how))
        for _ in range(options.rounds):
            for connections in CONNECTIONS:
                for name, port in ports.items():
                    found = ask(port, token, connections, options.seconds)
                    results.setdefault((name, connections), []).append(found)
                    if name in ours:
                        rest(Path(folder, f"{name}.jsonl"))
    show(results)


def rest(path: Path) -> None:
    """Wait until the clicks of a turn are delivered: the next turn is not theirs."""
    size = -1
    while size != (size := path.stat().st_size):
        time.sleep(0.5)


def show(results: dict[tuple[str, int], list[Measured]]) -> None:
    """The medians, and ours as multiples of bare Tornado's."""
    table = Table(title="redirects", title_justify="left")
    for column in ("connections", "", "requests a second", "p50 ms", "p99 ms", "of bare: requests", "p50", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    medians = {
        key: Measured(*(statistics.median(values) for values in zip(*runs, strict=True)))
        for key, runs in results.items()
    }
    for (name, connections), found in medians.items():
        base = medians["bare Tornado", connections]
        ratios = (f"{mine / its:.2f}" for mine, its in zip(found, base, strict=True))
        table.add_row(str(connections), name, f"{found.requests:,.0f}", f"{found.p50:.2f}", f"{found.p99:.2f}", *ratios)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
