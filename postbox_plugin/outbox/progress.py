"""What one notifier was given, what of it is settled, and so what has to be written. Pure: no clock, no disk.

A span's position on disk is the first of its clicks that is not settled. Clicks are settled in any order, so one slow
call would hold the position back: it is given a row of its own, and the position moves on.
"""

from __future__ import annotations

import msgspec

from postbox_plugin.outbox.records import OPEN, Changes, Row

__all__ = ["Job", "Progress", "Span"]


class Span(msgspec.Struct, eq=False):
    """A range of clicks, some of which were fetched.

    :ivar end: the last id in it; :data:`.records.OPEN` for the span of new clicks.
    :ivar cursor: the first id in it that was not fetched.
    :ivar outstanding: ids before the cursor that are not settled, in ascending order, with their jobs.
    """

    end: int
    cursor: int
    outstanding: dict[int, Job] = {}

    @property
    def position(self) -> int:
        """The first id that is not settled."""
        return next(iter(self.outstanding), self.cursor)


class Job(msgspec.Struct, eq=False):
    """A click on its way to a notifier.

    :ivar id: its id in the journal.
    :ivar body: its JSON.
    :ivar tries: how often it failed.
    :ivar first: when it first failed.
    :ivar span: the span it was fetched from; ``None`` when it has a row of its own.
    """

    id: int
    body: bytes
    tries: int = 0
    first: float | None = None
    span: Span | None = None


class Progress:
    """Where one notifier is.

    :param name: the notifier.
    :param lag: how far a position may stay behind before what holds it back gets a row of its own.
    :param split: when more new clicks than this were not fetched, they become a span of their own, so that newer ones
        need not queue behind them.
    """

    def __init__(self, name: str, *, lag: int = 1000, split: int = 1000) -> None:
        self.name = name
        self._lag = lag
        self._split = split
        self._rows: dict[int, Row | None] = {}
        self._moved: dict[int, int] = {}
        self._paused: str | None = None
        self._error: tuple[str, float] | None = None
        self.serial = -1
        self.spans: list[Span] = []

    def load(self, serial: int, spans: list[tuple[int, int]]) -> None:
        """Begin with what the journal has.

        :param spans: end and next id of each span, the oldest first.
        """
        self.serial = serial
        self.spans = [Span(end, start, {}) for end, start in spans]
        self._rows = {}
        self._moved = {}

    @property
    def head(self) -> Span:
        """The span of new clicks."""
        return self.spans[-1]

    @property
    def backlog(self) -> Span | None:
        """The oldest span before the head that has something to fetch."""
        return next((span for span in self.spans[:-1] if span.cursor <= span.end), None)

    def split(self, last_id: int) -> None:
        """Cut a long head off from the clicks to come."""
        head = self.head
        if last_id - head.cursor >= self._split:
            self.spans.insert(-1, Span(last_id, head.cursor, head.outstanding))
            for job in head.outstanding.values():
                job.span = self.spans[-2]
            head.outstanding = {}
            head.cursor = last_id + 1
            self._moved[last_id] = self.spans[-2].position
            self._moved[OPEN] = head.position

    def fetched(self, span: Span, jobs: list[Job], cursor: int) -> None:
        """These clicks of a span are on their way; up to ``cursor`` there are no others."""
        for job in jobs:
            job.span = span
            span.outstanding[job.id] = job
        span.cursor = cursor
        self._moved[span.end] = span.position
        self._forget_done()

    def skip(self, last_id: int) -> int:
        """Pass over all clicks that were not fetched; how far that was."""
        skipped = 0
        for span in self.spans:
            stop = min(span.end, last_id) + 1
            skipped += max(0, stop - span.cursor)
            span.cursor = max(span.cursor, stop)
            self._moved[span.end] = span.position
        self._forget_done()
        return skipped

    def settled(self, job: Job) -> None:
        """The notifier took a click, or it is of no interest any more."""
        if not self._leave(job):
            self._rows[job.id] = None

    def failed(self, job: Job, row: Row) -> None:
        """The notifier did not take a click."""
        self._leave(job)
        self._rows[job.id] = row

    def detach(self, now: float, *, everything: bool = False) -> None:
        """Give clicks that hold a position back rows of their own; ``everything`` when the service stops."""
        for span in list(self.spans):
            while span.outstanding and (everything or span.cursor - span.position > self._lag):
                job = next(iter(span.outstanding.values()))
                self.failed(job, Row("retry", job.tries, job.first, now, ""))

    def paused(self, reason: str) -> None:
        """Keep a pause."""
        self._paused = reason

    def erred(self, error: str, now: float) -> None:
        """Keep an error to show."""
        self._error = (error, now)

    def unsaved_rows(self) -> set[int]:
        """Clicks whose rows are not written as they should be."""
        return set(self._rows)

    def changes(self) -> Changes | None:
        """What has to be written; it counts as written until :meth:`unsaved` says otherwise."""
        if not (self._moved or self._rows or self._paused is not None or self._error):
            return None
        changes = Changes(
            name=self.name,
            serial=self.serial,
            spans=self._moved,
            rows=self._rows,
            paused=self._paused,
            error=self._error,
        )
        self._moved, self._rows, self._paused, self._error = {}, {}, None, None
        return changes

    def unsaved(self, changes: Changes) -> None:
        """Take back what could not be written; what is newer stands."""
        if changes.serial == self.serial:
            self._moved = {**changes.spans, **self._moved}
            self._rows = {**changes.rows, **self._rows}
        self._paused = changes.paused if self._paused is None else self._paused
        self._error = self._error or changes.error

    def _leave(self, job: Job) -> bool:
        """Take a job out of its span; whether it was in one."""
        span, job.span = job.span, None
        if span is None:
            return False
        before = span.position
        del span.outstanding[job.id]
        if span.position != before:
            self._moved[span.end] = span.position
            self._forget_done()
        return True

    def _forget_done(self) -> None:
        self.spans = [span for span in self.spans if span.end == OPEN or span.position <= span.end]
