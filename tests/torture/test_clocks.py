"""Clocks that jump under load, by seconds and by days, forward and back: every click is delivered, and soon."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from outboxes import kept

from postbox_plugin import Click
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Outbox
from postbox_plugin.testing import sample_click

JUMPS = (0.0, 3600.0, -3600.0, 2 * 86400.0, -2 * 86400.0, 1.0, -1.0, 0.0, 400 * 86400.0, 0.0, -56 * 365 * 86400.0, 0.0)
"""Seconds that the clock is wrong by, one after the other; the longest back is to 1970, where a machine without a
battery begins.
"""


class Clock:
    """A clock that is wrong by so many seconds."""

    wrong = 0.0

    def __call__(self) -> float:
        return time.time() + self.wrong


def test_a_clock_that_jumps_loses_and_delays_no_click(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notifier that fails now and then, and one that is down all the while, have them all in the end."""
    monkeypatch.setattr("postbox_plugin.outbox.outbox.HOUSEKEEPING", 0.2)
    clock = Clock()
    chance = random.Random(1970)
    failed: set[str] = set()
    delivered: Counter[str] = Counter()
    delivered_late: Counter[str] = Counter()
    is_down = True

    async def flaky(click: Click) -> None:
        if click.event_id not in failed and chance.random() < 0.2:
            failed.add(click.event_id)
            raise ConnectionError("flaky")
        delivered[click.event_id] += 1

    async def down(click: Click) -> None:
        if is_down:
            raise ConnectionError("down")
        delivered_late[click.event_id] += 1

    async def main() -> None:
        nonlocal is_down
        # For ever, or a jump of a year would be the end of the three days in which a click is tried.
        notifiers = [Notifier("flaky", click=flaky, retry_for=1e10), Notifier("down", click=down, retry_for=1e10)]
        outbox = Outbox(tmp_path, notifiers, clock=clock)
        await outbox.start()
        for place, clock.wrong in enumerate(JUMPS):
            for number in range(5):
                events = (f"event:{place}-{number}-{count}" for count in range(20))
                await asyncio.gather(*(kept(outbox, sample_click(event)) for event in events))
                await asyncio.sleep(0.01)
        is_down = False
        for counts in (delivered, delivered_late):
            async with asyncio.timeout(60):
                while len(counts) < 100 * len(JUMPS):
                    await asyncio.sleep(0.05)
            assert set(counts.values()) == {1}
        for status in await outbox.status():
            assert (status.waiting, status.retrying, status.dead) == (0, 0, 0)
        await outbox.stop()

    asyncio.run(main())
