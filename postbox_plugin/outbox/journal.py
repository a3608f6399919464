"""The journal: what one outbox file holds, and every change of it that delivery makes. Synchronous, over one
connection.

What people ask of an outbox (status, list, retry, resume, purge) is in ``ledger.py``.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.records import OPEN, Changes, Entry, Stored
from postbox_plugin.outbox.schema import connect

__all__ = ["Journal"]

log = logging.getLogger("postbox.outbox")

ROWS: Final = 64
"""The most clicks that one statement inserts."""
SWEEP: Final = 2000
"""The most ids that one transaction looks at to delete clicks, so that it stays quick."""
WAL_PAGES: Final = 4000
"""About how far the write-ahead log grows before a checkpoint: 16 MB."""
VACUUM_PAGES: Final = 2000
"""The most free pages that one checkpoint gives back, so that clicks do not wait for it long."""
SPARE_PAGES: Final = 4096
"""Free pages that the file keeps for clicks to come; what exceeds them goes back to the file system."""


class Journal:
    """One outbox file.

    After any failure the connection is thrown away with all that was known of the file, and the next use opens it
    again. A damaged file is set aside, for a person to look at, and a new one begun.

    :param path: the file.
    :param clock: the time, in seconds since 1970.
    :ivar serial: changes when a damaged file was set aside: ids known from before mean nothing any more.
    :ivar last_id: the id of the newest click.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._names: Sequence[str] | None = None
        self._closed = True
        self._released: deque[tuple[int, int]] = deque()
        self._recording = False
        self._commits = 0
        self._rows_at_checkpoint = 0
        self.serial = 0
        self.last_id = 0

    # Opening and closing

    def open(self, names: Sequence[str] | None = None) -> None:
        """Open the file, and register the configured notifiers.

        A new name begins with the clicks to come, not with those that wait for others. A name that is missing is
        parked: its clicks are kept, and it gets no new ones.

        :param names: the configured notifiers; ``None`` to leave what is registered as it is.
        :raises OutboxError: if the file cannot be opened.
        """
        self._names = names
        self._closed = False
        with self._guard():
            self._open()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if self._closed:
            raise OutboxError(f"{self._path} was closed")
        try:
            return self._read_in()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._discard(error)
            return self._read_in()

    def _read_in(self) -> sqlite3.Connection:
        connection = connect(self._path)
        self._connection = connection
        self._commits = 0
        self._rows_at_checkpoint = connection.total_changes
        ids = "SELECT max(id) FROM click UNION SELECT max(next) - 1 FROM span "
        ids += "UNION SELECT max(end) FROM span WHERE end < ?"
        known = [value for (value,) in connection.execute(ids, (OPEN,)) if value is not None]
        # A new file begins at the microseconds of its birth, above every id of a file that was set aside.
        self.last_id = max(known, default=int(self._clock() * 1e6))
        connection.execute("BEGIN IMMEDIATE")
        if self._names is not None:
            self._register(connection, self._names)
        self._recording = bool(connection.execute("SELECT 1 FROM span WHERE end = ?", (OPEN,)).fetchone())
        connection.execute("COMMIT")
        self._released.clear()
        self.release(0, self.last_id + 1)
        return connection

    def _register(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        known = {name for (name,) in connection.execute("SELECT name FROM notifier")}
        for name in known.difference(names):
            head = (name, OPEN)
            connection.execute("UPDATE notifier SET parked = 1 WHERE name = ?", (name,))
            connection.execute("DELETE FROM span WHERE notifier = ? AND end = ? AND next > ?", (*head, self.last_id))
            connection.execute("UPDATE span SET end = ? WHERE notifier = ? AND end = ?", (self.last_id, *head))
        for name in names:
            connection.execute("INSERT INTO notifier (name) VALUES (?) ON CONFLICT DO UPDATE SET parked = 0", (name,))
            connection.execute(
                "INSERT INTO span (notifier, end, next) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (name, OPEN, self.last_id + 1),
            )

    def close(self) -> None:
        """Close the file; what is left of the write-ahead log is copied into it. Closing twice is fine."""
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._discard(error)
            if isinstance(error, sqlite3.Error | OSError):
                raise OutboxError(f"{self._path}: {error}") from error
            raise

    def _discard(self, error: BaseException) -> None:
        try:
            self._disconnect()
        except sqlite3.Error:
            log.exception("%s could not be closed after an error", self._path)
        if _is_damage(error):
            self._set_aside(error)

    def _set_aside(self, error: BaseException) -> None:
        stamp = f"damaged-{int(self._clock() * 1e6)}"
        for suffix in ("", "-wal"):
            path = self._path.with_name(self._path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                path.rename(self._path.with_name(f"{self._path.name}.{stamp}{suffix}"))
        self.serial += 1
        log.critical(
            "%s is damaged (%s). It was set aside as %s.%s, and a new one begun; the clicks in it wait for somebody to "
            "salvage them (sqlite3 FILE .recover)",
            self._path,
            error,
            self._path.name,
            stamp,
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: what is done within is on disk afterwards, or nothing of it is.

        :raises OutboxError: if the disk or the file fails.
        """
        with self._guard():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
            self._commits += 1

    def query(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a question.

        :raises OutboxError: if the disk or the file fails.
        """
        with self._guard():
            return self._open().execute(sql, values).fetchall()

    # Clicks in

    def append(self, entries: Iterable[Entry]) -> None:
        """Journal clicks. Within a transaction.

        Without any notifier nobody is to be told, and nothing is kept.
        """
        connection = self._open()
        if not self._recording:
            return
        # Ids have no gaps, so that the length of a span is the number of its clicks.
        rows = [(number, *entry) for number, entry in enumerate(entries, self.last_id + 1)]
        # Not executemany(), which lets go of the interpreter for each row: a busy loop gives it back to this thread
        # milliseconds later.
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            connection.execute(_insertion(len(some)), [value for row in some for value in row])
        self.last_id += len(rows)

    # Clicks out

    def spans(self, name: str) -> list[tuple[int, int]]:
        """What a notifier has still to get, oldest first: end and next id of each span."""
        return self.query("SELECT end, next FROM span WHERE notifier = ? ORDER BY end", name)

    def paused(self, name: str) -> str | None:
        """Why a notifier is paused; ``None`` where it is not."""
        rows = self.query("SELECT paused FROM notifier WHERE name = ?", name)
        return rows[0][0] if rows else None

    def waiting(self, name: str, start: int, end: int, limit: int) -> list[Stored]:
        """The first clicks with ids from ``start`` to ``end`` that a notifier was not tried with, at most ``limit``.

        After a crash, clicks beyond the position may have failed already: those have rows.
        """
        sql = (
            "SELECT id, body FROM click WHERE id BETWEEN ? AND ? AND body IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM delivery WHERE notifier = ? AND click = id) ORDER BY id LIMIT ?"
        )
        return [Stored(*row) for row in self.query(sql, start, end, name, limit)]

    def due(self, name: str, now: float, limit: int) -> list[Stored]:
        """Clicks that a notifier is to be tried with again by now, longest due first, at most ``limit``."""
        sql = (
            "SELECT id, body, tries, first FROM delivery JOIN click ON id = click "
            "WHERE notifier = ? AND state = 'retry' AND due <= ? ORDER BY due LIMIT ?"
        )
        return [Stored(*row) for row in self.query(sql, name, now, limit)]

    def next_due(self, name: str, now: float) -> float | None:
        """When the next retry after now is due."""
        sql = "SELECT min(due) FROM delivery WHERE notifier = ? AND state = 'retry' AND due > ?"
        due: float | None = self.query(sql, name, now)[0][0]
        return due

    def settle(self, changes: Changes) -> None:
        """Write what became of clicks that a notifier was given. Within a transaction."""
        connection = self._open()
        name = changes.name
        if changes.paused is not None:
            connection.execute("UPDATE notifier SET paused = ? WHERE name = ?", (changes.paused, name))
        if changes.error is not None:
            connection.execute("UPDATE notifier SET error = ?, error_at = ? WHERE name = ?", (*changes.error, name))
        if changes.serial != self.serial:  # its ids are those of another file, or of none yet: it has not started
            return
        moved = [
            (old, start)
            for end, start in changes.spans.items()
            for (old,) in connection.execute("SELECT next FROM span WHERE notifier = ? AND end = ?", (name, end))
        ]
        connection.executemany(
            "INSERT INTO span (notifier, end, next) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
            [(name, end, start) for end, start in changes.spans.items()],
        )
        connection.executemany(
            "DELETE FROM span WHERE notifier = ? AND end = ? AND next > end", [(name, end) for end in changes.spans]
        )
        kept = [(name, *row, click) for click, row in changes.rows.items() if row is not None]
        connection.executemany(
            # A click that was purged while it was on its way does not come back.
            "INSERT INTO delivery (notifier, state, tries, first, due, error, click) SELECT ?, ?, ?, ?, ?, ?, id "
            "FROM click WHERE id = ? AND body IS NOT NULL "
            "ON CONFLICT DO UPDATE SET state = excluded.state, tries = excluded.tries, first = excluded.first, "
            "due = excluded.due, error = excluded.error",
            kept,
        )
        gone = [click for click, row in changes.rows.items() if row is None]
        connection.executemany(
            "DELETE FROM delivery WHERE notifier = ? AND click = ?", [(name, click) for click in gone]
        )
        for old, start in moved:
            self.release(old, start)
        for click in gone:
            self.release(click, click + 1)

    # Housekeeping

    def release(self, start: int, stop: int) -> None:
        """Note those ids from ``start`` to before ``stop`` that are in no span: :meth:`sweep` deletes their clicks.

        Within a transaction, after spans moved or rows of ``delivery`` went.

        No span ever covers them again, so a note stays true; and opening the file takes all notes afresh.
        """
        covered = self._open().execute(
            "SELECT next, end FROM span WHERE next < ? AND end >= ? ORDER BY next", (stop, start)
        )
        for first, end in covered:
            if start < first:
                self._released.append((start, first))
            start = max(start, end + 1)
        if start < stop:
            self._released.append((start, stop))

    def sweep(self) -> bool:
        """Delete some of the clicks that no notifier needs any more; whether there are more. Within a transaction."""
        connection = self._open()
        budget = SWEEP
        while budget > 0 and self._released:
            start, stop = self._released.popleft()
            (first,) = connection.execute(
                "SELECT min(id) FROM click WHERE id >= ? AND id < ?", (start, stop)
            ).fetchone()
            budget -= 1
            if first is None:
                continue
            until = min(stop, first + budget + 1)
            connection.execute(
                "DELETE FROM click WHERE id >= ? AND id < ? "
                "AND NOT EXISTS (SELECT 1 FROM delivery WHERE click = click.id)",
                (first, until),
            )
            budget -= until - first
            if until < stop:
                self._released.appendleft((until, stop))
        return bool(self._released)

    def drop_dead(self) -> None:
        """Drop some of the dead letters that were kept long enough. Within a transaction."""
        sql = "DELETE FROM delivery WHERE (notifier, click) IN (SELECT notifier, click FROM delivery "
        sql += "WHERE notifier = ? AND state = 'dead' AND due <= ? LIMIT ?) RETURNING click"
        for (name,) in self.query("SELECT name FROM notifier"):
            for (click,) in self.query(sql, name, self._clock(), SWEEP):
                self.release(click, click + 1)

    def hasten(self, longest: float) -> None:
        """Make retries due that would wait longer than any wait is: the clock was put back. Within a transaction.

        :param longest: the longest wait there is, in seconds.
        """
        now = self._clock()
        sql = "UPDATE delivery SET due = ? WHERE notifier = ? AND state = 'retry' AND due > ?"
        for (name,) in self.query("SELECT name FROM notifier"):
            self.query(sql, now, name, now + longest)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the write-ahead log has become long."""
        if self._connection is None:
            return False
        # SQLite's Python module does not tell the log's length. A commit of one click writes about five pages, and a
        # changed row in a large commit about half a one.
        rows = self._connection.total_changes - self._rows_at_checkpoint
        return 5 * self._commits + rows // 2 > WAL_PAGES

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file, and give free pages back to the file system.

        :raises OutboxError: if the disk or the file fails.
        """
        with self._guard():
            connection = self._open()
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._commits = 0
            self._rows_at_checkpoint = connection.total_changes
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            surplus = min(free - SPARE_PAGES, VACUUM_PAGES)
            if surplus > 0:
                # execute() would step once, and free one page.
                connection.executescript(f"PRAGMA incremental_vacuum({surplus})")

    def scrub(self, on: bool) -> None:
        """Whether what is deleted is overwritten; turned on while the clicks of a person are purged.

        :raises OutboxError: if the disk or the file fails.
        """
        with self._guard():
            self._open().execute(f"PRAGMA secure_delete = {int(on)}").fetchall()
            if not on:
                self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


_INSERT: Final = "INSERT INTO click (id, event_id, at, recipients, body) VALUES (?, ?, ?, ?, ?)"


@lru_cache(ROWS)
def _insertion(rows: int) -> str:
    return _INSERT + ", (?, ?, ?, ?, ?)" * (rows - 1)


def _is_damage(error: BaseException) -> bool:
    # Extended result codes have the plain one in their low byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
