"""The notifier ``log``: whole lines, on disk before they are acknowledged, whatever happens to the file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from postbox_hooks.notify import log
from postbox_hooks.notify.log import LogNotifier
from postbox_plugin import Click
from postbox_plugin.testing import sample_click


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the notifier writes."""
    return tmp_path / "clicks.jsonl"


@contextlib.asynccontextmanager
async def running(path: Path | str) -> AsyncIterator[LogNotifier]:
    """A notifier between its start and its stop."""
    notifier = LogNotifier(path=str(path))
    await notifier.postbox_start()
    try:
        yield notifier
    finally:
        await notifier.postbox_stop()


def with_notifier(path: Path | str, use: Callable[[LogNotifier], Awaitable[None]]) -> None:
    """Run ``use`` with a notifier that is running."""

    async def run() -> None:
        async with running(path) as notifier:
            await use(notifier)

    asyncio.run(run())


def click(number: int) -> Click:
    """A click of that number."""
    return sample_click(f"event:{number}")


async def write(notifier: LogNotifier, *numbers: int) -> None:
    """Deliver clicks, all at once."""
    await asyncio.gather(*(notifier.postbox_click(click(number)) for number in numbers))


def numbers(path: Path) -> list[int]:
    """Of the clicks in a file, every line of which must be whole."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [int(Click.from_json(line).event_id.removeprefix("event:")) for line in text.splitlines()]


def rotate(path: Path) -> Path:
    """Rename the file as logrotate does; its new name."""
    return path.rename(path.with_suffix(".1"))


def file_of(notifier: LogNotifier) -> log._File:
    """The notifier's file."""
    assert isinstance(notifier._sink, log._File)
    return notifier._sink


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Files of this process grow no further than given, as on a disk that is full; lifted at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_click_is_a_line_of_json(path: Path) -> None:
    """Each click is the notification on a line of its own, appended to what is there."""
    path.write_text('{"from": "before"}\n')
    with_notifier(path, lambda notifier: write(notifier, 1))
    with_notifier(path, lambda notifier: write(notifier, 2))
    before, *lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(before) == {"from": "before"}
    assert lines == [click(1).to_json() + b"\n", click(2).to_json() + b"\n"]


def test_nothing_is_opened_before_the_start(path: Path) -> None:
    """Making the notifier makes no file; starting it does, readable by owner and group only."""
    umask = os.umask(0o002)
    try:
        notifier = LogNotifier(path=str(path))
        assert not path.exists()

        async def start_and_stop() -> None:
            await notifier.postbox_start()
            await notifier.postbox_stop()

        asyncio.run(start_and_stop())
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_started_again(path: Path) -> None:
    """A notifier that was stopped can be started again, in another loop too."""
    notifier = LogNotifier(path=str(path))

    async def once(number: int) -> None:
        await notifier.postbox_start()
        await notifier.postbox_click(click(number))
        await notifier.postbox_stop()

    asyncio.run(once(1))
    asyncio.run(once(2))
    assert numbers(path) == [1, 2]


def test_a_place_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A missing folder, a folder in place of the file and a pipe are named when the notifier starts."""
    os.mkfifo(tmp_path / "pipe")
    for wrong, problem in (("missing/clicks", "No such file"), (".", "Is a directory"), ("pipe", "Not a regular file")):
        with pytest.raises(OSError, match=problem) as caught:
            asyncio.run(LogNotifier(path=str(tmp_path / wrong)).postbox_start())
        assert str(caught.value.filename) == str(tmp_path / wrong)


def test_clicks_in_flight_share_a_write_and_a_sync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four clicks at once are one batch; those that come while it is being written are the next one."""
    syncs: list[list[int]] = []
    entered, go_on = threading.Event(), threading.Event()
    sync = log._sync

    def slow_sync(descriptor: int) -> None:
        entered.set()
        assert go_on.wait(10)
        sync(descriptor)
        syncs.append(numbers(path))

    monkeypatch.setattr(log, "_sync", slow_sync)

    async def use(notifier: LogNotifier) -> None:
        first = asyncio.create_task(write(notifier, *range(64)))
        await asyncio.to_thread(entered.wait, 10)
        later = [asyncio.create_task(write(notifier, number)) for number in (64, 65)]
        await asyncio.sleep(0)
        assert not first.done(), "acknowledged before the sync"
        go_on.set()
        await asyncio.gather(first, *later)

    with_notifier(path, use)
    assert syncs == [list(range(64)), list(range(66))]


def test_the_loop_runs_on_while_the_disk_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow sync holds up nothing but the clicks that wait for it."""
    loop_was_free = threading.Event()
    monkeypatch.setattr(
        log, "_sync", lambda _: pytest.fail("the loop stood still") if not loop_was_free.wait(10) else None
    )

    async def use(notifier: LogNotifier) -> None:
        waiting = asyncio.create_task(write(notifier, 1))
        await asyncio.sleep(0.01)
        loop_was_free.set()
        await waiting

    with_notifier(path, use)
    assert numbers(path) == [1]


def test_survives_renaming(path: Path) -> None:
    """After rotation by renaming, clicks go to a new file of the old name."""

    async def use(notifier: LogNotifier) -> None:
        await write(notifier, 1)
        rotate(path)
        await write(notifier, 2)
        await write(notifier, 3)

    with_notifier(path, use)
    assert numbers(path.with_suffix(".1")) == [1]
    assert numbers(path) == [2, 3]


def test_survives_replacing(path: Path) -> None:
    """Where the rotation makes the new file itself, that one is used."""

    async def use(notifier: LogNotifier) -> None:
        await write(notifier, 1)
        rotate(path)
        os.close(os.open(path, os.O_CREAT, 0o600))
        await write(notifier, 2)

    with_notifier(path, use)
    assert numbers(path) == [2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_survives_removal(path: Path) -> None:
    """A file that was removed is made anew."""

    async def use(notifier: LogNotifier) -> None:
        await write(notifier, 1)
        await asyncio.to_thread(path.unlink)
        await write(notifier, 2)

    with_notifier(path, use)
    assert numbers(path) == [2]


def test_survives_truncation(path: Path) -> None:
    """After rotation by copying and truncating, lines begin at the start of the file, without a hole."""

    async def use(notifier: LogNotifier) -> None:
        await write(notifier, 1, 2, 3)
        os.truncate(path, 0)
        await write(notifier, 4)

    with_notifier(path, use)
    assert numbers(path) == [4]


def test_rotation_between_the_opening_and_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was renamed while we waited for its lock is not written to."""
    flock = fcntl.flock
    rotated = False

    def rotating(descriptor: int, operation: int) -> None:
        nonlocal rotated
        flock(descriptor, operation)
        if not rotated:
            rotated = True
            rotate(path)

    monkeypatch.setattr(fcntl, "flock", rotating)
    with_notifier(path, lambda notifier: write(notifier, 1))
    assert path.with_suffix(".1").read_bytes() == b""
    assert numbers(path) == [1]


def test_half_a_line_of_a_crash_is_closed(path: Path) -> None:
    """Half a line is left as it is, and the next click begins on a new one."""
    path.write_bytes(click(1).to_json() + b"\n" + click(2).to_json()[:100])
    with_notifier(path, lambda notifier: write(notifier, 3, 4))
    first, half, *rest = path.read_bytes().splitlines()
    assert first == click(1).to_json()
    assert half == click(2).to_json()[:100]
    assert rest == [click(3).to_json(), click(4).to_json()]


def test_a_full_disk_leaves_no_half_line(path: Path, file_size_limit: Callable[[int], None]) -> None:
    """Where there is no room for all lines of a batch, none is acknowledged, none is left, and all can come again."""
    line = len(click(1).to_json()) + 1

    async def use(notifier: LogNotifier) -> None:
        await write(notifier, 1)
        file_size_limit(line * 2 + line // 2)
        results = await asyncio.gather(
            *(notifier.postbox_click(click(number)) for number in (2, 3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [OSError, OSError]
        assert "File too large" in str(results[0])
        assert str(path) in str(results[0])
        assert numbers(path) == [1]
        file_size_limit(line * 100)
        await write(notifier, 2, 3)

    with_notifier(path, use)
    assert numbers(path) == [1, 2, 3]


def test_a_half_line_that_could_not_be_taken_back_is_closed(
    path: Path, file_size_limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even truncating fails, the line that comes next begins on a new one."""
    line = len(click(1).to_json()) + 1

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", refuse)

    async def use(notifier: LogNotifier) -> None:
        file_size_limit(line // 2)
        with pytest.raises(OSError, match="File too large"):
            await write(notifier, 1)
        file_size_limit(line * 100)
        await write(notifier, 1)

    with_notifier(path, use)
    half, whole = path.read_bytes().splitlines()
    assert half == click(1).to_json()[: line // 2]
    assert whole == click(1).to_json()


def test_a_failed_sync_is_not_acknowledged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A click whose line did not reach the disk raises, and the notifier goes on with a newly opened file."""
    sync = log._sync

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    async def use(notifier: LogNotifier) -> None:
        monkeypatch.setattr(log, "_sync", broken)
        with pytest.raises(OSError, match="Input/output error"):
            await write(notifier, 1)
        assert file_of(notifier)._descriptor == -1
        monkeypatch.setattr(log, "_sync", sync)
        await write(notifier, 2)

    with_notifier(path, use)
    assert numbers(path)[-1] == 2


def test_a_given_up_click_is_not_written_and_disturbs_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the host cuts while it waits for its write takes its line with it; its neighbours' are written."""
    entered, go_on = threading.Event(), threading.Event()

    def slow_sync(_: int) -> None:
        entered.set()
        assert go_on.wait(10)

    monkeypatch.setattr(log, "_sync", slow_sync)

    async def use(notifier: LogNotifier) -> None:
        tasks = [asyncio.create_task(write(notifier, 1))]
        await asyncio.to_thread(entered.wait, 10)
        tasks += [asyncio.create_task(write(notifier, number)) for number in (2, 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        go_on.set()
        await tasks[2]

    with_notifier(path, use)
    assert numbers(path) == [1, 3]


WRITER = """
import asyncio, sys
from postbox_hooks.notify.log import LogNotifier
from postbox_plugin.testing import sample_click

async def main(path, first, count):
    notifier = LogNotifier(path=path)
    await notifier.postbox_start()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(first, first + count, 8):
        await asyncio.gather(*(notifier.postbox_click(sample_click(f"event:{n}")) for n in range(number, number + 8)))
    await notifier.postbox_stop()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def test_several_processes_write_whole_lines(path: Path) -> None:
    """Three processes append to one file, which is renamed twice meanwhile: no line is torn, none is missing."""
    count = 800
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(first), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, count, 2 * count)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    rotated = [path.with_suffix(f".{number}") for number in (1, 2)]
    for target in rotated:
        while not (path.exists() and path.stat().st_size > 20_000):
            assert any(writer.poll() is None for writer in writers), "all have ended before the rotation"
        path.rename(target)
    assert [writer.communicate(timeout=60) and writer.returncode for writer in writers] == [0, 0, 0]
    assert sorted(number for file in (*rotated, path) for number in numbers(file)) == list(range(3 * count))


def test_without_a_path_the_logger_gets_the_clicks(caplog: pytest.LogCaptureFixture) -> None:
    """Without a path each click is an INFO record of postbox.clicks, whose message is the notification."""
    with caplog.at_level(logging.INFO, "postbox.clicks"):
        with_notifier("", lambda notifier: write(notifier, 1, 2))
    assert [(record.name, record.levelname) for record in caplog.records] == [("postbox.clicks", "INFO")] * 2
    assert [record.getMessage() for record in caplog.records] == [click(n).to_json().decode() for n in (1, 2)]


def test_a_logger_that_drops_clicks_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Where the logger is not set to INFO, the start says that clicks would go nowhere."""
    with caplog.at_level(logging.WARNING):
        with_notifier("", lambda notifier: write(notifier, 1))
    (record,) = caplog.records
    assert "postbox.clicks" in record.getMessage()
    assert record.levelname == "WARNING"
