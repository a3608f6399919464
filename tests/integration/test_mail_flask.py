"""Flask-Mail and Flask-Mailman with click tracking: over SMTP to a real server, and as a project's tests see them."""

from __future__ import annotations

import email.encoders
import re
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_string
from email.mime.base import MIMEBase
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import flask_mail
import flask_mailman
import pytest
from dkim_keys import is_signed, signed
from flask import Flask
from flask_mailman.backends.base import BaseEmailBackend
from flask_mailman.backends.locmem import EmailBackend as Locmem
from sinks import Sink, running_sink

from postbox_hooks.mail import flask_mail as tracked_mail
from postbox_hooks.mail import flask_mailman as tracked_mailman
from postbox_hooks.mail import smtplib as tracked_smtplib
from postbox_plugin import Postbox, Settings, hookimpl, new_key
from postbox_plugin.errors import SettingsError

from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    HTML,
    PLAIN,
    Letter,
    MailCases,
    OverStartTls,
    html_part,
    message_id,
    tracking_links,
)

KEY = new_key()
POSTBOX = {"domain": DOMAIN, "keys": [KEY]}
LINK = re.compile(r"https?://click\.example\.com/c/[A-Za-z0-9_-]+")


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[KEY]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


@pytest.fixture(autouse=True)
def _no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither can be told what to call itself, and asking the resolver can take seconds."""
    monkeypatch.setattr("socket.getfqdn", lambda *_: "localhost")


def application(**config: Any) -> Flask:
    """An application that sends from shop@example.com."""
    app = Flask("shop")
    app.config.update(MAIL_DEFAULT_SENDER="Shop <shop@example.com>", **config)
    return app


class TestFlaskMail(OverStartTls, MailCases):
    """Flask-Mail's own API."""

    @pytest.fixture(autouse=True)
    def _same_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flask-Mail writes dates in the machine's time zone."""
        monkeypatch.setattr(flask_mail, "formatdate", lambda *_, **__: PLAIN.headers["Date"])

    def build(self, letter: Letter) -> flask_mail.Message:
        headers = letter.headers
        message = flask_mail.Message(
            letter.subject,
            list(letter.to),
            letter.text,
            letter.html or None,
            sender=letter.sender,
            cc=list(letter.cc),
            bcc=list(letter.bcc),
            extra_headers={name: value for name, value in headers.items() if name not in ("Date", "Message-ID")},
        )
        message.msgId = headers["Message-ID"]
        if letter.image:
            message.attach("pixel.png", "image/png", letter.image, "inline", {"Content-ID": "<pixel>"})
        for name, content, content_type in letter.attachments:
            message.attach(name, content_type, content)
        return message

    def readdress(self, message: flask_mail.Message, address: str) -> None:
        message.recipients = [address]

    def send(self, message: flask_mail.Message, sink: Sink, postbox: Postbox | None) -> None:
        app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, MAIL_USE_TLS=True, POSTBOX=postbox)
        mail = flask_mail.Mail(app) if postbox is None else tracked_mail.Mail(app)
        with app.app_context():
            mail.send(message)


class TestFlaskMailman(OverStartTls, MailCases):
    """Flask-Mailman's own API, over its SMTP backend: a message sends itself."""

    def build(self, letter: Letter) -> flask_mailman.EmailMessage:
        fields = {
            "subject": letter.subject,
            "from_email": letter.sender,
            "to": list(letter.to),
            "cc": list(letter.cc),
            "bcc": list(letter.bcc),
            "headers": dict(letter.headers),
        }
        if letter.text and letter.html:
            message = flask_mailman.EmailMultiAlternatives(body=letter.text, **fields)
            message.attach_alternative(letter.html, "text/html")
        else:
            message = flask_mailman.EmailMessage(body=letter.html or letter.text, **fields)
            message.content_subtype = "html" if letter.html else "plain"
        if letter.image:
            image = MIMEBase("image", "png", name="pixel.png")
            image.set_payload(letter.image)
            email.encoders.encode_base64(image)
            image.add_header("Content-ID", "<pixel>")
            message.attach(image)
        for attachment in letter.attachments:
            message.attach(*attachment)
        return message

    def readdress(self, message: flask_mailman.EmailMessage, address: str) -> None:
        message.to = [address]

    def send(self, message: flask_mailman.EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, MAIL_USE_TLS=True, POSTBOX=postbox)
        (flask_mailman if postbox is None else tracked_mailman).Mail(app)
        message.connection = None
        with app.app_context():
            assert message.send() == 1


def flask_message(**changes: Any) -> flask_mail.Message:
    """A message of Flask-Mail's with a text and HTML."""
    return flask_mail.Message(
        **{"subject": "New books", "recipients": ["reader@example.com"], "body": "Books", "html": HTML, **changes}
    )


def mailman_message(**changes: Any) -> flask_mailman.EmailMultiAlternatives:
    """A message of Flask-Mailman's with a text and an HTML alternative."""
    given = {"subject": "New books", "body": "Books", "to": ["reader@example.com"], **changes}
    message = flask_mailman.EmailMultiAlternatives(**given)
    message.attach_alternative(HTML, "text/html")
    return message


def send_by_mail(mail: Any) -> None:
    mail.send(flask_message())


def send_by_mailman(_: Any) -> None:
    mailman_message().send()


@pytest.fixture(params=["flask_mail", "flask_mailman"])
def kind(request: pytest.FixtureRequest) -> tuple[ModuleType, ModuleType, Callable[[Any], None]]:
    """The framework's own module, ours, and how a mail is sent with its extension object."""
    if request.param == "flask_mail":
        return flask_mail, tracked_mail, send_by_mail
    return flask_mailman, tracked_mailman, send_by_mailman


def domain_of_links(sink: Sink) -> str:
    """The domain of the tracking links of the mail that came last; ``""`` if it has none."""
    (found,) = set(re.findall(r"https://([a-z.]+)/c/", html_part(sink.mails[-1]))) or {""}
    return found


def test_one_object_serves_several_applications(kind: Any, sink: Sink) -> None:
    """Made once, and set up for each by a factory; each has links of its own, and one goes without."""
    own, ours, send = kind
    mail = ours.Mail()

    def create_app(domain: str) -> Flask:
        app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX={**POSTBOX, "domain": domain})
        (mail if domain else own.Mail()).init_app(app)
        return app

    domains = ["one.example.com", "", "two.example.com"]
    apps = [create_app(domain) for domain in domains]
    for app, domain in zip(apps + apps, domains + domains, strict=True):
        with app.app_context():
            send(mail)
        assert domain_of_links(sink) == domain
    connect = mail.connect if own is flask_mail else mail.get_connection
    with Flask("other").app_context(), pytest.raises(RuntimeError, match="was not configured with Flask-Mail"):
        connect()


def test_postbox_may_be_a_mapping_a_file_or_a_postbox(kind: Any, sink: Sink, tmp_path: Path) -> None:
    """As everywhere."""
    _, ours, send = kind
    file = tmp_path / "postbox.toml"
    file.write_text(f'domain = "file.example.com"\nkeys = ["{KEY}"]\n')
    made = Postbox(Settings(domain="made.example.com", keys=[KEY]))
    for setting, domain in (
        (POSTBOX, DOMAIN),
        (file, "file.example.com"),
        (str(file), "file.example.com"),
        (made, "made.example.com"),
    ):
        app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=setting)
        mail = ours.Mail(app)
        with app.app_context():
            send(mail)
        assert domain_of_links(sink) == domain


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({}, 'app.config: POSTBOX: is missing. Write POSTBOX = {"domain": "click.example.com", "keys": [...]}'),
        ({"POSTBOX": ["x"]}, "app.config: POSTBOX: is list, not a mapping"),
        ({"POSTBOX": {**POSTBOX, "domian": "x"}}, """app.config["POSTBOX"]: domian: is not a setting"""),
        ({"POSTBOX": "nowhere/postbox.toml"}, "nowhere/postbox.toml: the file: does not exist"),
    ],
)
def test_a_wrong_setting_is_an_error_when_the_application_is_set_up(
    kind: Any, config: dict[str, Any], complaint: str
) -> None:
    """It names what is wrong; nothing is registered."""
    _, ours, _ = kind
    app = application(**config)
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        ours.Mail(app)
    assert app.extensions == {}


def test_other_extensions_send_by_the_application_s_record(kind: Any, sink: Sink) -> None:
    """Which is all that they know: as Flask-Security does."""
    own, ours, send = kind
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=POSTBOX)
    ours.Mail(app)
    with app.app_context():
        send(app.extensions["mail" if own is flask_mail else "mailman"])
    assert domain_of_links(sink) == DOMAIN


def test_two_adapters_at_once_rewrite_once(kind: Any, sink: Sink) -> None:
    """smtplib underneath keeps its hands off."""
    _, ours, send = kind
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=POSTBOX)
    mail = ours.Mail(app)
    other = Postbox(Settings(domain="other.example.com", keys=[new_key()]))
    with app.app_context(), tracked_smtplib.install(other):
        send(mail)
    assert domain_of_links(sink) == DOMAIN


def test_strict_lets_an_exception_through(kind: Any, sink: Sink) -> None:
    """In a project's own tests a broken plugin is an error, and nothing is sent."""

    class Broken:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken")

    _, ours, send = kind
    strict = Postbox(Settings(domain=DOMAIN, keys=[KEY], strict=True), [Broken()])
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=strict)
    mail = ours.Mail(app)
    with app.app_context(), pytest.raises(RuntimeError, match="broken"):
        send(mail)
    assert not sink.mails


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("flask_mail", "flask_mail", "flask-mail"), ("flask_mailman", "flask_mailman", "flask-mailman")],
)
def test_without_the_library_the_error_says_what_to_install(module: str, library: str, extra: str) -> None:
    """And the package itself imports without it."""
    program = f"""
import sys
sys.modules["{library}"] = None
import postbox_plugin, postbox_hooks, postbox_hooks.mail
try:
    import postbox_hooks.mail.{module}
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f'pip install "postbox-plugin[{extra}]"' in done.stdout


# What Flask-Mail alone has.


@pytest.fixture
def shop(sink: Sink) -> Iterator[tracked_mail.Mail]:
    """Flask-Mail, set up, within the application's context."""
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, MAIL_MAX_EMAILS=2, POSTBOX=POSTBOX)
    with app.app_context():
        yield tracked_mail.Mail(app)


def test_flask_mail_s_connection_sends_one_after_the_other(shop: tracked_mail.Mail, sink: Sink) -> None:
    """With an envelope sender, by the shortcut, and over a new connection after ``MAIL_MAX_EMAILS``."""
    with shop.connect() as connection:
        assert isinstance(connection, flask_mail.Connection)
        connection.send(flask_message(), envelope_from="bounces@example.com")
        connection.send_message("New books", ["reader@example.com"], "Books", HTML)
        connection.send(flask_message(recipients=[("Reader", "other@example.com")]))
    assert [len(tracking_links(mail)) for mail in sink.mails] == [len(ADDRESSES)] * 3
    assert [mail.sender for mail in sink.mails] == ["bounces@example.com", "shop@example.com", "shop@example.com"]
    assert sink.mails[2].recipients == ["other@example.com"]


@pytest.mark.parametrize("suppressed", [True, False])
def test_what_flask_mail_records_is_what_is_sent(suppressed: bool, sink: Sink, postbox: Postbox) -> None:
    """``record_messages`` sees the links, whether or not sending is suppressed, as it is in tests; the program's own
    message has its addresses.
    """
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=POSTBOX, MAIL_SUPPRESS_SEND=suppressed)
    mail = tracked_mail.Mail(app)
    changes = {"alts": {"x-amp-html": "<p>AMP</p>"}, "extra_headers": {"X-Postbox-Tags": "a=b"}}
    message = flask_message(sender="shop@example.com", **changes)
    with app.app_context(), mail.record_messages() as outbox:
        mail.send(message)
        (recorded,) = outbox
        assert [postbox.open(link).url for link in LINK.findall(recorded.html)] == ADDRESSES
        assert LINK.sub("", recorded.html) == re.sub(r"https?://[^\"']+", "", HTML)
        assert recorded.alts["x-amp-html"] == "<p>AMP</p>"
        assert (recorded.subject, recorded.recipients) == (message.subject, message.recipients)
        (html,) = (part for part in message_from_string(str(recorded)).walk() if part.get_content_type() == "text/html")
        assert LINK.search(html.get_payload(decode=True).decode())  # in whatever encoding other libraries have set
        assert "X-Postbox-Tags" not in recorded.as_string()
        assert recorded.as_bytes() == bytes(recorded) == recorded.as_string().encode()
        assert (message.html, message.extra_headers) == (HTML, {"X-Postbox-Tags": "a=b"})
        assert message.date == recorded.date
        assert [mail.raw for mail in sink.mails] == ([] if suppressed else [recorded.as_bytes()])


def test_flask_mail_s_own_errors_are_its_own(shop: tracked_mail.Mail, sink: Sink) -> None:
    """For what cannot be sent, as ever; also where it is refused."""
    with pytest.raises(AssertionError, match="No recipients have been added"):
        shop.send(flask_message(recipients=[]))
    with pytest.raises(flask_mail.BadHeaderError):
        shop.send(flask_message(subject="two\nlines"))
    with pytest.raises(LookupError, match="unknown encoding"):
        shop.send(flask_message(charset="no-such-charset"))
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="No such reader"):
        shop.send(flask_message(recipients=["refused@example.com"]))
    assert not sink.mails


class Signed(flask_mail.Message):
    """A message that signs itself."""

    def as_bytes(self) -> bytes:
        return signed(super().as_bytes())


def test_a_message_that_signs_itself_arrives_signed(shop: tracked_mail.Mail, sink: Sink) -> None:
    """Its signature is made before it is handed over, so it is left alone."""
    shop.send(Signed("New books", ["reader@example.com"], "Books", HTML))
    assert is_signed(sink.mails[0].raw)
    assert not tracking_links(sink.mails[0])


class Unusual(flask_mail.Message):
    """A message that writes itself in its own way, in a charset that Python does not know."""

    def as_bytes(self) -> bytes:
        raw = super().as_bytes()
        return raw.replace(b'text/html; charset="utf-8"', b'text/html; charset="no-such"')


def test_a_charset_that_nobody_knows_stops_no_mail(shop: tracked_mail.Mail, sink: Sink) -> None:
    """Neither where it is sent nor where it is recorded."""
    message = Unusual("New books", ["reader@example.com"], "Books", HTML, extra_headers={"X-Postbox-Track": "no"})
    with shop.record_messages() as outbox:
        shop.send(message)
    assert outbox[0].html == HTML
    assert b"X-Postbox" not in sink.mails[0].raw


# What Flask-Mailman alone has.


class Json(BaseEmailBackend):
    """A backend that reads a message's fields."""

    sent: ClassVar[list[dict[str, Any]]] = []

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            alternatives = getattr(message, "alternatives", [])
            self.sent.append({"body": message.body, "html": alternatives, "headers": message.extra_headers})
        return len(email_messages)


@pytest.fixture
def json_shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What such a backend was given."""
    monkeypatch.setattr(Json, "sent", [])
    app = application(MAIL_BACKEND=Json, POSTBOX=POSTBOX)
    tracked_mailman.Mail(app)
    with app.app_context():
        yield Json.sent


def test_html_is_put_back_for_backends_that_hand_over_json(json_shop: list[Any], postbox: Postbox) -> None:
    """Alternatives, or a body that is HTML; headers without those for us, and with our id."""
    headers = {"X-Campaign": "spring", "x-postbox-tags": "a=b", "X-Postbox-Message-Id": "not ours"}
    message = mailman_message(headers=headers)
    message.attach_alternative("<p>AMP</p>", "text/x-amp-html")
    alone = flask_mailman.EmailMessage("New books", HTML.replace("\n", "\r\n"), to=["reader@example.com"])
    alone.content_subtype = "html"
    for one in (message, alone):
        assert one.send() == 1
    first, second = json_shop
    (html, html_type), amp = first["html"]
    for text, body in ((html, HTML), (second["body"], alone.body)):
        opened = [postbox.open(link) for link in LINK.findall(text)]
        assert [link.url for link in opened] == ADDRESSES
        assert LINK.sub("", text).split() == re.sub(r"https?://[^\"']+", "", body).split()
    assert (html_type, amp, first["body"]) == ("text/html", ("<p>AMP</p>", "text/x-amp-html"), "Books")
    assert first["headers"].keys() == {"X-Campaign", "X-Postbox-Message-Id"}
    assert {postbox.open(link).message_id for link in LINK.findall(html)} == {first["headers"]["X-Postbox-Message-Id"]}
    assert (message.extra_headers, message.alternatives[0]) == (headers, (HTML, "text/html"))
    assert "click.example.com" not in alone.body


def test_mailman_s_outbox_has_the_mails_as_they_would_be_sent(postbox: Postbox) -> None:
    """The backend ``locmem`` is what an application gets when it is tested."""
    app = application(TESTING=True, POSTBOX=POSTBOX)
    mail = tracked_mailman.Mail(app)
    with app.app_context():
        message = mailman_message()
        kept = dict(vars(message))
        assert message.send() == 1
        assert mail.send_mail("New", "Books", None, ["reader@example.com"], html_message=HTML) == 1
        assert (
            mail.send_mass_mail([("New", "Books", None, [reader]) for reader in ("a@example.com", "b@example.com")])
            == 2
        )
    assert len(mail.outbox) == 4
    for sent in mail.outbox[:2]:
        assert [postbox.open(link).url for link in LINK.findall(sent.alternatives[0][0])] == ADDRESSES
        assert sent.message()["X-Postbox-Message-Id"] == sent.extra_headers["X-Postbox-Message-Id"]
    assert {**vars(message), "connection": None} == kept


def test_mailman_s_connections_serve_all_messages(sink: Sink) -> None:
    """open and close are the inner backend's, within a with block too, and so are arguments and the number returned."""
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=POSTBOX)
    mail = tracked_mailman.Mail(app)
    with app.app_context():
        connection = mail.get_connection(username="me")
        assert connection.inner.username == "me"
        connection = mail.get_connection()
        assert connection.open() is True
        assert connection.open() is False
        assert connection.send_messages([mailman_message(), mailman_message(to=[]), mailman_message()]) == 2
        connection.close()
        assert connection.inner.connection is None
        with connection as same:
            assert same.inner.connection is not None
            assert same.send_messages(mailman_message() for _ in range(2)) == 2
        assert connection.send_messages([]) == 0
        assert isinstance(mail.get_connection("locmem").inner, Locmem)
        assert mail.get_connection("smtp", fail_silently=True, port=1).send_messages([mailman_message()]) == 0
        with pytest.raises(ConnectionRefusedError):
            mail.get_connection("smtp", port=1).send_messages([mailman_message()])
    assert [len(tracking_links(arrived)) for arrived in sink.mails] == [len(ADDRESSES)] * 4
    assert len({message_id(arrived) for arrived in sink.mails}) == 4


def test_a_message_that_cannot_be_built_fails_where_it_always_did(sink: Sink) -> None:
    """The messages before it are sent first, and the error is Flask-Mailman's own."""
    app = application(MAIL_SERVER="127.0.0.1", MAIL_PORT=sink.port, POSTBOX=POSTBOX)
    mail = tracked_mailman.Mail(app)
    with app.app_context(), mail.get_connection() as connection, pytest.raises(flask_mailman.BadHeaderError):
        connection.send_messages([mailman_message(), mailman_message(subject="two\nlines")])
    assert len(sink.mails) == 1
