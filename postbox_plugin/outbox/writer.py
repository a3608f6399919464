"""Group commit: all that waits for the disk goes there together.

In a thread, so that a disk that stalls holds nobody up; but in the loop where that serves more readers: in a rush,
while commits are quick.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

from postbox_plugin.counts import Counts
from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import Changes, Entry

__all__ = ["Source", "Writer"]

log = logging.getLogger("postbox.outbox")

Result = TypeVar("Result")

BATCH: Final = 1000
"""The most clicks of one commit."""
WAITING: Final = 20_000
"""The most clicks that wait in memory for a disk that stalls or fails."""
WAITING_BYTES: Final = 64_000_000
"""The most bytes of them."""
RETRY: Final = 1.0
"""Seconds after a failed commit before the clicks that wait are tried again."""
SETTLE_DELAY: Final = 0.1
"""Seconds that acknowledgements wait for clicks whose commit they can share; losing them costs a repetition."""
RUSH: Final = 1000
"""Clicks a second from which on delivery leaves the processor to readers."""
RUSH_WINDOW: Final = 0.1
"""Seconds over which they are counted."""
CALM: Final = 30.0
"""Seconds without a slow commit after which the loop commits by itself again."""


Done = Callable[[OutboxError | None], None]
"""Told of a click when it is on disk, or why it never will be."""


class Source(Protocol):
    """Somebody with changes to be written along with the next commit: the courier of one notifier."""

    def changes(self) -> Changes | None:
        """What is to be written now, if anything."""

    def unsaved(self, changes: Changes) -> None:
        """Take back what could not be written."""


class _Call:
    """A piece of work on the journal, and who waits for it."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Journal], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Batch:
    """All that goes to the journal at once."""

    def __init__(self) -> None:
        self.puts: list[tuple[Entry, Done]] = []
        self.changes: list[tuple[Source, Changes]] = []
        self.writes: list[_Call] = []
        self.reads: list[_Call] = []
        self.housekeeping = False
        self.error: OutboxError | None = None
        self.seconds = 0.0
        self.more_to_sweep = False

    def __bool__(self) -> bool:
        return bool(self.puts or self.changes or self.writes or self.reads or self.housekeeping)

    def run(self, journal: Journal) -> None:
        """Do it all; in the loop or in the thread. Raises nothing: every call knows how it went."""
        started = time.perf_counter()
        if self.puts or self.changes or self.writes or self.housekeeping:
            try:
                with journal.transaction():
                    journal.append(entry for entry, _ in self.puts)
                    for _, changes in self.changes:
                        journal.settle(changes)
                    for call in self.writes:
                        call.result = call.work(journal)
                    self.more_to_sweep = journal.sweep()
            except Exception as error:
                self.error = _as_outbox_error(error)
                for call in self.writes:
                    call.error = self.error
        self.seconds = time.perf_counter() - started
        for call in self.reads:
            try:
                call.result = call.work(journal)
            except Exception as error:
                call.error = _as_outbox_error(error)


class Writer:
    """The one door to the journal while a service runs.

    Clicks whose commit fails stay in memory, in their order, and are tried again until the disk takes them.

    :param journal: the journal.
    :param slow: a commit that took longer, in seconds, makes those after it go to a thread.
    :param on_commit: called in the loop after each commit that brought clicks.
    :param counts: where commits are counted.
    :ivar error: why nothing can be written at the moment; ``""`` where all is well.
    """

    def __init__(self, journal: Journal, *, slow: float, on_commit: Callable[[], None], counts: Counts) -> None:
        self._counts = counts
        self._journal = journal
        self._slow = slow
        self._on_commit = on_commit
        self._sources: list[Source] = []
        self._puts: deque[tuple[Entry, Done]] = deque()
        self._put_bytes = 0
        self._being_written = 0
        self._held = False
        self._last_chance = False
        self._arrived = 0
        self._counted_from = 0.0
        self._rush_until = 0.0
        self._writes: list[_Call] = []
        self._reads: list[_Call] = []
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postbox-outbox")
        self._threaded_until = 0.0
        self._busy = False
        self._scheduled = False
        self._settling: asyncio.TimerHandle | None = None
        self._settle_now = False
        self._sweep_now = False
        self._tidy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.error = ""

    @property
    def threaded(self) -> bool:
        """Whether commits are made in the thread now."""
        return not self.in_a_rush or self._loop.time() < self._threaded_until

    def add(self, source: Source) -> None:
        """From now on, write what this source has to have written."""
        self._sources.append(source)

    @property
    def waiting(self) -> int:
        """How many clicks wait in memory for the disk."""
        return len(self._puts) + self._being_written

    @property
    def in_a_rush(self) -> bool:
        """Whether clicks come in so fast that readers would wait for anything else that is done."""
        return self._loop.time() < self._rush_until

    def put(self, entry: Entry, done: Done) -> None:
        """Journal a click.

        :param done: called in the loop when the click is on disk, or when it is given up. It must not raise.
        :raises OutboxError: if too many clicks wait for the disk already.
        """
        self._check_open()
        if len(self._puts) >= WAITING or self._put_bytes >= WAITING_BYTES:
            raise OutboxError(f"{len(self._puts)} clicks wait for the disk already")
        self._puts.append((entry, done))
        self._put_bytes += len(entry.body)
        if not self._held:
            self._schedule()

    async def write(self, work: Callable[[Journal], Result]) -> Result:
        """Do ``work`` in the next transaction.

        :raises OutboxError: if the transaction fails.
        """
        return await self._call(work, self._writes)

    async def read(self, work: Callable[[Journal], Result]) -> Result:
        """Do ``work``, which changes nothing, after the next transaction.

        :raises OutboxError: if it fails.
        """
        return await self._call(work, self._reads)

    async def steps(self, steps: Callable[[Journal], Iterator[Result]]) -> list[Result]:
        """Do work that comes in steps, each in a transaction of its own, with clicks between them.

        :raises OutboxError: if a step fails; those before it are done.
        """
        running: Iterator[Result] | None = None
        done = object()

        def step(journal: Journal) -> Any:
            nonlocal running
            running = running or steps(journal)
            return next(running, done)

        results = []
        while (result := await self.write(step)) is not done:
            results.append(result)
        return results

    def settle(self, *, now: bool = False) -> None:
        """A source has changes: write them with the next clicks, or after a short while; or at once."""
        if now:
            self._settle_now = True
            self._schedule()
        elif self._settling is None:
            self._settling = self._loop.call_later(SETTLE_DELAY, self._settle_due)

    def tidy(self) -> None:
        """Copy the write-ahead log into the file, and shrink that, though nothing happens."""
        self._tidy = self._sweep_now = True
        self._schedule()

    async def drain(self) -> None:
        """Wait until nothing waits for the disk: what it does not take now is given up."""
        self._last_chance = True
        self._held = False
        self.settle(now=True)
        await self._idle.wait()

    def shut(self) -> None:
        """Take nothing more, and end the thread."""
        self._closed = True
        if self._settling is not None:
            self._settling.cancel()
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[Journal], Result], queue: list[_Call]) -> Result:
        self._check_open()
        future: asyncio.Future[Result] = self._loop.create_future()
        queue.append(_Call(work, future))
        self._schedule()
        return await future

    def _check_open(self) -> None:
        if self._closed:
            raise OutboxError("the outbox is not running")

    def _settle_due(self) -> None:
        self._settling = None
        self.settle(now=True)

    def _schedule(self) -> None:
        self._idle.clear()
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:
            self._idle.set()
        elif self.threaded:
            self._in_thread(lambda: batch.run(self._journal), lambda: self._finish(batch))
        else:
            batch.run(self._journal)
            self._finish(batch)

    def _take(self) -> _Batch:
        batch = _Batch()
        while self._puts and len(batch.puts) < BATCH and not self._held:
            batch.puts.append(self._puts.popleft())
        self._put_bytes -= sum(len(entry.body) for entry, _ in batch.puts)
        self._being_written = len(batch.puts)
        batch.writes, self._writes = self._writes, []
        batch.reads, self._reads = self._reads, []
        batch.housekeeping, self._sweep_now = self._sweep_now, False
        if batch.puts or batch.writes or self._settle_now:
            self._settle_now = False
            batch.changes = [(source, changes) for source in self._sources if (changes := source.changes()) is not None]
        return batch

    def _finish(self, batch: _Batch) -> None:
        if batch.seconds > self._slow:
            self._threaded_until = self._loop.time() + CALM
        self._being_written = 0
        self._count(batch)
        if batch.error is not None and batch.writes and not _may_pass(batch.error):
            # It was a command that failed, and nothing is said of the clicks that shared the transaction.
            self._keep(batch.puts)
        elif batch.error is not None and _may_pass(batch.error) and not self._last_chance:
            self._note(batch)
            self._keep(batch.puts)
            self._hold()
        else:
            self._note(batch)
            for _, done in batch.puts:
                done(batch.error)
        for source, changes in batch.changes:
            if batch.error is not None:
                source.unsaved(changes)
        for call in (*batch.writes, *batch.reads):
            call.resolve()
        if batch.puts and batch.error is None:
            self._on_commit()
        if batch.more_to_sweep:
            # In its own time: other work that waits goes first.
            self._sweep_now = True
        if batch.error is None and (self._tidy or self._journal.checkpoint_due):
            self._tidy = False
            self._in_thread(self._checkpoint, lambda: None)
        elif not self._busy:
            self._schedule()

    def _count(self, batch: _Batch) -> None:
        if batch.puts and batch.error is None:
            self._counts.commit_clicks.add(len(batch.puts))
            self._counts.commit_seconds.add(batch.seconds)
        now = self._loop.time()
        self._arrived += len(batch.puts)
        if now - self._counted_from < RUSH_WINDOW:
            return
        if self._arrived > RUSH * (now - self._counted_from):
            self._rush_until = now + 2 * RUSH_WINDOW
        self._arrived, self._counted_from = 0, now

    def _note(self, batch: _Batch) -> None:
        if batch.error is not None:
            if not self.error:
                log.error("the outbox cannot be written: %s", batch.error)
            self.error = str(batch.error)
            # Whoever has changes tries again; not at once, for the disk may be full for hours.
            self.settle()
        elif self.error and (batch.puts or batch.changes or batch.writes):
            log.warning("the outbox can be written again")
            self.error = ""
            self._let_go()

    def _keep(self, puts: list[tuple[Entry, Done]]) -> None:
        """Keep clicks for another try."""
        self._puts.extendleft(reversed(puts))
        self._put_bytes += sum(len(entry.body) for entry, _ in puts)

    def _hold(self) -> None:
        """Let the disk alone for a moment."""
        if not self._held:
            self._held = True
            self._loop.call_later(RETRY, self._let_go)

    def _let_go(self) -> None:
        self._held = False
        if self._puts:
            self._schedule()

    def _checkpoint(self) -> None:
        try:
            self._journal.checkpoint()
        except OutboxError as error:
            log.error("the outbox's write-ahead log cannot be copied into the file: %s", error)  # noqa: TRY400

    def _in_thread(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        self._busy = True

        def finished(_: asyncio.Future[None]) -> None:
            self._busy = False
            then()
            self._schedule()

        self._loop.run_in_executor(self._thread, work).add_done_callback(finished)


def _may_pass(error: OutboxError) -> bool:
    """Whether the disk may take later what it did not take now: not so if it was the clicks that were wrong."""
    return isinstance(error.__cause__, OSError | sqlite3.DatabaseError) and not isinstance(
        error.__cause__, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _as_outbox_error(error: Exception) -> OutboxError:
    if isinstance(error, OutboxError):
        return error
    log.error("the outbox failed in a way that it should not", exc_info=error)
    return OutboxError(f"{type(error).__name__}: {error}")
