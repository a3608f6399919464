"""A file of clicks, counted: ours, which counts by link, tag and hour, beside the standard library's json doing no more
than reading the lines. The best of several runs each, taking turns, each in a process of its own::

    python tests/benchmarks/bench_stats.py [--lines 200000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from postbox_plugin.click import Click, ClickDetail, ClickedMail, CommonHeaders, Tracking, timestamp
from postbox_plugin.stats import Aggregation

SENT = datetime(2026, 4, 25, 8, 0, tzinfo=UTC)
USER_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile"


def write(file: Path, lines: int) -> None:
    """Clicks of a newsletter with 60 links that a third as many readers got as there are clicks."""
    chance = random.Random(1)
    readers = [random_id(chance, 12) for _ in range(lines // 3 + 1)]
    with file.open("wb") as written:
        for _ in range(lines):
            index = min(int(chance.expovariate(0.1)), 59)
            message = chance.choice(readers)
            click = Click(
                mail=ClickedMail(
                    timestamp=timestamp(SENT),
                    message_id=message,
                    identity_id="example.com",
                    common_headers=CommonHeaders(
                        from_=("Bookshop <news@example.com>",),
                        to=("Reader Name <reader@example.org>",),
                        date="Sat, 25 Apr 2026 08:00:00 +0000",
                        message_id=message,
                        subject="New this week",
                    ),
                    tags={"campaign": ("spring",), "cohort": (chance.choice("ab"),)},
                ),
                click=ClickDetail(
                    ip_address="192.0.2.1",
                    timestamp=timestamp(SENT + timedelta(seconds=chance.expovariate(1 / 60_000))),
                    user_agent=USER_AGENT,
                    url=f"https://example.com/books/{index}?utm_source=letter&reader={message}",
                    link_tags={"genre": (f"genre-{index % 7}",), "place": ("shelf",)},
                ),
                event_id=random_id(chance, 16)[:21] + ":0",
                tracking=Tracking(link_index=index, verdict=chance.choices(("human", "machine"), (9, 1))[0]),
            )
            written.write(click.to_json() + b"\n")


def random_id(chance: random.Random, size: int) -> str:
    """An id as messages and events have them."""
    return base64.urlsafe_b64encode(chance.randbytes(size)).decode()


def ours(file: Path) -> None:
    """Count by link, tag and hour; unique; machines apart; each click once."""
    aggregation = Aggregation()
    with file.open("rb") as lines:
        for line in lines:
            aggregation.add(line)
    assert aggregation.result().clicks


def standard(file: Path) -> None:
    """Read each line, and count nothing but lines."""
    with file.open("rb") as lines:
        assert sum(json.loads(line)["eventType"] == "Click" for line in lines)


def measured(count: Callable[[Path], None], file: Path) -> tuple[float, float]:
    """Seconds, and the most megabytes the process held."""
    started = time.perf_counter()
    count(file)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write the file, and count it by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[Callable[[Path], None], list[tuple[float, float]]] = {ours: [], standard: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clicks.jsonl")
        write(file, given.lines)
        size = file.stat().st_size
        for _ in range(given.rounds):
            for count, figures in found.items():
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    figures.append(pool.apply(measured, (count, file)))
    shown = Table(title=f"{given.lines:,} clicks, {size / 1e6:,.0f} MB", title_justify="left")
    for column in ("", "s", "clicks a second", "peak memory, MB"):
        shown.add_column(column, justify="right" if column else "left")
    names = {ours: "postbox stats: by link, tag and hour", standard: "json.loads of each line, no more"}
    for count, figures in found.items():
        seconds, memory = (min(values) for values in zip(*figures, strict=True))
        shown.add_row(names[count], f"{seconds:.2f}", f"{given.lines / seconds:,.0f}", f"{memory:,.0f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
