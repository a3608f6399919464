"""Libraries that call smtplib themselves, as they are, once ``install`` has been called: against a real server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.smtp import SMTP
from dkim_keys import DOMAIN as SIGNING_DOMAIN
from dkim_keys import PRIVATE_KEY, SELECTOR, is_signed
from sinks import Sink, running_sink

from postbox_hooks.mail.smtplib import install
from postbox_plugin import Postbox, Settings, new_key

from .mail_cases import ADDRESSES, DOMAIN, HTML, contents, html_part, message_id, tracking_links

SENDER = "shop@example.com"
READER = "reader@example.com"
SUBJECT = "Новые книги"


def send_by_yagmail(port: int, bcc: list[str]) -> None:
    """A text to ``sendmail``; the HTML in multipart/related."""
    import yagmail

    options = {"host": "127.0.0.1", "port": port, "smtp_ssl": False, "smtp_starttls": False, "smtp_skip_login": True}
    with yagmail.SMTP(SENDER, **options) as client:
        client.send(READER, SUBJECT, ["Books", HTML], bcc=bcc or None, prettify_html=False)


def send_by_redmail(port: int, bcc: list[str]) -> None:
    """A message object to ``send_message``."""
    from redmail import EmailSender

    sender = EmailSender("127.0.0.1", port, use_starttls=False)
    sender.send(subject=SUBJECT, sender=SENDER, receivers=[READER], bcc=bcc or None, text="Books", html=HTML)


def send_by_envelope(port: int, bcc: list[str]) -> None:
    """Bytes to ``sendmail``, from a generator of its own."""
    from envelope import Envelope

    envelope = Envelope().from_(SENDER).to(READER).bcc(bcc).subject(SUBJECT).smtp("127.0.0.1", port)
    assert envelope.message("Books", alternative="plain").message(HTML, alternative="html").send()
    envelope.smtp_quit()


def send_by_apprise(port: int, bcc: list[str]) -> None:
    """A text to ``sendmail``; it knows a mail server as the URL of a service."""
    import apprise

    service = apprise.Apprise()
    copies = f"&bcc={','.join(bcc)}" if bcc else ""
    assert service.add(f"mailto://127.0.0.1:{port}/?from={SENDER}&to={READER}{copies}&mode=insecure&format=html")
    assert service.notify(HTML, title=SUBJECT, body_format="html")


def send_by_pyramid_mailer(port: int, bcc: list[str]) -> None:
    """Bytes to ``sendmail``, by repoze.sendmail."""
    from pyramid_mailer import Mailer
    from pyramid_mailer.message import Message

    message = Message(SUBJECT, recipients=[READER], body="Books", html=HTML, sender=SENDER, bcc=bcc)
    Mailer(host="127.0.0.1", port=port).send_immediately(message)


Sending = Callable[[int, list[str]], None]
LIBRARIES = [
    send_by_yagmail,
    send_by_redmail,
    send_by_envelope,
    send_by_apprise,
    pytest.param(
        send_by_pyramid_mailer,
        marks=[
            pytest.mark.filterwarnings("ignore:'cgi' is deprecated"),
            pytest.mark.skipif(sys.version_info >= (3, 13), reason="it imports cgi, which Python 3.13 dropped"),
        ],
    ),
]


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


class Patient(SMTP):
    """A server that puts up with pyramid_mailer, whose lines end in a line feed alone: to it, a mail is one line."""

    line_length_limit = 100_000


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink(protocol=Patient) as sink:
        yield sink


@pytest.mark.parametrize("send", LIBRARIES)
def test_tracked_links_arrive(send: Sending, sink: Sink, postbox: Postbox) -> None:
    """Every link of the HTML part is tracked, and the HTML is otherwise what arrives without us."""
    send(sink.port, [])
    with install(postbox):
        send(sink.port, [])
    plain, arrived = sink.mails
    opened = [postbox.open(link.decode()) for link in tracking_links(arrived)]
    assert [link.url for link in opened] == ADDRESSES
    assert {link.headers["to"] for link in opened} == {(READER,)}
    assert {link.message_id for link in opened} == {message_id(arrived)}
    assert [part[1] for part in contents(arrived.raw, postbox)] == [part[1] for part in contents(plain.raw)]


@pytest.mark.parametrize("send", LIBRARIES)
def test_the_envelope_decides(send: Sending, sink: Sink, postbox: Postbox) -> None:
    """A reader in To and another in Bcc are two, though the message names one."""
    with install(postbox):
        send(sink.port, ["archive@example.com"])
    (arrived,) = sink.mails
    assert sorted(arrived.recipients) == ["archive@example.com", READER]
    assert not tracking_links(arrived)


def test_what_yagmail_has_signed_stays_as_it_is(sink: Sink, postbox: Postbox) -> None:
    """Its signature, made before smtplib is called, verifies where the mail arrives."""
    import yagmail
    from yagmail.dkim import DKIM

    signing = DKIM(SIGNING_DOMAIN, PRIVATE_KEY, [b"From", b"To", b"Subject"], SELECTOR)
    options = {"smtp_ssl": False, "smtp_starttls": False, "smtp_skip_login": True, "dkim": signing}
    with install(postbox), yagmail.SMTP(SENDER, host="127.0.0.1", port=sink.port, **options) as client:
        client.send(READER, SUBJECT, HTML)
    (arrived,) = sink.mails
    assert "http://example.com/" in html_part(arrived)
    assert not tracking_links(arrived)
    assert is_signed(arrived.raw)
