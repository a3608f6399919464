"""Time that cannot be attacked: a megabyte of what is hardest to read must not take much more than twice what half a
megabyte takes. The best of several runs each; ends with exit code 1 where it takes over 2.5 times::

    python tests/benchmarks/bench_linear.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from postbox_plugin import Mail, Postbox, Settings, new_key

MOST = 2.5
MEGABYTE = 1_000_000
HEAD = b"From: a@example.com\r\nTo: b@example.com\r\nMIME-Version: 1.0\r\n"
HTML = b"Content-Type: text/html; charset=utf-8\r\n"


def repeated(piece: str, *, before: str = "", after: str = "") -> Callable[[int], bytes]:
    """A message whose HTML is one piece over and over."""
    return lambda size: HEAD + HTML + b"\r\n" + (before + piece * (size // len(piece)) + after).encode()


def encoded(encoding: str, piece: bytes) -> Callable[[int], bytes]:
    """A message whose body stands in a transfer encoding."""

    def make(size: int) -> bytes:
        body = piece * (size // len(piece))
        if encoding == "base64":
            body = base64.encodebytes(body)
        return HEAD + HTML + f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body

    return make


def headers(line: bytes) -> Callable[[int], bytes]:
    """A message with one header line over and over."""
    return lambda size: HEAD + line * (size // len(line)) + HTML + b'\r\n<a href="https://example.com/">x</a>'


def nested(size: int) -> bytes:
    """Multiparts within one another, each with a boundary of its own."""
    depth = size // 70
    opening = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%07d"\r\n\r\n--b%07d\r\n' % (n, n) for n in range(depth)
    )
    return HEAD + opening + HTML + b'\r\n<a href="https://example.com/">x</a>'


def boundaries(size: int) -> bytes:
    """One multipart of very many parts."""
    part = b"--b\r\n" + HTML + b'\r\n<a href="https://example.com/">x</a>\r\n'
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * (size // len(part)) + b"--b--\r\n"


INPUTS: dict[str, Callable[[int], bytes]] = {
    "text": repeated("text "),
    "<a ": repeated("<a "),
    "<": repeated("<"),
    "</": repeated("</"),
    "<!--": repeated("<!--"),
    "<!-- - ": repeated("- ", before="<!--"),
    "<!--[if mso]>": repeated("<!--[if mso]>"),
    "<!--[if mso]><a href=": repeated("<!--[if mso]><a href='"),
    "conditions before a comment": repeated(
        "<!--[if mso]>href<![endif]-->", after='<!-- <a href="https://example.com/"> -->'
    ),
    "<![if": repeated("<![if"),
    '"': repeated('"'),
    "'": repeated("'", before="<a href="),
    '<a "': repeated('<a "'),
    "<a href='": repeated("<a href='"),
    '<a b="" ': repeated('b="" ', before="<a "),
    "<p =": repeated("=", before="<p "),
    "<p / / /": repeated("/ ", before="<p "),
    "<a a a a": repeated("a ", before="<a ", after="href=https://example.com/>"),
    "&": repeated("&", before='<a href="https://example.com/?', after='">'),
    "&amp": repeated("&amp", before='<a href="https://example.com/?', after='">'),
    "&#0": repeated("0", before='<a href="https://example.com/?&#', after='">'),
    "{{": repeated("{{", before='<a href="https://example.com/?', after='">'),
    "%%": repeated("%%", before='<a href="https://example.com/?', after='">'),
    "host of labels": repeated("a.", before='<a href="', after='com">'),
    "postbox:tags": repeated("a:b;", before='<a href="https://example.com/" postbox:tags="', after='">'),
    "links": repeated('<a href="https://example.com/?a=1&amp;b=2">x</a>\n'),
    "links in one line": repeated('<a href="https://example.com/?a=1&amp;b=2">x</a>'),
    "<script>": repeated("<script>"),
    "<script><!--<script>": repeated("<!--<script>", before="<script>"),
    "<textarea></textare": repeated("</textare", before="<textarea>"),
    "quoted-printable": encoded("quoted-printable", b'=3Ca href=3D"https://example.com/"=3E=\r\n'),
    "quoted-printable, =": encoded("quoted-printable", b"="),
    "quoted-printable, blanks": encoded("quoted-printable", b" "),
    "base64": encoded("base64", b'<a href="https://example.com/">'),
    "header lines": headers(b"X-A: b\r\n"),
    "folded header lines": headers(b"X-A: b\r\n c\r\n d\r\n"),
    "recipients": headers(b"To: a@example.com, b@example.com\r\n"),
    "one long header": lambda size: (
        HEAD + b"X: " + b"a " * (size // 2) + b"\r\n" + HTML + b"\r\n<a href=http://a.example>"
    ),
    "comments in To": lambda size: b"To: " + b"(" * size + b"\r\n" + HTML + b"\r\n<a href=http://a.example>",
    "parameters": lambda size: (
        HEAD + b"Content-Type: text/html" + b"; a=b" * (size // 5) + b"\r\n\r\n<a href=http://a.example>"
    ),
    "nested boundaries": nested,
    "boundaries": boundaries,
    "lines like boundaries": lambda size: (
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--\r\n" * (size // 4)
    ),
}


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured")
    rounds = parser.parse_args().rounds
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))
    shown = Table(title="before_send and track_html of a megabyte", title_justify="left")
    for column in ("a megabyte of", "ms", "times half a megabyte"):
        shown.add_column(column, justify="left" if column.startswith("a ") else "right")
    slow = []
    for name, make in INPUTS.items():
        half, whole = measured(postbox, make(MEGABYTE // 2), make(MEGABYTE), rounds)
        # Below a millisecond it is noise that is compared.
        ratio = max(whole, 1e-3) / max(half, 1e-3)
        shown.add_row(Text(name), f"{whole * 1e3:,.1f}", f"{ratio:.2f}")
        if ratio > MOST:
            slow.append(name)
    Console().print(shown)
    if slow:
        sys.exit(f"over {MOST} times half a megabyte: {', '.join(slow)}")


def measured(postbox: Postbox, half: bytes, whole: bytes, rounds: int) -> tuple[float, float]:
    """The best times for both sizes, in seconds, taking turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for taken, raw in zip(times, (half, whole), strict=True):
            html = raw.decode()
            started = time.perf_counter()
            postbox.before_send(raw)
            postbox.track_html(html, Mail(sender="a@example.com", recipient="b@example.com"))
            taken.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    main()
