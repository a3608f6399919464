"""Outbox files that nobody owns any more, after a crash or with fewer workers: their clicks move into a living one.

A click moves in two transactions: first it is written where it goes, then it is deleted where it was. A crash between
them delivers it twice, with the same event id.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import Entry
from postbox_plugin.outbox.slot import Slot, door, slots

__all__ = ["Orphan", "Owed", "orphans", "receive"]

log = logging.getLogger("postbox.outbox")

STEP: Final = 200
"""How many clicks move at once."""


class Owed(NamedTuple):
    """A click with what is known of it for each notifier that it is still owed to: the columns of ``delivery``."""

    id: int
    entry: Entry
    rows: list[tuple[str, str, int, float | None, float, str]]


class Orphan:
    """One outbox file without an owner, whose lock we hold.

    :param slot: the file.
    :param clock: the time, in seconds since 1970.
    """

    def __init__(self, slot: Slot, clock: Callable[[], float]) -> None:
        self.name: Final = slot.file.name
        self._slot = slot
        self._clock = clock
        self._journal = Journal(slot.file, clock)

    def open(self) -> None:
        """Open the file.

        :raises OutboxError: if it cannot be opened.
        """
        self._journal.open()

    def next(self) -> list[Owed]:
        """The oldest clicks that it still owes; none when there are no more.

        :raises OutboxError: if it cannot be read.
        """
        journal, now = self._journal, self._clock()
        spans = journal.query("SELECT notifier, next, end FROM span")
        found: list[Owed] = []
        for number, *entry in journal.query(
            "SELECT id, event_id, at, recipients, body FROM click WHERE body IS NOT NULL ORDER BY id LIMIT ?", STEP
        ):
            rows = journal.query(
                "SELECT notifier, state, tries, first, due, error FROM delivery WHERE click = ?", number
            )
            tried = {row[0] for row in rows}
            rows += [
                (name, "retry", 0, None, now, "")
                for name, start, end in spans
                if start <= number <= end and name not in tried
            ]
            found.append(Owed(number, Entry(*entry), rows))
        return found

    def forget(self, moved: Sequence[Owed]) -> None:
        """Delete clicks that are in another file now.

        :raises OutboxError: if the disk or the file fails.
        """
        with self._journal.transaction() as connection:
            ids = [(owed.id,) for owed in moved]
            connection.executemany("DELETE FROM delivery WHERE click = ?", ids)
            connection.executemany("DELETE FROM click WHERE id = ?", ids)

    def close(self, *, remove: bool) -> None:
        """Let the file go.

        :param remove: remove it, for it is empty. Its lock stays: whoever has it open already would hold another one.
        """
        self._journal.close()
        if remove:
            for suffix in ("", "-wal", "-shm"):
                self._slot.file.with_name(self._slot.file.name + suffix).unlink(missing_ok=True)
            self._slot.socket.unlink(missing_ok=True)
        self._slot.release()


def orphans(spool: Path, own: int, clock: Callable[[], float]) -> Iterator[Orphan]:
    """The outbox files of a spool that nobody owns; each is ours until it is closed.

    :param own: the number of our own file.
    :raises OSError: if the spool cannot be read.
    """
    for slot in slots(spool):
        taken = False
        # Whoever holds the door works on the files himself.
        with contextlib.suppress(OutboxError), door(spool, wait=0):
            taken = slot.number != own and slot.take()
        if taken:
            yield Orphan(slot, clock)


def receive(journal: Journal, owed: Sequence[Owed]) -> None:
    """Write clicks that come from another file, with ids that no span covers. Within a transaction."""
    ids = "SELECT min(id) FROM (SELECT min(id) AS id FROM click UNION ALL SELECT min(next) FROM span)"
    lowest = journal.query(ids)[0][0]
    number = journal.last_id + 1 if lowest is None else lowest
    for _, entry, rows in owed:
        if not rows:
            continue
        number -= 1
        journal.query("INSERT INTO click (id, event_id, at, recipients, body) VALUES (?, ?, ?, ?, ?)", number, *entry)
        for name, *state in rows:
            # One that is not configured here is parked, as it would be in its own file.
            journal.query("INSERT INTO notifier (name, parked) VALUES (?, 1) ON CONFLICT DO NOTHING", name)
            journal.query(
                "INSERT INTO delivery (notifier, click, state, tries, first, due, error) VALUES (?, ?, ?, ?, ?, ?, ?)",
                name,
                number,
                *state,
            )
