"""What each mail adapter adds to the time that a mail takes: the framework as it is, and with tracking.

Each sends the same newsletter, HTML with 20 links and a picture attached, to an SMTP server in another process, over a
connection that stays open. Mails without and with tracking take turns, and the table shows the median of each. A
framework that is not installed is left out::

    python tests/benchmarks/bench_adapters.py --mails 200
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.table import Table

from postbox_plugin import Postbox, Settings, new_key

READER = "reader@example.com"
SENDER = "shop@example.com"
HTML = "<!DOCTYPE html>\n" + "".join(
    f"<p>Books of every kind, this week among them one about <b>gardens</b>, which you may like. "
    f'<a class="button" href="https://example.com/books/{number}?utm_source=newsletter&amp;utm_campaign=spring">Read</a>\n'
    for number in range(20)
)
PICTURE = bytes(range(256)) * 80

Sending = Callable[[], object]
Adapter = Callable[[int, Postbox | None], AbstractContextManager[Sending]]


class Discarding:
    """Takes every mail and keeps none."""

    async def handle_DATA(self, *_: Any) -> str:
        return "250 OK"


def serve(ready: Connection) -> None:
    """The server's process."""
    from aiosmtpd.smtp import SMTP as Server

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(Discarding(), hostname="localhost", loop=loop), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def mime() -> EmailMessage:
    """The newsletter, as the standard library builds it."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, READER, "New books"
    message.set_content("Books\n")
    message.add_alternative(HTML, subtype="html")
    message.add_attachment(PICTURE, "image", "png", filename="books.png")
    return message


@contextmanager
def smtplib(port: int, postbox: Postbox | None) -> Iterator[Sending]:
    """The drop-in class."""
    import smtplib as standard

    from postbox_hooks.mail.smtplib import SMTP as Tracking

    connect = standard.SMTP if postbox is None else partial(Tracking, postbox=postbox)
    with connect("127.0.0.1", port, local_hostname="localhost") as smtp:
        yield lambda: smtp.send_message(mime())


@contextmanager
def aiosmtplib(port: int, postbox: Postbox | None) -> Iterator[Sending]:
    """The drop-in class."""
    import aiosmtplib as standard

    from postbox_hooks.mail.aiosmtplib import SMTP as Tracking

    connect: Any = standard.SMTP if postbox is None else partial(Tracking, postbox=postbox)
    smtp = connect(hostname="127.0.0.1", port=port, local_hostname="localhost")
    with asyncio.Runner() as runner:
        runner.run(smtp.connect())
        yield lambda: runner.run(smtp.send_message(mime()))
        runner.run(smtp.quit())


@contextmanager
def flask_mail(port: int, postbox: Postbox | None) -> Iterator[Sending]:
    """The drop-in extension object."""
    import flask
    import flask_mail as standard

    from postbox_hooks.mail import flask_mail as tracking

    app = flask.Flask("shop")
    app.config.update(MAIL_PORT=port, POSTBOX=postbox)
    mail = (standard if postbox is None else tracking).Mail(app)

    def send() -> None:
        message = standard.Message("New books", [READER], "Books\n", HTML, sender=SENDER)
        message.attach("books.png", "image/png", PICTURE)
        with app.app_context():
            connection.send(message)

    with mail.connect() as connection:
        yield send


@contextmanager
def flask_mailman(port: int, postbox: Postbox | None) -> Iterator[Sending]:
    """The drop-in extension object."""
    import flask
    import flask_mailman as standard

    from postbox_hooks.mail import flask_mailman as tracking

    app = flask.Flask("shop")
    app.config.update(MAIL_PORT=port, POSTBOX=postbox)
    mail = (standard if postbox is None else tracking).Mail(app)

    def send() -> None:
        with app.app_context():
            message = standard.EmailMultiAlternatives("New books", "Books\n", SENDER, [READER], connection=connection)
            message.attach_alternative(HTML, "text/html")
            message.attach("books.png", PICTURE, "image/png")
            message.send()

    with mail.get_connection() as connection:
        yield send


@contextmanager
def django(port: int, postbox: Postbox | None) -> Iterator[Sending]:
    """The backend in front of Django's own."""
    from django.conf import settings
    from django.core.mail import EmailMultiAlternatives
    from django.core.mail.backends.smtp import EmailBackend as Standard

    if not settings.configured:
        settings.configure()
    from postbox_hooks.mail.django import EmailBackend as Tracking

    if postbox is not None:
        settings.POSTBOX = postbox

    def send() -> None:
        message = EmailMultiAlternatives("New books", "Books\n", SENDER, [READER], connection=connection)
        message.attach_alternative(HTML, "text/html")
        message.attach("books.png", PICTURE, "image/png")
        message.send()

    backend = Standard if postbox is None else Tracking
    with backend(host="127.0.0.1", port=port) as connection:
        yield send


ADAPTERS: dict[str, Adapter] = {
    "smtplib": smtplib,
    "aiosmtplib": aiosmtplib,
    "Flask-Mail": flask_mail,
    "Flask-Mailman": flask_mailman,
    "Django": django,
}


def seconds(send: Sending) -> float:
    """How long one mail takes."""
    begin = time.perf_counter()
    send()
    return time.perf_counter() - begin


def measure(adapter: Adapter, port: int, postbox: Postbox, mails: int) -> tuple[float, float]:
    """The median seconds of a mail without tracking and with it."""
    with ExitStack() as both:
        sends = [both.enter_context(adapter(port, given)) for given in (None, postbox)]
        times: list[list[float]] = [[], []]
        for number in range(mails + 5):
            for place in (0, 1) if number % 2 else (1, 0):
                times[place].append(seconds(sends[place]))
    without, with_tracking = (statistics.median(taken[5:]) for taken in times)
    return without, with_tracking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=200, help="how many of each")
    arguments = parser.parse_args()

    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True))
    table = Table(title=f"Milliseconds a mail of {len(mime().as_bytes()) / 1024:.0f} KB: medians")
    for column in ("framework", "as it is", "with tracking", "added"):
        table.add_column(column, justify="left" if column == "framework" else "right")

    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    server = processes.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        port = here.recv()
        for name, adapter in ADAPTERS.items():
            try:
                without, tracked = measure(adapter, port, postbox, arguments.mails)
            except ImportError:
                table.add_row(name, "not installed", "", "")
                continue
            table.add_row(name, *(f"{taken * 1000:.2f}" for taken in (without, tracked, tracked - without)))
    finally:
        server.terminate()
        server.join()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
