"""What people ask of an outbox file: status, list, retry, resume, purge. Synchronous.

What may touch a million rows is a generator of small steps, each in a transaction of its own, so that clicks are
journaled and delivered between them. A step yields how many clicks it concerned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.outbox.records import OPEN, Listed, NotifierStatus

__all__ = ["check_name", "listing", "purge_deliveries", "purge_recipient", "refuse", "resume", "retry", "status"]

STEP: Final = 1000


def check_name(journal: Journal, name: str | None) -> list[str]:
    """The notifiers that ``name`` means: that one, or all of them for ``None``.

    :raises OutboxError: if there is no such notifier.
    """
    known = [one for (one,) in journal.query("SELECT name FROM notifier ORDER BY name")]
    if name is None:
        return known
    return [name] if name in known else refuse(name, known)


def refuse(name: str, known: Iterable[str]) -> NoReturn:
    """Say that there is no such notifier.

    :raises OutboxError: always.
    """
    names = ", ".join(sorted(known)) or "nobody"
    raise OutboxError(f"there is no notifier named {name!r} in the outbox; it knows {names}")


def status(journal: Journal, now: float) -> list[NotifierStatus]:
    """How each notifier is doing, by name."""
    counts = {
        (name, state): (count, oldest)
        for name, state, count, oldest in journal.query(
            "SELECT notifier, state, count(*), min(click) FROM delivery GROUP BY notifier, state"
        )
    }
    found = []
    for name, parked, paused, error, error_at in journal.query(
        "SELECT name, parked, paused, error, error_at FROM notifier ORDER BY name"
    ):
        waiting = 0
        retrying, first = counts.get((name, "retry"), (0, OPEN))
        for end, start in journal.spans(name):
            stop = min(end, journal.last_id)
            if start <= stop:
                purged = "SELECT count(*) FROM click WHERE body IS NULL AND id BETWEEN ? AND ?"
                tried = "SELECT count(*) FROM delivery WHERE notifier = ? AND click BETWEEN ? AND ?"
                waiting += stop - start + 1
                waiting -= journal.query(purged, start, stop)[0][0] + journal.query(tried, name, start, stop)[0][0]
                first = min(first, start)
        made = journal.query("SELECT at FROM click WHERE id >= ? AND body IS NOT NULL ORDER BY id LIMIT 1", first)
        found.append(
            NotifierStatus(
                name=name,
                parked=bool(parked),
                paused=paused,
                waiting=waiting,
                retrying=retrying,
                oldest=max(0.0, now - made[0][0]) if made and waiting + retrying else 0.0,
                dead=counts.get((name, "dead"), (0, 0))[0],
                error=error,
                error_at=error_at,
            )
        )
    return found


def listing(journal: Journal, name: str | None, limit: int) -> list[Listed]:
    """Clicks that were not taken, at most ``limit``: the dead letters, then those being retried, then those waiting."""
    found = [
        Listed(notifier=notifier, event_id=event_id, at=at, state=state, tries=tries, due=due, error=error)
        for notifier in check_name(journal, name)
        for state in ("dead", "retry")
        for event_id, at, tries, due, error in journal.query(
            "SELECT event_id, at, tries, due, error FROM delivery JOIN click ON id = click "
            "WHERE notifier = ? AND state = ? ORDER BY due LIMIT ?",
            notifier,
            state,
            limit,
        )
    ]
    found.sort(key=lambda one: one.state)
    for notifier in check_name(journal, name):
        for end, start in journal.spans(notifier):
            if len(found) < limit:
                found += [
                    Listed(notifier=notifier, event_id=event_id, at=at, state="waiting")
                    for event_id, at in journal.query(
                        "SELECT event_id, at FROM click WHERE id BETWEEN ? AND ? AND body IS NOT NULL AND NOT EXISTS "
                        "(SELECT 1 FROM delivery WHERE notifier = ? AND click = id) ORDER BY id LIMIT ?",
                        start,
                        end,
                        notifier,
                        limit - len(found),
                    )
                ]
    return found[:limit]


def resume(journal: Journal, name: str) -> bool:
    """Clear a pause; whether there was one. Within a transaction."""
    sql = "UPDATE notifier SET paused = NULL WHERE name = ? AND paused IS NOT NULL RETURNING name"
    return bool(journal.query(sql, name))


def retry(journal: Journal, name: str, now: float) -> Iterator[int]:
    """Steps that make every failed click of a notifier due; dead letters get a whole new schedule."""
    sql = (
        "UPDATE delivery SET tries = iif(state = 'dead', 0, tries), first = iif(state = 'dead', NULL, first), "
        "due = ?, state = 'retry' WHERE (notifier, click) IN "
        "(SELECT notifier, click FROM delivery WHERE notifier = ? AND (state = 'dead' OR due > ?) LIMIT ?) "
        "RETURNING click"
    )
    while changed := len(journal.query(sql, now, name, now, STEP)):
        yield changed


def purge_deliveries(journal: Journal, name: str, *, dead_only: bool, ahead: bool) -> Iterator[int]:
    """Steps that drop a notifier's clicks. A parked name without any is forgotten.

    :param dead_only: drop the dead letters, and nothing else.
    :param ahead: drop those not tried yet too; a running service lets its courier skip them.
    """
    sql = "DELETE FROM delivery WHERE (notifier, click) IN (SELECT notifier, click FROM delivery "
    sql += "WHERE notifier = ? AND state IN ('dead', ?) LIMIT ?) RETURNING click"
    while dropped := [click for (click,) in journal.query(sql, name, "dead" if dead_only else "retry", STEP)]:
        for click in dropped:
            journal.release(click, click + 1)
        yield len(dropped)
    if dead_only:
        return
    if ahead:
        skipped = next(one.waiting for one in status(journal, 0.0) if one.name == name)
        spans = journal.spans(name)
        journal.query("DELETE FROM span WHERE notifier = ? AND end < ?", name, OPEN)
        journal.query("UPDATE span SET next = ? WHERE notifier = ? AND end = ?", journal.last_id + 1, name, OPEN)
        for end, start in spans:
            journal.release(start, min(end, journal.last_id) + 1)
        yield skipped
    journal.query(
        "DELETE FROM notifier WHERE name = ? AND parked AND NOT EXISTS (SELECT 1 FROM span WHERE notifier = name)", name
    )
    yield 0


def purge_recipient(journal: Journal, recipient: str) -> Iterator[tuple[int, list[int]]]:
    """Steps that erase the clicks on mails to one address, for every notifier.

    Each yields a count, and the ids that went. The number of a click that notifiers have still to come to stays behind,
    without anything of the click.
    """
    wanted = recipient.strip().lower()
    start = 0
    while True:
        # Windows of rows, not of matches: each step reads the same amount, whoever is looked for.
        window = journal.query("SELECT id FROM click WHERE id >= ? ORDER BY id LIMIT 1 OFFSET ?", start, STEP)
        stop = window[0][0] if window else OPEN
        found = [
            click
            for (click,) in journal.query(
                "UPDATE click SET body = NULL, recipients = '' WHERE id >= ? AND id < ? AND body IS NOT NULL "
                "AND instr(char(10) || recipients || char(10), char(10) || ? || char(10)) RETURNING id",
                start,
                stop,
                wanted,
            )
        ]
        for click in found:
            journal.query("DELETE FROM delivery WHERE click = ?", click)
            journal.release(click, click + 1)
        yield len(found), found
        if stop == OPEN:
            return
        start = stop
