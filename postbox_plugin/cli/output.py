"""What commands print: tables and colour on a terminal, tab-separated lines and JSON elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["ago", "print_json", "print_pairs", "print_table", "shown"]

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


def ago(seconds: float) -> str:
    """A time span in its largest unit, rounded down: ``3 h``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
