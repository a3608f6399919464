"""Outbox files that nobody owns any more: a living process takes their clicks over."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from outboxes import kept

from postbox_plugin import Click, hookimpl
from postbox_plugin.errors import OutboxError, PauseNotifier, RetryLater
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Administration, Outbox
from postbox_plugin.outbox.adoption import orphans
from postbox_plugin.testing import sample_click


class Recorder:
    """Takes clicks, or raises; counts what it took."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.error: Exception | None = None

    @hookimpl
    def postbox_click(self, click: Click) -> None:
        if self.error is not None:
            raise self.error
        self.seen[click.event_id] += 1

    def named(self, name: str) -> Notifier:
        return Notifier(name, click=self.postbox_click)


async def until(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def left_behind(spool: Path, *notifiers: Notifier, clicks: int = 500) -> None:
    """A second outbox file, as a process that is gone leaves it, beside the first, which is empty."""
    first, second = Outbox(spool, notifiers), Outbox(spool, notifiers)
    await first.start()
    await second.start()
    await asyncio.gather(*(kept(second, sample_click(f"e{number}")) for number in range(clicks)))
    await asyncio.sleep(0.2)
    await second.stop()
    await first.stop()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postbox_plugin.outbox.outbox.HOUSEKEEPING", 0.05)


def test_clicks_without_an_owner_are_delivered(tmp_path: Path) -> None:
    """Each notifier gets what it is still owed: one has failed with some already, one takes them all."""
    good, bad, fresh = Recorder(), Recorder(), Recorder()

    async def main() -> None:
        bad.error = RetryLater(3600)
        good.error = PauseNotifier("not yet")
        await left_behind(tmp_path, good.named("good"), bad.named("bad"))
        good.error = bad.error = None
        outbox = Outbox(tmp_path, [good.named("good"), bad.named("bad"), fresh.named("fresh")])
        await outbox.start()
        await until(lambda: not (tmp_path / "outbox-1.db").exists())
        for name in ("good", "bad"):
            await outbox.resume(name)
            await outbox.retry(name)
        await kept(outbox, sample_click("new"))
        await until(lambda: len(good.seen) == len(bad.seen) == 501)
        assert [one.waiting + one.retrying for one in await outbox.status()] == [0, 0, 0]
        await outbox.stop()

    asyncio.run(main())
    assert set(good.seen) == set(bad.seen) == {"new", *(f"e{number}" for number in range(500))}
    assert set(fresh.seen) == {"new"}  # it did not exist when the others were made
    assert list(tmp_path.glob("*.db")) == [tmp_path / "outbox-0.db"]


def test_clicks_for_a_notifier_that_is_configured_no_more_are_parked(tmp_path: Path) -> None:
    gone, here = Recorder(), Recorder()

    async def main() -> None:
        gone.error = PauseNotifier("down")
        await left_behind(tmp_path, gone.named("gone"), here.named("here"), clicks=3)
        outbox = Outbox(tmp_path, [here.named("here")])
        await outbox.start()
        await until(lambda: not (tmp_path / "outbox-1.db").exists())
        (parked, active) = await outbox.status()
        assert (parked.name, parked.parked, parked.waiting + parked.retrying) == ("gone", True, 3)
        assert (active.name, active.waiting + active.retrying) == ("here", 0)
        await outbox.stop()
        gone.error = None
        outbox = Outbox(tmp_path, [here.named("here"), gone.named("gone")])
        await outbox.start()
        await until(lambda: len(gone.seen) == 3)
        await outbox.stop()

    asyncio.run(main())
    assert set(gone.seen) == set(here.seen) == {"e0", "e1", "e2"}


def test_a_file_with_an_owner_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = Outbox(tmp_path, []), Outbox(tmp_path, [])
        await first.start()
        await second.start()
        await asyncio.sleep(0.3)
        assert (tmp_path / "outbox-1.db").exists()
        await second.stop()
        await until(lambda: not (tmp_path / "outbox-1.db").exists())
        await first.stop()

    asyncio.run(main())


def test_a_click_that_moved_before_a_crash_is_delivered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written here and not yet deleted there moves again: twice rather than never, with one event id."""
    recorder = Recorder()

    async def main() -> None:
        recorder.error = PauseNotifier("down")
        await left_behind(tmp_path, recorder.named("log"), clicks=3)
        recorder.error = None

        def crash(self: object, moved: object) -> None:
            raise OutboxError("the disk is gone")

        with monkeypatch.context() as broken:
            broken.setattr("postbox_plugin.outbox.adoption.Orphan.forget", crash)
            outbox = Outbox(tmp_path, [recorder.named("log")])
            await outbox.start()
            await outbox.resume("log")
            await until(lambda: len(recorder.seen) == 3)
        await until(lambda: not (tmp_path / "outbox-1.db").exists())
        await until(lambda: min(recorder.seen.values()) > 1)
        await outbox.stop()

    asyncio.run(main())
    assert set(recorder.seen) == {"e0", "e1", "e2"}


def test_while_a_command_is_at_work_in_the_spool_nothing_is_adopted(tmp_path: Path) -> None:
    from postbox_plugin.outbox.slot import door

    asyncio.run(left_behind(tmp_path, Recorder().named("log"), clicks=1))
    with door(tmp_path):
        assert list(orphans(tmp_path, 0, lambda: 0.0)) == []
    (orphan,) = orphans(tmp_path, 0, lambda: 0.0)
    orphan.close(remove=False)
    assert Administration(tmp_path).status()
