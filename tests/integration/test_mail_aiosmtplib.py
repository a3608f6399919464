"""aiosmtplib with click tracking, by its class and by ``install``, and fastapi-mail on top: against a real server."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from email import charset
from email.message import EmailMessage
from email.utils import parseaddr
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType, MultipartSubtypeEnum, NameEmail
from sinks import Sink, running_sink
from starlette.datastructures import UploadFile

from postbox_hooks.mail import aiosmtplib as tracked
from postbox_plugin import Mail, Postbox, Settings, hookimpl, new_key

from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    FULL,
    PLAIN,
    AsyncMailCases,
    Letter,
    OverStartTls,
    OverTls,
    contents,
    html_part,
    mime,
    tracking_links,
)

RAW = mime(PLAIN).as_bytes()
LARGE = mime(replace(PLAIN, text="Books\n" * 20_000)).as_bytes()
MESSAGES = {"bytes": RAW, "text": RAW.decode(), "lines of a text": RAW.decode().replace("\r\n", "\n")}


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


@pytest.fixture(autouse=True)
def _wait_until_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed when ``quit`` returns: ``asyncio.run`` does not wait for TLS to say goodbye."""
    standard = aiosmtplib.SMTP.quit

    async def quit_and_wait(self: aiosmtplib.SMTP, **options: Any) -> aiosmtplib.SMTPResponse:
        assert self.transport is not None
        socket = self.transport.get_extra_info("socket")
        answer = await standard(self, **options)
        while socket.fileno() != -1:
            await asyncio.sleep(0.001)
        return answer

    monkeypatch.setattr(aiosmtplib.SMTP, "quit", quit_and_wait)


class AiosmtplibCases(AsyncMailCases):
    """Messages as the standard library builds them."""

    def build(self, letter: Letter) -> EmailMessage:
        return mime(letter)

    def readdress(self, message: EmailMessage, address: str) -> None:
        message.replace_header("To", address)


class TestSmtp(OverStartTls, AiosmtplibCases):
    """The class, over STARTTLS."""

    async def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        kind: Any = aiosmtplib.SMTP if postbox is None else partial(tracked.SMTP, postbox=postbox)
        async with connection(sink, kind, start_tls=True, tls_context=self.client_context()) as smtp:
            await smtp.send_message(message)


class TestInstalled(OverTls, AiosmtplibCases):
    """``aiosmtplib.send()``, which makes its connection itself, with TLS from the first byte."""

    @pytest.fixture
    def sink(self) -> Iterator[Sink]:
        with running_sink(tls=self.server_context()) as sink:
            yield sink

    async def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        with nullcontext() if postbox is None else tracked.install(postbox):
            await aiosmtplib.send(
                message,
                hostname="127.0.0.1",
                port=sink.port,
                local_hostname="localhost",
                use_tls=True,
                tls_context=self.client_context(),
            )


class TestFastApiMail(OverStartTls, AsyncMailCases):
    """fastapi-mail's own API: its multiparts have a transfer encoding, which they must not (RFC 2045, 6.4)."""

    @pytest.fixture(autouse=True)
    def _same_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """fastapi-mail writes Date and Message-ID itself, whatever headers it is given. Where Flask-Mail has been
        imported before, the standard library knows another transfer encoding for UTF-8.
        """
        monkeypatch.setitem(charset.CHARSETS, "utf-8", (charset.SHORTEST, charset.BASE64, "utf-8"))
        monkeypatch.setattr("fastapi_mail.msg.formatdate", lambda *_, **__: PLAIN.headers["Date"])
        monkeypatch.setattr("fastapi_mail.msg.make_msgid", lambda: PLAIN.headers["Message-ID"])

    @pytest.fixture(autouse=True)
    def _trust(self, tmp_path: Path) -> None:
        """It takes who is to be trusted as a file."""
        self.bundle = str(tmp_path / "authority.pem")
        self.authority.cert_pem.write_to_path(self.bundle)

    def build(self, letter: Letter) -> MessageSchema:
        def addresses(given: tuple[str, ...]) -> list[NameEmail]:
            return [NameEmail(name or address, address) for name, address in map(parseaddr, given)]

        image = {"headers": {"Content-ID": "<pixel>", "Content-Disposition": "inline"}}
        files = [(content, *kind.split("/"), name, {}) for name, content, kind in letter.attachments]
        files += [(letter.image, "image", "png", "pixel.png", image)] if letter.image else []
        return MessageSchema(
            recipients=addresses(letter.to),
            cc=addresses(letter.cc),
            bcc=addresses(letter.bcc),
            subject=letter.subject,
            body=letter.html or letter.text,
            alternative_body=letter.text if letter.html and letter.text else None,
            subtype=MessageType.html if letter.html else MessageType.plain,
            multipart_subtype=MultipartSubtypeEnum.alternative if letter.text else MultipartSubtypeEnum.mixed,
            attachments=[
                {
                    "file": UploadFile(BytesIO(content), filename=name),
                    "mime_type": maintype,
                    "mime_subtype": subtype,
                    **more,
                }
                for content, maintype, subtype, name, more in files
            ],
            headers={name: value for name, value in letter.headers.items() if name not in ("Date", "Message-ID")},
        )

    def readdress(self, message: MessageSchema, address: str) -> None:
        message.recipients = [NameEmail(address, address)]

    async def send(self, message: MessageSchema, sink: Sink, postbox: Postbox | None) -> None:
        config = ConnectionConfig(
            MAIL_SERVER="127.0.0.1",
            MAIL_PORT=sink.port,
            MAIL_FROM="shop@example.com",
            MAIL_FROM_NAME="Shop",
            MAIL_USERNAME="",
            MAIL_PASSWORD="",
            MAIL_STARTTLS=True,
            MAIL_SSL_TLS=False,
            USE_CREDENTIALS=False,
            LOCAL_HOSTNAME="localhost",
            CERT_BUNDLE=self.bundle,
        )
        with nullcontext() if postbox is None else tracked.install(postbox):
            await FastMail(config).send_message(message)

    def test_its_multiparts_have_a_transfer_encoding(self, sink: Sink, postbox: Postbox) -> None:
        """The trap is there: what is tracked above is such a message."""
        arrived = self.arriving(self.build(FULL), sink, postbox)
        assert b"Content-Transfer-Encoding: base64" in arrived.raw.split(b"\r\n\r\n")[0]
        assert len(tracking_links(arrived)) == len(ADDRESSES)


def connection(sink: Sink, kind: Any = aiosmtplib.SMTP, **options: Any) -> aiosmtplib.SMTP:
    """A connection to the mail server, to be entered."""
    return kind(hostname="127.0.0.1", port=sink.port, local_hostname="localhost", **options)


def sendmail(sink: Sink, postbox: Postbox, recipients: Any, message: Any, **options: Any) -> Any:
    """Send by our class; the result is aiosmtplib's."""

    async def send() -> Any:
        async with connection(sink, partial(tracked.SMTP, postbox=postbox)) as smtp:
            return await smtp.sendmail("shop@example.com", recipients, message, **options)

    return asyncio.run(send())


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("recipients", ["r@example.com", ["r@example.com"], ("R <r@example.com>", "r@example.com")])
def test_sendmail_takes_what_aiosmtplib_takes(message: str, recipients: Any, sink: Sink, postbox: Postbox) -> None:
    """Bytes or text; one address, or several that are the same one: the envelope decides, and not the headers."""
    errors, answer = sendmail(sink, postbox, recipients, MESSAGES[message])
    assert (errors, answer) == ({}, "Kept")
    (arrived,) = sink.mails
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    assert contents(arrived.raw, postbox) == contents(RAW)
    assert set(arrived.recipients) == {"r@example.com"}


def test_refused_recipients_are_returned_and_options_are_passed_on(sink: Sink, postbox: Postbox) -> None:
    """Result and exceptions are aiosmtplib's."""
    refused, _ = sendmail(sink, postbox, ["refused@example.com", "reader@example.com"], RAW, timeout=5)
    assert refused == {"refused@example.com": (550, "No such reader")}
    assert sink.mails[0].raw == RAW, "the envelope had two recipients"
    with pytest.raises(aiosmtplib.SMTPSenderRefused, match="MAIL FROM parameters not recognized"):
        sendmail(sink, postbox, "reader@example.com", RAW, mail_options=["NONSENSE=1"])
    with pytest.raises(UnicodeEncodeError):
        sendmail(sink, postbox, "reader@example.com", "Subject: Книги\n\nx")


def test_the_synchronous_methods_track_too(sink: Sink, postbox: Postbox) -> None:
    """aiosmtplib runs a loop for them."""
    connection(sink, partial(tracked.SMTP, postbox=postbox)).send_message_sync(mime(PLAIN))
    with tracked.install(postbox):
        connection(sink).sendmail_sync("shop@example.com", "reader@example.com", RAW)
    assert [len(tracking_links(arrived)) for arrived in sink.mails] == [len(ADDRESSES)] * 2


def test_install_is_undone_in_any_order(sink: Sink, postbox: Postbox) -> None:
    """The latest that is left does the rewriting, for a connection that is open already as well."""
    standard = aiosmtplib.SMTP.sendmail

    async def send_by_turns() -> list[str]:
        domains = []
        async with connection(sink) as smtp:
            first = tracked.install(postbox)
            second = tracked.install(Postbox(Settings(domain="other.example.com", keys=[new_key()])))
            for installed in (first, second, None):
                await smtp.send_message(mime(PLAIN))
                domains.append(", ".join(sorted(set(re.findall(r"https://([a-z.]+)/c/", html_part(sink.mails[-1]))))))
                if installed:
                    installed.close()
        return domains

    assert asyncio.run(send_by_turns()) == ["other.example.com", "other.example.com", ""]
    assert aiosmtplib.SMTP.sendmail is standard


def test_in_our_own_class_the_postbox_that_it_was_given_decides(sink: Sink, postbox: Postbox) -> None:
    """Whatever is installed; the message is rewritten once."""
    other = Postbox(Settings(domain="other.example.com", keys=[new_key()]))
    with tracked.install(other):
        sendmail(sink, postbox, "reader@example.com", RAW)
    assert contents(sink.mails[0].raw, postbox) == contents(RAW)


class Watching:
    """A plugin that notes which thread it is called in, and waits there for as long as it is told to."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.called, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    @hookimpl
    def postbox_before_send(self, mail: Mail) -> None:
        self.threads.append(threading.get_ident())
        self.called.set()
        assert self.go_on.wait(10)


def test_a_large_message_is_rewritten_in_a_thread(sink: Sink) -> None:
    """A usual one in the loop, which a thread would make wait longer."""
    watching = Watching()
    postbox = Postbox(Settings(domain=DOMAIN, keys=[new_key()]), [watching])
    for message in (RAW, LARGE):
        sendmail(sink, postbox, "reader@example.com", message)
    here = threading.get_ident()
    assert [thread == here for thread in watching.threads] == [True, False]
    assert [len(tracking_links(arrived)) for arrived in sink.mails] == [len(ADDRESSES)] * 2


def test_the_loop_goes_on_while_a_large_message_is_rewritten_and_may_cancel_it(sink: Sink) -> None:
    """Nothing of a cancelled mail is sent, and the connection serves the next one."""
    watching = Watching()
    postbox = Postbox(Settings(domain=DOMAIN, keys=[new_key()]), [watching])

    async def run() -> None:
        async with connection(sink, partial(tracked.SMTP, postbox=postbox)) as smtp:
            watching.go_on.clear()
            sending = asyncio.create_task(smtp.sendmail("shop@example.com", "reader@example.com", LARGE))
            while not watching.called.is_set():
                await asyncio.sleep(0.001)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            watching.go_on.set()
            await smtp.sendmail("shop@example.com", "next@example.com", RAW)

    asyncio.run(run())
    (arrived,) = sink.mails
    assert arrived.recipients == ["next@example.com"]
    assert len(tracking_links(arrived)) == len(ADDRESSES)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (tracked.SMTP, "SMTP needs the Postbox that rewrites: write SMTP(hostname=..., port=..., postbox=postbox)"),
        (partial(tracked.SMTP, postbox="x"), "SMTP needs the Postbox that rewrites, not str: write SMTP("),
        (partial(tracked.install, "x"), "install needs the Postbox that rewrites, not str: write install(postbox)"),
    ],
)
def test_without_a_postbox_the_error_says_what_to_write(make: Any, complaint: str) -> None:
    """Before anything is connected to, or replaced."""
    with pytest.raises(TypeError, match=re.escape(complaint)):
        make()


def test_without_aiosmtplib_the_error_says_what_to_install() -> None:
    """And the package itself imports without it."""
    program = """
import sys
sys.modules["aiosmtplib"] = None
import postbox_plugin, postbox_hooks, postbox_hooks.mail
try:
    import postbox_hooks.mail.aiosmtplib
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "postbox-plugin[aiosmtplib]"' in done.stdout
