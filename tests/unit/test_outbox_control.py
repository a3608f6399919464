"""Who owns an outbox file, and how it is looked after with and without a running service."""

from __future__ import annotations

import asyncio
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from outboxes import kept

from postbox_plugin import Click
from postbox_plugin.errors import OutboxError, PauseNotifier
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Administration, Outbox
from postbox_plugin.outbox.slot import Slot, door, slots, take_slot

Result = TypeVar("Result")


def make_click(event_id: str, to: str = "reader@example.com") -> Click:
    """A click with little in it."""
    mail = {"timestamp": "", "messageId": "m", "identityId": "", "commonHeaders": {"to": [to]}}
    detail = {"ipAddress": "", "timestamp": "", "userAgent": "", "url": "https://example.com/"}
    record = {"mail": mail, "click": detail, "eventId": event_id, "tracking": {"linkIndex": 0}}
    return msgspec.convert(record, Click)


class Paused:
    """A notifier that asks to be paused until it is told to work."""

    def __init__(self, name: str = "crm") -> None:
        self.works = False
        self.seen: list[str] = []
        self.notifier = Notifier(name, click=self.click)

    async def click(self, click: Click) -> None:
        """The hook."""
        if not self.works:
            raise PauseNotifier("gone")
        self.seen.append(click.event_id)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a test, and let it fail where it would wait for ever."""
    return asyncio.run(asyncio.wait_for(main, 30))


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 10
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)


async def is_true(outbox: Outbox, field: str) -> bool:
    """Whether a field of the one notifier's status holds something."""
    return bool(getattr((await outbox.status())[0], field))


async def fill(spool: Path, paused: Paused, *event_ids: str) -> Outbox:
    """A running outbox whose notifier is paused, with clicks in it."""
    outbox = Outbox(spool, [paused.notifier])
    await outbox.start()
    for event_id in event_ids:
        await kept(outbox, make_click(event_id))
    await until(lambda: is_true(outbox, "paused"))
    return outbox


async def leave(spool: Path, *event_ids: str) -> None:
    """An outbox file as a service leaves it behind."""
    await (await fill(spool, Paused(), *event_ids)).stop()


def look_after(spool: Path) -> dict[str, Any]:
    """What administration sees and does, from the first look to the last purge."""
    administration = Administration(spool)
    before = administration.status()[0]
    listed = administration.list("crm", limit=2)
    with pytest.raises(OutboxError, match="no notifier named 'cmr' in the outbox; it knows crm"):
        administration.retry("cmr")
    return {
        "status": (before.name, before.paused, before.waiting + before.retrying, before.dead, before.error),
        "old": 0 < before.oldest < 30,
        "listed": (len(listed), {one.notifier for one in listed}),
        "resumed": (administration.resume("crm"), administration.resume("crm")),
    }


SEEN = {
    "status": ("crm", "gone", 3, 0, "PauseNotifier: gone"),
    "old": True,
    "listed": (2, {"crm"}),
    "resumed": (True, False),
}


def test_administration_opens_the_file_where_no_service_runs(tmp_path: Path) -> None:
    """Everything works offline, and the file is let go of afterwards."""
    run(leave(tmp_path, "a", "b", "c"))
    assert look_after(tmp_path) == SEEN
    assert Administration(tmp_path).purge(recipient="Reader@example.com") == 3
    assert Administration(tmp_path).purge("crm") == 0
    paused = Paused()
    run(_deliver(tmp_path, paused, "new"))
    assert paused.seen == ["new"]


async def _deliver(spool: Path, works: Paused, event_id: str) -> None:
    works.works = True
    outbox = Outbox(spool, [works.notifier])
    await outbox.start()
    await kept(outbox, make_click(event_id))
    await until(lambda: event_id in works.seen)
    await outbox.stop()


def test_administration_asks_the_service_that_owns_the_file(tmp_path: Path) -> None:
    """While a service runs it does what is asked, and the notifier feels it at once."""
    paused = Paused()

    async def main() -> None:
        outbox = await fill(tmp_path, paused, "a", "b", "c")
        paused.works = True
        assert await asyncio.to_thread(look_after, tmp_path) == SEEN
        await until(lambda: sorted(paused.seen) == ["a", "b", "c"])
        await outbox.stop()

    run(main())


def test_retry_and_purge_reach_a_running_service(tmp_path: Path) -> None:
    """Failed clicks are tried again on request, and purged ones never."""
    fails = True
    seen = list[str]()

    async def hook(click: Click) -> None:
        if fails:
            raise ConnectionError("down")
        seen.append(click.event_id)

    async def main() -> None:
        nonlocal fails
        outbox = Outbox(tmp_path, [Notifier("crm", click=hook)])
        await outbox.start()
        administration = Administration(tmp_path)
        for number in range(40):
            await kept(outbox, make_click(f"e{number}", "ann@example.com" if number % 2 else "bob@example.com"))
        assert await asyncio.to_thread(administration.purge, recipient="ann@example.com") == 20
        fails = False
        await asyncio.to_thread(administration.retry)
        await until(lambda: len(set(seen)) == 20)
        assert all(int(event_id[1:]) % 2 == 0 for event_id in seen)
        assert await asyncio.to_thread(administration.purge) == 0
        await outbox.stop()

    run(main())


def test_dead_letters_are_sent_again_offline(tmp_path: Path) -> None:
    """What ``retry`` did without a service, the next service delivers."""
    seen = list[str]()
    poison = True

    async def hook(click: Click) -> None:
        if poison:
            raise ValueError("poison")
        seen.append(click.event_id)

    def outbox() -> Outbox:
        return Outbox(tmp_path, [Notifier("crm", click=hook, retry_for=0.001)])

    async def first() -> None:
        one = outbox()
        await one.start()
        await kept(one, make_click("e"))
        await until(lambda: is_true(one, "dead"))
        await one.stop()

    async def second() -> None:
        one = outbox()
        await one.start()
        await until(lambda: seen == ["e"])
        await one.stop()

    run(first())
    assert [one.state for one in Administration(tmp_path).list()] == ["dead"]
    assert Administration(tmp_path).retry() == 1
    assert [one.state for one in Administration(tmp_path).list()] == ["retry"]
    poison = False
    run(second())


def test_a_parked_notifier_is_forgotten_once_it_is_purged(tmp_path: Path) -> None:
    """Its line is gone, and so are its clicks."""
    run(leave(tmp_path, "a", "b"))
    run(_deliver(tmp_path, Paused("other"), "c"))
    names = [(one.name, one.parked) for one in Administration(tmp_path).status()]
    assert names == [("crm", True), ("other", False)]
    assert Administration(tmp_path).purge("crm", dead_only=True) == 0
    assert Administration(tmp_path).purge("crm") == 2
    assert [one.name for one in Administration(tmp_path).status()] == ["other"]


def test_purge_of_a_recipient_takes_no_other_condition(tmp_path: Path) -> None:
    """An erasure concerns a person, and so every notifier."""
    with pytest.raises(ValueError, match="no other condition"):
        Administration(tmp_path).purge("crm", recipient="ann@example.com")


def test_a_spool_without_an_outbox_is_an_error(tmp_path: Path) -> None:
    """A mistyped folder is not an empty outbox."""
    with pytest.raises(OutboxError, match="no service has used this spool yet"):
        Administration(tmp_path / "typo").status()


def test_two_processes_have_a_file_each_and_administration_sees_both(tmp_path: Path) -> None:
    """The second takes the next slot; status, list and resume go over all of them."""
    here, there = Paused(), Paused()

    async def main() -> None:
        one = await fill(tmp_path, here, "a", "b")
        two = await fill(tmp_path, there, "c")
        assert [slot.number for slot in slots(tmp_path)] == [0, 1]
        administration = Administration(tmp_path)
        (found,) = await asyncio.to_thread(administration.status)
        assert found.waiting + found.retrying == 3
        assert {listed.event_id for listed in await asyncio.to_thread(administration.list)} == {"a", "b", "c"}
        here.works = there.works = True
        assert await asyncio.to_thread(administration.resume, "crm")
        await until(lambda: len(here.seen) == 2 and there.seen == ["c"])
        await one.stop()
        await two.stop()

    run(main())


def test_the_slot_of_a_dead_process_is_adopted(tmp_path: Path) -> None:
    """The kernel takes the lock back from a killed process; whoever comes next has its clicks."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom postbox_plugin.outbox.slot import take_slot\n"
        "print(take_slot(Path(sys.argv[1])).number, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        second = take_slot(tmp_path)
        assert second.number == 1
        second.release()
        process.kill()
    third = take_slot(tmp_path)
    assert third.number == 0
    third.release()


def test_a_service_does_not_pass_over_a_file_that_a_command_is_at(tmp_path: Path) -> None:
    """A start during ``postbox outbox purge`` waits for it, and then has that file and its clicks."""
    slot = Slot(tmp_path, 0)
    taken = list[int]()

    def start() -> None:
        mine = take_slot(tmp_path)
        taken.append(mine.number)
        mine.release()

    with door(tmp_path):
        assert slot.take()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join(0.1)
        assert taken == []
        slot.release()
    thread.join(10)
    assert taken == [0]


def test_an_occupied_door_is_an_error_after_a_while(tmp_path: Path) -> None:
    """It says what holds it."""
    with (
        door(tmp_path),
        pytest.raises(OutboxError, match="another `postbox outbox` command"),
        door(tmp_path, wait=0.05),
    ):
        pass


def test_the_socket_is_private_takes_no_nonsense_and_goes_away(tmp_path: Path) -> None:
    """Only the owner may connect; what is no request is answered with an error, and the service goes on."""

    def say(line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(tmp_path / "outbox-0.sock"))
            sock.sendall(line)
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(10_000)

    async def main() -> None:
        outbox = await fill(tmp_path, Paused(), "a")
        assert stat.S_IMODE((tmp_path / "outbox-0.sock").stat().st_mode) == 0o600
        for line in (b"nonsense\n", b'{"do": "format"}\n', b'{"do": "resume"}\n', b"\xff\xff\n", b""):
            assert b'"error"' in await asyncio.to_thread(say, line), line
        await asyncio.to_thread(say, b"x" * 200_000)
        assert b'"result":[{"name":"crm"' in await asyncio.to_thread(say, b'{"do": "status"}\n')
        await outbox.stop()

    run(main())
    assert not (tmp_path / "outbox-0.sock").exists()


def test_a_deep_spool_has_a_socket_too(tmp_path: Path) -> None:
    """The limit on the length of a socket's path is not a limit on the folder's."""
    spool = tmp_path / ("d" * 100) / "spool"

    async def main() -> None:
        outbox = await fill(spool, Paused(), "a")
        assert (await asyncio.to_thread(Administration(spool).status))[0].paused == "gone"
        await outbox.stop()

    run(main())


def test_a_leftover_socket_does_not_mislead(tmp_path: Path) -> None:
    """After a kill the socket is still there, but nobody listens: the file is opened instead."""
    run(leave(tmp_path, "a"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "outbox-0.sock"))
    assert Administration(tmp_path).status()[0].paused == "gone"
    run(leave(tmp_path, "b"))
    assert Administration(tmp_path).purge("crm") == 2
