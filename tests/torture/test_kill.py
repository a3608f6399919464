"""The service under load, killed and stopped at any moment: a click that was answered with a redirect is never lost.

Ten kills in an ordinary run, a hundred where POSTBOX_TORTURE says so (``tox -e torture``).
"""

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
from pathlib import Path

import pytest
from servers import hrefs

from postbox_plugin import Mail, Postbox, Settings, new_key
from postbox_plugin.outbox import Administration

KILLS = int(os.environ.get("POSTBOX_TORTURE", "10"))
READERS = 16

pytestmark = pytest.mark.timeout(60 + 12 * KILLS)


class Service:
    """``postbox serve`` with workers, in a folder of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.workers = workers
        self.clicks = folder / "clicks.jsonl"
        self.log = folder / "log"
        key = new_key()
        (folder / "postbox.toml").write_text(
            f'domain = "localhost"\nhttp_port = {self.port}\nkeys = ["{key}"]\nspool = "spool"\nstop_limit = 20.0\n'
            f'[serve]\nhttp = "127.0.0.1:{self.port}"\n[[notify]]\nuse = "log"\npath = "{self.clicks}"\n'
        )
        self.postbox = Postbox(Settings(domain="localhost", http_port=self.port, keys=[key]))
        self.process: Process | None = None

    async def start(self, workers: int = 0) -> None:
        """Start it, and wait until it answers. After a kill, the last workers may still hold the port for a moment."""
        async with asyncio.timeout(60):
            while True:
                with self.log.open("ab") as log:
                    self.process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "postbox_plugin", "serve", "--workers", str(workers or self.workers)),
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

    def files(self) -> int:
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
        numbers = [str(number) for number in range(self._number, self._number + 50)]
        self._number += 50
        html = "".join(f'<a postbox:tags="n:{number}" href="http://example.com/">' for number in numbers)
        mail = Mail(sender="shop@example.com", recipient="reader@example.com")
        return list(zip(numbers, hrefs(self._service.postbox.track_html(html, mail)), strict=True))

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
                    number, link = links.pop()
                    writer.write(f"GET /c/{link.rpartition('/')[2]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
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
    for line in service.clicks.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # half a line, of a process that was killed
            click = json.loads(line)
            found[click["click"]["linkTags"]["n"][0]].add(click["eventId"])
    return found


def test_what_was_answered_is_notified_however_often_it_is_killed(tmp_path: Path) -> None:
    """At least once, and with one event id."""

    async def main() -> set[str]:
        service = Service(tmp_path, workers=2)
        await service.start()
        readers = Readers(service)
        reading = [asyncio.create_task(readers.read()) for _ in range(READERS)]
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.2, 1.0))
            await service.kill()
        readers.enough = True
        await asyncio.gather(*reading)
        await service.stop()
        service.workers = max(2, service.files())  # then each file is somebody's at once
        await service.start()
        administration = Administration(tmp_path / "spool")
        async with asyncio.timeout(60):
            while any(one.waiting or one.retrying for one in await asyncio.to_thread(administration.status)):
                await asyncio.sleep(0.1)
        assert await service.stop() == 0
        found = notified(service)
        assert {number for number, events in found.items() if len(events) > 1} == set()
        assert len(readers.answered) > 10 * KILLS
        return readers.answered - set(found)

    assert asyncio.run(main()) == set()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_answers_everybody_who_has_asked(tmp_path: Path, workers: int) -> None:
    """SIGTERM under load: no request that was read is dropped, every click is notified, and the exit code is 0."""

    async def main() -> None:
        service = Service(tmp_path, workers)
        for _ in range(3):
            await service.start()
            readers = Readers(service)
            readers.answered.clear()
            reading = [asyncio.create_task(readers.read()) for _ in range(READERS)]
            await asyncio.sleep(0.7)
            assert await service.stop() == 0
            readers.enough = True
            await asyncio.gather(*reading)
            assert len(readers.answered) > 50
            found = notified(service)
            assert readers.answered <= set(found)
            # A request whose answer did not come was one that the service had not read.
            assert not readers.cut & set(found)
            service.clicks.unlink()
        assert "postbox.lost" not in service.log.read_text()

    asyncio.run(main())
