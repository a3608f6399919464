"""Parts of a message that a plugin makes HTML of: in messages of every kind, tracked or not, and not in others."""

from __future__ import annotations

import email
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP, compat32, default

import pytest

from postbox_plugin import Mail, Postbox, Settings, hookimpl, new_key
from postbox_plugin.errors import PluginError, PostboxError

LINK = "https://example.com/grüße?a=1&amp;b=2"
PICTURE = b"\x89PNG" + bytes(range(256)) * 4


class Markup:
    """Makes HTML of text/x-link: its text is an address."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    @hookimpl
    def postbox_convert(self, content_type: str, text: str, file: str) -> str | None:
        self.asked.append((content_type, file))
        if "wrong" in text:
            raise PostboxError("line 1 is wrong")
        if "broken" in text:
            raise RuntimeError("broken plugin")
        return f'<p>✓ <a href="{text.strip()}">x</a></p>\r\n' if content_type == "text/x-link" else None


def postbox(*, strict: bool = True) -> Postbox:
    return Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=strict), plugins=[Markup()])


def message(text: str = LINK, *, to: str = "reader@example.org", subtype: str = "x-link") -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    made["From"] = "Shop <shop@example.com>"
    made["To"] = to
    made["Subject"] = "A subject so long that it has to be folded, and it was folded by whoever wrote it, with care"
    made.set_content("plain")
    made.add_alternative(text, subtype=subtype)
    made.add_attachment(PICTURE, "image", "png", filename="x.png")
    return made


def html_of(sent: Message | bytes) -> str:
    parsed = email.message_from_bytes(sent if isinstance(sent, bytes) else sent.as_bytes(), policy=default)
    assert isinstance(parsed, EmailMessage)
    part = parsed.get_body(("html",))
    assert part is not None
    return str(part.get_content())


def opened(used: Postbox, html: str) -> str:
    return used.open(html.split('href="')[1].split('"', maxsplit=1)[0]).url


@pytest.mark.parametrize("form", ["EmailMessage", "bytes", "compat32"])
def test_a_part_becomes_the_html_part(form: str) -> None:
    """The part is HTML with a tracked link; the text, the attachment and all headers are what they were."""
    written = message()
    given: Message | bytes = written
    if form != "EmailMessage":
        given = written.as_bytes()
    if form == "compat32":
        given = email.message_from_bytes(given, policy=compat32)
    before = written.as_bytes()
    used = postbox()
    sent = used.before_send(given)

    assert written.as_bytes() == before
    assert opened(used, html_of(sent)) == "https://example.com/grüße?a=1&b=2"
    assert html_of(sent).startswith("<p>✓ ")
    after = email.message_from_bytes(sent if isinstance(sent, bytes) else sent.as_bytes(), policy=default)
    assert isinstance(after, EmailMessage)
    assert [part.get_content_type() for part in after.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "image/png",
    ]
    (picture,) = after.iter_attachments()
    assert picture.get_content() == PICTURE
    assert {name: str(after[name]) for name in written} == {name: str(written[name]) for name in written}
    if isinstance(sent, bytes):
        headers = before.split(b"\r\n\r\n")[0]
        assert sent.startswith(headers)
        assert b"\n" not in sent.replace(b"\r\n", b"")


def test_a_message_of_one_part() -> None:
    """The message itself may be what a plugin makes HTML of."""
    single = MIMEText(LINK, "x-link", "utf-8")
    single["From"], single["To"] = "shop@example.com", "reader@example.org"
    used = postbox()
    sent = used.before_send(single)
    assert sent.get_content_type() == "text/html"
    assert opened(used, html_of(sent)) == "https://example.com/grüße?a=1&b=2"
    assert single.get_content_type() == "text/x-link"


def test_in_place() -> None:
    """A framework whose hook has no return value has its own object changed."""
    given = message()
    used = postbox()
    assert used.before_send(given, in_place=True) is given
    assert opened(used, html_of(given)) == "https://example.com/grüße?a=1&b=2"


@pytest.mark.parametrize("raw", [True, False])
def test_what_is_not_tracked_is_made_html_all_the_same(raw: bool) -> None:
    """A mail to two readers cannot be tracked, but has to be read."""
    given = message(to="a@example.org, b@example.org")
    sent = postbox().before_send(given.as_bytes() if raw else given)
    assert f'href="{LINK}"' in html_of(sent)
    assert postbox().explain(given).reason == "2 recipients"


def test_what_nobody_may_change_stays() -> None:
    """A signed message goes out as it came, and the plugin is not asked."""
    given = message()
    given["DKIM-Signature"] = "v=1"
    plugin = Markup()
    used = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True), plugins=[plugin])
    assert used.before_send(given) is given
    assert used.before_send(given.as_bytes()) == given.as_bytes()
    assert plugin.asked == []


def test_only_inline_text_of_other_types_is_asked_about() -> None:
    """Not plain text, HTML or AMP, not an attachment; what no plugin knows stays."""
    made = MIMEMultipart("alternative")
    made["From"], made["To"] = "shop@example.com", "reader@example.org"
    for subtype in ("plain", "x-amp-html", "calendar", "html"):
        made.attach(MIMEText('<a href="https://example.com/">x</a>', subtype, "utf-8"))
    attached = MIMEText(LINK, "x-link", "utf-8")
    attached["Content-Disposition"] = "attachment"
    made.attach(attached)
    plugin = Markup()
    used = Postbox(Settings(domain="click.example.com", keys=[new_key()], strict=True), plugins=[plugin])
    for given in (made, made.as_bytes()):
        sent = used.before_send(given)
        assert opened(used, html_of(sent)) == "https://example.com/"
        parsed = email.message_from_bytes(sent) if isinstance(sent, bytes) else sent
        assert [part.get_content_subtype() for part in parsed.walk()][1:] == [
            "plain",
            "x-amp-html",
            "calendar",
            "html",
            "x-link",
        ]
    assert plugin.asked == [("text/calendar", ""), ("text/calendar", "")]


@pytest.mark.parametrize("text", ["wrong", "broken"])
def test_a_plugin_that_fails_keeps_no_mail_back(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """The part goes out as it came, what else is HTML is tracked, and the log says why; strict raises."""
    given = message(text)
    given.get_payload()[0].add_alternative('<a href="https://example.com/">x</a>', subtype="html")  # type: ignore[union-attr,index]
    used = postbox(strict=False)
    sent = used.before_send(given)
    assert opened(used, html_of(sent)) == "https://example.com/"
    assert "text/x-link" in [part.get_content_type() for part in sent.walk()]
    assert "a text/x-link part goes out as it came: " in caplog.text
    assert ("Traceback" in caplog.text) == (text == "broken")
    with pytest.raises((PostboxError, RuntimeError)):
        postbox().before_send(given)


def test_what_cannot_be_read_stays() -> None:
    """A part whose charset is not what it says is nobody's to guess at."""
    raw = b"To: a@example.org\nFrom: b@example.com\nContent-Type: text/x-link; charset=utf-8\n\nhttps://example.com/\xff\n"
    assert postbox().before_send(raw) == raw


def test_senders_of_json_convert_by_themselves() -> None:
    """Postbox.convert gives what track_html takes; a type that no plugin knows is an error that says so."""
    used = postbox()
    html = used.convert(LINK, "Text/X-Link")
    tracked = used.track_html(html, Mail(sender="shop@example.com", recipient="reader@example.org"))
    assert opened(used, tracked) == "https://example.com/grüße?a=1&b=2"
    with pytest.raises(PluginError, match="no plugin makes HTML of text/markdown: `postbox plugins` lists"):
        used.convert("# x", "text/markdown")
    with pytest.raises(PostboxError, match="line 1 is wrong"):
        used.convert("wrong", "text/x-link")


def test_something_else_than_text_is_an_error() -> None:
    """What the hook returns is put into a message: bytes would be none."""

    class Bytes:
        @hookimpl
        def postbox_convert(self) -> bytes:
            return b"<p>"

    used = Postbox(Settings(domain="click.example.com", keys=[new_key()]), plugins=[Bytes()])
    with pytest.raises(PluginError, match="Bytes: postbox_convert must return text or None"):
        used.convert("x", "text/x-link")
