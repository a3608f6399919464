"""A Django mail backend that tracks clicks and sends by any other backend.

Django 4.2 to 6.0, where ``POSTBOX_EMAIL_BACKEND`` names the backend that sends (Django's own for SMTP by default)::

    EMAIL_BACKEND = "postbox_hooks.mail.django.EmailBackend"
    POSTBOX = {"domain": "click.example.com", "keys": [os.environ["POSTBOX_KEY"]]}

Django 6.1 and later, where the option ``inner`` names the mailer that sends::

    MAILERS = {
        "default": {"BACKEND": "postbox_hooks.mail.django.EmailBackend", "OPTIONS": {"inner": "smtp"}},
        "smtp": {"OPTIONS": {"host": "mail.example.com", "port": 587, "use_tls": True}},
    }

``POSTBOX`` has the shape of ``postbox.toml``, or is the path of one, or a ``Postbox``. What is wrong with it stops no
mail: it goes out untracked, with an error in the log. With ``postbox_hooks.mail.django`` in ``INSTALLED_APPS``,
``manage.py check`` says it beforehand.

A project's own tests see tracked mails in ``mail.outbox`` with ``EMAIL_BACKEND`` as above (the test runner replaces it)
and ``POSTBOX_EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"``, or the like in ``MAILERS``.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.message import Message
from functools import partial
from typing import Any, Final, TypeAlias

from postbox_hooks._shared import envelope, outermost
from postbox_plugin import Postbox
from postbox_plugin.errors import MissingExtra, PostboxError, SettingsError

try:
    import django
    from django.conf import settings
    from django.core import checks, mail
    from django.core.exceptions import ImproperlyConfigured
    from django.core.mail.backends.base import BaseEmailBackend
    from django.core.signals import setting_changed
    from django.utils.module_loading import import_string
except ImportError:
    raise MissingExtra("postbox_hooks.mail.django", "django", "django") from None

__all__ = ["EmailBackend", "get_postbox"]

_PATH: Final = "postbox_hooks.mail.django.EmailBackend"
_DEFAULT_INNER: Final = "django.core.mail.backends.smtp.EmailBackend"
_HAS_MAILERS: Final = django.VERSION >= (6, 1)
_ID_HEADER: Final = "X-Postbox-Message-Id"
_CONTENT: Final = frozenset(("body", "content_subtype", "alternatives", "attachments", "extra_headers"))
_SET_HERE: Final = frozenset(("date", "message-id", _ID_HEADER.lower()))
_LINE_ENDING: Final = re.compile(r"\r\n?")

AnyMessage: TypeAlias = "Message[Any, Any]"

_log = logging.getLogger("postbox.send")

_lock: Final = threading.Lock()
_made: Postbox | None = None


def get_postbox() -> Postbox:
    """The ``Postbox`` of ``settings.POSTBOX``: made when first asked for, one a process, and anew when a test changes
    the setting.

    :raises SettingsError: naming what is wrong with the setting and what to write.
    :raises PluginError: if a plugin cannot be used.
    """
    global _made  # noqa: PLW0603 - Django's settings are one a process, and so is what is made of them
    with _lock:
        if _made is None:
            _made = _postbox_of(getattr(settings, "POSTBOX", None))
        return _made


def _postbox_of(setting: object) -> Postbox:
    if isinstance(setting, Postbox):
        return setting
    if isinstance(setting, str | os.PathLike):
        return Postbox.from_file(setting)
    if isinstance(setting, Mapping):
        return Postbox.from_mapping(setting, source="settings.POSTBOX")
    problem = "is missing" if setting is None else f"is {type(setting).__name__}, not a mapping"
    remedy = 'Write POSTBOX = {"domain": "click.example.com", "keys": [...]}, or the path of a postbox.toml'
    raise SettingsError("POSTBOX", problem, remedy, "Django's settings")


def _forget(*, setting: str, **_: object) -> None:
    global _made  # noqa: PLW0603
    if setting == "POSTBOX":
        with _lock:
            _made = None


setting_changed.connect(_forget)


class EmailBackend(BaseEmailBackend):
    """Puts tracking links into messages and hands them to the backend that sends.

    The hook sees the message as MIME, as it would be sent, and its HTML is put back into a copy of Django's message,
    so a backend that hands over JSON sends the same links. The caller's message keeps its own.

    :param fail_silently: passed on, like every other argument.
    :param inner: what sends: an alias of ``MAILERS``, or where there are none the path of a backend class, by default
        ``settings.POSTBOX_EMAIL_BACKEND``.
    :param alias: given by Django 6.1 and later where ``MAILERS`` is set.
    :raises ImproperlyConfigured: if there is no such backend, or it is this one.
    :ivar inner: the backend that sends.
    """

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        inner: str = "",
        alias: str | None = None,
        _ignore_unknown_kwargs: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        if fail_silently:
            options["fail_silently"] = True
        if alias is None:
            super().__init__()
            self.inner: BaseEmailBackend = _backend_class(inner or _inner_path())(**options)
        else:
            ignored = set(_ignore_unknown_kwargs or ())
            own = {name: value for name, value in options.items() if name not in ignored}
            super().__init__(alias=alias, **own)
            self.inner = _mailer(alias, inner, {name: options[name] for name in options.keys() & ignored})
        self.fail_silently = fail_silently

    def open(self) -> bool | None:
        """Open the connection of the backend that sends; the same result."""
        return self.inner.open()

    def close(self) -> None:
        """Close the connection of the backend that sends."""
        self.inner.close()

    def send_messages(self, email_messages: Sequence[mail.EmailMessage]) -> int:
        """Send the messages with tracking links; the result is that of the backend that sends."""
        with outermost() as first:
            if not first:
                return self.inner.send_messages(email_messages)
            messages = list(email_messages)
            sent = [_prepared(message) for message in messages]
            try:
                return self.inner.send_messages(sent)
            finally:
                for message, copied in zip(messages, sent, strict=True):
                    if copied is not message:
                        _hand_back(copied, message)


def _prepared(message: mail.EmailMessage) -> mail.EmailMessage:
    """The message to send instead; the message itself if nothing is to be changed or anything goes wrong."""
    try:
        postbox = get_postbox()
    except Exception as error:
        _log.error("the message goes out untracked: %s", error, exc_info=not isinstance(error, PostboxError))
        return message
    try:
        return _tracked(message, postbox)
    except _NotOfItsParts:
        _log.info("message left alone: its message() has HTML other than that of its body and alternatives")
    except Exception:
        if postbox.settings.strict:
            raise
        _log.exception("tracking failed; the message goes out as it came")
    return message


def _tracked(message: mail.EmailMessage, postbox: Postbox) -> mail.EmailMessage:
    built = message.message()
    sent = postbox.before_send(built, recipients=envelope(message.recipients()))
    if sent is built:
        return message
    changed = copy.copy(message)
    _put_back(message, changed, built, sent)
    changed.extra_headers = _headers(message.extra_headers, built, sent)
    return changed


def _hand_back(copied: mail.EmailMessage, message: mail.EmailMessage) -> None:
    """Give the caller's message what the backend that sends left on the copy: django-anymail its ``anymail_status``,
    django-ses the id in ``extra_headers``. What was sent stays with the copy, or the next reader would get its links.
    """
    vars(message).update(
        {name: value for name, value in vars(copied).items() if not name.startswith("_") and name not in _CONTENT}
    )
    message.extra_headers.update(
        {name: value for name, value in copied.extra_headers.items() if name.lower() not in _SET_HERE}
    )


def _headers(extra: Mapping[str, Any], built: AnyMessage, sent: AnyMessage) -> dict[str, Any]:
    """The extra headers of the copy: without those that were meant for us, with our id, and with the Message-ID and
    Date that the hook saw, which Django would make anew.
    """
    kept = {name: value for name, value in extra.items() if name in sent or name not in built}
    if _ID_HEADER in sent:
        kept = {name: value for name, value in kept.items() if name.lower() != _ID_HEADER.lower()}
        kept[_ID_HEADER] = str(sent[_ID_HEADER])
    given = {name.lower() for name in kept}
    pinned = {name: str(sent[name]) for name in ("Date", "Message-ID") if name in sent and name.lower() not in given}
    return {**pinned, **kept}


class _NotOfItsParts(Exception):
    """The MIME is not what Django makes of a message's body, alternatives and attachments, as where a subclass has a
    ``message()`` of its own; so a change of it cannot be put back.
    """


def _put_back(message: mail.EmailMessage, changed: mail.EmailMessage, built: AnyMessage, sent: AnyMessage) -> None:
    """Give the copy of a message the HTML that the hook made.

    :param built: the message as MIME.
    :param sent: the same after the hook.
    :raises _NotOfItsParts: if there is no telling which part is which.
    """
    attached = {id(item) for item in message.attachments if isinstance(item, Message)}
    replaced: dict[int, AnyMessage] = {}
    parts: list[tuple[str, str]] = []
    types = {"text/html"}  # and those of which a plugin made HTML
    for before, after in _pairs(built, sent, attached):
        if id(before) in attached:
            replaced[id(before)] = after
        elif after.get_content_type() == "text/html":
            types.add(before.get_content_type())
            parts.append((_text(before), _text(after)))
    # In the order in which Django puts them into the message. Some of those without text it leaves out.
    remaining = iter([part for part in parts if _same_lines(part[0])])
    if f"text/{message.content_subtype}" in types:
        changed.body = _next(remaining, str(message.body))
        changed.content_subtype = "html"
    if isinstance(changed, mail.EmailMultiAlternatives):
        changed.alternatives = [_alternative(item, remaining, types) for item in changed.alternatives]
    changed.attachments = [replaced.get(id(item), item) for item in message.attachments]
    if any(before != after for before, after in remaining):
        raise _NotOfItsParts


def _pairs(before: AnyMessage, after: AnyMessage, whole: set[int]) -> Iterator[tuple[AnyMessage, AnyMessage]]:
    """Each part of one message beside the same part of the other, but none within those whose id is in ``whole``."""
    yield before, after
    if before.get_content_maintype() == "multipart" and id(before) not in whole:
        for one, other in zip(before.get_payload(), after.get_payload(), strict=True):
            yield from _pairs(one, other, whole)


def _alternative(item: Any, parts: Iterator[tuple[str, str]], types: set[str]) -> Any:
    content, content_type = item
    if content_type not in types:
        return item
    html = _next(parts, content.decode() if isinstance(content, bytes) else str(content))
    # A plain tuple before Django 5.2.
    return item._replace(content=html, mimetype="text/html") if hasattr(item, "_replace") else (html, "text/html")


def _next(parts: Iterator[tuple[str, str]], text: str) -> str:
    """What the hook made of a text, which must be that of the next part unless it is empty."""
    if not _same_lines(text):
        return text
    before, after = next(parts, ("", ""))
    if _same_lines(before) != _same_lines(text):
        raise _NotOfItsParts
    if after == before:
        return text
    # A part ends with a line ending whether or not its text does.
    return after if text.endswith(("\n", "\r")) else after.removesuffix("\n")


def _text(part: AnyMessage) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode(part.get_content_charset("us-ascii"))


def _same_lines(text: str) -> str:
    return _LINE_ENDING.sub("\n", text).rstrip("\n")


def _inner_path() -> str:
    return str(getattr(settings, "POSTBOX_EMAIL_BACKEND", _DEFAULT_INNER))


def _backend_class(path: str) -> type[BaseEmailBackend]:
    """The backend that sends, where there are no ``MAILERS``."""
    found = _load(path, "POSTBOX_EMAIL_BACKEND")
    if issubclass(found, EmailBackend):
        raise ImproperlyConfigured(
            f"POSTBOX_EMAIL_BACKEND: {path} would send by itself. Write the backend that sends, for example "
            f"{_DEFAULT_INNER!r}"
        )
    return found


def _mailer(alias: str, inner: str, overrides: dict[str, Any]) -> BaseEmailBackend:
    """The mailer that sends, where there are ``MAILERS``.

    :param overrides: what a caller of the deprecated ``get_connection(...)`` wants to be different.
    """
    backend_class = _mailer_class(alias, inner)
    if not overrides:
        made: BaseEmailBackend = mail.mailers[inner]
        return made
    options = {**settings.MAILERS[inner].get("OPTIONS", {}), **overrides}
    return backend_class(alias=inner, **options, _ignore_unknown_kwargs=set(overrides))


def _mailer_class(alias: str, inner: str) -> type[BaseEmailBackend]:
    where = f"MAILERS[{alias!r}]"
    if not inner:
        raise ImproperlyConfigured(f'{where}: name the mailer that sends: write "OPTIONS": {{"inner": "smtp"}}')
    if inner not in settings.MAILERS:
        known = ", ".join(repr(name) for name in settings.MAILERS if name != alias) or "none"
        raise ImproperlyConfigured(f"{where}: there is no mailer {inner!r} to send by. Others are: {known}")
    found = _load(settings.MAILERS[inner].get("BACKEND", _DEFAULT_INNER), f"MAILERS[{inner!r}]")
    if issubclass(found, EmailBackend):
        raise ImproperlyConfigured(f"{where}: the mailer {inner!r} tracks too. Name one that sends")
    return found


def _load(path: str, where: str) -> type[BaseEmailBackend]:
    try:
        found: type[BaseEmailBackend] = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{where}: there is no backend {path!r} ({error})") from error
    return found


@checks.register
def _check(app_configs: Sequence[Any] | None, **_: object) -> list[checks.CheckMessage]:
    """Called by Django's system check, once the module is in ``INSTALLED_APPS``."""
    found: list[checks.CheckMessage] = []
    try:
        get_postbox()
    except SettingsError as error:
        problem = f"{error.where}: {error.key}: {error.problem}."
        found.append(checks.Error(problem, hint=error.remedy, id="postbox.E001"))
    except PostboxError as error:
        found.append(checks.Error(str(error), id="postbox.E001"))
    for check in _inner_checks():
        try:
            check()
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="postbox.E002"))
    return found


def _inner_checks() -> Iterator[Callable[[], object]]:
    mailers = getattr(settings, "MAILERS", None) if _HAS_MAILERS else None
    if mailers is None:
        yield partial(_backend_class, _inner_path())
        return
    for alias, mailer in mailers.items():
        if mailer.get("BACKEND") == _PATH:
            yield partial(_mailer_class, alias, mailer.get("OPTIONS", {}).get("inner", ""))
