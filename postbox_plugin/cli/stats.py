"""``postbox stats``: what the clicks come to."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from postbox_plugin.cli.options import AsJson, tags_given
from postbox_plugin.cli.output import print_json, print_pairs, print_table, shown
from postbox_plugin.errors import PostboxError
from postbox_plugin.stats.aggregate import Aggregation, Count, Statistics
from postbox_plugin.stats.reading import STDIN, BrokenLine, read_clicks, total_size

__all__ = ["Clicks", "OnlyTags", "read", "stats"]

NAMED: Final = 10
"""The most broken lines that are named."""

Clicks: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="CLICKS",
        help="Files of the notifier log: one JSON object a line, gzipped or not; - is standard input.",
    ),
]
OnlyTags: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="KEY=VALUE",
        help="Count only the clicks of messages with this tag; of a key given twice, either value.",
    ),
]


def stats(
    clicks: Clicks,
    *,
    tag: OnlyTags = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="The most rows a table has on a terminal; 0 for all.")
    ] = 24,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: one row for each thing that was counted.")] = False,
) -> None:
    """Count clicks: by link, by tag, by hour, and those of machines apart.

    Unique are the different messages that were clicked in, told apart by
    message id: a tracked message has one reader. Hours are those of UTC. What
    came twice, with the same eventId, is counted once. Lines that are no
    click are named on standard error, and passed over.

    \b
    Examples:
      postbox stats clicks.jsonl
      postbox stats clicks.jsonl clicks.jsonl.*.gz --tag campaign=spring
      zcat clicks.jsonl.*.gz | postbox stats - --csv > clicks.csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("prints one format: give --json or --csv", param_hint="--csv")
    found = read(clicks, tag).result()
    if as_json:
        print_json(found)
    elif as_csv:
        _print_csv(found)
    else:
        _print(found, limit if sys.stdout.isatty() else 0)


def read(files: Sequence[Path], tags: Sequence[str] | None) -> Aggregation:
    """The clicks of files, counted; with a progress bar where somebody sits who can see it.

    :param files: as ``postbox stats`` takes them.
    :param tags: ``KEY=VALUE`` each: the message tags that clicks must carry.
    :raises PostboxError: if no line of them is a click.
    """
    for path in files:
        if path != STDIN and (path.is_dir() or not path.exists()):
            problem = "is a folder" if path.is_dir() else "is not there"
            raise typer.BadParameter(f"{path} {problem}", param_hint="CLICKS")
    aggregation = Aggregation(tags_given(tags))
    broken = 0

    def name(line: BrokenLine) -> None:
        nonlocal broken
        broken += 1
        if broken <= NAMED:
            where = f"{shown(line.file)}:{line.line}"
            # As Text, or rich would see markup and emoji (":100:") in it.
            progress.console.print(Text(f"postbox: {where}: not a click: {shown(line.problem)}"), soft_wrap=True)

    with _progress() as progress:
        task = progress.add_task("reading clicks", total=total_size(files))
        lines = read_clicks(
            files, aggregation, broken=name, progress=lambda size: progress.update(task, completed=size)
        )
    if broken > NAMED:
        typer.echo(f"postbox: lines that are no clicks, these and others: {broken}", err=True)
    if broken and not lines:
        raise PostboxError("there is no click in it: give files that the notifier log wrote")
    return aggregation


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress


def _print(found: Statistics, limit: int) -> None:
    pairs: list[tuple[str, object]] = [
        ("clicks", found.clicks),
        ("unique", f"{found.unique} messages"),
        ("machines", _machines(found)),
    ]
    if found.repeated:
        pairs.append(("came again", found.repeated))
    print_pairs(pairs)
    links = [
        ("" if one.index is None else one.index, *_numbers(one), one.address + ("?..." if one.differs else ""))
        for one in found.links
    ]
    _print_counts(("link", *_COUNTS, "address"), links, limit)
    for name, tags in (("link tag", found.link_tags), ("message tag", found.message_tags)):
        _print_counts((name, *_COUNTS), [(f"{one.key}: {one.value}", *_numbers(one)) for one in tags], limit)
    busiest = {one.hour for one in sorted(found.hours, key=lambda one: -one.clicks)[: limit or None]}
    hours = [(f"{one.hour:%Y-%m-%d %H:%M}", *_numbers(one)) for one in found.hours if one.hour in busiest]
    _print_counts(("hour (UTC)", *_COUNTS), hours, 0, left_out=len(found.hours) - len(hours))


_COUNTS: Final = ("clicks", "share", "unique", "machines")


def _numbers(count: Count) -> tuple[object, ...]:
    return count.clicks, count.percent, count.unique, count.machines


def _machines(found: Statistics) -> str:
    reasons = ", ".join(f"{reason or 'no reason given'}: {count}" for reason, count in found.reasons.items())
    return f"{found.machines} ({reasons})" if reasons else "0"


def _print_counts(columns: Sequence[str], rows: Sequence[Sequence[object]], limit: int, *, left_out: int = 0) -> None:
    if not rows:
        return
    print()  # noqa: T201
    print_table(columns, rows[: limit or None])
    if limit and len(rows) > limit:
        left_out = len(rows) - limit
    if left_out:
        print(f"and {left_out} more, with fewer clicks (--limit)")  # noqa: T201


def _print_csv(found: Statistics) -> None:
    rows: Iterable[tuple[str, object, str, Count]] = (
        ("all", "", "", found),
        *(("link", "" if one.index is None else one.index, one.address, one) for one in found.links),
        *(("link tag", one.key, one.value, one) for one in found.link_tags),
        *(("message tag", one.key, one.value, one) for one in found.message_tags),
        *(("hour", f"{one.hour:%Y-%m-%dT%H:%M:%SZ}", "", one) for one in found.hours),
    )
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("by", "key", "value", *_COUNTS))
    for by, key, value, count in rows:
        writer.writerow((by, key, value, count.clicks, round(count.share, 6), count.unique, count.machines))
    for reason, clicks in found.reasons.items():
        writer.writerow(("reason", reason, "", 0, 0.0, 0, clicks))
