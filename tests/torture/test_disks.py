"""Disks that fail a running service: readers are redirected all the same, the service says what is wrong, recovers by
itself, and no click is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from services import Service, notified

STALL = 10.0 if int(os.environ.get("POSTBOX_TORTURE", "10")) > 10 else 2.5
SMALL = 1 << 20
"""Bytes of a small disk."""
LITTLE = 8192
"""Bytes that not even an empty outbox fits in."""

READ_ONLY = """
import pathlib, sqlite3
connect = sqlite3.connect
def maybe(path, **options):
    if pathlib.Path("fault").exists():
        return connect(f"file:{path}?mode=ro", uri=True, **options)
    return connect(path, **options)
sqlite3.connect = maybe
"""

STALLS = f"""
import pathlib, time
from postbox_plugin.outbox.journal import Journal
append = Journal.append
def stalls(self, entries):
    with __import__("contextlib").suppress(FileNotFoundError):
        pathlib.Path("fault").unlink()
        time.sleep({STALL})
    append(self, entries)
Journal.append = stalls
"""


@contextlib.contextmanager
def limited(service: Service) -> Iterator[Callable[[], None]]:
    """No file may grow beyond a size, as with ``ulimit -f`` or a quota, until that is called off."""
    assert service.process is not None
    pid = service.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (LITTLE, before[1]))

    def call_off() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    yield call_off


@contextlib.contextmanager
def full(service: Service) -> Iterator[Callable[[], None]]:
    """A file system without a free byte, until that is called off."""
    ballast = service.folder / "spool" / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield ballast.unlink


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at a folder."""
    folder.mkdir(exist_ok=True)
    options = f"size={SMALL},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _may_mount() -> bool:
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


MAY_MOUNT = os.geteuid() == 0 and _may_mount()
"""A disk is filled up only where there may be a small one; without it, the limit on the size of files stands in."""

Fault = Callable[[Service], AbstractContextManager[Callable[[], None]]]


@pytest.mark.parametrize("fault", [limited, full] if MAY_MOUNT else [limited])
def test_a_disk_that_takes_no_more(tmp_path: Path, fault: Fault) -> None:
    """Clicks wait in memory, and are on disk and delivered once there is room."""

    async def main() -> None:
        service = Service(tmp_path)
        async with service:
            await service.click([0])
            with fault(service) as call_off:
                number = 1
                async with asyncio.timeout(60):
                    while (await service.health())["status"] == "ok":
                        await service.click(range(number, number + 10))
                        number += 10
                await _waits_in_memory(service, number)
                call_off()
                await _recovers(service, range(number + 20))
            assert await service.stop() == 0

    with small_disk(tmp_path / "spool") if fault is full else contextlib.nullcontext():
        asyncio.run(main())


@contextlib.contextmanager
def locked(service: Service) -> Iterator[Callable[[], None]]:
    """Somebody else has the outbox file open, and writes to it."""
    with contextlib.closing(sqlite3.connect(service.folder / "spool" / "outbox-0.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other.close


@contextlib.contextmanager
def read_only(service: Service) -> Iterator[Callable[[], None]]:
    """The outbox file can be read, and not written; see ``READ_ONLY``, for what root may not write is hard to make."""
    flag = service.folder / "fault"
    flag.touch()
    yield flag.unlink


@pytest.mark.parametrize("fault", [locked, read_only, full] if MAY_MOUNT else [locked, read_only])
def test_a_disk_that_fails_at_the_start(tmp_path: Path, fault: Fault) -> None:
    """The service starts, redirects, and says what is wrong; it needs no second start."""

    async def main() -> None:
        service = Service(tmp_path, before=READ_ONLY)
        async with service:
            await service.click([0])
            await service.has_delivered([0])
            assert await service.stop() == 0
            with fault(service) as call_off:
                await service.start()
                assert "the outbox cannot be opened" in service.log.read_text()
                await _waits_in_memory(service, 1)
                call_off()
                await _recovers(service, range(21))
            assert await service.stop() == 0

    with small_disk(tmp_path / "spool") if fault is full else contextlib.nullcontext():
        asyncio.run(main())


async def _waits_in_memory(service: Service, first: int) -> None:
    async with asyncio.timeout(60):
        await service.click(range(first, first + 20))
        said = await service.health()
        assert said["processes"][0]["waitingForDisk"] >= 20, said
        assert "cannot write" in said["problems"][0]


async def _recovers(service: Service, numbers: range) -> None:
    async with asyncio.timeout(60):
        await service.has_delivered(numbers)
        assert (await service.health())["status"] == "ok"
        await service.click([numbers.stop])
        await service.has_delivered([numbers.stop])
    log = service.log.read_text()
    assert "postbox.lost" not in log
    assert log.count("the outbox can be written again") == 1
    assert {len(events) for events in notified(service).values()} == {1}


def test_a_disk_that_stalls(tmp_path: Path) -> None:
    """For ten seconds (a few in an ordinary run): no reader waits longer than ``journal_deadline``, for nobody else."""

    async def main() -> None:
        service = Service(tmp_path, settings="journal_deadline = 0.2", before=STALLS)
        async with service:
            await service.click([0])
            (tmp_path / "fault").touch()
            await service.click([1])
            assert not (tmp_path / "fault").exists()
            async with asyncio.timeout(60):
                # All that are asked at once, and then one after the other while it lasts.
                await asyncio.gather(*(service.click([number]) for number in range(2, 50)))
                number = 50
                while len(notified(service)) < 2:
                    await service.click([number])
                    number += 1
                assert number > 53
                await service.has_delivered(range(number))
            assert (await service.health())["status"] == "ok"
            assert await service.stop() == 0
        assert {len(events) for events in notified(service).values()} == {1}
        assert "postbox.lost" not in service.log.read_text()

    asyncio.run(main())


@pytest.mark.parametrize("where", ["outbox-0.db", "outbox-0.db-wal"])
def test_a_file_that_is_overwritten_while_it_is_used(tmp_path: Path, where: str) -> None:
    """With rubbish, by something else on the machine: readers go on, and so do new clicks, after a start at the latest.
    What a damaged file held is set aside with it.
    """

    async def main() -> None:
        service = Service(tmp_path)
        async with service:
            await service.click(range(30))
            await service.has_delivered(range(30))
            file = tmp_path / "spool" / where
            file.write_bytes(os.urandom(file.stat().st_size))
            await service.click(range(30, 60))
            await service.stop()
            await service.start()
            await service.click(range(60, 90))
            async with asyncio.timeout(60):
                await service.has_delivered(range(60, 90))
            assert (await service.health())["status"] == "ok"
            assert await service.stop() == 0

    asyncio.run(main())
