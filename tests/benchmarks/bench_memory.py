"""Memory that stays: ten thousand messages in one process, over the corpus's messages and templates, each to another
reader. Ends with exit code 1 where what Python holds goes on growing::

    POSTBOX_CORPUS=... python tests/benchmarks/bench_memory.py [--messages 10000]
"""

from __future__ import annotations

import argparse
import email
import email.policy
import gc
import itertools
import os
import resource
import sys
import tracemalloc
from email.message import EmailMessage
from pathlib import Path

from rich.console import Console
from rich.table import Table

from postbox_plugin import Postbox, Settings, new_key

MOST_GROWTH = 200_000
"""Bytes that Python may hold more at the end than after a fifth of the messages: what its own caches come to."""


def samples() -> list[bytes]:
    """The messages of the corpus, and its templates as messages; one of ours without a corpus."""
    corpus = os.environ.get("POSTBOX_CORPUS")
    if not corpus:
        return [message('<a href="https://example.com/">x</a>' * 60)]
    found = [path.read_bytes() for path in sorted(Path(corpus, "eml").rglob("*.eml"))]
    return found + [message(path.read_text("utf-8")) for path in sorted(Path(corpus, "html").rglob("*.html"))]


def message(html: str) -> bytes:
    """A message with that HTML."""
    built = EmailMessage(policy=email.policy.SMTP)
    built["From"] = "shop@example.com"
    built["Subject"] = "New this week"
    built.set_content(html, subtype="html")
    return built.as_bytes()


def main() -> None:
    """Send them all to nowhere, and look at the memory five times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    count = parser.parse_args().messages
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    raws = samples()
    shown = Table(title=f"memory over {len(raws)} samples", title_justify="left")
    for column in ("messages", "held by Python, KB", "most of the process, MB"):
        shown.add_column(column, justify="right")
    held: list[int] = []
    tracemalloc.start()
    for number, raw in zip(range(1, count + 1), itertools.cycle(raws)):
        reader = [f"reader{number}@example.org"]
        if number % 4:
            postbox.before_send(raw, recipients=reader)
        else:
            postbox.before_send(email.message_from_bytes(raw, policy=email.policy.default), recipients=reader)
        if number % (count // 5) == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            shown.add_row(f"{number:,}", f"{held[-1] / 1000:,.0f}", f"{most:,.0f}")
    Console().print(shown)
    if held[-1] > held[0] + MOST_GROWTH:
        sys.exit(f"it grew by {held[-1] - held[0]:,} bytes between {count // 5:,} and {count:,} messages")


if __name__ == "__main__":
    main()
