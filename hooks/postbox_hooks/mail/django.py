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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from postbox_hooks._shared import outermost
from postbox_plugin.errors import MissingExtra

try:
    import django
    from django.conf import settings
    from django.core import checks, mail
    from django.core.exceptions import ImproperlyConfigured
    from django.core.mail.backends.base import BaseEmailBackend
    from django.utils.module_loading import import_string

    from postbox_hooks._django import CONTENT, SET_HERE, get_postbox, tracked
except ImportError:
    raise MissingExtra("postbox_hooks.mail.django", "django", "django") from None

__all__ = ["EmailBackend", "get_postbox"]

_PATH: Final = "postbox_hooks.mail.django.EmailBackend"
_DEFAULT_INNER: Final = "django.core.mail.backends.smtp.EmailBackend"
_SEND_NOTHING: Final = frozenset(
    f"django.core.mail.backends.{name}.EmailBackend" for name in ("console", "dummy", "filebased", "locmem")
)
"""What developers, and test runners, put in the place of the one that sends."""
_HAS_MAILERS: Final = django.VERSION >= (6, 1)


class EmailBackend(BaseEmailBackend):
    """Puts tracking links into messages and hands them to the backend that sends.

    The hook sees the message as MIME, as it would be sent, and its HTML is put back into a copy of Django's message,
    so a backend that hands over JSON sends the same links. The caller's message keeps its own.

    :param fail_silently: passed on.
    :param inner: what sends: an alias of ``MAILERS``, or where there are none the path of a backend class, by default
        ``settings.POSTBOX_EMAIL_BACKEND``.
    :param alias: given by Django 6.1 and later where ``MAILERS`` is set.
    :param _ignore_unknown_kwargs: given by it too: the names of arguments that a mailer need not know.
    :param options: passed on to the backend that sends.
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
        """Send the messages with tracking links; the result is that of the backend that sends.

        :param email_messages: the messages; they are not changed.
        """
        with outermost() as first:
            if not first:
                return self.inner.send_messages(email_messages)
            messages = list(email_messages)
            sent = [tracked(message, esp_name=getattr(self.inner, "esp_name", "")) for message in messages]
            try:
                return self.inner.send_messages(sent)
            finally:
                for message, copied in zip(messages, sent, strict=True):
                    if copied is not message:
                        _hand_back(copied, message)


def _hand_back(copied: mail.EmailMessage, message: mail.EmailMessage) -> None:
    """Give the caller's message what the backend that sends left on the copy: django-anymail its ``anymail_status``,
    django-ses the id in ``extra_headers``. What was sent stays with the copy, or the next reader would get its links.
    """
    vars(message).update(
        {name: value for name, value in vars(copied).items() if not name.startswith("_") and name not in CONTENT}
    )
    message.extra_headers.update(
        {name: value for name, value in copied.extra_headers.items() if name.lower() not in SET_HERE}
    )


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


def _check_options(alias: str, options: Mapping[str, Any]) -> None:
    inner = options.get("inner", "")
    _mailer_class(alias, inner)
    for name in options.keys() - {"inner", "fail_silently"}:
        raise ImproperlyConfigured(f"MAILERS[{alias!r}]: {name!r} is for the mailer that sends: move it to {inner!r}")


@checks.register
def _check(app_configs: Sequence[Any] | None, **_: object) -> list[checks.CheckMessage]:
    """Called by Django's system check, once the module is in ``INSTALLED_APPS``."""
    found: list[checks.CheckMessage] = []
    for check in _inner_checks():
        try:
            check()
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="postbox.E002"))
    backends = list(_backends())
    if not (found or any(path in _SEND_NOTHING or _tracks(path) for path in backends)):
        found.append(
            checks.Warning("No mail is tracked: nothing sends by our backend.", hint=_hint(), id="postbox.W001")
        )
    return found


def _backends() -> Iterator[str]:
    """The backends that are configured, django-post_office's included."""
    mailers = _mailers()
    if mailers is None:
        yield str(settings.EMAIL_BACKEND)
    else:
        yield from (str(mailer.get("BACKEND", "")) for mailer in mailers.values())
    post_office = getattr(settings, "POST_OFFICE", {})
    yield from map(str, post_office.get("BACKENDS", {}).values())


def _tracks(path: str) -> bool:
    try:
        return issubclass(import_string(path), EmailBackend)
    except (ImportError, TypeError):  # it is not there, or no class
        return False


def _hint() -> str:
    if _mailers() is not None:
        return f'Write MAILERS = {{"default": {{"BACKEND": "{_PATH}", "OPTIONS": {{"inner": ...}}}}, ...}}'
    ignored = f", for Django {django.get_version()} knows no MAILERS" if hasattr(settings, "MAILERS") else ""
    return f'Write EMAIL_BACKEND = "{_PATH}", and what is to send as POSTBOX_EMAIL_BACKEND{ignored}'


def _mailers() -> Any:
    return getattr(settings, "MAILERS", None) if _HAS_MAILERS else None


def _inner_checks() -> Iterator[Callable[[], object]]:
    mailers = _mailers()
    if mailers is None:
        yield partial(_backend_class, _inner_path())
        return
    for alias, mailer in mailers.items():
        if mailer.get("BACKEND") == _PATH:
            yield partial(_check_options, alias, mailer.get("OPTIONS", {}))
