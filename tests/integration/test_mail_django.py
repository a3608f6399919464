"""The Django backend: over Django's own for SMTP against a real server, and over others for what they alone see."""

from __future__ import annotations

import copy
import email.message
import logging
import pickle
import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from email.mime.multipart import MIMEMultipart
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import mail
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as Smtp
from django.test import override_settings
from django.test.utils import setup_test_environment, teardown_test_environment
from sinks import Sink, running_sink

from postbox_hooks.mail import smtplib as tracked_smtplib
from postbox_hooks.mail.django import EmailBackend, get_postbox
from postbox_plugin import Postbox, Settings, hookimpl, new_key
from postbox_plugin.errors import SettingsError

from .django_cases import HAS_MAILERS, LOCMEM, OURS, SMTP, DjangoCases, connection, mailers, mime_part, unwrapped
from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    HTML,
    PIXEL,
    tracking_links,
)

KEY = new_key()


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[KEY]))


@pytest.fixture
def outbox(postbox: Postbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[mail.EmailMessage]]:
    """What a project's tests see: tracked mails in ``mail.outbox``."""
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    with override_settings(POSTBOX=postbox, **mailers(LOCMEM)):
        yield mail.outbox


def newsletter(html: str = HTML, **changes: Any) -> mail.EmailMultiAlternatives:
    """A message with a text and an HTML alternative."""
    given = {"subject": "New books", "body": "Books", "to": ["reader@example.com"], **changes}
    message = mail.EmailMultiAlternatives(**given)
    message.attach_alternative(html, "text/html")
    return message


class TestDjango(DjangoCases):
    """Django's own API, over Django's own SMTP backend."""

    def send(self, message: mail.EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        around = unwrapped if postbox is None else mailers
        with override_settings(POSTBOX=postbox, **around(SMTP, host="127.0.0.1", port=sink.port)):
            assert connection().send_messages([message]) == 1


def test_a_projects_own_tests_see_tracked_mails(postbox: Postbox) -> None:
    """Django's test runner has put its own backend in the place of every other; with ours set back, over locmem, what
    is in ``mail.outbox`` is tracked.
    """
    setup_test_environment()
    try:
        sent = {"subject": "New books", "message": "Books", "from_email": None, "html_message": HTML}
        mail.send_mail(**sent, recipient_list=["reader@example.com"])
        with override_settings(POSTBOX=postbox, **mailers(LOCMEM)):
            mail.send_mail(**sent, recipient_list=["reader@example.com"])
        swapped, tracked = mail.outbox
        assert swapped.alternatives[0][0] == HTML
        links = re.findall(r"""href=["'](https?:[^"']+)""", tracked.alternatives[0][0], re.IGNORECASE)
        assert [postbox.open(link).url for link in links] == ADDRESSES
    finally:
        teardown_test_environment()


MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-button href="https://example.com/?a=1&b=2" postbox:tags="product:book;">Книга</mj-button>
</mj-column></mj-section></mj-body></mjml>"""


def test_mjml_is_sent_as_html(outbox: list[mail.EmailMessage], postbox: Postbox) -> None:
    """A text/mjml alternative, or a body of that subtype, reaches the sending backend as HTML with tracking links."""
    message = mail.EmailMultiAlternatives("New books", "Books", to=["reader@example.com"])
    message.attach_alternative(MJML, "text/mjml")
    message.send()
    body = mail.EmailMessage("New books", MJML, to=["reader@example.com"])
    body.content_subtype = "mjml"
    body.send()

    assert message.alternatives[0][1] == "text/mjml"
    assert body.content_subtype == "mjml"
    (sent, sent_body) = outbox
    assert isinstance(sent, mail.EmailMultiAlternatives)
    ((html, mimetype),) = sent.alternatives
    assert (mimetype, sent_body.content_subtype) == ("text/html", "html")
    for text in (str(html), str(sent_body.body)):
        assert "Книга" in text
        (link,) = re.findall(rf"https://{DOMAIN}/c/[\w-]+", text)
        assert postbox.open(link).url == "https://example.com/?a=1&b=2"
        assert postbox.open(link).tags == {"product": ("book",)}


def test_html_is_put_back_for_backends_that_hand_over_json(outbox: list[Any], postbox: Postbox) -> None:
    """A backend that reads body, alternatives and extra_headers finds what one that sends MIME finds."""
    message = newsletter()
    message.attach_alternative("<p>AMP</p>", "text/x-amp-html")
    message.attach_alternative("", "text/html")
    message.attach_alternative(HTML.replace("books?", "more?"), "text/html")
    connection().send_messages([message])
    (sent,) = outbox
    (plain, amp, empty, rich) = sent.alternatives
    links = re.findall(r"""href=["'](https?:[^"']+)""", plain[0] + rich[0], re.IGNORECASE)
    opened = [postbox.open(link) for link in links]
    assert [link.url for link in opened] == [*ADDRESSES, "https://example.com/more?a=1&b=2", *ADDRESSES[1:]]
    assert [link.index for link in opened] == [0, 1, 3, 4, 5, 7]
    assert tuple(amp) == ("<p>AMP</p>", "text/x-amp-html")
    assert tuple(empty) == ("", "text/html")
    assert sent.body == "Books"
    assert {link.message_id for link in opened} == {sent.extra_headers["X-Postbox-Message-Id"]}
    wire = sent.message()
    assert [part.get_payload(decode=True).decode().rstrip("\n") for part in wire.get_payload()] == [
        "Books",
        plain[0].rstrip("\n"),
        "<p>AMP</p>",
        "",
        rich[0].rstrip("\n"),
    ]


def test_an_html_body_is_put_back(outbox: list[Any], postbox: Postbox) -> None:
    """Of a message that is HTML alone, also in another charset; only the link's address is another than before."""
    message = mail.EmailMessage("Книги", '<a href="http://example.com/">Книги</a>', to=["reader@example.com"])
    message.content_subtype = "html"
    message.encoding = "koi8-r"
    connection().send_messages([message])
    (sent,) = outbox
    (before, link, after) = re.fullmatch('(<a href=")([^"]+)(">Книги</a>)', sent.body).groups()
    assert postbox.open(link).url == "http://example.com/"
    assert postbox.open(link).headers["to"] == ("reader@example.com",)
    assert message.body == f"{before}http://example.com/{after}"


def test_message_id_and_date_on_the_wire_are_those_that_the_hook_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django makes them anew whenever it is asked for the MIME; the copy has them fixed, and the caller's has not."""
    seen = {}

    class Looking:
        @hookimpl
        def postbox_before_send(self, mail: Any) -> None:
            seen.update((name, mail.header(name)) for name in ("Message-ID", "Date"))

    monkeypatch.setattr(mail, "outbox", [], raising=False)
    with override_settings(POSTBOX=Postbox(Settings(domain=DOMAIN, keys=[KEY]), [Looking()]), **mailers(LOCMEM)):
        message = newsletter()
        connection().send_messages([message])
    wire = mail.outbox[0].message()
    assert {name: str(wire[name]) for name in ("Message-ID", "Date")} == seen
    assert all(wire.get_all(name) == [wire[name]] for name in ("Message-ID", "Date"))
    assert message.extra_headers == {}


def test_headers_of_the_callers_choice_are_kept_and_ours_are_taken_out(outbox: list[Any]) -> None:
    """In whatever case they are written; the caller's own headers stay as they are."""
    headers = {"message-id": "<own@example.com>", "x-postbox-tags": "a=b", "X-POSTBOX-TRACK": "yes", "To": "You"}
    message = newsletter(headers={**headers, "x-postbox-message-id": "not ours"})
    connection().send_messages([message])
    (sent,) = outbox
    wire = sent.message()
    assert wire.get_all("Message-ID") == ["<own@example.com>"]
    assert wire["To"] == "You"
    assert [str(value) for value in wire.get_all("X-Postbox-Message-Id")] == [
        sent.extra_headers["X-Postbox-Message-Id"]
    ]
    assert "X-Postbox-Tags" not in wire
    assert "X-Postbox-Track" not in wire
    assert message.extra_headers == {**headers, "x-postbox-message-id": "not ours"}


def test_inline_html_attached_as_mime_is_tracked_where_it_is(outbox: list[Any]) -> None:
    """Attached MIME objects are replaced in the copy, those inside a multipart too; the caller's keep their links."""
    note = mime_part("text", "html", "<a href='http://example.com/note'>x</a>", Content_Disposition="inline")
    page = mime_part("text", "html", "<a href='http://example.com/page'>x</a>", Content_Disposition="attachment")
    deep = mime_part("text", "html", "<a href='http://example.com/deep'>x</a>")
    related = MIMEMultipart("related", boundary="related", _subparts=[deep])
    message = newsletter()
    message.attachments += [note, ("old.html", HTML, "text/html"), related, page]
    kept = copy.deepcopy(message)
    connection().send_messages([message])
    (sent,) = outbox
    assert b"http://click.example.com/c/" in sent.attachments[0].get_payload(decode=True)
    assert tuple(sent.attachments[1]) == ("old.html", HTML, "text/html")
    assert b"http://click.example.com/c/" in sent.attachments[2].get_payload()[0].get_payload(decode=True)
    assert sent.attachments[3].as_bytes() == page.as_bytes()
    for before, after in zip(kept.attachments, message.attachments, strict=True):
        assert not isinstance(before, email.message.Message) or before.as_bytes() == after.as_bytes()


def test_the_callers_message_is_not_changed(outbox: list[Any]) -> None:
    """Neither its fields nor the lists in it."""
    message = newsletter(headers={"X-Postbox-Tags": "a=b"})
    message.attach(mime_part("text", "html", HTML, Content_Disposition="inline"))
    message.attach("pixel.png", PIXEL, "image/png")
    kept = {name: copy.copy(value) for name, value in vars(message).items()}
    connection().send_messages([message])
    assert vars(message) == kept
    assert "click.example.com" not in str(vars(message))
    assert pickle.loads(pickle.dumps(outbox[0])).alternatives == outbox[0].alternatives


class Footer(mail.EmailMultiAlternatives):
    """A message whose HTML gets longer on its way."""

    def message(self, **options: Any) -> Any:
        built = mail.EmailMultiAlternatives(self.subject, self.body, self.from_email, self.to)
        built.attach_alternative(self.alternatives[0][0] + "<p>Footer</p>", "text/html")
        return built.message(**options)


class Appendix(mail.EmailMultiAlternatives):
    """A message that gets a further part on its way."""

    def message(self, **options: Any) -> Any:
        built = super().message(**options)
        built.attach(mime_part("text", "html", HTML))
        return built


@pytest.mark.parametrize("kind", [Footer, Appendix])
def test_a_message_that_builds_itself_otherwise_is_left_alone(
    kind: type[mail.EmailMultiAlternatives], outbox: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What its own message() makes of the body cannot be put back into the body; the log says so."""
    message = kind("New books", "Books", to=["reader@example.com"])
    message.attach_alternative(HTML, "text/html")
    caplog.set_level(logging.INFO, "postbox.send")
    connection().send_messages([message])
    assert outbox[0].alternatives == message.alternatives
    assert "click.example.com" not in outbox[0].message().as_string()
    assert "message left alone: its message() has HTML other than that of its body" in caplog.text


def test_a_message_that_cannot_be_built_fails_where_it_always_did(outbox: list[Any]) -> None:
    """The messages before it are sent first, and the error is Django's own."""
    broken = newsletter(subject="two\nlines")
    with pytest.raises(ValueError, match=r"newline|linefeed"):
        connection().send_messages([newsletter(), broken])
    assert len(outbox) == 1


class Esp(BaseEmailBackend):
    """A backend that leaves answers on the messages, as django-anymail and django-ses do."""

    def send_messages(self, messages: Any) -> int:
        for message in messages:
            message.anymail_status = f"accepted {message.extra_headers['X-Postbox-Message-Id']}"
            message.extra_headers["message_id"] = "0100"
            message.body += " (cleaned)"
            message._rendered = "<cached>"
        return len(messages)


def test_answers_that_the_backend_leaves_on_a_message_reach_the_caller(postbox: Postbox) -> None:
    """But nothing of what was sent: else the next reader would get the links of this one."""
    with override_settings(POSTBOX=postbox, **mailers(f"{__name__}.Esp")):
        message = newsletter(headers={"X-Campaign": "spring"})
        connection().send_messages([message])
    assert message.anymail_status.startswith("accepted ")
    assert message.extra_headers == {"X-Campaign": "spring", "message_id": "0100"}
    assert message.body == "Books"
    assert not hasattr(message, "_rendered")


class TrackedSmtp(Smtp):
    """Django's SMTP backend on our smtplib classes: two adapters, one within the other."""

    postbox: Postbox

    @property
    def connection_class(self) -> Any:
        return lambda *given, **options: tracked_smtplib.SMTP(*given, postbox=self.postbox, **options)


@pytest.mark.parametrize(("tracked", "header"), [(3, {}), (0, {"X-Postbox-Track": "no"})])
def test_two_adapters_at_once_rewrite_once(
    tracked: int, header: dict[str, str], postbox: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inner one, with keys of its own, adds nothing, and keeps its hands off what the outer one left alone."""
    monkeypatch.setattr(TrackedSmtp, "postbox", Postbox(Settings(domain="other.example.com", keys=[new_key()])), False)
    html = f'{HTML}<a href="http://example.com/out" postbox:no-track>x</a>'
    with running_sink() as sink:
        with override_settings(POSTBOX=postbox, **mailers(f"{__name__}.TrackedSmtp", host="127.0.0.1", port=sink.port)):
            connection().send_messages([newsletter(html, headers=header)])
        (arrived,) = sink.mails
    assert len(tracking_links(arrived)) == tracked
    assert b"other.example.com" not in arrived.raw
    assert b"Track" not in arrived.raw


def test_one_connection_serves_all_messages(postbox: Postbox) -> None:
    """open and close are the inner backend's, within a with block too, and so is the number that is returned."""
    with running_sink() as sink, override_settings(POSTBOX=postbox, **mailers(SMTP, host="127.0.0.1", port=sink.port)):
        backend = connection()
        assert isinstance(backend, EmailBackend)
        assert backend.open() is True
        assert backend.open() is False
        used = backend.inner.connection
        assert backend.send_messages([newsletter(), newsletter(to=[]), newsletter()]) == 2
        assert backend.inner.connection is used
        backend.close()
        assert backend.inner.connection is None
        with backend as same:
            assert same.inner.connection is not None
        assert backend.inner.connection is None
        assert backend.send_messages([]) == 0
        assert backend.send_messages(newsletter() for _ in range(2)) == 2
    assert len(sink.mails) == 4


@pytest.mark.filterwarnings("ignore:get_connection")
def test_arguments_of_a_connection_reach_the_backend_that_sends(postbox: Postbox) -> None:
    """fail_silently among them: an unreachable server raises only without it."""
    with override_settings(POSTBOX=postbox, **mailers(SMTP, host="127.0.0.1", port=1)):
        with pytest.raises(ConnectionRefusedError):
            connection().send_messages([newsletter()])
        quiet = connection(fail_silently=True, username="me")
        assert quiet.send_messages([newsletter()]) == 0
        assert quiet.inner.username == "me"
        assert quiet.fail_silently is True


def test_a_refused_reader_is_djangos_business(postbox: Postbox) -> None:
    """The exception of the backend that sends comes through."""
    with running_sink() as sink, override_settings(POSTBOX=postbox, **mailers(SMTP, host="127.0.0.1", port=sink.port)):
        refused = newsletter(to=["refused@example.com"])
        with connection() as backend, pytest.raises(smtplib.SMTPRecipientsRefused, match="No such reader"):
            backend.send_messages([refused])


def test_postbox_may_be_a_mapping_a_file_or_a_postbox(tmp_path: Path) -> None:
    """One is made of it a process, when first asked for, and anew when the setting changes."""
    file = tmp_path / "postbox.toml"
    file.write_text(f'domain = "file.example.com"\nkeys = ["{KEY}"]\n')
    made = Postbox(Settings(domain="made.example.com", keys=[KEY]))
    given = {"mapping": {"domain": "mapping.example.com", "keys": [KEY]}, "file": file, "text": str(file), "made": made}
    for kind, domain in (("mapping", "mapping"), ("file", "file"), ("text", "file"), ("made", "made")):
        with override_settings(POSTBOX=given[kind]):
            assert get_postbox().settings.domain == f"{domain}.example.com"
            assert get_postbox() is get_postbox()
            kept = get_postbox()
            with override_settings(ADMINS=[]):
                assert get_postbox() is kept


def test_a_wrong_setting_stops_no_mail(outbox: list[mail.EmailMessage], caplog: pytest.LogCaptureFixture) -> None:
    """It goes out untracked, and the log names what is wrong."""
    with override_settings(POSTBOX={"domain": DOMAIN, "keys": []}):
        assert connection().send_messages([newsletter()]) == 1
    assert outbox[0].alternatives[0][0] == HTML
    assert "the message goes out untracked: settings.POSTBOX: keys: " in caplog.text


def test_strict_lets_an_exception_through(outbox: list[mail.EmailMessage]) -> None:
    """In a project's own tests a broken plugin is an error."""

    class Broken:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken")

    strict = Postbox(Settings(domain=DOMAIN, keys=[KEY], strict=True), [Broken()])
    with override_settings(POSTBOX=strict), pytest.raises(RuntimeError, match="broken"):
        connection().send_messages([newsletter()])
    assert not outbox


def complaints(**changed: Any) -> list[CheckMessage]:
    with override_settings(**changed):
        return [found for found in run_checks() if str(found.id).startswith("postbox.")]


GOOD = {"domain": DOMAIN, "keys": [KEY]}


@pytest.mark.parametrize(
    ("setting", "names", "hint"),
    [
        (None, "Django's settings: POSTBOX: is missing", "Write POSTBOX ="),
        (["x"], "Django's settings: POSTBOX: is list, not a mapping", "Write POSTBOX ="),
        ({**GOOD, "domian": "x"}, "settings.POSTBOX: domian: is not a setting", "Did you mean 'domain'?"),
        ({**GOOD, "keys": ["short"]}, "settings.POSTBOX: keys[0]: ", "postbox keys new"),
        ("nowhere/postbox.toml", "nowhere/postbox.toml: the file: does not exist", "Write it"),
    ],
)
def test_the_system_check_names_what_is_wrong_with_postbox(setting: Any, names: str, hint: str) -> None:
    """With the place, the key and what to write instead."""
    (found,) = complaints(POSTBOX=setting, **mailers(LOCMEM))
    assert found.id == "postbox.E001"
    assert names in found.msg
    assert hint in found.hint


def test_the_system_check_is_content_with_what_is_right() -> None:
    """And so it is where a test runner, or a developer, has replaced the backend."""
    assert complaints(POSTBOX=GOOD, **mailers(LOCMEM)) == []
    assert complaints(POSTBOX=GOOD, **unwrapped(LOCMEM)) == []
    assert complaints(POSTBOX=GOOD, **sending_by("django.core.mail.backends.console.EmailBackend")) == []


def sending_by(backend: str, **further: Any) -> dict[str, Any]:
    """Settings under which mails are sent without us."""
    return {
        **({"MAILERS": {"default": {"BACKEND": backend}}} if HAS_MAILERS else {"EMAIL_BACKEND": backend}),
        **further,
    }


@pytest.mark.parametrize(
    "backend",
    [SMTP, "postbox_hooks.mail.django.Backend", "postbox_hooks.mail.django", "anymail.backends.test.EmailBackend"],
)
def test_the_system_check_warns_where_no_mail_is_tracked(backend: str) -> None:
    """The settings are there, and nothing uses them: forgotten, or misspelt."""
    (found,) = complaints(POSTBOX=GOOD, **sending_by(backend))
    assert (found.id, found.msg) == ("postbox.W001", "No mail is tracked: nothing sends by our backend.")
    assert OURS in found.hint


def test_the_system_check_knows_a_backend_made_of_ours_and_what_django_post_office_sends_by() -> None:
    assert complaints(POSTBOX=GOOD, **sending_by(f"{__name__}.Subclass")) == []
    post_office = {"BACKENDS": {"default": OURS}}
    assert complaints(POSTBOX=GOOD, **sending_by("post_office.EmailBackend", POST_OFFICE=post_office)) == []


class Subclass(EmailBackend):
    """A project's own."""


if not HAS_MAILERS:

    def test_the_system_check_says_that_this_django_knows_no_mailers() -> None:
        (found,) = complaints(POSTBOX=GOOD, EMAIL_BACKEND=SMTP, MAILERS={"default": {"BACKEND": OURS}})
        assert found.hint.endswith(f", for Django {django.get_version()} knows no MAILERS")


WRONG_INNER = (
    [
        (
            {"default": {"BACKEND": OURS}},
            """MAILERS['default']: name the mailer that sends: write "OPTIONS": {"inner": "smtp"}""",
        ),
        (
            {"default": {"BACKEND": OURS, "OPTIONS": {"inner": "smpt"}}, "smtp": {}},
            "MAILERS['default']: there is no mailer 'smpt' to send by. Others are: 'smtp'",
        ),
        (
            {"default": {"BACKEND": OURS, "OPTIONS": {"inner": "default"}}},
            "MAILERS['default']: the mailer 'default' tracks too. Name one that sends",
        ),
        (
            {"default": {"BACKEND": OURS, "OPTIONS": {"inner": "bad"}}, "bad": {"BACKEND": "nowhere.Backend"}},
            "MAILERS['bad']: there is no backend 'nowhere.Backend' (No module named 'nowhere')",
        ),
    ]
    if HAS_MAILERS
    else [
        (
            OURS,
            f"POSTBOX_EMAIL_BACKEND: {OURS} would send by itself. Write the backend that sends, for example '{SMTP}'",
        ),
        ("nowhere.Backend", "POSTBOX_EMAIL_BACKEND: there is no backend 'nowhere.Backend' (No module named 'nowhere')"),
    ]
)


@pytest.mark.parametrize(("inner", "message"), WRONG_INNER)
def test_without_a_backend_that_sends_there_is_an_error(inner: Any, message: str) -> None:
    """The system check says it beforehand, the backend when it is made: nobody else could send the mail."""
    changed = {"MAILERS": inner} if HAS_MAILERS else mailers(inner)
    (found,) = complaints(POSTBOX=GOOD, **changed)
    assert (found.id, found.msg) == ("postbox.E002", message)
    with override_settings(POSTBOX=GOOD, **changed), pytest.raises(ImproperlyConfigured, match=re.escape(message)):
        connection()


if HAS_MAILERS:

    def test_an_unknown_option_of_a_mailer_is_djangos_error() -> None:
        """Options of the backend that sends belong to its own mailer."""
        changed = mailers(SMTP, host="127.0.0.1")
        changed["MAILERS"]["default"]["OPTIONS"]["port"] = 25
        unknown = pytest.raises(ImproperlyConfigured, match="Unknown options 'port'")
        with override_settings(POSTBOX=GOOD, **changed), unknown:
            connection()
        (found,) = complaints(POSTBOX=GOOD, **changed)
        assert found.msg == "MAILERS['default']: 'port' is for the mailer that sends: move it to 'sender'"


def test_get_postbox_raises_what_is_wrong() -> None:
    """Whoever mounts the routes in the same project is told at once."""
    with override_settings(POSTBOX=None), pytest.raises(SettingsError, match="POSTBOX: is missing"):
        get_postbox()


def test_without_django_the_error_names_the_extra() -> None:
    """Importing the module without Django says what to install; importing the package needs no Django."""
    program = """
import sys
sys.modules["django"] = None
import postbox_plugin, postbox_hooks, postbox_hooks.mail
try:
    import postbox_hooks.mail.django
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "postbox-plugin[django]"' in done.stdout
