"""What is to be written of a notifier's progress, without a disk."""

from __future__ import annotations

import random

from postbox_plugin.outbox.progress import Job, Progress
from postbox_plugin.outbox.records import OPEN, Row

ROW = Row("retry", 1, 0.0, 5.0, "refused")


def begun(*spans: tuple[int, int], lag: int = 1000, split: int = 1000) -> Progress:
    """A progress that has nothing to write."""
    progress = Progress("log", lag=lag, split=split)
    progress.load(0, list(spans) or [(OPEN, 1)])
    return progress


def fetch(progress: Progress, *ids: int) -> dict[int, Job]:
    """Fetch these clicks from the head."""
    jobs = {one: Job(one, b"") for one in ids}
    progress.fetched(progress.head, list(jobs.values()), ids[-1] + 1)
    return jobs


def spans(progress: Progress) -> dict[int, int]:
    """The spans that are to be written."""
    changes = progress.changes()
    return changes.spans if changes else {}


def test_the_position_is_the_first_click_that_is_not_settled() -> None:
    """Clicks are settled in any order; the position never passes one that is on its way."""
    progress = begun()
    jobs = fetch(progress, 1, 2, 3)
    progress.settled(jobs[2])
    assert spans(progress) == {OPEN: 1}
    progress.settled(jobs[1])
    assert spans(progress) == {OPEN: 3}
    progress.settled(jobs[3])
    assert spans(progress) == {OPEN: 4}
    assert progress.changes() is None


def test_the_position_passes_a_failed_click_that_has_a_row() -> None:
    """A failure is kept in a row of its own, written together with the position."""
    progress = begun()
    jobs = fetch(progress, 1, 2)
    progress.failed(jobs[1], ROW)
    changes = progress.changes()
    assert changes is not None
    assert (changes.spans, changes.rows) == ({OPEN: 2}, {1: ROW})


def test_a_slow_call_gets_a_row_so_that_the_position_moves_on() -> None:
    """A call that hangs does not make thousands of others be repeated after a crash."""
    progress = begun(lag=10)
    jobs = fetch(progress, *range(1, 13))
    for one in range(2, 13):
        progress.settled(jobs[one])
    progress.detach(7.0)
    changes = progress.changes()
    assert changes is not None
    assert changes.spans == {OPEN: 13}
    assert changes.rows == {1: Row("retry", 0, None, 7.0, "")}
    progress.settled(jobs[1])
    changes = progress.changes()
    assert changes is not None
    assert changes.rows == {1: None}


def test_a_long_head_becomes_a_span_of_its_own() -> None:
    """New clicks have a span to themselves while a backlog drains, and the drained one is given up."""
    progress = begun(split=100)
    jobs = fetch(progress, 1, 2)
    progress.split(102)
    assert len(progress.spans) == 1
    progress.split(103)
    assert spans(progress) == {103: 1, OPEN: 104}
    backlog = progress.backlog
    assert backlog is not None
    assert (backlog.cursor, progress.head.cursor) == (3, 104)
    for job in jobs.values():
        progress.settled(job)
    progress.fetched(backlog, [], 104)
    assert spans(progress) == {103: 104}
    assert [span.end for span in progress.spans] == [OPEN]


def test_what_could_not_be_written_is_written_later_unless_something_newer_is_known() -> None:
    """After a failed commit nothing is forgotten, and nothing goes back."""
    progress = begun()
    jobs = fetch(progress, 1, 2, 3)
    progress.failed(jobs[1], ROW)
    progress.erred("refused", 1.0)
    lost = progress.changes()
    assert lost is not None
    progress.settled(jobs[2])
    progress.unsaved(lost)
    changes = progress.changes()
    assert changes is not None
    assert (changes.spans, changes.rows, changes.error) == ({OPEN: 3}, {1: ROW}, ("refused", 1.0))


def test_any_order_of_outcomes_ends_with_every_click_accounted_for() -> None:
    """Over random histories, a click is at every moment beyond the position, in a row, or settled."""
    chance = random.Random(7)
    for _ in range(200):
        progress = begun(lag=5, split=8)
        position, rows, settled, open_jobs, newest = {OPEN: 1}, set[int](), set[int](), list[Job](), 0
        for _ in range(60):
            newest += chance.randrange(6)
            progress.split(newest)
            span = progress.backlog or progress.head
            ids = list(range(span.cursor, min(span.cursor + 3, span.end + 1, newest + 1)))
            if ids:
                jobs = [Job(one, b"") for one in ids]
                progress.fetched(span, jobs, ids[-1] + 1)
                open_jobs += jobs
            while open_jobs and chance.random() < 0.6:
                job = open_jobs.pop(chance.randrange(len(open_jobs)))
                if chance.random() < 0.2:
                    progress.failed(job, ROW)
                else:
                    progress.settled(job)
                    settled.add(job.id)
            progress.detach(0.0)
            changes = progress.changes()
            if changes is not None and chance.random() < 0.3:
                progress.unsaved(changes)
            elif changes is not None:
                position |= changes.spans
                position = {end: start for end, start in position.items() if start <= end}
                for one, row in changes.rows.items():
                    (rows.discard if row is None else rows.add)(one)
            waiting = {one for end, start in position.items() for one in range(start, min(end, newest) + 1)}
            assert waiting | rows | settled >= set(range(1, newest + 1))
