"""What commands print: tables and colour on a terminal, tab-separated lines and JSON elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Bar", "ago", "print_json", "print_pairs", "print_table", "shown"]

# Mails come from anywhere: what a terminal would obey is shown instead. C0, DEL, C1, and the marks that reorder text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

STYLES = {
    "clipped": "yellow",
    "text differs": "yellow",
    "text is an address": "yellow",
    "placeholder": "yellow",
    "ok": "green",
    "active": "green",
    "tracked": "green",
    "failed": "bold red",
    "dead": "bold red",
    "paused": "yellow",
    "retry": "yellow",
    "blocked": "yellow",
    "parked": "yellow",
    "skipped": "dim",
    "available": "dim",
    "waiting": "dim",
}


def shown(value: object) -> str:
    """A value as one line of text, with control characters escaped."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(value))


def print_json(value: Any) -> None:
    """Records as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())  # noqa: T201


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headings: a table for a person, tab-separated lines with a first line of headings for a program."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(shown(cell) for cell in row))  # noqa: T201
        return
    table = Table(*columns, header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(shown(cell), STYLES.get(str(cell), ""), overflow="fold") for cell in row))
    Console().print(table)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    if not sys.stdout.isatty():
        for name, value in pairs:
            print(f"{name}\t{shown(value)}")  # noqa: T201
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in pairs:
        table.add_row(Text(name, "bold"), Text(shown(value), overflow="fold"))
    Console().print(table)


class Bar:
    """A progress bar on standard error where that is a terminal, for as long as it is entered; nothing elsewhere.

    :param what: what is counted.
    """

    def __init__(self, what: str) -> None:
        self._what: Final = what
        self._progress: Progress | None = None
        self._total = 0
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, total: int) -> None:
        """From here on, so many are to be done."""
        if not sys.stderr.isatty():
            return
        # Few commands have one, and it is slow to import.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.add_task(self._what, total=total)
        self._progress.start()
        self._total = total

    def advance(self, more: int) -> None:
        """So many more are done."""
        self._done += more
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self._done)

    def left(self, count: int) -> None:
        """So many are left to do; the first time, they are all."""
        if self._progress is None and count:
            self.begin(count)
        self.advance(max(0, self._total - count) - self._done)


def ago(seconds: float) -> str:
    """A time span in its largest unit, rounded down: ``3 h``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
