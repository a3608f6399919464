"""The outbox, wired: a slot of the spool, its journal, the writer, a courier per notifier, the control socket."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from postbox_plugin.click import Click
from postbox_plugin.counts import Counts
from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox import ledger
from postbox_plugin.outbox.administration import check_purge
from postbox_plugin.outbox.adoption import orphans, receive
from postbox_plugin.outbox.control import Advance, ControlServer, Request, ignore
from postbox_plugin.outbox.delivery import Courier
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import Entry, Health, Listed, NotifierStatus, recipients_of
from postbox_plugin.outbox.retry import LONGEST_WAIT
from postbox_plugin.outbox.slot import Slot, take_slot
from postbox_plugin.outbox.writer import Done, Writer

if TYPE_CHECKING:
    from postbox_plugin.notifier import Notifier

__all__ = ["Outbox"]

log = logging.getLogger("postbox.outbox")

HOUSEKEEPING: Final = 60.0
SLOW_COMMIT: Final = 0.02
TELL: Final = 0.1
"""Seconds between two words on how draining gets on."""


class Outbox:
    """Keeps clicks on disk until every notifier has taken them. Nothing is opened before :meth:`start`.

    :param spool: the folder of the outbox files.
    :param notifiers: whom to deliver to; their names tell them apart.
    :param stop_limit: seconds that calls in flight get to end in :meth:`stop`.
    :param slow_commit: a commit that took longer, in seconds, makes those after it go to a thread.
    :param clock: the time, in seconds since 1970.
    :param counts: where commits and deliveries are counted.
    """

    def __init__(
        self,
        spool: Path,
        notifiers: Sequence[Notifier],
        *,
        stop_limit: float = 10.0,
        slow_commit: float = SLOW_COMMIT,
        clock: Callable[[], float] = time.time,
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts or Counts()
        self._spool = spool
        self._notifiers = tuple(notifiers)
        self._stop_limit = stop_limit
        self._slow_commit = slow_commit
        self._clock = clock
        self._running: _Running | None = None

    @property
    def running(self) -> bool:
        """Whether clicks can be put."""
        return self._running is not None

    @property
    def error(self) -> str:
        """Why nothing can be written at the moment; ``""`` where all is well."""
        return self._running.writer.error if self._running is not None else ""

    async def start(self) -> None:
        """Become the owner of an outbox file, start the notifiers, and deliver, what waits from earlier included.

        A notifier that does not start is logged and tried again; the others do not wait for it. Neither does anybody
        wait for a file that cannot be read or written at the moment: clicks are put all the same, and wait in memory.

        :raises OutboxError: if the spool cannot be used.
        """
        if self._running is not None:
            return
        slot = await asyncio.to_thread(take_slot, self._spool)
        journal = Journal(slot.file, self._clock)
        try:
            await self._open(journal)
            self._running = await self._begin(slot, journal)
        except BaseException as error:
            journal.close()
            slot.release()
            if isinstance(error, OSError):
                raise OutboxError(f"the spool {self._spool} cannot be used: {error}") from error
            raise

    async def _open(self, journal: Journal) -> None:
        try:
            await asyncio.to_thread(journal.open, [notifier.name for notifier in self._notifiers])
        except OutboxError as error:
            if not isinstance(error.__cause__, OSError | sqlite3.OperationalError):
                raise
            # A full disk is no reason to let readers down. The journal opens the file when it is next used.
            log.error("the outbox cannot be opened: %s; clicks wait in memory until it can", error)  # noqa: TRY400

    async def _begin(self, slot: Slot, journal: Journal) -> _Running:
        couriers: dict[str, Courier] = {}

        def wake() -> None:
            for courier in couriers.values():
                courier.wake()

        writer = Writer(journal, slow=self._slow_commit, on_commit=wake, counts=self._counts)
        control = ControlServer(slot.socket, self._answer)
        await control.start()
        for notifier in self._notifiers:
            couriers[notifier.name] = Courier(notifier, writer, journal, clock=self._clock, counts=self._counts)
        for courier in couriers.values():
            courier.start()
        running = _Running(slot, journal, writer, control, couriers)
        running.housekeeping = asyncio.create_task(self._keep_house(running))
        return running

    async def stop(self, *, draining: Callable[[int], None] | None = None) -> None:
        """Let calls in flight end within the limit, stop the notifiers, write what became of it, and let the file go.

        Does nothing where nothing runs. The outbox can be started again afterwards.

        :param draining: told now and then how many clicks are still to be delivered.
        """
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.housekeeping.cancel()
            telling = asyncio.create_task(_tell(running, draining)) if draining is not None else None
            await running.control.stop()
            # The other couriers are stopped even if one fails to be.
            stopping = (courier.stop(self._stop_limit) for courier in running.couriers.values())
            for failure in await asyncio.gather(*stopping, return_exceptions=True):
                if failure is not None:
                    log.error("a notifier could not be stopped", exc_info=failure)
            if telling is not None:
                telling.cancel()
            await running.writer.drain()
        finally:
            running.writer.shut()
            try:
                running.journal.close()
            finally:
                running.slot.release()

    @property
    def waiting(self) -> int:
        """How many clicks wait in memory for the disk: thousands, where it stalls or fails."""
        return self._running.writer.waiting if self._running is not None else 0

    def put(self, click: Click, done: Done) -> None:
        """Journal a click. One whose event id waits there already is kept once.

        While the disk does not take it, the click waits in memory, up to a bound, and is tried again.

        :param done: called in the loop with ``None`` when the click is on disk, or with the reason why it never will
            be. It must not raise.
        :raises OutboxError: if the click cannot even wait.
        """
        running = self._live()
        try:
            entry = Entry(click.event_id, self._clock(), recipients_of(click), click.to_json())
        except UnicodeEncodeError as error:
            raise OutboxError(f"the click is not clean text: {error.reason}") from None
        running.writer.put(entry, done)

    # What people ask, in the terms of Administration

    async def status(self) -> list[NotifierStatus]:
        """How each notifier is doing, by name.

        :raises OutboxError: if the journal cannot be read.
        """
        running = self._live()
        running.writer.settle(now=True)
        return await running.writer.read(lambda journal: ledger.status(journal, self._clock()))

    async def health(self) -> Health:
        """How this process is doing."""
        running = self._live()
        try:
            notifiers = await self.status()
        except OutboxError:  # what is wrong is in `error`
            notifiers = []
        return Health(
            slot=running.slot.number,
            error=self.error,
            waiting=self.waiting,
            counts=self._counts.snapshot(),
            notifiers=notifiers,
        )

    async def list(self, name: str | None = None, *, limit: int = 100) -> Sequence[Listed]:
        """See :meth:`.administration.Administration.list`; of this process alone."""
        running = self._live()
        running.writer.settle(now=True)
        return await running.writer.read(lambda journal: ledger.listing(journal, name, limit))

    async def retry(self, name: str | None = None, *, advance: Advance = ignore) -> int:
        """See :meth:`.administration.Administration.retry`; of this process alone."""
        running = self._live()
        loop = asyncio.get_running_loop()

        def told(journal: Journal, name: str, now: float) -> Iterator[int]:
            for number in ledger.retry(journal, name, now):
                loop.call_soon_threadsafe(advance, number)
                yield number

        count = 0
        for one in await running.writer.read(lambda journal: ledger.check_name(journal, name)):
            count += sum(await running.writer.steps(partial(told, name=one, now=self._clock())))
            if one in running.couriers:
                running.couriers[one].hurry()
        return count

    async def resume(self, name: str) -> bool:
        """See :meth:`.administration.Administration.resume`; of this process alone."""
        running = self._live()
        await running.writer.read(lambda journal: ledger.check_name(journal, name))
        was_paused = await running.writer.write(lambda journal: ledger.resume(journal, name))
        if name in running.couriers:
            running.couriers[name].resume()
        return was_paused

    async def purge(self, name: str | None = None, *, recipient: str | None = None, dead_only: bool = False) -> int:
        """See :meth:`.administration.Administration.purge`; of this process alone."""
        check_purge(name, recipient, dead_only)
        running = self._live()
        if recipient is not None:
            return await self._purge_recipient(running, recipient)
        count = 0
        for one in await running.writer.read(lambda journal: ledger.check_name(journal, name)):
            courier = running.couriers.get(one)
            if courier is not None and not dead_only:
                count += courier.skip()
            steps = partial(ledger.purge_deliveries, name=one, dead_only=dead_only, ahead=courier is None)
            count += sum(await running.writer.steps(steps))
        return count

    async def _purge_recipient(self, running: _Running, recipient: str) -> int:
        await running.writer.read(lambda journal: journal.scrub(True))
        count = 0
        for number, ids in await running.writer.steps(lambda journal: ledger.purge_recipient(journal, recipient)):
            count += number
            for courier in running.couriers.values():
                courier.drop(frozenset(ids))
        await running.writer.drain()
        await running.writer.read(lambda journal: journal.scrub(False))
        return count

    async def _answer(self, request: Request, advance: Advance) -> Any:
        match request.do:
            case "status":
                return await self.status()
            case "health":
                return await self.health()
            case "list":
                return await self.list(request.name, limit=request.limit)
            case "retry":
                return await self.retry(request.name, advance=advance)
            case "resume":
                return await self.resume(request.name or "")
            case "purge":
                return await self.purge(request.name, recipient=request.recipient, dead_only=request.dead_only)

    async def _adopt(self, running: _Running) -> None:
        """Take over what processes that are gone left behind."""
        adopted = orphans(self._spool, running.slot.number, self._clock)
        while (orphan := await asyncio.to_thread(next, adopted, None)) is not None:
            moved, empty = 0, False
            try:
                await asyncio.to_thread(orphan.open)
                while owed := await asyncio.to_thread(orphan.next):
                    await running.writer.write(partial(receive, owed=owed))
                    await asyncio.to_thread(orphan.forget, owed)
                    moved += len(owed)
                    for courier in running.couriers.values():
                        courier.look()
                empty = True
            finally:
                await asyncio.to_thread(orphan.close, remove=empty)
            log.info("%s had no owner: its clicks (%d) were taken over, and it was removed", orphan.name, moved)

    async def _keep_house(self, running: _Running) -> None:
        writer, couriers = running.writer, running.couriers.values()
        while True:
            try:
                await writer.write(Journal.drop_dead)
                await writer.write(lambda journal: journal.hasten(LONGEST_WAIT))
                for courier in couriers:
                    courier.look()
                await self._adopt(running)
            except (OutboxError, OSError) as error:
                log.warning("housekeeping of the outbox failed, and is tried again in a minute: %s", error)
            await asyncio.sleep(HOUSEKEEPING)
            writer.tidy()

    def _live(self) -> _Running:
        if self._running is None:
            raise OutboxError("the outbox is not running")
        return self._running


class _Running:
    """What exists between start and stop."""

    def __init__(
        self, slot: Slot, journal: Journal, writer: Writer, control: ControlServer, couriers: dict[str, Courier]
    ) -> None:
        self.slot: Final = slot
        self.journal: Final = journal
        self.writer: Final = writer
        self.control: Final = control
        self.couriers: Final = couriers
        self.housekeeping: asyncio.Task[None]


async def _tell(running: _Running, draining: Callable[[int], None]) -> None:
    while True:
        draining(sum(courier.to_drain for courier in running.couriers.values()))
        await asyncio.sleep(TELL)
