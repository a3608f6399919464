"""The records that pass between the parts of the outbox, and those that ``postbox outbox`` shows."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from postbox_plugin.click import Click
from postbox_plugin.counts import Snapshot

__all__ = ["OPEN", "Changes", "Entry", "Health", "Listed", "NotifierStatus", "Row", "Stored", "recipients_of"]

OPEN: Final = 2**63 - 1
"""The end of the span that new clicks belong to."""


class Entry(NamedTuple):
    """A click on its way into the journal: its id, the time, who was written to (one address a line), its JSON."""

    event_id: str
    at: float
    recipients: str
    body: bytes


class Stored(NamedTuple):
    """A click out of the journal, with how often one notifier was already tried and when it first failed."""

    id: int
    body: bytes
    tries: int = 0
    first: float | None = None


class Row(NamedTuple):
    """What is kept of a click that one notifier did not take: the columns of ``delivery`` that change."""

    state: Literal["retry", "dead"]
    tries: int
    first: float | None
    due: float
    error: str


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What one notifier has to have written. All values are absolute, so writing them twice does no harm.

    :ivar name: the notifier.
    :ivar serial: the journal file that the ids belong to (:attr:`.journal.Journal.serial`).
    :ivar spans: each span that moved, by its end: the first id in it that is not settled.
    :ivar rows: rows to write, or to delete (``None``), by click id.
    :ivar paused: the reason of a pause, if one is to be kept.
    :ivar error: the last error and its time, if there is a new one.
    """

    name: str
    serial: int
    spans: dict[int, int]
    rows: dict[int, Row | None]
    paused: str | None
    error: tuple[str, float] | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is doing.

    :ivar slot: the number of its outbox file.
    :ivar error: why nothing can be written at the moment; ``""`` where all is well.
    :ivar waiting: clicks that wait in memory for the disk.
    :ivar counts: what it has counted since its start.
    :ivar notifiers: how each notifier is doing; none where the journal cannot be read.
    """

    slot: int
    error: str
    waiting: int
    counts: Snapshot
    notifiers: list[NotifierStatus]


class NotifierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one notifier is doing: a line of ``postbox outbox status``.

    :ivar name: its name in the settings.
    :ivar parked: it is no longer configured; its clicks are kept until it is again, or until they are purged.
    :ivar paused: why it is paused; ``None`` where it is not.
    :ivar waiting: clicks that were not tried yet, those on their way included.
    :ivar retrying: clicks that failed and will be tried again.
    :ivar oldest: seconds since the oldest click that is waiting or retrying was made; 0 where there is none.
    :ivar dead: dead letters.
    :ivar error: the last error, ``""`` if there was none.
    :ivar error_at: its time, seconds since 1970; 0 if there was none.
    """

    name: str
    parked: bool = False
    paused: str | None = None
    waiting: int = 0
    retrying: int = 0
    oldest: float = 0.0
    dead: int = 0
    error: str = ""
    error_at: float = 0.0


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One click that one notifier has not taken: a line of ``postbox outbox list``. It names nobody.

    :ivar notifier: the notifier's name.
    :ivar event_id: the click's id.
    :ivar at: when it was journaled, seconds since 1970.
    :ivar state: ``waiting`` (not tried yet), ``retry`` or ``dead``.
    :ivar tries: how often it was tried.
    :ivar due: when it is tried again, or dropped if dead; 0 for a waiting one.
    :ivar error: the last error.
    """

    notifier: str
    event_id: str
    at: float
    state: Literal["waiting", "retry", "dead"]
    tries: int = 0
    due: float = 0.0
    error: str = ""


def recipients_of(click: Click) -> str:
    """Who the mail of this click went to, as ``purge --recipient`` compares it: one address a line, in lower case.

    Empty where ``Settings.carry`` has no ``to``: such a click cannot be told from anybody's.
    """
    return "\n".join(_bare(text) for text in click.mail.common_headers.to)


def _bare(address: str) -> str:
    # This runs for every click; email.utils would take longer than all the rest of putting it. What is not
    # "Name <address>" is kept whole.
    return address[address.rfind("<") + 1 :].strip("> \t").lower()
