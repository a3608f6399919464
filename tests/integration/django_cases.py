"""What the tests of Django's adapters share: a configured Django, settings in its terms, and messages of its kind."""

from __future__ import annotations

import email.message
from email.mime.image import MIMEImage
from email.mime.text import MIMEText
from importlib.util import find_spec
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    apps = {
        "postbox_hooks.mail.django": "django",
        "anymail": "anymail",
        "postbox_hooks.mail.anymail.Tracking": "anymail",
        "django.contrib.contenttypes": "post_office",
        "post_office": "post_office",
    }
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DEFAULT_FROM_EMAIL="shop@example.com",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        INSTALLED_APPS=[app for app, needed in apps.items() if find_spec(needed)],
    )
    django.setup()

from django.core import mail

from .mail_cases import Letter, MailCases

OURS = "postbox_hooks.mail.django.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
HAS_MAILERS = django.VERSION >= (6, 1)


def mailers(inner: str, **options: Any) -> dict[str, Any]:
    """Settings under which our backend sends by another one, in the terms of the Django that is installed."""
    if HAS_MAILERS:
        ours = {"BACKEND": OURS, "OPTIONS": {"inner": "sender"}}
        return {"MAILERS": {"default": ours, "sender": {"BACKEND": inner, "OPTIONS": options}}}
    return {
        "EMAIL_BACKEND": OURS,
        "POSTBOX_EMAIL_BACKEND": inner,
        **{f"EMAIL_{name.upper()}": value for name, value in options.items()},
    }


def unwrapped(inner: str, **options: Any) -> dict[str, Any]:
    """The same without our backend."""
    if HAS_MAILERS:
        return {"MAILERS": {"default": {"BACKEND": inner, "OPTIONS": options}}}
    return {**mailers(inner, **options), "EMAIL_BACKEND": inner}


def connection(**options: Any) -> Any:
    """The backend that the settings name."""
    if HAS_MAILERS and not options:
        return mail.mailers.default
    return mail.get_connection(**options)


def mime_part(maintype: str, subtype: str, content: Any, **headers: str) -> email.message.Message:
    """A MIME object to attach, of the kind that the installed Django wants."""
    part: email.message.Message
    if django.VERSION >= (6, 0):
        part = email.message.MIMEPart(policy=email.policy.default)
        kind = {"subtype": subtype} if maintype == "text" else {"maintype": maintype, "subtype": subtype}
        part.set_content(content, **kind)
    else:
        part = MIMEText(content, subtype, "utf-8") if maintype == "text" else MIMEImage(content, subtype)
    for name, value in headers.items():
        part[name.replace("_", "-")] = value
    return part


class DjangoCases(MailCases):
    """Messages are Django's own."""

    keeps_transfer_encoding = django.VERSION < (6, 0)

    def build(self, letter: Letter) -> mail.EmailMessage:
        fields = {
            "subject": letter.subject,
            "from_email": letter.sender,
            "to": list(letter.to),
            "cc": list(letter.cc),
            "bcc": list(letter.bcc),
            "headers": dict(letter.headers),
        }
        if letter.text and letter.html:
            message = mail.EmailMultiAlternatives(body=letter.text, **fields)
            message.attach_alternative(letter.html, "text/html")
        else:
            message = mail.EmailMessage(body=letter.html or letter.text, **fields)
            message.content_subtype = "html" if letter.html else "plain"
        if letter.image:
            part = mime_part("image", "png", letter.image, Content_ID="<pixel>", Content_Disposition="inline")
            message.attach(part)
        for attachment in letter.attachments:
            message.attach(*attachment)
        return message

    def readdress(self, message: mail.EmailMessage, address: str) -> None:
        message.to = [address]
