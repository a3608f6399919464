"""Batches: what waits at the same time shares one call that blocks."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Final, Generic, TypeVar

from postbox_hooks._threads import Thread
from postbox_plugin import PostboxError

__all__ = ["Batches", "Busy"]

PAUSES: Final = (0.1, 0.2, 0.4, 0.8)
"""Seconds, about, before an item is offered again to whoever was :class:`Busy`. Its thread waits with it, so that fewer
items are offered meanwhile."""

Item = TypeVar("Item")
Batch = dict["asyncio.Future[Exception | None]", Item]
"""The items, by who waits for each."""


class Busy(PostboxError):
    """An item was not taken for want of room: in a moment it may be."""


class Batches(Generic[Item]):
    """Hands items on in batches. What waits when a thread is free goes along, up to the limits.

    :param hand_on: called with a batch, in one of the threads. It returns what became of each item, in their order:
        ``None`` if it was taken, an error for whoever waits for it if not. What it raises is raised to all of them.
    :param threads: where to call it: there are so many calls at once, at most.
    :param most: the most items in a batch.
    :param most_bytes: the most bytes in a batch; an item that is bigger makes a batch of its own.
    """

    def __init__(
        self,
        hand_on: Callable[[Sequence[Item]], Sequence[Exception | None]],
        threads: Iterable[Thread],
        *,
        most: int = sys.maxsize,
        most_bytes: int = sys.maxsize,
    ) -> None:
        self._hand_on: Final = hand_on
        self._most: Final = most
        self._most_bytes: Final = most_bytes
        self._threads: Final = list(threads)
        self._idle: Final = list(self._threads)
        self._waiting: Final[dict[asyncio.Future[Exception | None], tuple[Item, int]]] = {}
        self._calls: Final[dict[Thread, Batch[Item]]] = {}

    async def put(self, item: Item, size: int = 0) -> None:
        """Hand an item on, and return when it was taken.

        :param item: the item.
        :param size: its bytes, where their number is limited.
        :raises Exception: the error that ``hand_on`` has for it.
        """
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[Exception | None] = loop.create_future()
        if not self._waiting:
            # Not at once: what else comes in this turn of the loop goes along.
            loop.call_soon(self._go)
        self._waiting[taken] = item, size
        try:
            error = await taken
        finally:
            # Whoever gives up before the call will bring the item again.
            self._waiting.pop(taken, None)
        if error is not None:
            # Others may be raised the same one: without this, it would gather the traceback of each.
            raise error.with_traceback(None)

    def close(self) -> None:
        """Give up what was not taken, and let the threads end after the calls that they are at."""
        for taken in chain(self._waiting, *self._calls.values()):
            taken.cancel()
        self._waiting.clear()
        self._calls.clear()
        self._idle.clear()
        for thread in self._threads:
            thread.end()

    def _go(self) -> None:
        while self._waiting and self._idle:
            self._call(self._idle.pop(), self._cut(), iter(PAUSES))

    def _cut(self) -> Batch[Item]:
        batch: Batch[Item] = {}
        left = self._most_bytes
        for taken, (item, size) in self._waiting.items():
            left -= size
            if batch and (len(batch) == self._most or left < 0):
                break
            batch[taken] = item
        for taken in batch:
            del self._waiting[taken]
        return batch

    # With callbacks: a task for each batch would take longer than what it waits for.
    def _call(self, thread: Thread, batch: Batch[Item], pauses: Iterator[float]) -> None:
        self._calls[thread] = batch
        thread.call(self._outcomes, list(batch.values())).add_done_callback(partial(self._called, thread, pauses))

    def _called(
        self, thread: Thread, pauses: Iterator[float], outcomes: asyncio.Future[Sequence[Exception | None]]
    ) -> None:
        batch = self._calls.pop(thread, None)
        if batch is None:
            return  # closed meanwhile
        pause = next(pauses, None)
        left = _settle(batch, outcomes.result(), is_last=pause is None)
        if left and pause is not None:
            self._calls[thread] = left
            jittered = pause * random.uniform(0.5, 1.5)  # noqa: S311
            asyncio.get_running_loop().call_later(jittered, self._call_again, thread, pauses)
        else:
            self._idle.append(thread)
            self._go()

    def _call_again(self, thread: Thread, pauses: Iterator[float]) -> None:
        if thread in self._calls:
            self._call(thread, self._calls[thread], pauses)

    def _outcomes(self, items: Sequence[Item]) -> Sequence[Exception | None]:
        try:
            outcomes = self._hand_on(items)
            assert len(outcomes) == len(items), "an outcome for each item"
        except Exception as error:
            return [error] * len(items)
        return outcomes


def _settle(batch: Batch[Item], outcomes: Iterable[Exception | None], *, is_last: bool) -> Batch[Item]:
    """Tell everyone what became of their item; what is left is to be offered again."""
    again = {}
    for (taken, item), error in zip(batch.items(), outcomes, strict=True):
        if taken.done():
            continue
        if isinstance(error, Busy) and not is_last:
            again[taken] = item
        else:
            taken.set_result(error)
    return again
