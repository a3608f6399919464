"""The outbox file: its tables, its settings, its versions."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from postbox_plugin.errors import OutboxError

__all__ = ["VERSION", "connect"]

# A click is one row. What a notifier has still to get is in `span`: all ids from `next` to `end`; the span with the
# largest possible end is the one that new clicks belong to. A click outside a notifier's spans was taken by it, unless
# it has a row of its own in `delivery`. So a million waiting clicks are one row a notifier, and a backlog can be cut
# off from the new clicks by splitting a span. A click that is in no span and no delivery is deleted. Ids are given by
# us, ever upwards, for SQLite would use those of deleted rows again.
_STEPS: Final = (
    """
    CREATE TABLE click (
        id INTEGER PRIMARY KEY,
        event_id TEXT NOT NULL,     -- without an index: its pages would be most of what a commit writes
        at REAL NOT NULL,
        recipients TEXT NOT NULL,   -- lower-case addresses, one a line, for purging
        body BLOB                   -- the notification; NULL when it was purged while spans still held its id
    );
    CREATE INDEX click_purged ON click (id) WHERE body IS NULL;
    CREATE TABLE notifier (
        name TEXT PRIMARY KEY,
        parked INTEGER NOT NULL DEFAULT 0,
        paused TEXT,                -- the reason
        error TEXT NOT NULL DEFAULT '',
        error_at REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE span (
        notifier TEXT NOT NULL,
        end INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (notifier, end)
    ) WITHOUT ROWID;
    CREATE TABLE delivery (
        notifier TEXT NOT NULL,
        click INTEGER NOT NULL,
        state TEXT NOT NULL,        -- retry, dead
        tries INTEGER NOT NULL,
        first REAL,                 -- the first failure
        due REAL NOT NULL,          -- the next try; of a dead letter: when it is dropped
        error TEXT NOT NULL,
        PRIMARY KEY (notifier, click)
    ) WITHOUT ROWID;
    CREATE INDEX delivery_due ON delivery (notifier, state, due);
    CREATE INDEX delivery_click ON delivery (click);
    """,
)

VERSION: Final = len(_STEPS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the outbox file, make it where it is missing, and bring it to this version's form.

    The one connection locks the file for itself (``locking_mode=EXCLUSIVE``): SQLite before 3.51.3 can corrupt a WAL
    file that two connections write to and checkpoint.

    :raises sqlite3.Error: if SQLite cannot.
    :raises OSError: if the file system cannot.
    :raises OutboxError: if a newer version of this project wrote the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # SQLite gives its -wal file the mode of the main file.
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise OutboxError(
                f"{path} has the form {version}, and this version of postbox-plugin knows up to {VERSION}: upgrade it"
            )
        for place in range(version, VERSION):
            connection.executescript(f"BEGIN IMMEDIATE; {_STEPS[place]} PRAGMA user_version = {place + 1}; COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection
