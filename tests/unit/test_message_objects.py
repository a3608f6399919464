"""Message objects of every policy: a copy with other links goes out, and the argument is as it was."""

from __future__ import annotations

import email
import email.policy
import logging
import re
from collections.abc import Callable
from email.charset import QP, Charset
from email.header import Header
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import Policy
from typing import Any, TypeAlias

import pytest

from postbox_plugin import Link, Mail, Postbox, Settings, hookimpl

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
LINK = re.compile(r"https://click\.example\.com/c/[A-Za-z0-9_-]+")
HTML = '<p>Grüße, ж <a href="https://example.com/ж">x</a></p>\n'
POLICIES = [email.policy.compat32, email.policy.default, email.policy.SMTP, email.policy.SMTPUTF8]

AnyMessage: TypeAlias = "Message[Any, Any]"


def postbox(*plugins: object, **changes: Any) -> Postbox:
    return Postbox(Settings(**{"domain": "click.example.com", "keys": [KEY], "strict": True, **changes}), plugins)


def addressed(message: AnyMessage) -> AnyMessage:
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "Reader <reader@example.com>"
    message["Subject"] = "Order"
    return message


def new_style(policy: Policy[Any] = email.policy.default, cte: str = "quoted-printable") -> AnyMessage:
    message = EmailMessage(policy=policy)
    message.set_content("Grüße https://example.com/")
    message.add_alternative(HTML, subtype="html", cte=cte)
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    return addressed(message)


def old_style() -> AnyMessage:
    message = MIMEMultipart("alternative")
    message.attach(MIMEText("Grüße https://example.com/", "plain", "utf-8"))
    message.attach(MIMEText(HTML, "html", "utf-8"))
    return addressed(message)


def django_style() -> AnyMessage:
    """As Django before 6.0 builds it: compat32, UTF-8 that is 8bit or quoted-printable but never base64."""
    charset = Charset("utf-8")
    charset.body_encoding = None  # type: ignore[assignment]  # typeshed has numbers only
    message = MIMEText("", "html", None)
    del message["Content-Transfer-Encoding"]
    message.set_payload(HTML, charset)
    return addressed(message)


def django_style_with_long_lines() -> AnyMessage:
    charset = Charset("utf-8")
    charset.body_encoding = QP
    message = MIMEText("", "html", None)
    del message["Content-Transfer-Encoding"]
    message.set_payload(HTML + "x" * 1200, charset)
    return addressed(message)


def parsed() -> AnyMessage:
    return email.message_from_bytes(new_style(cte="8bit").as_bytes(policy=email.policy.SMTP))


BUILDERS: list[Callable[[], AnyMessage]] = [
    *(lambda policy=policy: new_style(policy) for policy in POLICIES[1:]),
    lambda: new_style(cte="base64"),
    lambda: new_style(cte="8bit"),
    old_style,
    django_style,
    django_style_with_long_lines,
    parsed,
]
NAMES = ["default", "SMTP", "SMTPUTF8", "base64", "8bit", "old", "django", "django-long", "parsed"]


def html_of(message: AnyMessage) -> list[str]:
    """The text of each HTML part that is no attachment."""
    return [
        part.get_payload(decode=True).decode(part.get_content_charset("ascii"))  # type: ignore[union-attr]
        for part in message.walk()
        if part.get_content_type() == "text/html" and part.get_content_disposition() != "attachment"
    ]


def urls(message: AnyMessage) -> list[str]:
    return [postbox().open(link).url for text in html_of(message) for link in LINK.findall(text)]


def state(message: AnyMessage) -> list[Any]:
    """Everything that can be seen of a message object."""
    return [
        (id(part), id(part.policy), list(part.raw_items()), part.preamble, part.epilogue, repr(part._payload))  # type: ignore[attr-defined]
        for part in message.walk()
    ]


@pytest.mark.parametrize("build", BUILDERS, ids=NAMES)
def test_a_message_object_is_tracked_and_not_changed(build: Callable[[], AnyMessage]) -> None:
    """The result has tracking links and one more header; class, policy, other parts and headers are the original's."""
    message = build()
    before = state(message)
    sent = postbox().before_send(message)
    assert state(message) == before
    assert urls(sent) == ["https://example.com/ж"]
    assert type(sent) is type(message)
    assert sent.policy is message.policy
    assert list(sent.raw_items())[:-1] == list(message.raw_items())
    assert list(sent.raw_items())[-1][0] == "X-Postbox-Message-Id"
    for old, new in zip(message.walk(), sent.walk(), strict=True):
        if old is not message:
            assert list(new.raw_items()) == list(old.raw_items())
        if old.get_content_type() == "text/html":
            assert html_of(new)[0].replace(LINK.findall(html_of(new)[0])[0], "https://example.com/ж") == html_of(old)[0]
        elif not old.is_multipart():
            assert new is old  # shared, not copied


@pytest.mark.parametrize("build", BUILDERS, ids=NAMES)
def test_a_tracked_object_can_be_written_out(build: Callable[[], AnyMessage]) -> None:
    """What comes back serialises, and parses again to the same links."""
    sent = postbox().before_send(build())
    assert urls(email.message_from_bytes(sent.as_bytes())) == ["https://example.com/ж"]


@pytest.mark.parametrize("build", BUILDERS, ids=NAMES)
def test_in_place_changes_the_object_itself(build: Callable[[], AnyMessage]) -> None:
    """For frameworks whose hook returns nothing, the very object is changed, and its parts stay the same objects."""
    message = build()
    parts = [id(part) for part in message.walk()]
    sent = postbox().before_send(message, in_place=True)
    assert sent is message
    assert [id(part) for part in message.walk()] == parts
    assert urls(message) == ["https://example.com/ж"]


def test_one_object_sent_to_three_readers() -> None:
    """Sent to three readers in a loop, one message object becomes three messages, each with its own id and links."""
    message = new_style()
    sent = [postbox().before_send(message, recipients=[f"{name}@example.com"]) for name in "abc"]
    assert len({result["X-Postbox-Message-Id"] for result in sent}) == 3
    assert len({link for result in sent for text in html_of(result) for link in LINK.findall(text)}) == 3
    assert "X-Postbox-Message-Id" not in message


def test_a_message_that_is_left_alone_is_the_argument_itself() -> None:
    """Where nothing is to be changed, no copy is made, in place or not."""
    text = addressed(MIMEText("https://example.com/", "plain", "utf-8"))
    assert postbox().before_send(text) is text
    assert postbox().before_send(text, in_place=True) is text
    many = old_style()
    assert postbox().before_send(many, recipients=["a@b.example", "c@d.example"]) is many


def test_headers_meant_for_us_go_from_the_copy_alone() -> None:
    """``X-Postbox-Tags`` and ``X-Postbox-Track`` are in no result, and still in the original; in place they go."""
    for word, expected in (("yes", ["https://example.com/ж"]), ("no", [])):
        message = old_style()
        message["X-Postbox-Tags"] = "a=1"
        message["X-Postbox-Track"] = word
        sent = postbox().before_send(message)
        assert urls(sent) == expected
        assert not {"X-Postbox-Tags", "X-Postbox-Track"} & set(sent.keys())
        assert {"X-Postbox-Tags", "X-Postbox-Track"} <= set(message.keys())
        assert postbox().before_send(message, in_place=True) is message
        assert not {"X-Postbox-Tags", "X-Postbox-Track"} & set(message.keys())


@pytest.mark.parametrize("build", [new_style, old_style])
def test_a_message_id_of_the_application_is_kept(build: Callable[[], AnyMessage]) -> None:
    """An ``X-Postbox-Message-Id`` that is found stays, once, and is what the tokens say."""
    message = build()
    message["X-Postbox-Message-Id"] = "order-2026-000042"
    message["X-Last"] = "1"
    sent = postbox().before_send(message)
    assert list(sent.raw_items()) == list(message.raw_items())
    assert postbox().open(LINK.findall(html_of(sent)[0])[0]).message_id == "order-2026-000042"


def test_attachments_and_enclosed_messages_are_never_touched() -> None:
    """HTML that is attached, or in an enclosed message, is shared with the original as it is."""
    message = MIMEMultipart("mixed")
    message.attach(MIMEText(HTML, "html", "utf-8"))
    attached = MIMEText(HTML, "html", "utf-8")
    attached.add_header("Content-Disposition", "attachment", filename="a.html")
    message.attach(attached)
    message.attach(MIMEMessage(old_style()))
    message.attach(MIMEText(HTML, "x-amp-html", "utf-8"))
    addressed(message)
    sent = postbox().before_send(message)
    parts = sent.get_payload()
    assert isinstance(parts, list)
    assert LINK.search(html_of(parts[0])[0])  # type: ignore[arg-type]
    assert parts[1] is attached
    assert all(one is other for one, other in zip(parts[1:], message.get_payload()[1:], strict=True))  # type: ignore[index]


@pytest.mark.parametrize("subtype", ["signed", "encrypted"])
def test_signed_and_encrypted_objects_are_left_alone(subtype: str) -> None:
    """Wherever the signed part is, the argument itself comes back."""
    sealed = MIMEMultipart(subtype)
    sealed.attach(MIMEText(HTML, "html", "utf-8"))
    outer = MIMEMultipart("mixed")
    outer.attach(MIMEText(HTML, "html", "utf-8"))
    outer.attach(sealed)
    for message in (addressed(sealed), addressed(outer)):
        assert postbox().before_send(message) is message
        assert postbox().explain(message).reason == f"signed or encrypted (multipart/{subtype})"


def test_pkcs7_and_signature_headers_leave_the_object_alone() -> None:
    """S/MIME, and what DKIM or ARC signed already."""
    outer = MIMEMultipart("mixed")
    outer.attach(MIMEText(HTML, "html", "utf-8"))
    outer.attach(MIMEApplication(b"x", "pkcs7-mime"))
    assert postbox().explain(addressed(outer)).reason == "signed or encrypted (application/pkcs7-mime)"
    for name in ("DKIM-Signature", "ARC-Seal"):
        message = old_style()
        message[name] = "v=1"
        assert postbox().before_send(message) is message
        assert postbox().explain(message).reason == f"already signed ({name})"


def test_text_that_was_never_encoded_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A payload of decoded text has no bytes that could be changed: the reason says what to do."""
    message = addressed(Message())
    message["Content-Type"] = "text/html; charset=utf-8"
    message.set_payload(HTML)
    with caplog.at_level(logging.INFO, "postbox.send"):
        assert postbox().before_send(message) is message
    assert "give set_payload() a charset" in caplog.text


@pytest.mark.parametrize(
    "to",
    ["reader@example.com", "Читатель <reader@example.com>", '"Last, First" <reader@example.com>', "reader@пример.рф"],
)
def test_recipients_of_every_policy(to: str) -> None:
    """One recipient is one recipient, encoded or not, as a parsed header object or as text."""
    for message in (new_style(), old_style()):
        del message["To"]
        message["To"] = (
            to if message.policy is not email.policy.compat32 else Header(to, "utf-8") if not to.isascii() else to
        )
        sent = postbox().before_send(message, recipients=None if to.isascii() else ["reader@example.com"])
        assert urls(sent) == ["https://example.com/ж"]


def test_headers_are_carried_as_they_will_be_written() -> None:
    """A header that its policy will encode is sealed in that form, whatever object it is."""
    for message in (new_style(), old_style()):
        del message["Subject"]
        message["Subject"] = Header("Заказ", "utf-8") if message.policy is email.policy.compat32 else "Заказ"
        opened = postbox().open(LINK.findall(html_of(postbox().before_send(message))[0])[0])
        (subject,) = opened.headers["subject"]
        assert subject.isascii()
        assert subject.startswith("=?utf-8?")


def test_a_plugins_html_takes_the_place_of_the_body() -> None:
    """What a before-send hook makes of the HTML goes out, its links tracked, in the part's charset and encoding."""

    class Append:
        @hookimpl
        def postbox_before_send(self, mail: Mail) -> None:
            mail.html += '<a href="https://example.com/2">ü ж</a>'

        @hookimpl
        def postbox_link(self, link: Link, mail: Mail) -> Link:
            return link.replace(tags={"n": str(link.index)})

    for build in BUILDERS:
        sent = postbox(Append()).before_send(build())
        assert urls(sent) == ["https://example.com/ж", "https://example.com/2"]
        assert html_of(sent)[0].endswith("ü ж</a>")


def test_parts_that_are_no_messages_do_no_harm() -> None:
    """A multipart whose payload is text, or nothing, is left alone."""
    for payload in ("text", None):
        message = addressed(MIMEMultipart("mixed"))
        message._payload = payload  # type: ignore[attr-defined]
        assert postbox().before_send(message) is message


def test_a_shared_part_is_rewritten_in_each_message() -> None:
    """One part object in two messages becomes two parts."""
    part = MIMEText(HTML, "html", "utf-8")
    results = []
    for name in "ab":
        message = MIMEMultipart("mixed")
        message.attach(part)
        results.append(postbox().before_send(addressed(message), recipients=[f"{name}@example.com"]))
    assert len({link for result in results for text in html_of(result) for link in LINK.findall(text)}) == 2
    assert html_of(part) == [HTML]


class FailingAt(HeaderRegistry):
    """Raises what the standard library's own header parser raises on some malformed headers."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__()
        self._name = name
        self._error = error

    def __call__(self, name: str, value: Any) -> Any:
        if name == self._name:
            raise self._error
        return super().__call__(name, value)


def unread(headers: dict[str, str], policy: Policy[Any] = email.policy.default) -> AnyMessage:
    """A message whose headers no parser has seen."""
    message = EmailMessage(policy=policy)
    for name, value in ({"To": "a@b.example", "Content-Type": "text/html"} | headers).items():
        message.set_raw(name, value)
    message.set_payload('<a href="https://example.com/">x</a>')
    return message


@pytest.mark.parametrize("name", ["Content-Disposition", "Content-Type", "Content-Transfer-Encoding"])
def test_a_header_that_its_policy_cannot_read_keeps_no_message_from_being_tracked(name: str) -> None:
    failing = FailingAt(name, IndexError("string index out of range"))
    headers = {"Content-Disposition": "inline", "Content-Transfer-Encoding": "8bit"}
    message = unread(headers, email.policy.default.clone(header_factory=failing))
    sent = postbox().before_send(message)
    assert len(LINK.findall(vars(sent)["_payload"])) == 1  # get_payload() would ask the policy


@pytest.mark.parametrize("name", ["Content-Disposition", "Content-Type", "Content-Transfer-Encoding", "To", "X"])
@pytest.mark.parametrize("piece", [";", '"', "(", "<", "@", "; a=b", "\n \udce9", "\udce9", "é", "=?utf-8?q?a?= "])
def test_long_headers_take_no_time(name: str, piece: str) -> None:
    """The parsers of the modern policies take the square of it, and recurse: they are not asked."""
    message = unread({name: f"x {piece * (100_000 // len(piece))}"})
    assert (postbox().before_send(message) is message) == (name != "X")


def test_a_header_that_its_policy_cannot_write_keeps_no_message_from_being_tracked() -> None:
    html = '<a href="https://example.com/">x</a>'
    raw = f"To: a@b.example\nSubject: ж\nContent-Type: text/html\n\n{html}".encode()
    failing = FailingAt("Subject", AttributeError("'Group' object has no attribute 'local_part'"))
    message = email.message_from_bytes(raw, policy=email.policy.default.clone(header_factory=failing))
    opened = postbox().open(LINK.findall(html_of(postbox().before_send(message))[0])[0])
    assert (opened.url, opened.headers["subject"]) == ("https://example.com/", ("ж",))
