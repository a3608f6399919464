"""What ``postbox outbox`` does: looks after all outbox files of a spool, whether a service runs or not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox import ledger
from postbox_plugin.outbox.control import Advance, Request, ask, ignore
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import Listed, NotifierStatus
from postbox_plugin.outbox.slot import Slot, door, slots

__all__ = ["Administration", "check_purge"]

Result = TypeVar("Result")

OWNER_WAIT: Final = 5.0
POLL: Final = 0.05


class Administration:
    """Looks into a spool, and changes what a person wants changed.

    A file that a service owns is reached through that service's socket; any other is opened, under its lock, for as
    long as it takes. Synchronous. Every method raises :class:`postbox_plugin.errors.OutboxError` if the spool cannot
    be reached, or if it knows no notifier of the name given.

    :param spool: the folder, as in ``Settings.spool``.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool

    def status(self) -> Sequence[NotifierStatus]:
        """How each notifier is doing, over all processes, by name."""
        merged: dict[str, NotifierStatus] = {}
        for found in self._everywhere(Request(do="status"), _status):
            for one in found:
                merged[one.name] = _merge(merged[one.name], one) if one.name in merged else one
        return [merged[name] for name in sorted(merged)]

    def list(self, name: str | None = None, *, limit: int = 100) -> Sequence[Listed]:
        """Clicks that were not taken: dead letters first, then those being retried, then those waiting.

        :param name: one notifier; all of them for ``None``.
        :param limit: the most to list.
        """
        found: list[Listed] = []
        request = Request(do="list", name=name, limit=limit)
        for part in self._everywhere(request, lambda journal: ledger.listing(journal, name, limit)):
            found += part
        order = ("dead", "retry", "waiting")
        return sorted(found, key=lambda one: order.index(one.state))[:limit]

    def retry(self, name: str | None = None, *, advance: Advance = ignore) -> int:
        """Try dead letters and all that waits for a retry again, now; how many clicks that concerns.

        :param name: one notifier; all of them for ``None``.
        :param advance: told of how many more clicks it was done.
        """

        def offline(journal: Journal) -> int:
            total = 0
            for one in ledger.check_name(journal, name):
                for count in _run(journal, ledger.retry(journal, one, time.time())):
                    total += count
                    advance(count)
            return total

        return sum(self._everywhere(Request(do="retry", name=name), offline, advance))

    def resume(self, name: str) -> bool:
        """Start a paused notifier again; whether it was paused.

        :param name: the notifier.
        """

        def offline(journal: Journal) -> bool:
            with journal.transaction():
                return ledger.resume(journal, name)

        return any(self._everywhere(Request(do="resume", name=name), offline))

    def purge(self, name: str | None = None, *, recipient: str | None = None, dead_only: bool = False) -> int:
        """Drop clicks without delivering them; how many.

        Those of a recipient are erased for all notifiers, also from the space that the file keeps for new clicks. A
        click that is on its way to a notifier at this moment may still arrive there.

        :param name: only those for this notifier; a parked one is then forgotten.
        :param recipient: instead, only clicks on mails to this address.
        :param dead_only: only dead letters.
        :raises ValueError: if ``recipient`` is given along with either of the others.
        """
        check_purge(name, recipient, dead_only)

        def offline(journal: Journal) -> int:
            if recipient is not None:
                journal.scrub(True)
                count = sum(number for number, _ in _run(journal, ledger.purge_recipient(journal, recipient)))
                journal.scrub(False)
                return count
            known = ledger.check_name(journal, name)
            return sum(
                count
                for one in known
                for count in _run(journal, ledger.purge_deliveries(journal, one, dead_only=dead_only, ahead=True))
            )

        return sum(self._everywhere(Request(do="purge", name=name, recipient=recipient, dead_only=dead_only), offline))

    def _everywhere(
        self, request: Request, offline: Callable[[Journal], Result], advance: Advance = ignore
    ) -> Sequence[Result]:
        try:
            return [self._at(slot, request, offline, advance) for slot in self._places(request.name)]
        except OSError as error:
            raise OutboxError(f"the spool {self._spool} cannot be used: {error}") from error

    def _places(self, name: str | None) -> Sequence[Slot]:
        places = slots(self._spool)
        if not places:
            raise OutboxError(f"there is no outbox in {self._spool}: no service has used this spool yet")
        if name is None:
            return places
        names = {slot: [one.name for one in self._at(slot, Request(do="status"), _status)] for slot in places}
        found = [slot for slot in places if name in names[slot]]
        return found or ledger.refuse(name, {name for several in names.values() for name in several})

    def _at(
        self, slot: Slot, request: Request, offline: Callable[[Journal], Result], advance: Advance = ignore
    ) -> Result:
        deadline = time.monotonic() + OWNER_WAIT
        while True:
            with self._own(slot) as journal:
                if journal is not None:
                    return offline(journal)
            # The owner may be about to start or to stop: then there is no socket, but soon there is one, or no owner.
            with contextlib.suppress(ConnectionError, FileNotFoundError):
                answer: Result = ask(slot.socket, request, _KINDS[request.do], advance=advance)
                return answer
            if time.monotonic() > deadline:
                raise OutboxError(f"{slot.file} belongs to a running process that does not answer on {slot.socket}")
            time.sleep(POLL)

    @contextlib.contextmanager
    def _own(self, slot: Slot) -> Iterator[Journal | None]:
        """The journal of a file that no service owns, else ``None``."""
        with door(self._spool):
            if slot.take():
                journal = Journal(slot.file)
                try:
                    journal.open()
                    yield journal
                finally:
                    journal.close()
                    slot.release()
                return
        yield None


_KINDS: Final[dict[str, Any]] = {
    "status": list[NotifierStatus],
    "list": list[Listed],
    "retry": int,
    "resume": bool,
    "purge": int,
}


def check_purge(name: str | None, recipient: str | None, dead_only: bool) -> None:
    """Refuse what makes no sense together.

    :raises ValueError: if ``recipient`` is given along with either of the others.
    """
    if recipient is not None and (name is not None or dead_only):
        raise ValueError("the clicks of a recipient are purged for all notifiers: give no other condition")


def _status(journal: Journal) -> list[NotifierStatus]:
    return ledger.status(journal, time.time())


def _run(journal: Journal, steps: Iterator[Result]) -> Iterator[Result]:
    """Each step in a transaction; then whatever they left to delete."""
    done = object()
    while True:
        with journal.transaction():
            result: Any = next(steps, done)
            more = journal.sweep()
        if result is not done:
            yield result
        elif not more:
            return


def _merge(one: NotifierStatus, other: NotifierStatus) -> NotifierStatus:
    """The same notifier in two processes."""
    latest = max(one, other, key=lambda status: status.error_at)
    return NotifierStatus(
        name=one.name,
        parked=one.parked and other.parked,
        paused=one.paused if one.paused is not None else other.paused,
        waiting=one.waiting + other.waiting,
        retrying=one.retrying + other.retrying,
        oldest=max(one.oldest, other.oldest),
        dead=one.dead + other.dead,
        error=latest.error,
        error_at=latest.error_at,
    )
