"""Flask-Mailman with click tracking: its extension object as a drop-in replacement, in front of any of its backends.

Two lines make an application track::

    from postbox_hooks.mail.flask_mailman import Mail

    app.config["POSTBOX"] = {"domain": "click.example.com", "keys": [os.environ["POSTBOX_KEY"]]}
    mail = Mail(app)  # or mail.init_app(app), in an application factory

``POSTBOX`` has the shape of ``postbox.toml``, or is the path of one, or a ``Postbox``; each application has its own.
What is wrong with it is an error when the application is set up. ``MAIL_BACKEND`` names the backend that sends, as
ever.

The program's message stays as it was written: what the backend gets is a copy of it, so ``mail.outbox`` of the backend
``locmem``, the one that tests use, has the mails as they would be sent. The hook sees the message as MIME, and its
HTML is put back into the copy, so a backend that hands over JSON sends the same links.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postbox_hooks._shared import envelope, outermost, postbox_of
from postbox_plugin import Postbox
from postbox_plugin.errors import MissingExtra

try:
    import flask_mailman  # type: ignore[import-untyped]
    from flask_mailman.backends.base import BaseEmailBackend  # type: ignore[import-untyped]
except ImportError:
    raise MissingExtra("postbox_hooks.mail.flask_mailman", "Flask-Mailman", "flask-mailman") from None

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["EmailBackend", "Mail"]

_ID_HEADER: Final = "X-Postbox-Message-Id"

AnyMessage: TypeAlias = "Message[Any, Any]"


class Mail(flask_mailman.Mail):  # type: ignore[misc]  # which is not typed
    """``flask_mailman.Mail`` with click tracking.

    :param app: the application to set up; without one, call :meth:`init_app` later.
    :raises SettingsError: if ``POSTBOX`` of its configuration is missing or wrong; it says what to write.
    """

    def init_app(self, app: Flask) -> Any:
        """Set an application up: its mails are tracked as its configuration says.

        :param app: the application.
        :returns: Flask-Mailman's own record of it, as it stands in ``app.extensions["mailman"]``.
        :raises SettingsError: if ``POSTBOX`` of its configuration is missing or wrong.
        """
        postbox = postbox_of(app.config.get("POSTBOX"), 'app.config["POSTBOX"]', "app.config")
        state = super().init_app(app)
        state.postbox = postbox
        # A message's send() connects by app.extensions["mailman"], and has never seen this object.
        state.get_connection = partial(_tracking, state.get_connection)
        return state

    def get_connection(self, backend: Any = None, fail_silently: bool = False, **options: Any) -> Any:
        """The backend that sends, behind ours.

        :param backend: its name, path or class; that of ``MAIL_BACKEND`` if ``None``.
        :param fail_silently: passed on to it.
        :param options: passed on to it, too: ``username``, ...
        """
        return _tracking(super().get_connection, backend, fail_silently, **options)


def _tracking(connect: Callable[..., Any], *args: Any, **options: Any) -> Any:
    inner = connect(*args, **options)
    postbox = getattr(
        inner.mailman, "postbox", None
    )  # none where an application was set up by Flask-Mailman's own object
    return inner if postbox is None else EmailBackend(inner, postbox)


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]
    """Puts tracking links into messages and hands them to the backend that sends.

    :param inner: the backend that sends.
    :param postbox: what does the rewriting.
    """

    def __init__(self, inner: Any, postbox: Postbox) -> None:
        super().__init__(mailman=inner.mailman, fail_silently=inner.fail_silently)
        self.inner: Final = inner
        self.postbox: Final = postbox

    def open(self) -> Any:
        """Open the connection of the backend that sends; the same result."""
        return self.inner.open()

    def close(self) -> None:
        """Close the connection of the backend that sends."""
        self.inner.close()

    def send_messages(self, email_messages: Iterable[Any]) -> Any:
        """Send messages with tracking links; the messages themselves keep their own.

        :param email_messages: the messages.
        :returns: what the backend that sends returns: how many it has sent.
        """
        with outermost() as first:
            messages = list(email_messages)
            return self.inner.send_messages([_tracked(one, self.postbox) for one in messages] if first else messages)


def _tracked(message: Any, postbox: Postbox) -> Any:
    """A copy of a message with tracking links; the message itself if it cannot be built at all."""
    try:
        built = message.message()
        recipients = envelope(message.recipients())
    except Exception:  # the backend that sends meets it as well, at its time
        return message
    mime = postbox.before_send(built, recipients=recipients)
    sent = copy.copy(message)
    vars(sent)["message"] = lambda: mime
    if mime is not built:
        _put_back(sent, built, mime)
    return sent


def _put_back(sent: Any, built: AnyMessage, mime: AnyMessage) -> None:
    """Give a copy, for backends that read its fields, the HTML and the headers that the hook made."""
    html = {
        _same_lines(_text(before)): _text(after)
        for before, after in zip(built.walk(), mime.walk(), strict=True)
        if before.get_content_type() == "text/html" and before.get_payload() != after.get_payload()
    }
    if sent.content_subtype == "html":
        sent.body = html.get(_same_lines(sent.body), sent.body)
    if isinstance(sent, flask_mailman.EmailMultiAlternatives):
        sent.alternatives = [
            (html.get(_same_lines(text), text) if kind == "text/html" else text, kind)
            for text, kind in sent.alternatives
        ]
    sent.extra_headers = _headers(sent.extra_headers, built, mime)


def _headers(extra: Mapping[str, Any], built: AnyMessage, mime: AnyMessage) -> dict[str, Any]:
    """The extra headers without those that were meant for us, and with our id."""
    kept = {name: value for name, value in extra.items() if name in mime or name not in built}
    if _ID_HEADER in mime:
        kept = {name: value for name, value in kept.items() if name.lower() != _ID_HEADER.lower()}
        kept[_ID_HEADER] = str(mime[_ID_HEADER])
    return kept


def _text(part: AnyMessage) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode(part.get_content_charset("utf-8"), "replace")


def _same_lines(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip("\n")
