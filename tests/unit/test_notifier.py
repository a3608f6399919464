"""One notifier: its hooks, threads and time limits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable

import msgspec
import pytest

from postbox_plugin import Click
from postbox_plugin.notifier import Notifier


def make_click(event_id: str = "e") -> Click:
    """A click with little in it."""
    mail = {"timestamp": "", "messageId": "m", "identityId": "", "commonHeaders": {}}
    detail = {"ipAddress": "", "timestamp": "", "userAgent": "", "url": "https://example.com/"}
    record = {"mail": mail, "click": detail, "eventId": event_id, "tracking": {"linkIndex": 0}}
    return msgspec.convert(record, Click)


CLICK = make_click()


def test_nothing_is_opened_before_it_is_needed() -> None:
    """A notifier can be made without an event loop, and starts no thread by that."""
    before = threading.active_count()
    Notifier("log", click=lambda click: None)
    assert threading.active_count() == before


def test_an_async_hook_runs_in_the_loop() -> None:
    """Start, click and stop are awaited where they are async."""
    seen: list[object] = []

    async def start() -> None:
        seen.append("start")

    async def hook(click: Click) -> None:
        seen.append((click.event_id, threading.current_thread() is threading.main_thread()))

    async def stop() -> None:
        seen.append("stop")

    async def main() -> None:
        notifier = Notifier("log", click=hook, start=start, stop=stop)
        await notifier.start()
        await notifier.deliver(CLICK)
        await notifier.stop()

    asyncio.run(main())
    assert seen == ["start", ("e", True), "stop"]


def test_a_sync_hook_runs_in_a_thread_of_the_notifiers_own() -> None:
    """Sync hooks do not block the loop, and their threads bear the notifier's name and end with it."""
    names: list[str] = []

    def note(*_: Click) -> None:
        names.append(threading.current_thread().name)

    async def main() -> None:
        notifier = Notifier("crm", click=note, start=note, stop=note)
        await notifier.start()
        await notifier.deliver(CLICK)
        await notifier.stop()

    asyncio.run(main())
    assert len(names) == 3
    assert all(name.startswith("postbox-crm-") for name in names)


def test_a_sync_hook_may_return_an_awaitable() -> None:
    """A plain function that hands back a coroutine is awaited in the loop."""
    seen: list[str] = []

    async def inner(click: Click) -> None:
        await asyncio.sleep(0)
        seen.append(click.event_id)

    def hook(click: Click) -> Awaitable[None]:
        return inner(click)

    asyncio.run(Notifier("log", click=hook).deliver(CLICK))
    assert seen == ["e"]


def test_an_object_with_an_async_call_is_async() -> None:
    """What counts is what calling it gives."""

    class Hook:
        thread = ""

        async def __call__(self, click: Click) -> None:
            self.thread = threading.current_thread().name

    hook = Hook()
    asyncio.run(Notifier("log", click=hook).deliver(CLICK))
    assert hook.thread == threading.main_thread().name


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_exception_of_a_hook_is_raised(kind: str) -> None:
    """Raising means "again later", so the caller sees what was raised."""

    def hook(click: Click) -> None:
        raise LookupError(click.event_id)

    async def async_hook(click: Click) -> None:
        hook(click)

    notifier = Notifier("log", click=hook if kind == "sync" else async_hook)
    with pytest.raises(LookupError, match="e"):
        asyncio.run(notifier.deliver(CLICK))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), StopIteration()], ids=repr)
def test_a_hook_cannot_end_the_service(kind: str, error: BaseException) -> None:
    """sys.exit, a stray cancellation or StopIteration within a hook are failures like any other."""

    def hook(click: Click) -> None:
        raise error

    async def async_hook(click: Click) -> None:
        hook(click)

    notifier = Notifier("log", click=hook if kind == "sync" else async_hook)
    with pytest.raises(RuntimeError):
        asyncio.run(notifier.deliver(CLICK))


def test_cancelling_a_delivery_cancels_it() -> None:
    """A cancellation that comes from outside is not taken for the hook's."""

    async def main() -> bool:
        begun = asyncio.Event()

        async def hook(click: Click) -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(Notifier("log", click=hook).deliver(CLICK))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main())


def test_an_async_hook_is_cut_at_its_timeout() -> None:
    """A hook that never answers is cancelled, and the error says how long was waited."""

    async def hook(click: Click) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        asyncio.run(Notifier("log", click=hook, timeout=0.05).deliver(CLICK))


def test_a_hooks_own_timeout_error_is_passed_on() -> None:
    """A TimeoutError of the hook's library is not taken for ours."""

    async def hook(click: Click) -> None:
        raise TimeoutError("the broker is slow")

    with pytest.raises(TimeoutError, match="the broker is slow"):
        asyncio.run(Notifier("log", click=hook).deliver(CLICK))


def test_a_sync_call_that_overran_keeps_its_thread() -> None:
    """With all threads stuck no further call is begun, until one comes back."""
    release, called = threading.Event(), list[str]()

    def hook(click: Click) -> None:
        called.append(click.event_id)
        if click.event_id.startswith("stuck"):
            release.wait(20)

    async def main() -> None:
        notifier = Notifier("log", click=hook, concurrency=2, timeout=0.05)
        for number in range(2):
            with pytest.raises(TimeoutError):
                await notifier.deliver(make_click(f"stuck{number}"))
        third = asyncio.create_task(notifier.deliver(make_click("third")))
        done, _ = await asyncio.wait([third], timeout=0.2)
        assert not done
        assert called == ["stuck0", "stuck1"]
        release.set()
        await asyncio.wait_for(third, 10)
        await notifier.stop()

    asyncio.run(main())
    assert called[-1] == "third"


def test_threads_are_no_more_than_the_concurrency() -> None:
    """Many calls share few threads."""
    names = set[str]()
    gate = threading.Barrier(3)

    def hook(click: Click) -> None:
        gate.wait(10)
        names.add(threading.current_thread().name)

    async def main() -> None:
        notifier = Notifier("log", click=hook, concurrency=3)
        await asyncio.gather(*(notifier.deliver(CLICK) for _ in range(12)))
        await notifier.stop()

    asyncio.run(main())
    assert len(names) == 3


def test_it_can_be_stopped_and_used_again_while_a_thread_is_stuck() -> None:
    """Neither the stop hook nor a new start waits for a call that hangs, and another loop may do it."""
    release, stops = threading.Event(), list[int]()

    def hook(click: Click) -> None:
        if click.event_id == "stuck":
            release.wait(20)

    notifier = Notifier("log", click=hook, stop=lambda: stops.append(1), concurrency=1, timeout=0.05)

    async def first() -> None:
        with pytest.raises(TimeoutError):
            await notifier.deliver(make_click("stuck"))
        await notifier.stop()

    async def second() -> None:
        await notifier.start()
        await notifier.deliver(CLICK)
        await notifier.stop()

    asyncio.run(first())
    asyncio.run(second())
    release.set()
    assert stops == [1, 1]


def test_a_stuck_thread_does_not_keep_python_from_exiting() -> None:
    """The threads are daemons: a notifier that hangs for ever does not make the service unstoppable."""
    program = (
        "import asyncio, threading\n"
        "from postbox_plugin.notifier import Notifier\n"
        "n = Notifier('x', click=lambda click: threading.Event().wait(), timeout=0.05)\n"
        "try:\n    asyncio.run(n.deliver(None))\n"
        "except TimeoutError:\n    print('cut')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "cut\n"
