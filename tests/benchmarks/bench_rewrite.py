"""Rewriting: time, length of links and memory, each beside a named peer in the same run.

The contestants take turns, many rounds long, and the table shows the best time of each: what the machine adds to a
measurement is only ever more. A turn of (a) is a small mailing, as senders send them: ten messages, each to a reader of
its own with a greeting and a link of its own; the time is that of one message. Then it is a single message, before
which the others have had the processor's caches and left their garbage::

    python tests/benchmarks/bench_rewrite.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import email
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import lxml.html
import pytracking
import pytracking.html
from cryptography.fernet import Fernet
from rich.console import Console
from rich.table import Table

from postbox_plugin import Mail, Postbox, Settings, new_key
from postbox_plugin.links.rewrite import links_of
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.tokens.keyring import KeyRing

KEY = new_key()
DOMAIN = "click.example.com"
MAILING = 10
"""Messages of a long turn."""
METADATA = {
    "message_id": "QA_JPkU2fkpIWdkx",
    "from": "Bookshop <news@example.com>",
    "to": "Reader <reader@example.org>",
    "subject": "New this week",
    "date": "Sat, 25 Apr 2026 18:08:03 +0000",
}
PRODUCT = """<tr><td align="center" style="padding: 0 12px 24px; font-family: Arial, 'Helvetica Neue', sans-serif">
<!--[if mso]><table role="presentation" width="180" cellpadding="0" cellspacing="0"><tr><td><![endif]-->
<a href="https://www.example.com/books/{n}/some-title?utm_source=newsletter&amp;utm_medium=email&amp;utm_content={n}"
 style="color: #1a4d8f; text-decoration: none" target="_blank"><img src="https://cdn.example.com/covers/{n}.jpg"
 width="180" height="270" alt="The cover of book number {n}" style="display: block; border: 0"></a>
<!--[if mso]></td></tr></table><![endif]--></td></tr>
"""
FILLER = """<tr><td style="padding: 8px 24px; font: 16px/24px Georgia, serif; color: #222"><p style="margin: 0 0 12px">
Some sentences stand between the products of a newsletter, and <b>most of them</b> hold no link &mdash; only text, a
little markup and an image: <img src="https://cdn.example.com/i/{n}.png" width="20" height="20" alt=""></p></td></tr>
"""


def newsletter(reader: int = 0, links: int = 60, size: int = 100_000) -> str:
    """HTML of that many links and about that many characters; its greeting and one link are the reader's own."""
    products = [PRODUCT.format(n=n) for n in range(links - 1)]
    products.append(f'<p>Dear reader {reader}, <a href="https://www.example.com/u/{reader:08x}">unsubscribe</a></p>')
    filling = max(0, size - sum(map(len, products))) // (len(FILLER) * links)
    rows = "".join(product + FILLER.format(n=n) * filling for n, product in enumerate(products))
    head = "<title>New</title><style>@media (max-width: 600px) { .card { width: 100% !important } }</style>"
    return f"<!DOCTYPE html><html><head>{head}</head><body><table>{rows}</table></body></html>"


def message(html: str, attachment: int = 0) -> EmailMessage:
    """A message to one recipient with that HTML and an attachment of that many bytes."""
    built = EmailMessage()
    for name in ("From", "To", "Subject", "Date"):
        built[name] = METADATA[name.lower()]
    built.set_content("New this week")
    built.add_alternative(html, subtype="html", cte="8bit")
    if attachment:
        built.add_attachment(os.urandom(attachment), maintype="application", subtype="pdf", filename="a.pdf")
    return built


def best(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best time of each for a turn, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for function in contestants.values():
        function()
    for _ in range(rounds):
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def table(title: str, rows: Sequence[tuple[str, float]], unit: str, reference: str) -> None:
    """Print figures, and each as a multiple of the reference's."""
    base = dict(rows)[reference]
    shown = Table(title=title, title_justify="left")
    for column in ("", unit, f"times {reference}"):
        shown.add_column(column, justify="right" if column else "left")
    for name, value in rows:
        shown.add_row(name, f"{value:,.2f}", f"{value / base:.3f}")
    Console().print(shown)


def bench_newsletter(postbox: Postbox, rounds: int, turn: int) -> None:
    """(a) before_send of 100 KB with 60 links, against pytracking, and against lxml merely parsing.

    :param turn: the messages of a turn.
    """
    texts = [newsletter(reader) for reader in range(turn)]
    messages = [message(html) for html in texts]
    configuration = pytracking.Configuration(
        base_click_tracking_url=f"https://{DOMAIN}/c/", encryption_bytestring_key=Fernet.generate_key()
    )

    def ours() -> None:
        for built in messages:
            postbox.before_send(built)

    def theirs() -> None:
        for html in texts:
            pytracking.html.adapt_html(html, METADATA, open_tracking=False, configuration=configuration)

    def parsing() -> None:
        for html in texts:
            lxml.html.document_fromstring(html)

    times = best({"before_send": ours, "pytracking": theirs, "lxml parses": parsing}, rounds)
    links = len(postbox.explain(messages[0]).tracked)
    title = f"(a) {len(texts[0]):,} characters of HTML, {links} links, in turns of {turn}"
    table(title, [(name, seconds * 1e3 / turn) for name, seconds in times.items()], "ms", "lxml parses")


def bench_attachment(postbox: Postbox, rounds: int) -> None:
    """(b) raw bytes with a 10 MB attachment, against the standard library parsing and writing; (d) peak memory."""
    raw = message(newsletter(), attachment=10_000_000).as_bytes(policy=SMTP)

    def standard() -> bytes:
        return email.message_from_bytes(raw).as_bytes()

    contestants: dict[str, Callable[[], object]] = {
        "before_send": lambda: postbox.before_send(raw),
        "standard library": standard,
    }
    times = best(contestants, max(3, rounds // 8))
    title = f"(b) {len(raw):,} bytes, most of them an attachment"
    table(title, [(name, seconds * 1e3) for name, seconds in times.items()], "ms", "standard library")
    peaks = []
    for name, function in contestants.items():
        tracemalloc.start()
        function()
        peaks.append((name, tracemalloc.get_traced_memory()[1] / 1e6))
        tracemalloc.stop()
    table("(d) peak memory beside the message itself", [*peaks, ("the message", len(raw) / 1e6)], "MB", "the message")


def bench_lengths() -> None:
    """(c) characters a link, over the links of the corpus or of the newsletter, against pytracking and the original."""
    folder = os.environ.get("POSTBOX_CORPUS")
    files = sorted(Path(folder, "html").rglob("*.html")) if folder else []
    texts = [path.read_text("utf-8", "replace") for path in files] or [newsletter()]
    carrying = Postbox(Settings(domain=DOMAIN, keys=[KEY]))
    bare = Postbox(Settings(domain=DOMAIN, keys=[KEY], carry=[], identity="example.com"))
    rules = AddressRules(carrying.settings, KeyRing([KEY]))
    configuration = pytracking.Configuration(
        base_click_tracking_url=f"https://{DOMAIN}/c/", encryption_bytestring_key=Fernet.generate_key()
    )
    lengths: dict[str, list[int]] = {name: [] for name in ("original", "ours", "ours, no headers", "pytracking")}
    for text in texts:
        for _, start, end in links_of(text):
            url, reason = rules.read(text[start:end])
            if reason:
                continue
            lengths["original"].append(len(url))
            lengths["ours"].append(_length(carrying, url))
            lengths["ours, no headers"].append(_length(bare, url))
            lengths["pytracking"].append(len(pytracking.get_click_tracking_url(url, METADATA, configuration)))
    rows = [(name, statistics.fmean(values)) for name, values in lengths.items()]
    table(f"(c) mean length of {len(lengths['ours']):,} links", rows, "characters", "pytracking")
    for name in ("ours", "ours, no headers"):
        more = [mine - original for mine, original in zip(lengths[name], lengths["original"], strict=True)]
        mean, most = statistics.fmean(more), max(more)
        Console().print(f"    {name}: {mean:.1f} characters more than the original in the mean, {most} at most")


def _length(postbox: Postbox, url: str) -> int:
    headers = [(name.title(), value) for name, value in METADATA.items() if name != "message_id"]
    mail = Mail(headers=headers, recipients=[METADATA["to"]], message_id=METADATA["message_id"])
    html = postbox.track_html(f'<a href="{url.replace("&", "&amp;").replace(chr(34), "&quot;")}">', mail)
    return len(html) - len('<a href="">')


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how often each contestant has its turn")
    rounds = parser.parse_args().rounds
    postbox = Postbox(Settings(domain=DOMAIN, keys=[KEY]))
    bench_newsletter(postbox, rounds, MAILING)
    bench_newsletter(postbox, rounds * MAILING, 1)
    bench_attachment(postbox, rounds)
    bench_lengths()


if __name__ == "__main__":
    main()
