"""``postbox serve`` as a process of its own, readers who click, and what its notifier got."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from servers import hrefs
from tornado.httpclient import AsyncHTTPClient

from postbox_plugin import Mail, Postbox, Settings, new_key

__all__ = ["Readers", "Service", "children_of", "notified"]


class Service:
    """``postbox serve`` with workers, in a folder of its own.

    :param settings: further lines of its settings.
    :param serve: further lines of its ``[serve]``.
    :param before: Python that runs in the process before anything of ours.
    """

    def __init__(
        self, folder: Path, workers: int = 1, *, settings: str = "", serve: str = "", before: str = ""
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, self._admin = free.getsockname()[1], other.getsockname()[1]
        self.folder = folder
        self.workers = workers
        self.program = f"{before}\nfrom postbox_plugin.cli import main\nmain()"
        self.clicks = folder / "clicks.jsonl"
        self.log = folder / "log"
        key = new_key()
        (folder / "postbox.toml").write_text(
            f'domain = "localhost"\nhttp_port = {self.port}\nkeys = ["{key}"]\nspool = "spool"\nstop_limit = 20.0\n'
            f'{settings}\n[serve]\nhttp = "127.0.0.1:{self.port}"\nadmin = "127.0.0.1:{self._admin}"\n{serve}\n'
            f'[[notify]]\nuse = "log"\npath = "{self.clicks}"\n'
        )
        self.postbox = Postbox(Settings(domain="localhost", http_port=self.port, keys=[key]))
        self.process: Process | None = None

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def start(self, workers: int = 0) -> None:
        """Start it, and wait until it answers. After a kill, the last workers may still hold the port for a moment."""
        async with asyncio.timeout(60):
            while True:
                with self.log.open("ab") as log:
                    self.process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-c", self.program, "serve", "--workers", str(workers or self.workers)),
                        cwd=self.folder,
                        stderr=log,
                    )
                while self.process.returncode is None:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                        writer.close()
                        if self._serves():
                            return
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.2)

    def _serves(self) -> bool:
        latest = self.log.read_bytes().rpartition(b"\n--\n")[2]
        return b"serve http" in latest or (b"postbox.service: listening on" in latest and self.workers == 1)

    def links(self, numbers: Iterable[int]) -> list[str]:
        """The paths of links, each with its number as the link tag ``n``."""
        html = "".join(f'<a postbox:tags="n:{number}" href="http://example.com/">' for number in numbers)
        tracked = self.postbox.track_html(html, Mail(sender="shop@example.com", recipient="reader@example.com"))
        return [link[link.index("/c/") :] for link in hrefs(tracked)]

    async def click(self, numbers: Iterable[int]) -> None:
        """Follow links, one after the other, each over a connection of its own, until each is answered."""
        for path in self.links(numbers):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                head = await reader.read()
                assert head.startswith(b"HTTP/1.1 302 "), head
            finally:
                writer.close()

    async def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        response = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{self._admin}/healthz", raise_error=False)
        said: dict[str, Any] = json.loads(response.body)
        assert (response.code == 200) == (said["status"] == "ok")
        return said

    async def has_delivered(self, numbers: Iterable[int]) -> None:
        """Wait until the notifier has the clicks on these links."""
        wanted = {str(number) for number in numbers}
        while not wanted <= notified(self).keys():
            await asyncio.sleep(0.05)

    def open_files(self) -> int:
        """How many files and connections the process has open."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def files(self) -> int:
        """How many outbox files there are."""
        return len(list((self.folder / "spool").glob("*.db")))

    async def stop(self) -> int:
        """Ask it to stop; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = await self.process.wait()
        with self.log.open("ab") as log:
            log.write(b"\n--\n")
        return code

    async def kill(self) -> None:
        """Kill the parent or a worker, whichever it hits."""
        assert self.process is not None
        parent = self.process.pid
        victim = random.choice([parent, *children_of(parent)])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if victim == parent:
            await self.process.wait()
            with self.log.open("ab") as log:
                log.write(b"\n--\n")
            await self.start()


def children_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Readers:
    """People who follow links, each link once, over connections that stay open."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._number = 0
        self.asked = 0
        self.answered: set[str] = set()
        self.cut: set[str] = set()
        self.enough = False

    def _links(self) -> list[tuple[str, str]]:
        numbers = range(self._number, self._number + 50)
        self._number += 50
        return [(str(number), path) for number, path in zip(numbers, self._service.links(numbers), strict=True)]

    async def read(self) -> None:
        links: list[tuple[str, str]] = []
        while not self.enough:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not self.enough:
                    links = links or self._links()
                    number, path = links.pop()
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    self.asked += 1
                    self.cut.add(number)
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.cut.remove(number)
                    assert head.startswith(b"HTTP/1.1 302 "), head
                    self.answered.add(number)
                    if b"Connection: close" in head:
                        break
            writer.close()


def notified(service: Service) -> dict[str, set[str]]:
    """The event ids that came for each link."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in service.clicks.read_text().splitlines() if service.clicks.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # half a line, of a process that was killed
            click = json.loads(line)
            found[click["click"]["linkTags"]["n"][0]].add(click["eventId"])
    return found
