"""Progress bars: on a terminal, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from outboxes import kept

from postbox_plugin import Click, new_key
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Administration, Outbox
from postbox_plugin.testing import sample_click

COUNT = 3000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the Standard Webhooks specification
COMMAND = [sys.executable, "-m", "postbox_plugin"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Settings with a webhook whose receiver takes connections and never answers, and three thousand dead letters."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as free:
        (tmp_path / "postbox.toml").write_text(
            f'domain = "localhost"\nkeys = ["{new_key()}"]\nspool = "spool"\nstop_limit = 1.0\n'
            f'[serve]\nhttp = "127.0.0.1:{free.getsockname()[1]}"\n'
            f'[[notify]]\nuse = "webhook"\nurl = "http://127.0.0.1:{silent.getsockname()[1]}/"\nsecret = "{SECRET}"\n'
        )
        free.close()
        asyncio.run(_fill(tmp_path / "spool"))
        yield tmp_path


async def _fill(spool: Path) -> None:
    async def hangs(click: Click) -> None:
        await asyncio.Event().wait()

    outbox = Outbox(spool, [Notifier("webhook", click=hangs)], stop_limit=0.0)
    await outbox.start()
    await asyncio.gather(*(kept(outbox, sample_click(f"event:{number}")) for number in range(COUNT)))
    await outbox.stop()
    with contextlib.closing(sqlite3.connect(spool / "outbox-0.db")) as connection, connection:
        connection.execute("UPDATE span SET next = (SELECT max(id) + 1 FROM click)")
        connection.execute("INSERT OR REPLACE INTO delivery SELECT 'webhook', id, 'dead', 9, 0, 9e9, 'down' FROM click")


def on_terminal(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command with its standard error on a terminal; what it says is in the file ``shown``."""
    main, side = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=side)
    os.close(side)
    (folder / "shown").touch()

    def copy() -> None:
        with (folder / "shown").open("wb", buffering=0) as shown:
            try:
                while data := os.read(main, 65536):
                    shown.write(data)
            except OSError:  # how Linux says that the other side is closed
                os.close(main)

    threading.Thread(target=copy).start()
    return process


def shown(folder: Path) -> str:
    return (folder / "shown").read_text()


def test_retry_on_a_terminal(folder: Path) -> None:
    """The bar counts to the end."""
    assert on_terminal(folder, "outbox", "retry", "webhook").wait(60) == 0
    wait_for(folder, f"{COUNT}/{COUNT}")
    assert "clicks to try again" in shown(folder)


def wait_for(folder: Path, text: str) -> None:
    while text not in shown(folder):
        time.sleep(0.02)


def test_retry_in_a_pipe(folder: Path) -> None:
    """Nothing but the result."""
    command = [*COMMAND, "outbox", "retry", "webhook"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    assert (ran.stdout.decode(), ran.stderr) == (f"clicks that are tried again: {COUNT}\n", b"")


def test_a_running_service_tells_how_it_gets_on(folder: Path) -> None:
    """Step by step, over its socket."""
    steps: list[int] = []

    async def main() -> int:
        async def hangs(click: Click) -> None:
            await asyncio.Event().wait()

        outbox = Outbox(folder / "spool", [Notifier("webhook", click=hangs)], stop_limit=0.0)
        await outbox.start()
        try:
            return await asyncio.to_thread(Administration(folder / "spool").retry, "webhook", advance=steps.append)
        finally:
            await outbox.stop()

    assert asyncio.run(main()) == sum(steps) == COUNT
    assert len(steps) == 3


def test_a_stop_tells_what_is_left_to_deliver(tmp_path: Path) -> None:
    """Down to nothing."""
    left: list[int] = []

    async def main() -> None:
        async def slow(click: Click) -> None:
            await asyncio.sleep(0.3)

        outbox = Outbox(tmp_path, [Notifier("slow", click=slow, concurrency=2)], stop_limit=30.0)
        await outbox.start()
        await asyncio.gather(*(kept(outbox, sample_click(f"event:{number}")) for number in range(6)))
        await outbox.stop(draining=left.append)

    asyncio.run(main())
    assert left == sorted(left, reverse=True)
    assert len(set(left)) > 1
    assert left[0] <= 6


@pytest.mark.extra("webhook")
@pytest.mark.parametrize("workers", [1, 2])
def test_draining_on_a_terminal(folder: Path, workers: int) -> None:
    """The bar stands there while the last clicks are on their way, and is gone when the service ends."""
    subprocess.run([*COMMAND, "outbox", "retry"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    process = on_terminal(folder, "serve", "--workers", str(workers))
    wait_for(folder, "listening on" if workers == 1 else "workers serve")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    wait_for(folder, "clicks to deliver" if workers == 1 else "workers to end")
    assert "Traceback" not in shown(folder)
