"""The outbox as a whole: what is put is delivered, whatever notifiers, disks and restarts do."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from outboxes import kept

from postbox_plugin import Click
from postbox_plugin.errors import OutboxError, PauseNotifier, RetryLater
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import NotifierStatus, Outbox, schema
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.progress import Job
from postbox_plugin.testing import sample_click


def make_click(event_id: str, to: str = "Reader <reader@example.com>", url: str = "https://example.com/") -> Click:
    """A click with little in it."""
    mail = {"timestamp": "", "messageId": "m", "identityId": "", "commonHeaders": {"to": [to]}}
    detail = {"ipAddress": "", "timestamp": "", "userAgent": "", "url": url}
    record = {"mail": mail, "click": detail, "eventId": event_id, "tracking": {"linkIndex": 0}}
    return msgspec.convert(record, Click)


class Recorder:
    """A notifier that notes what it gets, and fails on request."""

    def __init__(self, name: str = "log", **options: Any) -> None:
        self.seen: list[str] = []
        self.fail: Callable[[str], BaseException | None] = lambda event_id: None
        self.notifier = Notifier(name, click=self.click, **options)

    async def click(self, click: Click) -> None:
        """The hook."""
        error = self.fail(click.event_id)
        if error is not None:
            raise error
        self.seen.append(click.event_id)


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test, and let it fail where it would wait for ever."""
    asyncio.run(asyncio.wait_for(main, 30))


async def until(condition: Callable[[], bool | Awaitable[bool]], within: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)


async def put(outbox: Outbox, *event_ids: str, to: str = "Reader <reader@example.com>") -> None:
    """Put clicks, all at once."""
    await asyncio.gather(*(kept(outbox, make_click(event_id, to)) for event_id in event_ids))


async def status(outbox: Outbox, name: str = "log") -> NotifierStatus:
    """One notifier's line."""
    return next(one for one in await outbox.status() if one.name == name)


def rows(spool: Path, table: str = "click", slot: int = 0) -> int:
    """How many rows a table of a closed outbox file has."""
    with sqlite3.connect(spool / f"outbox-{slot}.db") as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


def ids(count: int, prefix: str = "e") -> list[str]:
    """Event ids."""
    return [f"{prefix}{number}" for number in range(count)]


def jobs_in_memory() -> int:
    """How many clicks are on their way, or fetched ahead."""
    gc.collect()
    # Not isinstance: it asks objects for their class, and lazy ones of other libraries wake up at that.
    return sum(type(one) is Job for one in gc.get_objects())


def test_every_notifier_gets_every_click_and_the_file_is_emptied(tmp_path: Path) -> None:
    """What all have taken is deleted, and nothing else is left."""
    one, two = Recorder("one"), Recorder("two")

    async def main() -> None:
        outbox = Outbox(tmp_path / "spool", [one.notifier, two.notifier])
        await outbox.start()
        await put(outbox, *ids(500))
        await until(lambda: len(one.seen) == len(two.seen) == 500)
        await outbox.stop()

    run(main())
    assert sorted(one.seen) == sorted(two.seen) == sorted(ids(500))
    assert rows(tmp_path / "spool") == rows(tmp_path / "spool", "delivery") == 0


def test_nothing_is_opened_before_start_and_nothing_can_be_put(tmp_path: Path) -> None:
    """An outbox can be made where it is never used; after stop it can be started again."""
    log = Recorder()
    outbox = Outbox(tmp_path / "spool", [log.notifier])
    assert not (tmp_path / "spool").exists()

    async def main() -> None:
        with pytest.raises(OutboxError, match="not running"):
            await kept(outbox, make_click("early"))
        for round_ in range(2):
            states = [outbox.running]
            await outbox.start()
            await outbox.start()
            states.append(outbox.running)
            assert states == [False, True]
            await put(outbox, f"e{round_}")
            await until(lambda: len(log.seen) == round_ + 1)  # noqa: B023 - awaited within the round
            await outbox.stop()
            await outbox.stop()
        with pytest.raises(OutboxError, match="not running"):
            await kept(outbox, make_click("late"))

    run(main())
    # A second loop, too.
    run(_start_and_stop(outbox))
    assert sorted(log.seen) == ["e0", "e1"]


async def _start_and_stop(outbox: Outbox) -> None:
    await outbox.start()
    await outbox.stop()


def test_the_spool_is_private(tmp_path: Path) -> None:
    """The folder is for its owner alone, and so is every file in it."""
    spool = tmp_path / "deep" / "spool"

    async def main() -> None:
        outbox = Outbox(spool, [Recorder().notifier])
        await outbox.start()
        await put(outbox, "e")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.iterdir()}
        await outbox.stop()
        assert stat.S_IMODE(spool.stat().st_mode) == 0o700
        assert {"outbox-0.db", "outbox-0.db-wal", "outbox-0.sock", "outbox-0.lock"} <= set(modes)
        assert set(modes.values()) == {0o600}

    run(main())


def test_clicks_that_wait_together_are_committed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred puts at once are one transaction."""
    sizes: list[int] = []
    append = Journal.append

    def counted(self: Journal, entries: Any) -> None:
        entries = list(entries)
        sizes.append(len(entries))
        append(self, entries)

    monkeypatch.setattr(Journal, "append", counted)

    async def main() -> None:
        outbox = Outbox(tmp_path, [Recorder().notifier])
        await outbox.start()
        await put(outbox, *ids(100))
        await outbox.stop()

    run(main())
    assert [size for size in sizes if size] == [100]


def test_commits_are_made_in_the_loop_only_in_a_rush_and_while_they_are_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread costs readers time when there are very many, and saves it when the disk stalls."""
    in_loop: list[bool] = []
    delay = 0.0
    append = Journal.append

    def slow(self: Journal, entries: Any) -> None:
        entries = list(entries)
        if entries:
            in_loop.append(threading.current_thread() is threading.main_thread())
            time.sleep(delay)
        append(self, entries)

    monkeypatch.setattr(Journal, "append", slow)
    monkeypatch.setattr("postbox_plugin.outbox.writer.RUSH_WINDOW", 10.0)
    log = Recorder()

    async def main() -> None:
        nonlocal delay
        outbox = Outbox(tmp_path, [log.notifier], slow_commit=0.02)
        await outbox.start()
        assert outbox._running is not None
        writer = outbox._running.writer
        await put(outbox, "calm")
        writer._rush_until = writer._loop.time() + 10
        await put(outbox, "rush")
        delay = 0.03
        await put(outbox, "slow")
        await put(outbox, "after")
        await outbox.stop()

    run(main())
    assert in_loop == [False, True, True, False]


def test_in_a_rush_delivery_gives_way_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rush is so many clicks a second; here any click makes one."""
    monkeypatch.setattr("postbox_plugin.outbox.writer.RUSH", 0)
    monkeypatch.setattr("postbox_plugin.outbox.writer.RUSH_WINDOW", 30.0)
    monkeypatch.setattr("postbox_plugin.outbox.delivery.GIVE_WAY", 0.05)
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        assert outbox._running is not None
        writer = outbox._running.writer
        assert not writer.in_a_rush
        await put(outbox, *ids(300))
        assert writer.in_a_rush
        await until(lambda: len(log.seen) == 300)
        assert writer.in_a_rush
        await outbox.stop()

    run(main())


def test_a_disk_that_stalls_holds_nothing_up_but_its_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on while a commit hangs; the clicks that came in meanwhile are committed after it."""
    stalled = threading.Event()
    append = Journal.append

    def stall(self: Journal, entries: Any) -> None:
        stalled.wait(10)
        append(self, entries)

    monkeypatch.setattr(Journal, "append", stall)
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        starting = asyncio.create_task(outbox.start())
        stalled.set()
        await starting
        await put(outbox, "before")
        stalled.clear()
        waiting = asyncio.create_task(put(outbox, *ids(50)))
        for _ in range(20):  # the loop is alive
            await asyncio.sleep(0.005)
        assert not waiting.done()
        stalled.set()
        await waiting
        await until(lambda: len(log.seen) == 51)
        await outbox.stop()

    run(main())


def test_the_file_shrinks_after_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backlog took is used again, and what is more than a spare goes back to the file system."""
    monkeypatch.setattr("postbox_plugin.outbox.journal.SPARE_PAGES", 10)
    monkeypatch.setattr("postbox_plugin.outbox.outbox.HOUSEKEEPING", 0.02)
    file = tmp_path / "outbox-0.db"

    async def main() -> None:
        outbox = Outbox(tmp_path, [Recorder().notifier])
        await outbox.start()
        await asyncio.gather(*(kept(outbox, make_click(event_id, url="x" * 3000)) for event_id in ids(500)))
        await until(lambda: file.stat().st_size > 1_000_000)
        await until(lambda: file.stat().st_size < 100_000)
        await outbox.stop()

    run(main())


def test_without_notifiers_nothing_is_kept(tmp_path: Path) -> None:
    """A service that nobody listens to does not fill its disk."""

    async def main() -> None:
        outbox = Outbox(tmp_path, [])
        await outbox.start()
        await put(outbox, *ids(5))
        await outbox.stop()

    run(main())
    assert rows(tmp_path) == 0


def test_what_was_not_taken_is_delivered_after_a_restart(tmp_path: Path) -> None:
    """A failing notifier's clicks survive the process, with the same event ids, and those taken are not repeated."""
    log = Recorder()
    log.fail = lambda event_id: None if event_id in ("e0", "e1") else ConnectionError("down")

    async def first() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, *ids(200))
        await until(lambda: len(log.seen) == 2)
        await outbox.stop()

    async def second() -> None:
        log.fail = lambda event_id: None
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await until(lambda: len(log.seen) == 200)
        await outbox.stop()

    run(first())
    run(second())
    assert Counter(log.seen) == Counter(ids(200))
    assert rows(tmp_path) == 0


def test_after_a_crash_a_click_that_failed_out_of_turn_is_there_once(tmp_path: Path) -> None:
    """A click that failed while an earlier one was on its way is waited for in its row, and not in its span as well."""
    log = Recorder()

    async def first(click: Click) -> None:
        if click.event_id == "e0":
            await asyncio.Event().wait()
        raise RetryLater(0.5)

    async def crash() -> None:
        outbox = Outbox(tmp_path / "before", [Notifier("log", click=first)], stop_limit=0.0)
        await outbox.start()
        await put(outbox, *ids(3))
        await until(lambda: _retries(outbox, 2))
        now = await status(outbox)
        assert (now.waiting, now.retrying) == (1, 2)
        assert [(one.event_id, one.state) for one in await outbox.list()][2:] == [("e0", "waiting")]
        # What a crash at this moment leaves.
        await asyncio.to_thread(shutil.copytree, tmp_path / "before", tmp_path / "after", ignore=_sockets)
        await outbox.stop()

    async def after() -> None:
        outbox = Outbox(tmp_path / "after", [log.notifier])
        await outbox.start()
        await until(lambda: _is_quiet(outbox))
        await outbox.stop()

    run(crash())
    run(after())
    assert sorted(log.seen) == ids(3)
    assert rows(tmp_path / "after") == rows(tmp_path / "after", "delivery") == 0


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


async def _retries(outbox: Outbox, count: int) -> bool:
    return (await status(outbox)).retrying == count


def test_a_call_that_is_cut_by_stop_is_repeated(tmp_path: Path) -> None:
    """Stop waits for calls in flight as long as it may; what it cuts was not acknowledged."""
    log = Recorder()
    begun = list[str]()

    async def hang(click: Click) -> None:
        begun.append(click.event_id)
        await asyncio.Event().wait()

    async def first() -> None:
        outbox = Outbox(tmp_path, [Notifier("log", click=hang)], stop_limit=0.05)
        await outbox.start()
        await put(outbox, *ids(5))
        await until(lambda: len(begun) == 5)
        await outbox.stop()

    async def second() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await until(lambda: len(log.seen) == 5)
        await outbox.stop()

    run(first())
    run(second())
    assert sorted(log.seen) == ids(5)


def test_stop_lets_calls_in_flight_end(tmp_path: Path) -> None:
    """What a notifier is about to take is acknowledged, and its stop hook comes after it."""
    order = list[str]()

    async def slow(click: Click) -> None:
        order.append("begun")
        await asyncio.sleep(0.1)
        order.append("taken")

    async def main() -> None:
        outbox = Outbox(tmp_path, [Notifier("log", click=slow, stop=lambda: order.append("stopped"))])
        await outbox.start()
        await put(outbox, "e")
        await until(lambda: order == ["begun"])
        await outbox.stop()

    run(main())
    assert order == ["begun", "taken", "stopped"]
    assert rows(tmp_path) == 0


def test_a_notifier_that_raises_hangs_or_blocks_does_not_concern_the_others(tmp_path: Path) -> None:
    """Puts return and the others are served, whatever one does."""
    good, bad = Recorder("good"), Recorder("bad")
    bad.fail = lambda event_id: ValueError("\udcff is no text")
    release = threading.Event()

    async def hang(click: Click) -> None:
        await asyncio.Event().wait()

    def block(click: Click) -> None:
        release.wait(20)

    async def main() -> None:
        others = [Notifier("hangs", click=hang), Notifier("blocks", click=block), bad.notifier]
        outbox = Outbox(tmp_path, [*others, good.notifier], stop_limit=0.1)
        await outbox.start()
        await put(outbox, *ids(1000))
        await until(lambda: len(good.seen) == 1000)
        found = {one.name: one for one in await outbox.status()}
        assert found["good"].waiting == 0
        assert found["hangs"].waiting == found["blocks"].waiting == 1000
        assert found["bad"].waiting + found["bad"].retrying == 1000
        assert found["bad"].error == "ValueError: \\udcff is no text"
        await outbox.stop()
        release.set()

    run(main())


def test_a_dead_notifier_turns_few_clicks_into_retries(tmp_path: Path) -> None:
    """While everything fails, clicks wait where they cost nothing, and memory holds a few; then all are delivered."""
    log = Recorder(concurrency=8)
    log.fail = lambda event_id: ConnectionError("down")
    clock = Clock()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        for part in range(5):
            await put(outbox, *ids(1000, f"{part}-"))
        now = await status(outbox)
        assert now.retrying <= 32
        assert now.retrying + now.waiting == 5000
        assert jobs_in_memory() <= 8 + 16
        log.fail = lambda event_id: None
        clock.ahead = 120.0
        await outbox.retry("log")
        await until(lambda: len(log.seen) >= 5000)
        await outbox.stop()

    run(main())
    assert len(set(log.seen)) == 5000


def test_new_clicks_do_not_queue_behind_a_backlog(tmp_path: Path) -> None:
    """After an outage new clicks are delivered while the old ones drain."""
    log = Recorder(concurrency=4)
    log.fail = lambda event_id: PauseNotifier("down")

    async def slow(click: Click) -> None:
        await asyncio.sleep(0.002)
        await log.click(click)

    async def main() -> None:
        outbox = Outbox(tmp_path, [Notifier("log", click=slow, concurrency=4)], stop_limit=0.1)
        await outbox.start()
        for part in range(4):
            await put(outbox, *ids(1000, f"old{part}-"))
        log.fail = lambda event_id: None
        await outbox.resume("log")
        await until(lambda: len(log.seen) > 50)
        await put(outbox, "new")
        await until(lambda: "new" in log.seen)
        assert len(log.seen) < 1000
        await until(lambda: len(log.seen) == 4001, within=20)
        await outbox.stop()

    run(main())
    assert rows(tmp_path) == 0


def test_a_hook_is_called_no_more_often_at_once_than_its_concurrency(tmp_path: Path) -> None:
    """A flood of clicks is not a flood of calls, and memory holds few of them."""
    now, most, jobs, taken = 0, 0, 0, 0

    async def hook(click: Click) -> None:
        nonlocal now, most, jobs, taken
        now += 1
        most = max(most, now)
        if taken == 300:
            jobs = jobs_in_memory()
        await asyncio.sleep(0)
        now -= 1
        taken += 1

    async def main() -> None:
        outbox = Outbox(tmp_path, [Notifier("log", click=hook, concurrency=20)])
        await outbox.start()
        await put(outbox, *ids(2000))
        await until(lambda: taken == 2000)
        await outbox.stop()

    run(main())
    assert most == 20
    assert 0 < jobs <= 40


def test_a_failed_click_is_tried_again_after_its_delay_and_not_before(tmp_path: Path) -> None:
    """RetryLater is honoured; the other clicks do not wait for it."""
    log, clock = Recorder(), Clock()
    log.fail = lambda event_id: RetryLater(300) if event_id == "e1" and clock.ahead < 300 else None

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        await put(outbox, "e1")
        await put(outbox, *ids(50, "other"))
        await until(lambda: len(log.seen) == 50)
        now = await status(outbox)
        assert (now.waiting, now.retrying) == (0, 1)
        assert now.error == "RetryLater: asked to try again after 300 s"
        listed = await outbox.list()
        assert [(one.event_id, one.state, one.tries) for one in listed] == [("e1", "retry", 1)]
        assert 290 < listed[0].due - clock() <= 300
        clock.ahead = 301.0
        await put(outbox, "wakes")
        await until(lambda: "e1" in log.seen)
        await outbox.stop()

    run(main())
    assert rows(tmp_path) == 0


def test_retries_come_by_themselves(tmp_path: Path) -> None:
    """A click that fails a few times is delivered within the schedule's first seconds, without any other event."""
    log = Recorder()
    failures = iter([ConnectionError("one"), ConnectionError("two")])
    log.fail = lambda event_id: next(failures, None)

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, "e")
        await until(lambda: log.seen == ["e"])
        await outbox.stop()

    run(main())
    assert rows(tmp_path) == rows(tmp_path, "delivery") == 0


def test_the_log_has_the_first_failure_and_the_first_success_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One click that fails is enough to be told why; many are not told one by one, nor are the next ones at once."""
    caplog.set_level(logging.INFO, "postbox.outbox")
    monkeypatch.setattr("postbox_plugin.outbox.telling.TELL_EVERY", 3600.0)
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        for event_id in ("one", "two"):  # fewer failures than open the breaker
            log.fail = lambda event_id: ConnectionError("nobody there")
            await put(outbox, *ids(3, event_id))
            await until(lambda: _retries(outbox, 3))
            log.fail = lambda event_id: None
            await until(lambda: _retries(outbox, 0))
        await outbox.stop()

    run(main())
    assert [record.message for record in caplog.records] == [
        "notifier log fails: ConnectionError: nobody there. Its clicks are kept, and tried again",
        "notifier log takes clicks again",
    ]


def test_a_call_that_began_in_an_outage_says_nothing_of_the_time_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way when the notifier failed, and fails when that works again: the log has one outage."""
    caplog.set_level(logging.INFO, "postbox.outbox")
    monkeypatch.setattr("postbox_plugin.outbox.telling.TELL_EVERY", 0.0)
    taken: list[str] = []

    async def main() -> None:
        down, late = True, asyncio.Event()

        async def click(one: Click) -> None:
            if one.event_id == "late" and not late.is_set():
                await late.wait()
                raise ConnectionError("timed out at last")
            if down:
                raise ConnectionError("nobody there")
            taken.append(one.event_id)

        outbox = Outbox(tmp_path, [Notifier("log", click=click)])
        await outbox.start()
        await put(outbox, "late", "other")
        await until(lambda: _retries(outbox, 1))
        down = False
        await until(lambda: taken == ["other"])
        late.set()
        await until(lambda: sorted(taken) == ["late", "other"])
        await outbox.stop()

    run(main())
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "notifier log fails: ConnectionError: nobody there. Its clicks are kept, and tried again"
    ]


def test_a_click_that_is_never_taken_becomes_a_dead_letter_and_can_be_sent_again(tmp_path: Path) -> None:
    """After retry_for it is listed as dead, others are not held up, and ``retry`` gives it a new life."""
    log, clock = Recorder(retry_for=3600.0), Clock()
    log.fail = lambda event_id: ValueError("poison") if event_id == "bad" else None

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        await put(outbox, "bad", "good")
        await until(lambda: log.seen == ["good"])
        clock.ahead = 3601.0
        await put(outbox, "wakes")
        await until(lambda: _is_dead(outbox))
        listed = await outbox.list("log")
        assert [(one.event_id, one.state, one.error) for one in listed] == [("bad", "dead", "ValueError: poison")]
        log.fail = lambda event_id: None
        assert await outbox.retry() == 1
        await until(lambda: "bad" in log.seen)
        assert (await status(outbox)).dead == 0
        await outbox.stop()

    run(main())
    assert rows(tmp_path) == 0


async def _is_dead(outbox: Outbox) -> bool:
    return (await status(outbox)).dead == 1


def test_dead_letters_are_dropped_after_thirty_days(tmp_path: Path) -> None:
    """They are kept for a month, and then deleted with their clicks."""
    log, clock = Recorder(retry_for=0.001), Clock()
    log.fail = lambda event_id: ValueError("poison")

    async def first() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        await put(outbox, "bad")
        await until(lambda: _is_dead(outbox))
        await outbox.stop()

    async def later() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        await until(lambda: _is_quiet(outbox))
        await outbox.stop()

    run(first())
    clock.ahead = 29 * 86400.0
    run(_start_and_stop(Outbox(tmp_path, [log.notifier], clock=clock)))
    assert rows(tmp_path, "delivery") == rows(tmp_path) == 1
    clock.ahead = 31 * 86400.0
    run(later())
    assert rows(tmp_path, "delivery") == rows(tmp_path) == 0


async def _is_quiet(outbox: Outbox) -> bool:
    now = await status(outbox)
    return now.waiting + now.retrying + now.dead == 0


def test_a_click_that_cannot_be_read_any_more_is_a_dead_letter(tmp_path: Path) -> None:
    """A damaged record does not stop those behind it."""
    log = Recorder()
    log.fail = lambda event_id: PauseNotifier("wait")

    async def first() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, *ids(3))
        await outbox.stop()

    async def second() -> None:
        log.fail = lambda event_id: None
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await outbox.resume("log")
        await until(lambda: len(log.seen) == 2)
        assert [one.event_id for one in await outbox.list()] == ["e1"]
        await outbox.stop()

    run(first())
    connection = sqlite3.connect(tmp_path / "outbox-0.db")
    connection.execute("UPDATE click SET body = '{}' WHERE event_id = 'e1'")
    connection.commit()
    connection.close()
    run(second())
    assert sorted(log.seen) == ["e0", "e2"]


def test_a_pause_is_kept_with_its_reason_over_a_restart_until_resumed(tmp_path: Path) -> None:
    """A notifier that asks for it gets nothing more, keeps its clicks, and goes on where it was."""
    log, other = Recorder(), Recorder("other")
    log.fail = lambda event_id: PauseNotifier("the webhook answered 410 Gone")
    calls = 0

    def count(event_id: str) -> BaseException | None:
        nonlocal calls
        calls += 1
        return None

    async def first() -> None:
        outbox = Outbox(tmp_path, [log.notifier, other.notifier])
        await outbox.start()
        await put(outbox, "first")
        await until(lambda: _is_paused(outbox))
        await outbox.stop()

    async def second() -> None:
        log.fail = count
        outbox = Outbox(tmp_path, [log.notifier, other.notifier])
        await outbox.start()
        await put(outbox, *ids(20))
        await until(lambda: len(other.seen) == 21)
        now = await status(outbox)
        assert now.paused == "the webhook answered 410 Gone"
        assert now.waiting + now.retrying == 21
        assert calls == 0
        assert await outbox.resume("log")
        await until(lambda: len(log.seen) == 21)
        assert (await status(outbox)).paused is None
        assert not await outbox.resume("log")
        await outbox.stop()

    run(first())
    run(second())
    assert sorted(log.seen) == sorted([*ids(20), "first"])


async def _is_paused(outbox: Outbox) -> bool:
    return (await status(outbox)).paused is not None


def test_a_name_that_is_no_longer_configured_is_parked_with_its_clicks(tmp_path: Path) -> None:
    """It is listed, gets no new clicks, and has its old ones when it is configured again."""
    old, new = Recorder("old"), Recorder("new")
    old.fail = lambda event_id: PauseNotifier("down")

    async def with_old() -> None:
        outbox = Outbox(tmp_path, [old.notifier])
        await outbox.start()
        await put(outbox, *ids(10))
        await outbox.stop()

    async def without_old() -> None:
        outbox = Outbox(tmp_path, [new.notifier])
        await outbox.start()
        await put(outbox, *ids(5, "meanwhile"))
        await until(lambda: len(new.seen) == 5)
        found = await status(outbox, "old")
        assert found.parked
        assert found.waiting + found.retrying == 10
        assert not (await status(outbox, "new")).parked
        await outbox.stop()

    async def with_old_again() -> None:
        old.fail = lambda event_id: None
        outbox = Outbox(tmp_path, [old.notifier, new.notifier])
        await outbox.start()
        await outbox.resume("old")
        await put(outbox, "now")
        await until(lambda: len(old.seen) == 11 and len(new.seen) == 6)
        assert not (await status(outbox, "old")).parked
        await outbox.stop()

    run(with_old())
    run(without_old())
    assert rows(tmp_path) == 10
    run(with_old_again())
    assert Counter(old.seen) == Counter([*ids(10), "now"])
    assert rows(tmp_path) == 0


def test_a_new_notifier_begins_with_the_clicks_to_come(tmp_path: Path) -> None:
    """The backlog of others is not its own."""
    old, new = Recorder("old"), Recorder("new")
    old.fail = lambda event_id: PauseNotifier("down")

    async def first() -> None:
        outbox = Outbox(tmp_path, [old.notifier])
        await outbox.start()
        await put(outbox, *ids(10))
        await outbox.stop()

    async def second() -> None:
        outbox = Outbox(tmp_path, [old.notifier, new.notifier])
        await outbox.start()
        await put(outbox, "fresh")
        await until(lambda: bool(new.seen))
        await outbox.stop()

    run(first())
    run(second())
    assert new.seen == ["fresh"]


def test_a_notifier_that_does_not_start_is_tried_again_and_the_others_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No click reaches it before it has started; its name and error are in the log."""
    good = Recorder("good")
    tries, late = list[int](), Recorder("late")

    def start() -> None:
        tries.append(len(late.seen))
        if len(tries) == 1:
            raise ConnectionError("no broker yet")

    notifier = Notifier("late", click=late.click, start=start)

    async def main() -> None:
        outbox = Outbox(tmp_path, [notifier, good.notifier])
        await outbox.start()
        await put(outbox, "e")
        await until(lambda: good.seen == ["e"])
        assert late.seen == []
        await until(lambda: late.seen == ["e"])
        await outbox.stop()

    run(main())
    assert tries == [0, 0]
    assert "notifier late does not start: ConnectionError: no broker yet" in caplog.text


def test_the_clicks_of_a_recipient_are_erased_for_everyone(tmp_path: Path) -> None:
    """Waiting, failed or dead, with or without a display name: nothing of them is left, not even in free pages."""
    log = Recorder()
    log.fail = lambda event_id: ValueError("no") if event_id == "failed" else PauseNotifier("down")

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, "failed", "waiting", "another", to="Ann <Ann@Example.com>")
        await until(lambda: _is_paused(outbox))
        await put(outbox, *ids(10), to="bob@example.com")
        assert await outbox.purge(recipient="ann@example.com") == 3
        assert await outbox.purge(recipient="nn@example.com") == 0
        now = await status(outbox)
        assert now.waiting + now.retrying == 10
        assert {one.event_id for one in await outbox.list()} == set(ids(10))
        log.fail = lambda event_id: None
        await outbox.resume("log")
        await until(lambda: len(log.seen) == 10)
        content = b"".join((tmp_path / name).read_bytes() for name in ("outbox-0.db", "outbox-0.db-wal"))
        assert b"Ann@Example.com" not in content
        assert b"ann@example.com" not in content
        await outbox.stop()

    run(main())
    assert sorted(log.seen) == ids(10)
    assert rows(tmp_path) == 0


def test_the_clicks_of_a_notifier_can_be_purged(tmp_path: Path) -> None:
    """Its waiting and failed clicks go, those of others stay, and new ones come as before."""
    one, two = Recorder("one"), Recorder("two")
    one.fail = two.fail = lambda event_id: PauseNotifier("down")

    async def main() -> None:
        outbox = Outbox(tmp_path, [one.notifier, two.notifier])
        await outbox.start()
        await put(outbox, *ids(3000))
        await until(lambda: both_paused(outbox))
        with pytest.raises(ValueError, match="no other condition"):
            await outbox.purge("one", recipient="a@example.com")
        with pytest.raises(OutboxError, match=r"no notifier named 'three'.* one, two"):
            await outbox.purge("three")
        assert await outbox.purge("one", dead_only=True) == 0
        assert await outbox.purge("one") == 3000
        found = {status.name: status.waiting + status.retrying for status in await outbox.status()}
        assert found == {"one": 0, "two": 3000}
        one.fail = two.fail = lambda event_id: None
        await outbox.resume("one")
        await put(outbox, "after")
        await until(lambda: one.seen == ["after"])
        assert await outbox.purge("two") == 3001
        await outbox.stop()

    async def both_paused(outbox: Outbox) -> bool:
        return all(one.paused is not None for one in await outbox.status())

    run(main())
    assert two.seen == []
    assert rows(tmp_path) == rows(tmp_path, "delivery") == 0


def test_a_put_that_is_cancelled_is_journaled_all_the_same(tmp_path: Path) -> None:
    """A reader who is not made to wait has still clicked."""
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        task = asyncio.create_task(kept(outbox, make_click("e")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: log.seen == ["e"])
        await outbox.stop()

    run(main())


def test_only_so_many_clicks_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stalls does not fill the memory: what is too much is refused at once."""
    monkeypatch.setattr("postbox_plugin.outbox.writer.WAITING", 2)
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        results = await asyncio.gather(*(kept(outbox, make_click(one)) for one in ids(3)), return_exceptions=True)
        assert [type(one) for one in results] == [type(None), type(None), OutboxError]
        await until(lambda: len(log.seen) == 2)
        await outbox.stop()

    run(main())


def test_a_clock_that_was_put_back_does_not_put_retries_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that seems days away is due at the next housekeeping."""
    monkeypatch.setattr("postbox_plugin.outbox.outbox.HOUSEKEEPING", 0.05)
    log, clock = Recorder(), Clock()
    clock.ahead = 10 * 86400.0
    log.fail = lambda event_id: RetryLater(300)

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier], clock=clock)
        await outbox.start()
        await put(outbox, "e")
        await until(lambda: _retries(outbox, 1))
        clock.ahead = 0.0
        log.fail = lambda event_id: None
        await until(lambda: log.seen == ["e"])
        await outbox.stop()

    run(main())


def test_clicks_wait_for_a_full_disk(tmp_path: Path) -> None:
    """What the disk refused stays in memory, in its order, and is on disk once there is room."""
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, *ids(3))
        # SQLite then reports the same error as for a full disk; a new connection is free of it.
        assert outbox._running is not None
        connection = outbox._running.journal._open()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        waiting = asyncio.gather(
            *(kept(outbox, make_click(event_id, url="x" * 3000)) for event_id in ids(20, "waiting"))
        )
        await until(lambda: "full" in outbox.error)
        assert outbox.waiting == 20
        await waiting
        assert (outbox.error, outbox.waiting) == ("", 0)
        await put(outbox, "after")
        await until(lambda: len(log.seen) == 24)
        await outbox.stop()

    run(main())
    assert sorted(log.seen) == sorted((*ids(3), *ids(20, "waiting"), "after"))


def test_a_command_that_fails_takes_no_click_with_it(tmp_path: Path) -> None:
    """Both share a transaction; the click is written in the next."""
    log = Recorder()

    def fails(journal: Journal) -> None:
        raise OutboxError("there is no such notifier")

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        assert outbox._running is not None
        results = await asyncio.gather(
            kept(outbox, make_click("e")), outbox._running.writer.write(fails), return_exceptions=True
        )
        assert results[0] is None
        assert isinstance(results[1], OutboxError)
        assert outbox.error == ""
        await until(lambda: log.seen == ["e"])
        await outbox.stop()

    run(main())


def test_while_the_file_cannot_be_opened_clicks_wait_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is gone for a while costs nothing but memory; a stop in that while gives the clicks back."""
    monkeypatch.setattr("postbox_plugin.outbox.writer.RETRY", 0.05)
    log = Recorder()
    broken = False
    connect = schema.connect

    def maybe(path: Path) -> sqlite3.Connection:
        if broken:
            raise sqlite3.OperationalError("disk I/O error")
        return connect(path)

    monkeypatch.setattr("postbox_plugin.outbox.journal.connect", maybe)

    async def main() -> None:
        nonlocal broken
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, *ids(3))
        await until(lambda: len(log.seen) == 3)
        assert outbox._running is not None
        broken = True
        outbox._running.journal._disconnect()
        early = asyncio.create_task(put(outbox, "early", "bird"))
        await until(lambda: "disk I/O error" in outbox.error)
        await asyncio.sleep(0.2)
        assert not early.done()
        broken = False
        await early
        await until(lambda: {"early", "bird"} < set(log.seen))
        broken = True
        outbox._running.journal._disconnect()
        late = asyncio.create_task(put(outbox, "late"))
        await until(lambda: "disk I/O error" in outbox.error)
        await outbox.stop()
        with pytest.raises(OutboxError, match="disk I/O error"):
            await late

    run(main())
    assert sorted(log.seen) == ["bird", *ids(3), "early"]
    # Once that it fails, once that it goes on, and again once that it fails.
    assert [record.levelno for record in caplog.records if "can" in record.message and "written" in record.message] == [
        logging.ERROR,
        logging.WARNING,
        logging.ERROR,
    ]


@pytest.mark.parametrize("damage", ["no database", "a page"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept for a person to look at, and the service goes on with a new one."""
    log = Recorder()
    log.fail = lambda event_id: PauseNotifier("down")

    async def first() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await put(outbox, *ids(300))
        await outbox.stop()

    async def second() -> None:
        log.fail = lambda event_id: None
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await until(lambda: _takes(outbox, "try"))
        await put(outbox, "after")
        await until(lambda: "after" in log.seen, within=20)
        await outbox.stop()

    async def _takes(outbox: Outbox, event_id: str) -> bool:
        try:
            await kept(outbox, make_click(event_id))
        except OutboxError:
            return False
        return True

    run(first())
    file = tmp_path / "outbox-0.db"
    content = bytearray(file.read_bytes())
    start = 0 if damage == "no database" else 4096
    content[start : start + 8192] = b"\xa5" * 8192
    file.write_bytes(content)
    run(second())
    aside = [path for path in tmp_path.iterdir() if "damaged" in path.name]
    assert aside
    assert aside[0].read_bytes()[start : start + 100] == b"\xa5" * 100
    assert "was set aside" in caplog.text


def test_a_click_that_is_no_clean_text_is_refused(tmp_path: Path) -> None:
    """It does not take those with it that are committed together with it."""
    log = Recorder()

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        results = await asyncio.gather(
            kept(outbox, make_click("bad", url="\udcff")), kept(outbox, make_click("good")), return_exceptions=True
        )
        assert [type(one) for one in results] == [OutboxError, type(None)]
        await until(lambda: log.seen == ["good"])
        await outbox.stop()

    run(main())


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """It says what to do, and leaves the file as it is."""
    run(_start_and_stop(Outbox(tmp_path, [])))
    connection = sqlite3.connect(tmp_path / "outbox-0.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OutboxError, match="upgrade"):
        run(_start_and_stop(Outbox(tmp_path, [])))


def test_a_spool_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Start says which folder it is, and leaves nothing behind."""
    (tmp_path / "file").touch()
    with pytest.raises(OutboxError, match="spool"):
        run(_start_and_stop(Outbox(tmp_path / "file" / "spool", [])))


def test_logs_hold_nothing_of_a_click(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, no address of a reader or of a page gets into the log."""
    caplog.set_level(logging.DEBUG, "postbox.outbox")
    log = Recorder(retry_for=0.001)
    log.fail = lambda event_id: ValueError("refused")

    async def main() -> None:
        outbox = Outbox(tmp_path, [log.notifier])
        await outbox.start()
        await kept(outbox, make_click("e", to="Reader <reader@secret.example>", url="https://secret.example/"))
        await until(lambda: _is_dead(outbox))
        await outbox.stop()

    run(main())
    assert "given up" in caplog.text
    assert "secret" not in caplog.text


def test_a_stop_delivers_what_waits_first(tmp_path: Path) -> None:
    """A notifier in good health receives what was put just before the stop, not after the next start."""
    received: list[str] = []

    async def take(click: Click) -> None:
        await asyncio.sleep(0.001)
        received.append(click.event_id)

    async def run() -> None:
        outbox = Outbox(tmp_path, [Notifier("slow", click=take, concurrency=2)])
        await outbox.start()
        await asyncio.gather(*(kept(outbox, sample_click(f"{number}:0")) for number in range(100)))
        await outbox.stop()

    asyncio.run(run())
    assert sorted(received) == sorted(f"{number}:0" for number in range(100))


def test_a_stop_right_after_the_start_stops_what_was_started(tmp_path: Path) -> None:
    """Each notifier that was started is stopped, however soon, and what waited from earlier was not forgotten."""
    events: list[str] = []

    def notifier() -> Notifier:
        return Notifier(
            "quick",
            click=lambda click: events.append(click.event_id),
            start=lambda: events.append("start"),
            stop=lambda: events.append("stop"),
        )

    async def run() -> None:
        for _ in range(2):
            outbox = Outbox(tmp_path, [notifier()])
            await outbox.start()
            await outbox.stop()

    asyncio.run(run())
    assert events == ["start", "stop"] * 2
