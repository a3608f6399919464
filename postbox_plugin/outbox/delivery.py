"""One courier per notifier: it fetches clicks, calls the hook, acknowledges, and backs off."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final, NamedTuple

from postbox_plugin.click import Click
from postbox_plugin.counts import Counts
from postbox_plugin.errors import OutboxError, PauseNotifier, RetryLater
from postbox_plugin.outbox.progress import Job, Progress, Span
from postbox_plugin.outbox.records import Changes, Row, Stored
from postbox_plugin.outbox.retry import Breaker, next_try
from postbox_plugin.outbox.telling import Teller, clean, describe

if TYPE_CHECKING:
    from postbox_plugin.notifier import Notifier
    from postbox_plugin.outbox.journal import Journal
    from postbox_plugin.outbox.writer import Writer

__all__ = ["Courier"]

KEEP_DEAD: Final = 30 * 86400.0
"""Seconds that dead letters are kept."""
PREFETCH: Final = 16
"""Clicks fetched ahead, at least; else as many as may be in flight."""
PEEK: Final = 60.0
"""Seconds after which the clock is looked at again: it may have been put forward."""
UNSAVED: Final = 0.1
"""Seconds after which to look again for what could not be written."""
GIVE_WAY: Final = 0.1
"""Seconds between fetches while readers are in a rush: their clicks are safe on disk, and can be delivered after it."""
START_CAP: Final = 60.0
"""The longest pause between attempts to start a notifier, in seconds."""


class _Fetched(NamedTuple):
    serial: int
    last_id: int
    due: list[Stored]
    head: list[Stored]
    backlog: list[Stored]
    next_due: float | None


class Courier:
    """Delivers the clicks of one notifier, at most so many at once; memory holds those, and as many fetched ahead.

    :param notifier: whom to deliver to.
    :param writer: the door to the journal.
    :param journal: the journal, for what it knows without being asked: its newest id and its serial.
    :param clock: the time, in seconds since 1970.
    :param counts: where deliveries are counted.
    :param chance: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        notifier: Notifier,
        writer: Writer,
        journal: Journal,
        *,
        clock: Callable[[], float],
        counts: Counts,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.notifier: Final = notifier
        self._writer = writer
        self._journal = journal
        self._clock = clock
        # A pause is over when its seconds are, even if the clock is put back meanwhile.
        self._steady_clock = asyncio.get_running_loop().time
        self._counts = counts
        self._chance = chance
        self._breaker = Breaker(chance)
        self._teller = Teller(notifier.name, self._steady_clock)
        self._progress = Progress(notifier.name)
        self._ready: deque[Job] = deque()
        self._in_flight: dict[int, Job] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[None] | None = None
        self._next_due: float | None = 0.0
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._paused: str | None = None
        self._started = False
        self._start_failed = False
        self._stopping = False
        self._epoch = 0

    # What the outbox calls

    def start(self) -> None:
        """Begin, in a task of its own: start the notifier, then deliver."""
        self._writer.add(self)
        self._main = asyncio.create_task(self._run(), name=f"postbox-courier-{self.notifier.name}")
        self._main.add_done_callback(self._report)

    async def stop(self, limit: float) -> None:
        """Deliver what waits within ``limit`` seconds, cut the calls that are in flight then, and stop the notifier.

        A notifier that fails or is paused is not waited for: what is its stays on disk.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + limit
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._can_drain():
                    self._moved.clear()
                    await self._moved.wait()
        left = max(0.0, until - loop.time())
        self._stopping = True
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main], timeout=max(left, 1.0))
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=left)
            for worker in late:
                worker.cancel()
            if late:
                # One that catches its cancellation and goes on is left behind.
                await asyncio.wait(late, timeout=1.0)
        self._progress.detach(self._clock(), everything=True)
        if self._started:
            try:
                async with asyncio.timeout(limit):
                    await self.notifier.stop()
            except Exception as error:
                self._teller.does_not_stop(error)

    def _can_drain(self) -> bool:
        """Whether there is something left that a notifier in good health is going to take."""
        if self._start_failed or self._breaker.opened or not self._allowed():
            return False
        if not self._started or not self._progress.spans:  # it has only just begun, and what waits is not known yet
            return True
        waiting = self._progress.backlog or self._progress.head.cursor <= self._journal.last_id
        return bool(waiting or self._ready or self._workers)

    @property
    def to_drain(self) -> int:
        """How many clicks a stop still waits for."""
        if not self._can_drain():
            return 0
        last_id = self._journal.last_id
        ahead = sum(max(0, min(span.end, last_id) + 1 - span.cursor) for span in self._progress.spans)
        return ahead + len(self._ready) + len(self._in_flight)

    def wake(self) -> None:
        """There may be something to do."""
        self._changed.set()

    def resume(self) -> None:
        """Forget a pause and all failures: a person says that the notifier works again."""
        self._paused = None
        self.hurry()

    def hurry(self) -> None:
        """Forget failures, and look for retries that are due: a person asked for it."""
        self._breaker.reset()
        self._teller.forget()
        self.look()

    def look(self) -> None:
        """Look for retries that are due: they may be due at other times than was known."""
        self._next_due = 0.0
        self.wake()

    def skip(self) -> int:
        """Drop everything that was not tried yet, except what is on its way; how many clicks that was."""
        fetched = len(self._ready)
        self.drop()
        return fetched + self._progress.skip(self._journal.last_id)

    def drop(self, ids: Container[int] | None = None) -> None:
        """Drop fetched clicks that are not on their way yet: those with these ids, or all."""
        kept = deque[Job]()
        for job in self._ready:
            if ids is None or job.id in ids:
                self._progress.settled(job)
            else:
                kept.append(job)
        self._ready = kept
        self._epoch += 1
        self._writer.settle()

    def changes(self) -> Changes | None:
        """See :class:`.writer.Source`."""
        self._progress.detach(self._clock())
        return self._progress.changes()

    def unsaved(self, changes: Changes) -> None:
        """See :class:`.writer.Source`."""
        self._progress.unsaved(changes)
        # What is due among them is only found once they are written.
        self._look_at(self._clock() + UNSAVED)

    # The courier's own task

    async def _run(self) -> None:
        await self._begin()
        while True:
            self._changed.clear()
            if self._writer.in_a_rush and not self._ready:
                await asyncio.sleep(GIVE_WAY)
            try:
                await self._fill()
            except OutboxError as error:
                self._teller.cannot_read(error)
                await asyncio.sleep(1.0)
                self.wake()
            self._spawn()
            self._moved.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_length()):
                    await self._changed.wait()

    async def _begin(self) -> None:
        delay = 1.0
        while True:
            try:
                await self.notifier.start()
                self._started = True
                return
            except Exception as error:
                self._start_failed = True
                self._teller.does_not_start(error)
                self._note(error)
            await asyncio.sleep(delay * (0.5 + 0.5 * self._chance()))
            delay = min(2 * delay, START_CAP)

    def _pause_length(self) -> float:
        waits = [PEEK]
        pause = self._breaker.until - self._steady_clock()
        if pause > 0:
            waits.append(pause)
        elif self._next_due is not None and self._room() > 0:
            waits.append(max(0.0, self._next_due - self._clock()))
        return min(waits)

    def _room(self) -> int:
        """How many clicks to fetch now; 0 while there are enough, so that they are fetched many at a time."""
        allowed = self._allowed()
        if not allowed:
            return 0
        ahead = max(PREFETCH, self.notifier.concurrency) if allowed > 1 else 1
        return ahead - len(self._ready) if len(self._ready) <= ahead // 2 else 0

    def _allowed(self) -> int:
        if self._paused is not None or self._stopping:
            return 0
        return self._breaker.allowed(self._steady_clock(), self.notifier.concurrency)

    async def _fill(self) -> None:
        if self._progress.serial != self._journal.serial:
            await self._load()
        room = self._room()
        if room > 1:
            # Not while clicks are held back: then the backlog is cut off at once, when it can drain.
            self._progress.split(self._journal.last_id)
        now = self._clock()
        is_due = self._next_due is not None and self._next_due <= now
        head, backlog = self._progress.head, self._progress.backlog
        if room <= 0 or not (is_due or backlog or head.cursor <= self._journal.last_id):
            return
        epoch = self._epoch
        unsaved = self._progress.unsaved_rows()
        known = {*self._in_flight, *(job.id for job in self._ready), *unsaved}
        name = self.notifier.name

        def fetch(journal: Journal) -> _Fetched:
            # Each kind gets its share where there are others: neither a backlog nor a heap of retries keeps new clicks
            # waiting.
            due = journal.due(name, now, len(known) + (room + 1) // 2) if is_due else []
            passed = any(stored.id in unsaved for stored in due)
            due = [stored for stored in due if stored.id not in known][: (room + 1) // 2]
            left = room - len(due)
            fresh = journal.waiting(name, head.cursor, head.end, (left + 1) // 2 if backlog else left)
            old = journal.waiting(name, backlog.cursor, backlog.end, left - len(fresh)) if backlog else []
            next_due = now + UNSAVED if passed else journal.next_due(name, now)
            return _Fetched(journal.serial, journal.last_id, due, fresh, old, next_due)

        if is_due:
            # Rows of clicks that were settled meanwhile would be found in their old state.
            self._writer.settle(now=True)
            # Before the wait: what fails meanwhile has its say.
            self._next_due = None
        try:
            fetched = await self._writer.read(fetch)
        except OutboxError:
            self._look_at(now)
            raise
        if epoch != self._epoch or fetched.serial != self._progress.serial:
            self._look_at(now)
            self.wake()
            return
        if is_due:
            # A full hand means that there may be more.
            self._look_at(now if len(fetched.due) == (room + 1) // 2 else fetched.next_due)
        self._take(fetched.due, None, 0, 0)
        left = room - len(fetched.due)
        self._take(fetched.head, head, (left + 1) // 2 if backlog else left, fetched.last_id)
        if backlog:
            self._take(fetched.backlog, backlog, left - len(fetched.head), backlog.end)
        self._writer.settle()

    async def _load(self) -> None:
        """Begin with the file as it is: at the start, or after a damaged one was set aside."""
        name = self.notifier.name
        read = await self._writer.read(lambda journal: (journal.serial, journal.spans(name), journal.paused(name)))
        serial, spans, self._paused = read
        for job in (*self._ready, *self._in_flight.values()):
            job.span = None
        self._progress.load(serial, spans)
        self._next_due = 0.0

    def _take(self, stored: list[Stored], span: Span | None, asked: int, last_id: int) -> None:
        jobs = [Job(*one) for one in stored]
        if span is not None and asked > 0:
            cursor = jobs[-1].id + 1 if len(jobs) == asked and jobs else max(span.cursor, last_id + 1)
            self._progress.fetched(span, jobs, cursor)
        self._ready.extend(jobs)

    def _spawn(self) -> None:
        free = self._allowed() - len(self._workers)
        for _ in range(min(free, len(self._ready))):
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._gone)

    def _gone(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self._moved.set()
        self.wake()
        self._report(worker)

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._teller.is_wrong(error)

    # One call

    async def _work(self) -> None:
        while self._ready and len(self._workers) <= self._allowed():
            job = self._ready.popleft()
            self._in_flight[job.id] = job
            opened = self._breaker.opened
            try:
                await self._deliver(job, opened)
            finally:
                del self._in_flight[job.id]
            self._writer.settle()
            if self._room():
                self.wake()

    async def _deliver(self, job: Job, opened: int) -> None:
        now = self._clock
        try:
            click = Click.from_json(job.body)
        except ValueError as error:
            self._bury(job, error)
            return
        began = self._steady_clock()
        try:
            await self.notifier.deliver(click)
        except PauseNotifier as error:
            self._pause(error)
            self._progress.failed(job, Row("retry", job.tries, job.first, now(), describe(error)))
        except Exception as error:
            after = error.after if isinstance(error, RetryLater) else 0.0
            self._breaker.failed(self._steady_clock(), opened, after)
            self._teller.fails(error, began=began, given_up=self._breaker.opened > 0)
            self._again(job, error, after)
        else:
            self._progress.settled(job)
            self._counts.deliveries[self.notifier.name, "delivered"] += 1
            self._teller.works()
            if self._breaker.opened:
                self.wake()
            self._breaker.reset()

    def _again(self, job: Job, error: Exception, after: float) -> None:
        now = self._clock()
        self._note(error)
        self._counts.deliveries[self.notifier.name, "failed"] += 1
        job.tries += 1
        job.first = now if job.first is None else job.first
        due = next_try(now, job.first, job.tries, retry_for=self.notifier.retry_for, after=after, chance=self._chance)
        if due is None:
            self._bury(job, error)
            return
        self._progress.failed(job, Row("retry", job.tries, job.first, due, describe(error)))
        self._look_at(due)

    def _look_at(self, due: float | None) -> None:
        if due is not None:
            self._next_due = due if self._next_due is None else min(due, self._next_due)

    def _bury(self, job: Job, error: Exception) -> None:
        now = self._clock()
        self._counts.deliveries[self.notifier.name, "dead"] += 1
        self._teller.gives_up(error)
        self._progress.failed(job, Row("dead", job.tries, job.first, now + KEEP_DEAD, describe(error)))

    def _pause(self, error: PauseNotifier) -> None:
        self._note(error)
        if self._paused is not None:
            return
        self._paused = str(error) or type(error).__name__
        self._progress.paused(clean(self._paused))
        self._writer.settle(now=True)
        self._teller.is_paused(error)

    def _note(self, error: Exception) -> None:
        self._progress.erred(describe(error), self._clock())
        self._writer.settle()
