"""A backlog of a million clicks: what it costs on disk and in memory while their notifier is down, how quickly it
drains when that is back, and how long new clicks take to be delivered meanwhile. Ends with exit code 1 where the
process takes more than 150 MB, or a new click waits for the backlog::

    python tests/benchmarks/bench_backlog.py [--clicks 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from postbox_plugin import Click
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Outbox
from postbox_plugin.testing import sample_click

MOST_MB: Final = 150.0
AT_ONCE: Final = 500
"""Clicks that are put together while the backlog grows."""
PAUSE: Final = 0.1
"""Seconds between two new clicks while it drains."""
LATEST: Final = 5.0
"""Seconds after which a new click is late, whatever the machine."""


class Receiver:
    """Takes clicks, or does not; and knows when each new one came."""

    def __init__(self) -> None:
        self.is_down = True
        self.taken = 0
        self.came: dict[str, float] = {}

    async def click(self, click: Click) -> None:
        """The hook."""
        if self.is_down:
            raise ConnectionError("down")
        await asyncio.sleep(0)
        self.taken += 1
        if click.event_id.startswith("new"):
            self.came[click.event_id] = time.perf_counter()


async def grow(outbox: Outbox, count: int) -> None:
    """Put so many clicks."""
    loop = asyncio.get_running_loop()
    for start in range(0, count, AT_ONCE):
        kept = [loop.create_future() for _ in range(AT_ONCE)]
        for number, future in enumerate(kept, start):
            outbox.put(sample_click(f"old:{number}"), future.set_result)
        assert set(await asyncio.gather(*kept)) == {None}


async def drain(outbox: Outbox, receiver: Receiver, count: int) -> list[float]:
    """Let the receiver be well until it has all; how many seconds each new click took."""
    receiver.is_down = False
    await outbox.retry()
    put: dict[str, float] = {}
    while receiver.taken < 1000:  # what comes before it drains is part of it
        await asyncio.sleep(PAUSE)
    while receiver.taken < count:
        event_id = f"new:{len(put)}"
        put[event_id] = time.perf_counter()
        outbox.put(sample_click(event_id), lambda error: None)
        await asyncio.sleep(PAUSE)
    while receiver.taken < count + len(put):
        await asyncio.sleep(PAUSE)
    return [receiver.came[event_id] - began for event_id, began in put.items()]


def peak() -> float:
    """The most megabytes that this process ever took."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def size(folder: str) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).iterdir())


async def measure(count: int) -> None:
    """All of it."""
    table = Table(title=f"a backlog of {count:,} clicks", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    receiver = Receiver()
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder), [Notifier("receiver", click=receiver.click)])
        await outbox.start()
        table.add_row("memory of the process at its start, MB", f"{peak():.0f}")
        began = time.perf_counter()
        await grow(outbox, count)
        table.add_row("clicks a second on disk, by hundreds", f"{count / (time.perf_counter() - began):,.0f}")
        table.add_row("memory at its most, MB", f"{peak():.0f}")
        table.add_row("bytes on disk a click", f"{size(folder) / count:,.0f}")
        began = time.perf_counter()
        late = await drain(outbox, receiver, count)
        table.add_row("clicks a second that drain", f"{count / (time.perf_counter() - began):,.0f}")
        table.add_row("ms until a new click is delivered meanwhile: median", f"{1e3 * statistics.median(late):,.0f}")
        table.add_row("the same: the most", f"{1e3 * max(late):,.0f}")
        table.add_row("memory at its most, MB", f"{peak():.0f}")
        await outbox.stop()
        table.add_row("megabytes on disk after it", f"{size(folder) / 1e6:,.0f}")
    Console(width=100).print(table)
    if peak() > MOST_MB:
        sys.exit(f"{peak():.0f} MB are more than {MOST_MB:.0f}")
    if max(late) > LATEST:
        sys.exit(f"a new click waited for {max(late):.1f} s while the backlog drained")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=1_000_000)
    asyncio.run(measure(parser.parse_args().clicks))


if __name__ == "__main__":
    main()
