"""What tracking adds to the sending of one mail, adapter by adapter: the same mail by the same transport, without and
with it.

The two, and the rewriting by itself, take turns, many rounds long, and the table shows the median of each. The
transport is the framework's own, to a server on this machine that only says yes. An adapter whose framework is not
installed is left out::

    python tests/benchmarks/bench_adapters.py [--rounds 200]

To add an adapter, write a function that yields the two ways of sending, and add it to ``ADAPTERS``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import smtplib
import socketserver
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from postbox_hooks._shared import outermost
from postbox_plugin import Postbox, Settings, new_key
from postbox_plugin.errors import MissingExtra

KEY = new_key()
SUBJECT = "New this week"
SENDER, READER = "Bookshop <news@example.com>", "reader@example.org"
TEXT = "New this week: https://example.com/books\n"
PRODUCT = """<tr><td style="padding: 8px 24px; font: 16px/24px Georgia, serif">Some sentences about book number {0}, and
<a href="https://www.example.com/books/{0}?utm_source=newsletter&amp;utm_content={0}" style="color: #1a4d8f">a link</a>
to it, <b>among</b> others &mdash; with an image <img src="https://cdn.example.com/{0}.png" alt=""></td></tr>
"""
HTML = f"<!DOCTYPE html><title>New</title><table>{''.join(map(PRODUCT.format, range(30)))}</table>\n"


class Ways(NamedTuple):
    """Two ways to send the mail once.

    :ivar without: as before the adapter was there.
    :ivar tracked: with it.
    """

    without: Callable[[], object]
    tracked: Callable[[], object]


def made_message() -> EmailMessage:
    """The mail, as the standard library builds it."""
    message = EmailMessage(policy=SMTP)
    for name, value in (("From", SENDER), ("To", READER), ("Subject", SUBJECT)):
        message[name] = value
    message.set_content(TEXT)
    message.add_alternative(HTML, subtype="html")
    return message


class SmtpHandler(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as it takes to say yes to a mail."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer one connection."""
        self.say(b"220 ready")
        for line in self.rfile:
            if line[:4].upper() == b"DATA":
                self.say(b"354 go on")
                while self.rfile.readline() != b".\r\n":
                    pass
            self.say(b"221 bye" if line[:4].upper() == b"QUIT" else b"250 yes")

    def say(self, line: bytes) -> None:
        """Send one line."""
        with contextlib.suppress(ConnectionError):
            self.wfile.write(line + b"\r\n")


class SmtpServer(socketserver.ThreadingTCPServer):
    """A mail server that keeps nothing."""

    daemon_threads = True
    allow_reuse_address = True


class HttpHandler(BaseHTTPRequestHandler):
    """Says yes to every POST, in the words of SES and of Postmark."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet

    def do_POST(self) -> None:
        """Answer one request."""
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"MessageId": "1", "ErrorCode": 0, "Message": "OK", "MessageID": "1", "To": "%s"}' % READER.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing of it."""


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[Any]:
    """Runs a server in a thread; its address."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def smtp_server() -> contextlib.AbstractContextManager[Any]:
    """A mail server on a free port."""
    return served(SmtpServer(("127.0.0.1", 0), SmtpHandler))


def http_server() -> contextlib.AbstractContextManager[Any]:
    """A server for HTTP on a free port."""
    return served(ThreadingHTTPServer(("127.0.0.1", 0), HttpHandler))


@contextmanager
def by_smtplib(postbox: Postbox) -> Iterator[Ways]:
    """smtplib's class and ours, each with one connection."""
    from postbox_hooks.mail import smtplib as tracked_smtplib

    message = made_message()
    with smtp_server() as (host, port), ExitStack() as connections:
        connect = partial(smtplib.SMTP, host, port, local_hostname="localhost")
        plain = connections.enter_context(connect())
        tracked = connections.enter_context(
            tracked_smtplib.SMTP(host, port, local_hostname="localhost", postbox=postbox)
        )
        yield Ways(partial(plain.send_message, message), partial(tracked.send_message, message))


@contextmanager
def by_aiosmtplib(postbox: Postbox) -> Iterator[Ways]:
    """aiosmtplib's class and ours, each with one connection."""
    import aiosmtplib

    from postbox_hooks.mail import aiosmtplib as tracked_aiosmtplib

    message = made_message()
    with smtp_server() as (host, port), asyncio.Runner() as runner:
        options = {"hostname": host, "port": port, "local_hostname": "localhost", "start_tls": False}
        clients = (aiosmtplib.SMTP(**options), tracked_aiosmtplib.SMTP(**options, postbox=postbox))
        for client in clients:
            runner.run(client.connect())
        yield Ways(*(lambda client=client: runner.run(client.send_message(message)) for client in clients))
        for client in clients:
            runner.run(client.quit())


@contextmanager
def by_flask_mail(postbox: Postbox) -> Iterator[Ways]:
    """Flask-Mail's extension object and ours, each with one connection."""
    import flask
    import flask_mail

    from postbox_hooks.mail import flask_mail as tracked_flask_mail

    message = flask_mail.Message(SUBJECT, [READER], TEXT, HTML, sender=SENDER)
    with smtp_server() as (host, port), ExitStack() as stack:

        def sending(extension: Any) -> Callable[[], object]:
            app = flask.Flask("shop")
            app.config.update(MAIL_SERVER=host, MAIL_PORT=port, POSTBOX=postbox)
            mail = extension.Mail(app)
            with app.app_context():
                connection = stack.enter_context(mail.connect())

            def send() -> None:
                with app.app_context():
                    connection.send(message)

            return send

        yield Ways(sending(flask_mail), sending(tracked_flask_mail))


@contextmanager
def by_flask_mailman(postbox: Postbox) -> Iterator[Ways]:
    """Flask-Mailman's extension object and ours, each with one connection."""
    import flask
    import flask_mailman

    from postbox_hooks.mail import flask_mailman as tracked_flask_mailman

    with smtp_server() as (host, port), ExitStack() as stack:

        def sending(extension: Any) -> Callable[[], object]:
            app = flask.Flask("shop")
            app.config.update(MAIL_SERVER=host, MAIL_PORT=port, POSTBOX=postbox)
            connection = stack.enter_context(extension.Mail(app).get_connection())
            message = flask_mailman.EmailMultiAlternatives(SUBJECT, TEXT, SENDER, [READER], connection=connection)
            message.attach_alternative(HTML, "text/html")

            def send() -> None:
                with app.app_context():
                    message.send()

            return send

        yield Ways(sending(flask_mailman), sending(tracked_flask_mailman))


def configured_django(postbox: Postbox) -> None:
    """Set Django up; once a process."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(POSTBOX=postbox, EMAIL_BACKEND="django.core.mail.backends.dummy.EmailBackend")
        django.setup()


def django_message() -> Any:
    """The mail, as Django has it."""
    from django.core.mail import EmailMultiAlternatives

    message = EmailMultiAlternatives(SUBJECT, TEXT, SENDER, [READER])
    message.attach_alternative(HTML, "text/html")
    return message


@contextmanager
def by_django(postbox: Postbox) -> Iterator[Ways]:
    """Django's backend for SMTP, alone and behind ours."""
    import postbox_hooks.mail.django as tracked_django

    configured_django(postbox)
    from django.core.mail.backends.smtp import EmailBackend

    path = "django.core.mail.backends.smtp.EmailBackend"
    message = django_message()
    with smtp_server() as (host, port):
        plain = EmailBackend(host, port)
        tracked = tracked_django.EmailBackend(inner=path, host=host, port=port)
        plain.open()
        tracked.open()
        yield Ways(partial(plain.send_messages, [message]), partial(tracked.send_messages, [message]))
        plain.close()
        tracked.close()


@contextmanager
def by_anymail(postbox: Postbox) -> Iterator[Ways]:
    """anymail's backend for Postmark, and the receivers of its signals."""
    import postbox_hooks.mail.anymail  # noqa: F401 - its error names the extra

    configured_django(postbox)
    from anymail.backends.postmark import EmailBackend
    from django.apps import AppConfig

    AppConfig.create("postbox_hooks.mail.anymail.Tracking").ready()

    message = django_message()
    with http_server() as (host, port):
        backend = EmailBackend(server_token="x", api_url=f"http://{host}:{port}/")
        backend.open()

        def without() -> None:
            with outermost():  # in which the receivers do nothing
                backend.send_messages([message])

        yield Ways(without, partial(backend.send_messages, [message]))
        backend.close()


@contextmanager
def by_boto3(postbox: Postbox) -> Iterator[Ways]:
    """Two clients for SES v2, with raw messages."""
    import boto3

    from postbox_hooks.mail.boto3 import track

    raw = made_message().as_bytes()
    with http_server() as (host, port), ExitStack() as clients:
        made = [
            boto3.client(
                "sesv2",
                endpoint_url=f"http://{host}:{port}",
                region_name="ru-central1",
                aws_access_key_id="x",
                aws_secret_access_key="x",
            )
            for _ in range(2)
        ]
        for client in made:
            clients.callback(client.close)
        track(made[1], postbox)
        given = {"Destination": {"ToAddresses": [READER]}, "Content": {"Raw": {"Data": raw}}}
        yield Ways(*(partial(client.send_email, **given) for client in made))


@contextmanager
def by_emails(postbox: Postbox) -> Iterator[Ways]:
    """python-emails' messages of two classes, each with one connection."""
    import emails

    from postbox_hooks.mail.emails import track

    class Tracked(emails.Message):
        pass

    given = {"subject": SUBJECT, "mail_from": SENDER, "mail_to": READER, "text": TEXT, "html": HTML}
    with smtp_server() as (host, port), track(Tracked, postbox):
        options = {"host": host, "port": port, "local_hostname": "localhost", "fail_silently": False}
        messages = (emails.Message(**given), Tracked(**given))
        yield Ways(*(partial(message.send, smtp=options) for message in messages))
        for message in messages:
            message.smtp_pool[options].close()


ADAPTERS: dict[str, Callable[[Postbox], contextlib.AbstractContextManager[Ways]]] = {
    "smtplib": by_smtplib,
    "aiosmtplib": by_aiosmtplib,
    "Flask-Mail": by_flask_mail,
    "Flask-Mailman": by_flask_mailman,
    "Django": by_django,
    "django-anymail": by_anymail,
    "boto3 (SES v2)": by_boto3,
    "python-emails": by_emails,
}


def medians(contestants: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median time of each, in seconds, taking turns."""
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds + 3):
        for taken, contestant in zip(times, contestants, strict=True):
            start = time.perf_counter()
            contestant()
            if turn >= 3:  # the first ones load modules and open connections
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how often each contestant has its turn")
    rounds = parser.parse_args().rounds
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY], strict=True))
    message = made_message()
    title = f"a mail of {len(HTML):,} characters of HTML with {len(postbox.explain(message).tracked)} links, in ms"
    shown = Table(title=title, title_justify="left")
    for column in ("", "without", "tracked", "more", "before_send alone"):
        shown.add_column(column, justify="right" if column else "left")
    for name, adapter in ADAPTERS.items():
        try:
            with adapter(postbox) as ways:
                without, tracked, alone = medians((*ways, partial(postbox.before_send, message)), rounds)
        except MissingExtra as error:
            Console().print(f"{name} is left out: {error}")
            continue
        figures = (without, tracked, tracked - without, alone)
        shown.add_row(name, *(f"{seconds * 1e3:.2f}" for seconds in figures))
    Console().print(shown)


if __name__ == "__main__":
    main()
