"""A notifier that keeps clicks in an SQLite table, one row each."""

import re
import sqlite3
import threading

from postbox_plugin import Click, hookimpl

__all__ = ["SqliteNotifier"]


class SqliteNotifier:
    """Adds each click to a table. A click that comes again stays one row, for its event id is the key.

    The hooks are plain functions, so they are called in threads, and several at once: hence the lock.

    :param path: the database's file, made if it is missing.
    :param table: the table, made if it is missing.
    :param machines: whether to keep the clicks of prefetches, scanners and crawlers too.
    :raises ValueError: if ``table`` is no name.
    """

    def __init__(self, *, path: str, table: str = "clicks", machines: bool = True) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", table):
            raise ValueError(f"table: {table!r} is no name; write letters, digits and underscores")
        self._path = path
        self._table = table
        self._machines = machines
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @hookimpl
    def postbox_start(self) -> None:
        """Open the database."""
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        with self._database:
            self._database.execute(
                f'CREATE TABLE IF NOT EXISTS "{self._table}" (event_id TEXT PRIMARY KEY, clicked_at TEXT,'
                " message_id TEXT, recipient TEXT, url TEXT, machine INTEGER, notification TEXT)"
            )

    @hookimpl
    def postbox_stop(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    @hookimpl
    def postbox_click(self, click: Click) -> None:
        """Add a click: it is acknowledged when this returns, and comes again if it raises."""
        if click.is_machine and not self._machines:
            return
        assert self._database is not None, "postbox_start comes first"
        row = (
            click.event_id,
            click.click.timestamp,
            click.message_id,
            ", ".join(click.mail.common_headers.to),
            click.url,
            click.is_machine,
            click.to_json().decode(),
        )
        with self._lock, self._database:
            self._database.execute(f'INSERT OR IGNORE INTO "{self._table}" VALUES (?, ?, ?, ?, ?, ?, ?)', row)
