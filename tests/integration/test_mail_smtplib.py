"""smtplib with click tracking: plain, with STARTTLS, over TLS and as LMTP, against a real server."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from contextlib import nullcontext
from email.message import EmailMessage
from functools import partial
from typing import Any, ClassVar

import pytest
from aiosmtpd.lmtp import LMTP as LmtpServer
from sinks import Sink, running_sink

from postbox_hooks.mail import smtplib as tracked
from postbox_plugin import Postbox, Settings, hookimpl, new_key

from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    HTML,
    PLAIN,
    TRACKING_LINK,
    Letter,
    MailCases,
    OverStartTls,
    OverTls,
    contents,
    mime,
    tracking_links,
)

RAW = mime(PLAIN).as_bytes()


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


class SmtplibCases(MailCases):
    """Messages are sent with ``send_message``, by one of the classes in place of its standard one."""

    pair: ClassVar[tuple[type[smtplib.SMTP], type[smtplib.SMTP]]]

    def build(self, letter: Letter) -> EmailMessage:
        return mime(letter)

    def readdress(self, message: EmailMessage, address: str) -> None:
        message.replace_header("To", address)

    def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        standard, ours = self.pair
        connect = standard if postbox is None else partial(ours, postbox=postbox)
        with connect("127.0.0.1", sink.port, local_hostname="localhost", **self.options()) as smtp:
            self.secure(smtp)
            smtp.send_message(message)

    def options(self) -> dict[str, Any]:
        return {}

    def secure(self, smtp: smtplib.SMTP) -> None:
        pass


class TestSmtp(SmtplibCases):
    """Without encryption, as to a server on the same machine."""

    pair = (smtplib.SMTP, tracked.SMTP)


class TestStartTls(OverStartTls, SmtplibCases):
    """As to a submission server."""

    pair = (smtplib.SMTP, tracked.SMTP)

    def secure(self, smtp: smtplib.SMTP) -> None:
        smtp.starttls(context=self.client_context())


class TestSmtpSsl(OverTls, SmtplibCases):
    """TLS from the first byte."""

    pair = (smtplib.SMTP_SSL, tracked.SMTP_SSL)

    @pytest.fixture
    def sink(self) -> Iterator[Sink]:
        with running_sink(tls=self.server_context()) as sink:
            yield sink

    def options(self) -> dict[str, Any]:
        return {"context": self.client_context()}


class TestInstalled(OverStartTls, SmtplibCases):
    """smtplib's own class, once ``install`` has been called."""

    def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        with nullcontext() if postbox is None else tracked.install(postbox), connect(sink) as smtp:
            smtp.starttls(context=self.client_context())
            smtp.send_message(message)


class TestLmtp(SmtplibCases):
    """Local delivery."""

    pair = (smtplib.LMTP, tracked.LMTP)

    @pytest.fixture
    def sink(self) -> Iterator[Sink]:
        with running_sink(protocol=LmtpServer) as sink:
            yield sink


def connect(sink: Sink, kind: type[smtplib.SMTP] = smtplib.SMTP) -> smtplib.SMTP:
    """A connection to the mail server."""
    return kind("127.0.0.1", sink.port, local_hostname="localhost")


@pytest.mark.parametrize("name", ["SMTP", "SMTP_SSL", "LMTP"])
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "{0} needs the Postbox that rewrites: write {0}(host, port, postbox=postbox)"),
        ({"postbox": "x"}, "{0} needs the Postbox that rewrites, not str: write {0}(host, port, postbox=postbox)"),
    ],
)
def test_without_a_postbox_the_error_says_what_to_write(name: str, given: dict[str, str], complaint: str) -> None:
    """Nothing is connected to first."""
    with pytest.raises(TypeError, match=re.escape(complaint.format(name))):
        getattr(tracked, name)("host.invalid", 25, **given)


@pytest.mark.parametrize("name", ["SMTP", "SMTP_SSL", "LMTP"])
def test_the_classes_are_what_they_stand_in_for(name: str) -> None:
    """Code that asks for a standard class takes ours."""
    assert issubclass(getattr(tracked, name), getattr(smtplib, name))


def sendmail(sink: Sink, postbox: Postbox, to_addrs: Any, message: Any, **options: Any) -> dict[str, Any]:
    with tracked.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=postbox) as smtp:
        return smtp.sendmail("shop@example.com", to_addrs, message, **options)


@pytest.mark.parametrize("message", [RAW, bytearray(RAW), RAW.decode()], ids=["bytes", "bytearray", "text"])
@pytest.mark.parametrize("to_addrs", ["r@example.com", ["r@example.com"], ("Reader <r@example.com>", "r@example.com")])
def test_sendmail_takes_what_smtplib_takes(message: Any, to_addrs: Any, sink: Sink, postbox: Postbox) -> None:
    """Bytes or text; one address, or several that are the same one: the envelope decides, and not the headers."""
    assert sendmail(sink, postbox, to_addrs, message) == {}
    (arrived,) = sink.mails
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    assert contents(arrived.raw, postbox) == contents(RAW)
    assert set(arrived.recipients) == {"r@example.com"}


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n"])
def test_line_endings_of_a_text_become_those_of_smtp(ending: str, sink: Sink, postbox: Postbox) -> None:
    """As with smtplib, whatever the text has; a line that is a dot arrives as one."""
    html = "<a href='http://example.com/'>x</a>\n.\n..\n"
    text = f"To: reader@example.com\nContent-Type: text/html\n\n{html}".replace("\n", ending)
    sendmail(sink, postbox, "reader@example.com", text)
    headers, _, body = sink.mails[0].raw.partition(b"\r\n\r\n")
    assert TRACKING_LINK.sub(b"http://example.com/", body) == html.replace("\n", "\r\n").encode()
    assert b"X-Postbox-Message-Id: " in headers


def test_text_that_is_not_ascii_is_smtplibs_error(sink: Sink, postbox: Postbox) -> None:
    """The same exception as ever, and the connection stays open for the next mail."""
    with tracked.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=postbox) as smtp:
        with pytest.raises(UnicodeEncodeError):
            smtp.sendmail("shop@example.com", "reader@example.com", "Subject: Книги\n\nx")
        smtp.sendmail("shop@example.com", "reader@example.com", RAW)
    assert len(sink.mails) == 1


def test_refused_recipients_are_returned_and_options_are_passed_on(sink: Sink, postbox: Postbox) -> None:
    """The dictionary is smtplib's; ESMTP options reach the server."""
    to_addrs = ["refused@example.com", "reader@example.com"]
    options = {"mail_options": ["SMTPUTF8", "BODY=8BITMIME"]}
    assert sendmail(sink, postbox, to_addrs, RAW, **options) == {"refused@example.com": (550, b"No such reader")}
    (arrived,) = sink.mails
    assert arrived.raw == RAW, "the envelope had two recipients"
    with pytest.raises(smtplib.SMTPSenderRefused, match="MAIL FROM parameters not recognized"):
        sendmail(sink, postbox, "reader@example.com", RAW, mail_options=["NONSENSE=1"])
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="RCPT TO parameters not recognized"):
        sendmail(sink, postbox, "reader@example.com", RAW, rcpt_options=["NOTIFY=NEVER"])


def test_the_envelope_of_a_resent_message_decides(sink: Sink, postbox: Postbox) -> None:
    """RFC 5322, 3.6.6: what smtplib takes from Resent-To goes to one reader, though To names two."""
    message = mime(PLAIN)
    message.replace_header("To", "one@example.com, two@example.com")
    for name, value in (
        ("Date", "Sun, 26 Apr 2026 18:08:03 +0000"),
        ("From", "a@example.com"),
        ("To", "b@example.com"),
    ):
        message[f"Resent-{name}"] = value
    with tracked.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=postbox) as smtp:
        smtp.send_message(message)
    (arrived,) = sink.mails
    assert arrived.recipients == ["b@example.com"]
    assert len(tracking_links(arrived)) == len(ADDRESSES)


def test_strict_lets_an_exception_through() -> None:
    """In a project's own tests a broken plugin is an error, and nothing is sent."""

    class Broken:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken")

    postbox = Postbox(Settings(domain=DOMAIN, keys=[new_key()], strict=True), [Broken()])
    with running_sink() as sink:
        with pytest.raises(RuntimeError, match="broken"):
            sendmail(sink, postbox, "reader@example.com", RAW)
        assert not sink.mails


def test_international_addresses_pass(sink: Sink, postbox: Postbox) -> None:
    """SMTPUTF8 (RFC 6531): headers and envelope in UTF-8, and tracked all the same."""
    message = mime(PLAIN)
    message.replace_header("To", "читатель@example.com")
    with tracked.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=postbox) as smtp:
        smtp.send_message(message)
    (arrived,) = sink.mails
    assert arrived.recipients == ["читатель@example.com"]
    assert "читатель@example.com".encode() in arrived.raw
    assert len(tracking_links(arrived)) == HTML.count("http")


STANDARD = smtplib.SMTP.sendmail


@pytest.fixture
def other() -> Postbox:
    """Another one that could do the rewriting."""
    return Postbox(Settings(domain="other.example.com", keys=[new_key()]))


def domain_of_links(smtp: smtplib.SMTP, sink: Sink) -> str:
    """The domain of the tracking links of a mail that is sent now; ``""`` if it has none."""
    smtp.sendmail("shop@example.com", "reader@example.com", RAW)
    found = set(re.findall(rb"https?://([a-z.]+)/c/", sink.mails[-1].raw.replace(b"=\r\n", b"")))
    assert len(found) <= 1
    return next(iter(found), b"").decode()


def test_install_is_undone_by_close_and_by_with(sink: Sink, postbox: Postbox) -> None:
    """smtplib is as it was, once or twice closed; a connection that is open already sees either."""
    with connect(sink) as smtp:
        installed = tracked.install(postbox)
        assert domain_of_links(smtp, sink) == DOMAIN
        installed.close()
        installed.close()
        assert domain_of_links(smtp, sink) == ""
        with tracked.install(postbox):
            assert domain_of_links(smtp, sink) == DOMAIN
        assert domain_of_links(smtp, sink) == ""
    assert smtplib.SMTP.sendmail is STANDARD


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_installed_twice_it_rewrites_once_and_is_undone_in_any_order(
    order: tuple[int, int], sink: Sink, postbox: Postbox, other: Postbox
) -> None:
    """The latest that is left has its way."""
    installed = [tracked.install(postbox), tracked.install(other)]
    with connect(sink) as smtp:
        assert domain_of_links(smtp, sink) == "other.example.com"
        installed[order[0]].close()
        assert domain_of_links(smtp, sink) == ("other.example.com" if order[0] == 0 else DOMAIN)
        installed[order[1]].close()
        assert domain_of_links(smtp, sink) == ""
    assert smtplib.SMTP.sendmail is STANDARD


def test_another_program_that_replaces_sendmail_is_left_in_place(
    sink: Sink, postbox: Postbox, other: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has put over ours stays when ours is undone, and may be installed over."""
    seen = []
    installed = tracked.install(postbox)
    ours = smtplib.SMTP.sendmail

    def watching(*args: Any) -> Any:
        seen.append(args)
        return ours(*args)

    monkeypatch.setattr(smtplib.SMTP, "sendmail", watching)
    with connect(sink) as smtp:
        assert domain_of_links(smtp, sink) == DOMAIN
        installed.close()
        assert domain_of_links(smtp, sink) == ""
        with tracked.install(other):
            assert domain_of_links(smtp, sink) == "other.example.com"
        assert domain_of_links(smtp, sink) == ""
    assert len(seen) == 4
    assert smtplib.SMTP.sendmail is watching


class Counting(smtplib.SMTP):
    """A subclass that does something of its own, and sends as ever."""

    sent = 0

    def sendmail(self, *args: Any, **options: Any) -> dict[str, tuple[int, bytes]]:
        self.sent += 1
        return super().sendmail(*args, **options)


class Independent(smtplib.SMTP):
    """A subclass that sends in its own way, as python-emails' does."""

    def sendmail(self, from_addr: str, to_addrs: Any, msg: Any, *_: Any, **__: Any) -> dict[str, tuple[int, bytes]]:
        self.ehlo_or_helo_if_needed()
        self.mail(from_addr)
        self.rcpt(to_addrs)
        self.data(msg)
        return {}


class Inheriting(Independent):
    """A subclass of that one."""


def test_subclasses_are_covered_where_they_come_to_smtplibs_sendmail(sink: Sink, postbox: Postbox) -> None:
    """Once; others send as they did, or are named."""
    with tracked.install(postbox):
        with connect(sink, Counting) as smtp:
            assert domain_of_links(smtp, sink) == DOMAIN
        with connect(sink, Inheriting) as smtp:
            assert domain_of_links(smtp, sink) == ""
    with tracked.install(postbox, Counting, Inheriting), tracked.install(postbox, Independent):
        for kind in (Counting, Inheriting, smtplib.SMTP):
            with connect(sink, kind) as smtp:
                assert domain_of_links(smtp, sink) == DOMAIN
    with connect(sink, Independent) as smtp:
        assert domain_of_links(smtp, sink) == ""
    assert "sendmail" not in vars(Inheriting)


def test_our_own_class_goes_before_what_is_installed(sink: Sink, postbox: Postbox, other: Postbox) -> None:
    """It was given its Postbox by name."""
    with tracked.install(other), connect(sink, partial(tracked.SMTP, postbox=postbox)) as smtp:
        assert domain_of_links(smtp, sink) == DOMAIN


def test_install_without_a_postbox_says_what_to_write() -> None:
    """And replaces nothing."""
    before = smtplib.SMTP.sendmail
    with pytest.raises(TypeError, match=re.escape("not str: write install(postbox)")):
        tracked.install("postbox.toml")
    assert smtplib.SMTP.sendmail is before


def test_an_installed_sendmail_takes_names_and_returns_what_smtplib_returns(sink: Sink, postbox: Postbox) -> None:
    """Arguments by name, and the refused recipients."""
    with tracked.install(postbox), connect(sink) as smtp:
        refused = smtp.sendmail(
            from_addr="shop@example.com", to_addrs=["reader@example.com", "refused@example.com"], msg=RAW.decode()
        )
    assert refused == {"refused@example.com": (550, b"No such reader")}
    assert sink.mails[0].raw == RAW, "the envelope had two recipients"
