"""The Django backend with packages that send behind it: django-ses, and django-post_office, which queues first."""

from __future__ import annotations

import email
from collections.abc import Iterator
from dataclasses import replace
from email.encoders import encode_base64
from typing import Any, cast

import boto3
import botocore.session
import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.core import mail
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django_ses import SESBackend
from pytest_httpserver import HTTPServer
from sinks import Sink, running_sink

from postbox_plugin import OpenedLink, Postbox, Settings, new_key

from .django_cases import HAS_MAILERS, OURS, SMTP, DjangoCases, connection, mailers, unwrapped
from .mail_cases import ADDRESSES, DOMAIN, HTML, Received, message_id, tracking_links
from .services import SES_KEYS, SesServer

# isort: split
# Its modules read Django's settings when they are imported.
from post_office.mail import get_queued
from post_office.mail import send as send_by_post_office

POST_OFFICE = "post_office.EmailBackend"
SESSION = botocore.session.get_session()


class Ses(SESBackend):
    """Its own session is made anew for each mail, and reads botocore's descriptions of services each time."""

    def create_session(self) -> boto3.Session:
        return boto3.Session(botocore_session=SESSION, **SES_KEYS)


SES = f"{Ses.__module__}.{Ses.__qualname__}"


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


def ses_settings(service: Sink, **further: Any) -> dict[str, Any]:
    assert isinstance(service, SesServer)
    region = {"AWS_SES_REGION_NAME": "ru-central1", "AWS_SES_REGION_ENDPOINT_URL": service.url}
    return {**region, "AWS_SES_AUTO_THROTTLE": None, "USE_SES_V2": True, **further}


def newsletter(**changes: Any) -> mail.EmailMultiAlternatives:
    given = {"subject": "New books", "body": "Books", "to": ["reader@example.com"], **changes}
    message = mail.EmailMultiAlternatives(**given)
    message.attach_alternative(HTML, "text/html")
    return message


class TestDjangoSes(DjangoCases):
    """django-ses behind our backend, with the API of SES v2."""

    keeps_transfer_encoding = False

    def arriving(self, message: mail.EmailMessage, sink: Sink, postbox: Postbox | None) -> Received:
        """With Django 6, what django-ses writes in base64 has other line endings than the rest; here it has not."""
        arrived = super().arriving(message, sink, postbox)
        built = email.message_from_bytes(arrived.raw)
        for part in built.walk():
            if part.get_content_maintype() == "text":
                content = cast(bytes, part.get_payload(decode=True))
                part.set_payload(content.replace(b"\r\n", b"\n"))
                del part["Content-Transfer-Encoding"]
                encode_base64(part)
        return replace(arrived, raw=built.as_bytes())

    @pytest.fixture
    def sink(self, httpserver: HTTPServer) -> Sink:
        return SesServer(httpserver)

    def send(self, message: mail.EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        around = unwrapped if postbox is None else mailers
        message.extra_headers = dict(message.extra_headers)  # django-ses writes its answers into it
        before = dict(message.extra_headers)
        with override_settings(POSTBOX=postbox, **ses_settings(sink), **around(SES)):
            assert connection().send_messages([message]) == 1
        answers = {"status": 200, "message_id": "1", "request_id": "2"}
        assert message.extra_headers == {**before, **answers}
        message.extra_headers = before


@pytest.mark.parametrize("v2", [True, False])
def test_the_signature_of_django_ses_verifies(v2: bool, httpserver: HTTPServer, postbox: Postbox) -> None:
    """It signs (DKIM) what our backend hands it, in both APIs of SES."""
    service = SesServer(httpserver)
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; p=" + b"".join(public.splitlines()[1:-1])
    signing = {"DKIM_DOMAIN": b"example.com", "DKIM_PRIVATE_KEY": private, "DKIM_SELECTOR": b"s"}
    signing["DKIM_HEADERS"] = [b"From", b"To", b"Subject"]
    with override_settings(POSTBOX=postbox, **ses_settings(service, USE_SES_V2=v2, **signing), **mailers(SES)):
        connection().send_messages([newsletter()])
    (arrived,) = service.mails
    assert len(tracking_links(arrived)) == len(ADDRESSES)
    assert dkim.verify(arrived.raw, dnsfunc=lambda *_, **__: record)
    assert not dkim.verify(arrived.raw.replace(b"books", b"boots"), dnsfunc=lambda *_, **__: record)


@pytest.fixture(scope="module")
def _database() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    yield
    connections.close_all()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


def tracked_when_delivered(port: int) -> dict[str, Any]:
    """post_office queues what it is given, and delivers by our backend."""
    if HAS_MAILERS:
        behind = {"postbox": {"BACKEND": OURS, "OPTIONS": {"inner": "smtp"}}, "smtp": smtp(port)}
        return {
            "MAILERS": {"default": {"BACKEND": POST_OFFICE}, **behind},
            "POST_OFFICE": {"DEFAULT_MAILER": "postbox"},
        }
    server = {"POSTBOX_EMAIL_BACKEND": SMTP, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port}
    return {"EMAIL_BACKEND": POST_OFFICE, "POST_OFFICE": {"BACKENDS": {"default": OURS}}, **server}


def tracked_when_queued(port: int) -> dict[str, Any]:
    """Our backend is the one that the program sends by, and hands over to post_office, which delivers by SMTP."""
    if HAS_MAILERS:
        behind = {"queue": {"BACKEND": POST_OFFICE}, "smtp": smtp(port)}
        ours = {"BACKEND": OURS, "OPTIONS": {"inner": "queue"}}
        return {"MAILERS": {"default": ours, **behind}, "POST_OFFICE": {"DEFAULT_MAILER": "smtp"}}
    server = {"POSTBOX_EMAIL_BACKEND": POST_OFFICE, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port}
    return {"EMAIL_BACKEND": OURS, "POST_OFFICE": {"BACKENDS": {"default": SMTP}}, **server}


def smtp(port: int) -> dict[str, Any]:
    return {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": port}}


def opened(arrived: Received, postbox: Postbox) -> list[OpenedLink]:
    links = [postbox.open(link.decode()) for link in tracking_links(arrived)]
    assert [link.url for link in links] == ADDRESSES
    assert {link.message_id for link in links} == {message_id(arrived)}
    return links


@pytest.mark.usefixtures("_database")
@pytest.mark.parametrize("around", [tracked_when_delivered, tracked_when_queued])
def test_post_office_queues_and_delivers(around: Any, sink: Sink, postbox: Postbox) -> None:
    """A queued mail is tracked once, wherever our backend stands, and its tags come along."""
    with override_settings(POSTBOX=postbox, **around(sink.port)):
        connection().send_messages([newsletter(headers={"X-Postbox-Tags": "campaign=spring"})])
        connection().send_messages([newsletter(headers={"X-Postbox-Track": "no"})])
        assert not sink.mails
        for queued in get_queued():
            queued.dispatch()
    tracked, plain = sorted(sink.mails, key=lambda arrived: not tracking_links(arrived))
    assert [link.message_tags for link in opened(tracked, postbox)] == [{"campaign": ("spring",)}] * 3
    assert not tracking_links(plain)
    assert b"x-postbox-tags" not in tracked.raw.lower()
    assert b"x-postbox-track" not in plain.raw.lower()


@pytest.mark.usefixtures("_database")
def test_what_post_office_sends_at_once_is_tracked(sink: Sink, postbox: Postbox) -> None:
    """By its own function, with priority ``now``."""
    with override_settings(POSTBOX=postbox, **tracked_when_delivered(sink.port)):
        send_by_post_office(
            ["reader@example.com"], "shop@example.com", html_message=HTML, message="x", subject="x", priority="now"
        )
    (arrived,) = sink.mails
    assert {link.headers["to"] for link in opened(arrived, postbox)} == {("reader@example.com",)}
