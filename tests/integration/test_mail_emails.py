"""python-emails with click tracking: sent to a real server, sync and async, and signed by itself."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from email.utils import parseaddr
from functools import partial
from typing import Any, cast

import dkim
import emails
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sinks import Sink, running_sink

from postbox_hooks._shared import outermost
from postbox_hooks.mail import smtplib as tracked_smtplib
from postbox_hooks.mail.emails import track
from postbox_plugin import Postbox, Settings, new_key

from .mail_cases import (
    ADDRESSES,
    ALTERNATIVE,
    DOMAIN,
    FULL,
    HTML,
    PLAIN,
    Letter,
    MailCases,
    contents,
    tracking_links,
)


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


def server(sink: Sink) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": sink.port, "local_hostname": "localhost", "fail_silently": False}


def send(message: emails.Message, sink: Sink, *given: Any, **options: Any) -> Any:
    """Send, and let the connection go."""
    try:
        return message.send(*given, smtp=server(sink), **options)
    finally:
        message.smtp_pool[server(sink)].close()


def message_of(letter: Letter) -> emails.Message:
    headers = dict(letter.headers)
    message = emails.Message(
        subject=letter.subject,
        mail_from=parseaddr(letter.sender),
        mail_to=[parseaddr(address) for address in letter.to],
        cc=[parseaddr(address) for address in letter.cc],
        bcc=[parseaddr(address) for address in letter.bcc],
        date=headers.pop("Date", None),
        message_id=headers.pop("Message-ID", None),
        headers=headers,
        html=letter.html,
        text=letter.text,
    )
    if letter.image:
        message.attach(filename="pixel", data=letter.image, mime_type="image/png", content_disposition="inline")
    for name, content, content_type in letter.attachments:
        message.attach(filename=name, data=content, mime_type=content_type)
    return message


class EmailsCases(MailCases):
    """For each mail the class of all messages is made to track, and not to."""

    def build(self, letter: Letter) -> emails.Message:
        return message_of(letter)

    def readdress(self, message: emails.Message, address: str) -> None:
        message.mail_to = address


class TestSend(EmailsCases):
    """The blocking way."""

    def send(self, message: emails.Message, sink: Sink, postbox: Postbox | None) -> None:
        with track(emails.Message, postbox) if postbox else nullcontext():
            assert send(message, sink).status_code == 250


class TestSendAsync(EmailsCases):
    """The asynchronous way."""

    async def send(self, message: emails.Message, sink: Sink, postbox: Postbox | None) -> None:
        with track(emails.Message, postbox) if postbox else nullcontext():
            assert (await message.send_async(smtp=server(sink))).status_code == 250


@pytest.fixture
def tracked(postbox: Postbox) -> Iterator[None]:
    """While a test runs, all messages track."""
    with track(emails.Message, postbox):
        yield


@pytest.mark.parametrize("letter", [PLAIN, ALTERNATIVE, FULL], ids=["plain", "alternative", "full"])
@pytest.mark.usefixtures("tracked")
def test_its_own_signature_verifies(letter: Letter, sink: Sink, postbox: Postbox) -> None:
    """DKIM is over the mail with tracking links in it, as bytes, text and on the wire."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; p=" + b"".join(public.splitlines()[1:-1])
    message = message_of(letter)
    message.dkim(key=private, selector="s", domain="example.com")
    send(message, sink)
    (arrived,) = sink.mails
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    for signed in (arrived.raw, message.as_bytes(), message.as_string().encode()):
        assert b"X-Postbox-Message-Id: " in signed
        assert dkim.verify(signed, dnsfunc=lambda *_, **__: record)
        assert not dkim.verify(signed.replace(b"New", b"Old"), dnsfunc=lambda *_, **__: record)


@pytest.mark.usefixtures("tracked")
def test_the_recipients_of_send_decide(sink: Sink) -> None:
    """Those given to send() are the envelope, whatever the message says."""
    several = message_of(Letter(to=("one@example.com", "two@example.com"), html=HTML))
    send(several, sink, to=("Reader", "reader@example.com"), set_mail_to=False)
    one = message_of(PLAIN)
    send(one, sink, ["one@example.com", "two@example.com"], False)
    send(one, sink, "other@example.com")
    assert [len(mail.recipients) for mail in sink.mails] == [1, 2, 1]
    assert [len(tracking_links(mail)) for mail in sink.mails] == [3, 0, 3]


@pytest.mark.usefixtures("tracked")
def test_two_adapters_at_once_rewrite_once(sink: Sink, postbox: Postbox) -> None:
    """Where send() ends in another adapter, which has keys of its own, and where it is called within one."""
    other = Postbox(Settings(domain="other.example.com", keys=[new_key()]))

    class Backend:
        def sendmail(self, from_addr: str, to_addrs: list[str], msg: emails.Message, **_: Any) -> None:
            with tracked_smtplib.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=other) as smtp:
                smtp.sendmail(from_addr, to_addrs, msg.as_bytes())

    message_of(PLAIN).send(smtp=Backend())
    message_of(PLAIN.with_headers(X_Postbox_Track="no")).send(smtp=Backend())
    with outermost():
        send(message_of(PLAIN), sink)
    assert [len(tracking_links(mail)) for mail in sink.mails] == [3, 0, 0]
    assert all(b"other.example.com" not in mail.raw.replace(b"=\r\n", b"") for mail in sink.mails)


def test_the_after_build_of_a_class_goes_first(sink: Sink, postbox: Postbox) -> None:
    """As a method, as a static one, or as another callable; undone, the class is as it was."""

    class Own(emails.Message):
        def after_build(self, message: emails.Message, mime: Any) -> None:  # type: ignore[override]
            assert self in (message, None)
            mime["X-Own"] = "yes"

    class Static(emails.Message):
        @staticmethod
        def after_build(message: emails.Message, mime: Any) -> None:  # type: ignore[override]
            mime["X-Own"] = message.subject

    class Other(emails.Message):
        after_build = partial(Own.after_build, None)

    class Plain(emails.Message):
        pass

    for kind in (Own, Static, Other, Plain):
        before = dict(vars(kind))
        tracking = track(kind, postbox)
        mime = kind(html=HTML, mail_from="shop@example.com", mail_to="reader@example.com", subject="yes").as_message()
        assert "X-Postbox-Message-Id" in mime
        assert mime["X-Own"] == (None if kind is Plain else "yes")
        tracking.close()
        assert dict(vars(kind)) == before
    assert emails.Message.after_build is None


def test_what_cannot_be_tracked_is_an_error(postbox: Postbox) -> None:
    """What is no class of messages, and what is tracked already."""
    for wrong in (emails, emails.Message(html="x"), smtplib.SMTP, None):
        with pytest.raises(TypeError, match=re.escape("write track(emails.Message, postbox)")):
            track(cast(Any, wrong), postbox)
    with pytest.raises(
        TypeError, match=r"track needs the Postbox that rewrites, not str: write track\(emails\.Message, p"
    ):
        track(emails.Message, cast(Any, "postbox.toml"))
    assert emails.Message.after_build is None
    with track(emails.Message, postbox), pytest.raises(RuntimeError, match="Message is tracked already"):
        track(emails.Message, postbox)
    track(emails.Message, postbox).close()


def test_a_message_that_is_built_keeps_its_links(sink: Sink, postbox: Postbox) -> None:
    """Rewriting happens in what was built; the object is as it was, in every field."""
    message = message_of(FULL)
    before = message.as_bytes()
    kept = {name: value for name, value in vars(message).items() if name != "_attachments"}
    with track(emails.Message, postbox):
        tracked = message.as_bytes()
    assert contents(tracked, postbox) == contents(before)
    assert contents(message.as_bytes()) == contents(before)
    assert {name: value for name, value in vars(message).items() if name != "_attachments"} == kept


def test_without_emails_the_error_names_the_extra() -> None:
    """Importing the module without python-emails says what to install."""
    program = """
import sys
sys.modules["emails"] = None
import postbox_plugin, postbox_hooks.mail
try:
    import postbox_hooks.mail.emails
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "postbox-plugin[emails]"' in done.stdout
