"""Time limits of the relay: one timer for however many starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from postbox_hooks.relay.limit import TimeLimit

SHORT = 0.02
LONG = 0.2


def test_it_calls_once_when_the_time_has_passed() -> None:
    async def main() -> None:
        loop, calls = asyncio.get_running_loop(), []
        limit = TimeLimit(lambda: calls.append(loop.time()))
        begin = loop.time()
        limit.start(SHORT)
        await asyncio.sleep(5 * SHORT)
        (call,) = calls
        assert call - begin >= SHORT

    asyncio.run(main())


def test_a_new_start_puts_it_off_without_another_timer() -> None:
    async def main() -> None:
        loop, calls = asyncio.get_running_loop(), []
        limit = TimeLimit(lambda: calls.append(loop.time()))
        limit.start(LONG)
        timer = limit._timer
        await asyncio.sleep(SHORT)
        last = loop.time()
        limit.start(LONG)
        assert limit._timer is timer
        await asyncio.sleep(2 * LONG)
        (call,) = calls
        assert call - last >= LONG

    asyncio.run(main())


@pytest.mark.parametrize("end", [TimeLimit.stop, TimeLimit.cancel])
def test_what_was_ended_calls_nothing_and_can_be_started_again(end: Callable[[TimeLimit], None]) -> None:
    async def main() -> None:
        calls: list[int] = []
        limit = TimeLimit(lambda: calls.append(1))
        limit.start(SHORT)
        end(limit)
        await asyncio.sleep(5 * SHORT)
        assert not calls
        limit.start(SHORT)
        await asyncio.sleep(5 * SHORT)
        assert calls == [1]

    asyncio.run(main())


def test_what_was_cancelled_leaves_nothing_in_the_loop() -> None:
    async def main() -> None:
        limit = TimeLimit(lambda: None)
        limit.start(LONG)
        timer = limit._timer
        limit.cancel()
        assert timer is not None
        assert timer.cancelled()

    asyncio.run(main())
