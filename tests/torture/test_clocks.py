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


def test_a_clock_that_jumps_loses_and_delays_no_click(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notifier that fails now and then has all of them at the end, each once."""
    monkeypatch.setattr("postbox_plugin.outbox.outbox.HOUSEKEEPING", 0.2)
    chance = random.Random(1970)
    wrong = 0.0
    delivered: Counter[str] = Counter()

    async def flaky(click: Click) -> None:
        if chance.random() < 0.2:
            raise ConnectionError("flaky")
        delivered[click.event_id] += 1

    async def main() -> None:
        nonlocal wrong
        # For ever, or a jump of a year would be the end of its three days.
        notifier = Notifier("flaky", click=flaky, retry_for=1e10)
        outbox = Outbox(tmp_path, [notifier], clock=lambda: time.time() + wrong)
        await outbox.start()
        for place, wrong in enumerate(JUMPS):
            for number in range(5):
                events = (f"event:{place}-{number}-{count}" for count in range(20))
                await asyncio.gather(*(kept(outbox, sample_click(event)) for event in events))
                await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while len(delivered) < 100 * len(JUMPS):
                await asyncio.sleep(0.05)
        (status,) = await outbox.status()
        assert (status.waiting, status.retrying, status.dead) == (0, 0, 0)
        assert set(delivered.values()) == {1}
        await outbox.stop()

    asyncio.run(main())
