"""What waits at the same time shares one call, up to limits; what was not taken for want of room is offered again."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from postbox_hooks import _batches
from postbox_hooks._batches import Batches, Busy
from postbox_hooks._threads import Thread

Outcomes = Sequence[Exception | None]


@contextmanager
def batches(
    hand_on: Callable[[Sequence[int]], Outcomes], *, calls: int = 1, most: int = 100, most_bytes: int = 1000
) -> Iterator[Batches[int]]:
    made = Batches(hand_on, [Thread(f"test-{number}") for number in range(calls)], most=most, most_bytes=most_bytes)
    try:
        yield made
    finally:
        made.close()


class Hand:
    """Takes everything, once it is let.

    :ivar calls: the batches so far.
    """

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> Outcomes:
        self.calls.append(list(items))
        self.entered.release()
        assert self.go_on.acquire(timeout=10)
        return [None] * len(items)


def test_what_comes_in_during_a_call_goes_along_with_the_next() -> None:
    """The first call takes what one turn of the loop brought, the second everything since."""
    hand = Hand()

    async def main() -> None:
        with batches(hand) as made:
            first = asyncio.gather(*(made.put(number, 1) for number in range(3)))
            await asyncio.to_thread(hand.entered.acquire)
            second = asyncio.gather(*(made.put(number, 1) for number in range(3, 9)))
            await asyncio.sleep(0.01)
            hand.go_on.release(2)
            await asyncio.gather(first, second)

    asyncio.run(main())
    assert hand.calls == [[0, 1, 2], [3, 4, 5, 6, 7, 8]]


def test_there_are_as_many_calls_at_once_as_threads() -> None:
    """With two threads two batches are on their way, and the rest waits for one of them."""
    hand = Hand()

    async def main() -> None:
        with batches(hand, calls=2, most=2) as made:
            everything = asyncio.gather(*(made.put(number, 1) for number in range(5)))
            for _ in range(2):
                await asyncio.to_thread(hand.entered.acquire)
            assert sorted(hand.calls) == [[0, 1], [2, 3]]
            hand.go_on.release(3)
            await everything

    asyncio.run(main())
    assert hand.calls[2:] == [[4]]


def test_a_batch_has_no_more_bytes_than_it_may_have() -> None:
    """One that is too big by itself goes by itself, for whoever it goes to to say so."""
    hand = Hand()
    hand.go_on.release(10)

    async def main() -> None:
        with batches(hand, most_bytes=100) as made:
            await asyncio.gather(*(made.put(size, size) for size in (60, 40, 1, 500, 99, 1)))

    asyncio.run(main())
    assert hand.calls == [[60, 40], [1], [500], [99, 1]]


def test_what_is_given_up_before_its_call_is_not_handed_on() -> None:
    """And the others of its batch are."""
    hand = Hand()

    async def main() -> None:
        with batches(hand) as made:
            first = asyncio.ensure_future(made.put(0, 1))
            await asyncio.to_thread(hand.entered.acquire)
            given_up, other = (asyncio.ensure_future(made.put(number, 1)) for number in (1, 2))
            await asyncio.sleep(0.01)
            given_up.cancel()
            hand.go_on.release(2)
            await asyncio.gather(first, other)

    asyncio.run(main())
    assert hand.calls == [[0], [2]]


def test_each_gets_its_own_outcome_and_what_is_raised_goes_to_all() -> None:
    def refuse_odd(items: Sequence[int]) -> Outcomes:
        if 7 in items:
            raise OSError("seven")
        return [ValueError(item) if item % 2 else None for item in items]

    async def main(*items: int) -> list[str]:
        with batches(refuse_odd) as made:
            outcomes = await asyncio.gather(*(made.put(item, 1) for item in items), return_exceptions=True)
            return list(map(repr, outcomes))

    assert asyncio.run(main(0, 1, 2, 3)) == ["None", "ValueError(1)", "None", "ValueError(3)"]
    assert asyncio.run(main(0, 7)) == ["OSError('seven')"] * 2


def test_an_error_for_many_gathers_no_traceback_of_them_all() -> None:
    error = OSError("one for all")

    async def main(items: int) -> int:
        with batches(lambda items: [error] * len(items)) as made:
            await asyncio.gather(*(made.put(item, 1) for item in range(items)), return_exceptions=True)
            return len(traceback.extract_tb(error.__traceback__))

    assert asyncio.run(main(50)) == asyncio.run(main(1))


def test_what_there_was_no_room_for_is_offered_again_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself: the others were taken. Then its error is raised."""
    monkeypatch.setattr(_batches, "PAUSES", (0.01, 0.01))
    calls: list[list[int]] = []

    def no_room(items: Sequence[int]) -> Outcomes:
        calls.append(list(items))
        return [Busy("no room") if item > len(calls) else None for item in items]

    async def main() -> None:
        with batches(no_room) as made:
            outcomes = await asyncio.gather(*(made.put(item, 1) for item in (1, 2, 9)), return_exceptions=True)
            assert list(map(repr, outcomes)) == ["None", "None", "Busy('no room')"]

    asyncio.run(main())
    assert calls == [[1, 2, 9], [2, 9], [9]]


def test_closing_waits_for_no_call() -> None:
    """What was not taken is given up, in a call or before one."""
    hand = Hand()

    async def main() -> None:
        with batches(hand) as made:
            puts = [asyncio.ensure_future(made.put(0, 1))]
            await asyncio.to_thread(hand.entered.acquire)
            puts.append(asyncio.ensure_future(made.put(1, 1)))
            await asyncio.sleep(0)
        done, _ = await asyncio.wait(puts, timeout=10)
        assert all(put.cancelled() for put in done)
        assert len(done) == 2
        hand.go_on.release()

    asyncio.run(main())
    assert hand.calls == [[0]]
