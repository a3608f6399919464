"""What every mail adapter must do, against a real mail server: a suite to be inherited.

An adapter's test class inherits ``MailCases`` (``AsyncMailCases`` where sending is a coroutine) and says how its
framework builds a message and sends it. A class that inherits from ``OverStartTls`` first sends over a connection that
is encrypted by STARTTLS. Everything else about the adapter, what its framework alone has, is tested beside that class.
"""

from __future__ import annotations

import asyncio
import email
import html
import inspect
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme
from servers import get, hrefs, redirecting
from sinks import Received, Sink, running_sink

from postbox_hooks._shared import outermost
from postbox_plugin import Mail, Postbox, Settings, hookimpl, new_key
from postbox_plugin.outgoing import Rewriter
from postbox_plugin.testing import RecordingNotifier

DOMAIN = "click.example.com"
TRACKING_LINK = re.compile(rb"https?://click\.example\.com/c/[A-Za-z0-9_-]+")
ADDRESSES = ["https://example.com/books?a=1&b=2", "http://example.com/", "https://example.org/path/#part"]
TEXT = "Books:\nhttps://example.com/books?a=1&b=2\n"
HTML = """<!DOCTYPE html>
<p>New <a href="https://example.com/books?a=1&amp;b=2">books</a>
and <A class="button" HREF='http://example.com/'>more</A>.
<a href="mailto:shop@example.com">Write to us</a>,
<a href="https://example.org/path/#part">visit us</a></p>
"""
CYRILLIC_HTML = HTML.replace("books</a>", "книги</a>").replace("visit us", "приходите в гости")
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ffff3f0005fe02fe"
    "a72d1b6f0000000049454e44ae426082"
)


@dataclass(frozen=True)
class Letter:
    """A mail in nobody's terms: each adapter's test builds its framework's message of it.

    :ivar attachments: file name, content and type of each.
    :ivar image: a PNG that the HTML shows as ``cid:pixel``.
    """

    sender: str = "Shop <shop@example.com>"
    to: tuple[str, ...] = ("reader@example.com",)
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = "New books"
    text: str = ""
    html: str = ""
    attachments: tuple[tuple[str, bytes, str], ...] = ()
    image: bytes = b""
    headers: dict[str, str] = field(
        default_factory=lambda: {"Date": "Sat, 25 Apr 2026 18:08:03 +0000", "Message-ID": "<1@shop.example.com>"}
    )

    def with_headers(self, **headers: str) -> Letter:
        """The letter with further headers; ``_`` stands for ``-``."""
        return replace(self, headers=self.headers | {name.replace("_", "-"): value for name, value in headers.items()})


PLAIN = Letter(html=HTML)
ALTERNATIVE = Letter(text=TEXT, html=HTML)
CYRILLIC = Letter(subject="Новые книги 📚", text="Книги: https://example.com/\n", html=CYRILLIC_HTML)
FULL = Letter(
    text=TEXT,
    html=HTML.replace("</p>", '<img src="cid:pixel" alt=""></p>'),
    image=PIXEL,
    attachments=(
        ("prices.pdf", b"%PDF-1.7\n" + bytes(range(256)), "application/pdf"),
        ("page.html", HTML.encode(), "text/html"),
    ),
)
SHAPES = {"plain": PLAIN, "alternative": ALTERNATIVE, "cyrillic": CYRILLIC, "full": FULL}


def mime(letter: Letter) -> EmailMessage:
    """The letter as the standard library builds it, for adapters that are handed MIME."""
    message = EmailMessage(policy=SMTP)
    for name, value in (("From", letter.sender), ("Subject", letter.subject), *letter.headers.items()):
        message[name] = value
    for name, addresses in (("To", letter.to), ("Cc", letter.cc), ("Bcc", letter.bcc)):
        if addresses:
            message[name] = ", ".join(addresses)
    if letter.text:
        message.set_content(letter.text)
    if letter.html and not letter.text:
        message.set_content(letter.html, subtype="html")
    elif letter.html:
        message.add_alternative(letter.html, subtype="html")
    if letter.image:
        body = message.get_body(("html",))
        assert isinstance(body, EmailMessage)
        body.add_related(letter.image, "image", "png", cid="<pixel>", disposition="inline", filename="pixel.png")
    for name, content, content_type in letter.attachments:
        message.add_attachment(content, *content_type.split("/"), filename=name)
    return message


class Raising:
    """A plugin that fails on every mail."""

    @hookimpl
    def postbox_before_send(self, mail: Mail) -> None:
        """Fail."""
        mail.html = "half done"
        raise RuntimeError("the plugin is broken")


class MailCases:
    """The cases. A subclass says how its framework builds, addresses and sends.

    :cvar keeps_transfer_encoding: False where the framework builds the MIME itself, after the adapter, and so chooses
        a transfer encoding for the longer lines.
    """

    keeps_transfer_encoding: ClassVar[bool] = True

    def build(self, letter: Letter) -> Any:
        """The framework's message."""
        raise NotImplementedError

    def readdress(self, message: Any, address: str) -> None:
        """Change the one recipient of a message, as a loop over readers does."""
        raise NotImplementedError

    def send(self, message: Any, sink: Sink, postbox: Postbox | None) -> Any:
        """Send by the framework's own API; without a ``Postbox``, as before the adapter was there. May be async."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self) -> Iterator[Sink]:
        """The mail server."""
        with running_sink() as sink:
            yield sink

    @pytest.fixture
    def postbox(self) -> Postbox:
        """What does the rewriting."""
        return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))

    def arriving(self, message: Any, sink: Sink, postbox: Postbox | None) -> Received:
        """The one mail that arrives when a message is sent."""
        before = len(sink.mails)

        async def wait(sending: Any) -> None:
            await sending

        sending = self.send(message, sink, postbox)
        if inspect.isawaitable(sending):
            asyncio.run(wait(sending))
        (arrived,) = sink.mails[before:]
        return arrived

    def assert_untouched(self, letter: Letter, sink: Sink, postbox: Postbox) -> Received:
        """What arrives is what arrives without the adapter."""
        plain = self.arriving(self.build(letter), sink, None)
        arrived = self.arriving(self.build(letter), sink, postbox)
        assert contents(arrived.raw) == contents(plain.raw)
        assert arrived.recipients == plain.recipients
        return arrived

    @pytest.mark.parametrize("shape", SHAPES)
    def test_links_become_tracking_links_and_nothing_else_changes(
        self, shape: str, sink: Sink, postbox: Postbox
    ) -> None:
        """Every http and https link of the HTML is tracked; undone, the mail is the one that went out before."""
        plain = self.arriving(self.build(SHAPES[shape]), sink, None)
        arrived = self.arriving(self.build(SHAPES[shape]), sink, postbox)
        opened = [postbox.open(link.decode()) for link in tracking_links(arrived)]
        assert [link.url for link in opened] == ADDRESSES
        assert [link.index for link in opened] == [0, 1, 3]
        assert {link.message_id for link in opened} == {message_id(arrived)}
        kept = self.keeps_transfer_encoding
        assert contents(arrived.raw, postbox, encodings=kept) == contents(plain.raw, encodings=kept)
        assert (arrived.sender, arrived.recipients) == (plain.sender, plain.recipients)

    def test_a_click_on_what_arrived_reaches_a_notifier(self, sink: Sink, tmp_path: Path) -> None:
        """The link that is in the arrived mail redirects, and the notifier is told which mail and link it was."""
        recording = RecordingNotifier()

        async def run() -> Received:
            async with redirecting(tmp_path, recording) as postbox:
                letter = replace(ALTERNATIVE, html='<a href="http://example.com/?a=1&amp;b=2">x</a>')
                arrived = await asyncio.to_thread(self.arriving, self.build(letter), sink, postbox)
                (link,) = hrefs(html_part(arrived))
                response = await get(link)
                assert (response.code, response.headers["Location"]) == (302, "http://example.com/?a=1&b=2")
                await recording.wait_for(1)
                return arrived

        arrived = asyncio.run(run())
        (click,) = recording.clicks
        assert click.url == "http://example.com/?a=1&b=2"
        assert click.message_id == message_id(arrived)
        assert click.mail.common_headers.subject == "New books"
        assert click.mail.common_headers.to == ("reader@example.com",)
        assert click.mail.common_headers.date == "Sat, 25 Apr 2026 18:08:03 +0000"

    def test_a_bcc_is_a_recipient_too(self, sink: Sink, postbox: Postbox) -> None:
        """One in To and one in Bcc are two, so the mail is left alone."""
        arrived = self.assert_untouched(replace(PLAIN, bcc=("archive@example.com",)), sink, postbox)
        assert sorted(arrived.recipients) == ["archive@example.com", "reader@example.com"]

    def test_a_bcc_alone_is_tracked_and_stays_blind(self, sink: Sink, postbox: Postbox) -> None:
        """The only recipient may be in Bcc; the mail that arrives does not name them."""
        arrived = self.arriving(self.build(replace(PLAIN, to=(), bcc=("reader@example.com",))), sink, postbox)
        assert len(tracking_links(arrived)) == len(ADDRESSES)
        assert arrived.recipients == ["reader@example.com"]
        assert b"reader@example.com" not in arrived.raw

    @pytest.mark.parametrize("field", ["to", "cc"])
    def test_a_mail_to_two_is_untouched(self, field: str, sink: Sink, postbox: Postbox) -> None:
        """A click could not say whose it was."""
        addresses = (*getattr(PLAIN, field), "other@example.com")
        self.assert_untouched(replace(PLAIN, **{field: addresses}), sink, postbox)

    def test_a_mail_twice_to_one_is_tracked(self, sink: Sink, postbox: Postbox) -> None:
        """Equal addresses count once, with a display name or without."""
        letter = replace(PLAIN, to=("Reader <reader@example.com>",), cc=("reader@example.com",))
        assert tracking_links(self.arriving(self.build(letter), sink, postbox))

    def test_text_alone_is_untouched(self, sink: Sink, postbox: Postbox) -> None:
        """There is nothing to track in a mail without HTML."""
        self.assert_untouched(Letter(text=TEXT), sink, postbox)

    def test_a_signed_mail_is_untouched(self, sink: Sink, postbox: Postbox) -> None:
        """A change would break the signature."""
        self.assert_untouched(PLAIN.with_headers(DKIM_Signature="v=1; a=rsa-sha256; d=example.com"), sink, postbox)

    def test_a_plugin_that_fails_stops_no_mail(self, sink: Sink) -> None:
        """What it had changed is dropped, and the mail is tracked without it."""
        postbox = Postbox(Settings(domain=DOMAIN, keys=[new_key()]), [Raising()])
        arrived = self.arriving(self.build(PLAIN), sink, postbox)
        assert len(tracking_links(arrived)) == len(ADDRESSES)
        assert b"half done" not in arrived.raw

    def test_tracking_that_fails_stops_no_mail(
        self, sink: Sink, postbox: Postbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever goes wrong inside, the mail goes out as it came, and the log says so."""
        monkeypatch.setattr(Rewriter, "message", lambda *_: 1 / 0)
        self.assert_untouched(FULL, sink, postbox)
        assert "ZeroDivisionError" in caplog.text

    def test_one_message_sent_twice_is_two_mails(self, sink: Sink, postbox: Postbox) -> None:
        """Each has an id of its own, and the caller's message is as it was."""
        message = self.build(ALTERNATIVE)
        plain = self.arriving(message, sink, None)
        first, second = (self.arriving(message, sink, postbox) for _ in range(2))
        assert message_id(first) != message_id(second)
        assert not set(tracking_links(first)) & set(tracking_links(second))
        assert contents(self.arriving(message, sink, None).raw) == contents(plain.raw)

    def test_a_loop_over_readers_gives_each_links_of_their_own(self, sink: Sink, postbox: Postbox) -> None:
        """One message object, three readers: three mails, three ids, no link of another reader."""
        message = self.build(PLAIN)
        ids = []
        for reader in ("one@example.com", "two@example.com", "three@example.com"):
            self.readdress(message, reader)
            arrived = self.arriving(message, sink, postbox)
            opened = [postbox.open(link.decode()) for link in tracking_links(arrived)]
            assert len(opened) == len(ADDRESSES)
            assert {link.headers["to"] for link in opened} == {(reader,)}
            assert {link.message_id for link in opened} == {message_id(arrived)}
            ids.append(message_id(arrived))
        assert len(set(ids)) == 3

    def test_inside_another_adapter_nothing_is_rewritten(self, sink: Sink, postbox: Postbox) -> None:
        """Where one framework sends by another, the outer adapter has rewritten, or left alone with reason."""
        with outermost():
            arrived = self.assert_untouched(PLAIN.with_headers(X_Postbox_Tags="campaign=spring"), sink, postbox)
        assert b"X-Postbox-Tags" in arrived.raw

    def test_what_was_rewritten_before_is_not_rewritten_again(self, sink: Sink, postbox: Postbox) -> None:
        """A mail that comes with tracking links and an id keeps both."""
        mail = Mail(sender=PLAIN.sender, recipient="reader@example.com", message_id="QA_JPkU2fkpIWdkx")
        letter = replace(PLAIN, html=postbox.track_html(HTML, mail)).with_headers(X_Postbox_Message_Id=mail.message_id)
        self.assert_untouched(letter, sink, postbox)

    def test_x_postbox_track_no_switches_a_mail_off(self, sink: Sink, postbox: Postbox) -> None:
        """No link is tracked, and the header does not arrive."""
        plain = self.arriving(self.build(ALTERNATIVE), sink, None)
        arrived = self.arriving(self.build(ALTERNATIVE.with_headers(X_Postbox_Track="no")), sink, postbox)
        assert contents(arrived.raw) == contents(plain.raw)

    def test_message_tags_travel_with_the_links(self, sink: Sink, postbox: Postbox) -> None:
        """Tags from X-Postbox-Tags are in every link; the header does not arrive."""
        letter = ALTERNATIVE.with_headers(X_Postbox_Tags="campaign=spring, cohort=b")
        arrived = self.arriving(self.build(letter), sink, postbox)
        tags = [postbox.open(link.decode()).message_tags for link in tracking_links(arrived)]
        assert tags == [{"campaign": ("spring",), "cohort": ("b",)}] * len(ADDRESSES)
        assert b"x-postbox-tags" not in arrived.raw.lower()


class AsyncMailCases(MailCases):
    """The cases, and what sending in a loop adds. ``send`` is a coroutine."""

    def test_mails_sent_at_once_have_links_of_their_own(self, sink: Sink, postbox: Postbox) -> None:
        """Tasks that send at the same time do not take each other's mails for their own."""
        readers = [f"reader{number}@example.com" for number in range(8)]

        async def send_all() -> None:
            messages = [self.build(replace(PLAIN, to=(reader,))) for reader in readers]
            await asyncio.gather(*(self.send(message, sink, postbox) for message in messages))

        asyncio.run(send_all())
        for arrived in sink.mails:
            opened = [postbox.open(link.decode()) for link in tracking_links(arrived)]
            assert [link.url for link in opened] == ADDRESSES
            assert {link.headers["to"] for link in opened} == {tuple(arrived.recipients)}
            assert {link.message_id for link in opened} == {message_id(arrived)}
        assert sorted(arrived.recipients[0] for arrived in sink.mails) == readers
        assert len({message_id(arrived) for arrived in sink.mails}) == len(readers)


class OverTls:
    """Certificates for a connection that is encrypted.

    :cvar authority: who has signed the server's.
    """

    authority: ClassVar[trustme.CA] = trustme.CA()

    def server_context(self) -> ssl.SSLContext:
        """What the server shows: a certificate for 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """What trusts that certificate, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


class OverStartTls(OverTls):
    """The mail server takes nothing before STARTTLS, as a submission server does (RFC 6409, RFC 3207)."""

    @pytest.fixture
    def sink(self) -> Iterator[Sink]:
        """The mail server."""
        with running_sink(starttls=self.server_context()) as sink:
            yield sink
        assert sink.mails
        assert all(mail.encrypted for mail in sink.mails)


def contents(raw: bytes, postbox: Postbox | None = None, *, encodings: bool = True) -> list[tuple[Any, ...]]:
    """A mail part by part: headers as written, but for our id and the boundaries, and content: decoded, and as written
    where it is no HTML body.

    :param postbox: whose tracking links to undo.
    :param encodings: whether transfer encodings count.
    """
    parts: list[tuple[Any, ...]] = []
    message = email.message_from_bytes(raw)
    for part in message.walk():
        dropped = {"x-postbox-message-id"} if postbox else set()
        dropped |= set() if encodings else {"content-transfer-encoding"}
        headers = [
            (name, re.sub(r'boundary="[^"]*"', "boundary", value))
            for name, value in part.raw_items()
            if name.lower() not in dropped
        ]
        content = part.get_payload(decode=True)
        if isinstance(content, bytes) and postbox:
            content = TRACKING_LINK.sub(lambda found: _original(postbox, found[0]), content)
        html_body = part.get_content_type() == "text/html" and part.get_content_disposition() != "attachment"
        written = None if part.is_multipart() or html_body or not encodings else part.get_payload()
        parts.append((headers, content, written, part.preamble, part.epilogue))
    return parts


def _original(postbox: Postbox, link: bytes) -> bytes:
    return html.escape(postbox.open(link.decode()).url, quote=False).encode()


def html_part(mail: Received) -> str:
    """The HTML that its reader sees."""
    for part in email.message_from_bytes(mail.raw).walk():
        if part.get_content_type() == "text/html":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return content.decode(part.get_content_charset("us-ascii"))
    raise AssertionError("no HTML part arrived")


def tracking_links(mail: Received) -> list[bytes]:
    """The tracking links of all its parts, in order."""
    found: list[bytes] = []
    for part in email.message_from_bytes(mail.raw).walk():
        content = part.get_payload(decode=True)
        found += TRACKING_LINK.findall(content) if isinstance(content, bytes) else []
    return found


def message_id(mail: Received) -> str:
    """Our id, as it arrived in the one header that there is."""
    (value,) = email.message_from_bytes(mail.raw).get_all("X-Postbox-Message-Id", [])
    return str(value)
