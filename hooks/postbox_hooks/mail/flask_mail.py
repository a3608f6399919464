"""Flask-Mail with click tracking: its extension object as a drop-in replacement.

Two lines make an application track::

    from postbox_hooks.mail.flask_mail import Mail

    app.config["POSTBOX"] = {"domain": "click.example.com", "keys": [os.environ["POSTBOX_KEY"]]}
    mail = Mail(app)  # or mail.init_app(app), in an application factory

``POSTBOX`` has the shape of ``postbox.toml``, or is the path of one, or a ``Postbox``; each application has its own.
What is wrong with it is an error when the application is set up.

The program's message stays as it was written: what is sent is a copy of it. The copy is also what ``record_messages()``
and other receivers of ``email_dispatched`` get, with the links that were sent, or would be if sending is suppressed.
"""

from __future__ import annotations

import copy
import email
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from postbox_hooks._shared import envelope, outermost, postbox_of
from postbox_plugin import Postbox
from postbox_plugin.errors import MissingExtra

try:
    import flask_mail
except ImportError:
    raise MissingExtra("postbox_hooks.mail.flask_mail", "Flask-Mail", "flask-mail") from None

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Connection", "Mail"]


class Mail(flask_mail.Mail):
    """:class:`flask_mail.Mail` with click tracking.

    :param app: the application to set up; without one, call :meth:`init_app` later.
    :raises SettingsError: if ``POSTBOX`` of its configuration is missing or wrong; it says what to write.
    """

    def init_app(self, app: Flask) -> Any:
        """Set an application up: its mails are tracked as its configuration says.

        :param app: the application.
        :returns: Flask-Mail's own record of it, as it stands in ``app.extensions["mail"]``.
        :raises SettingsError: if ``POSTBOX`` of its configuration is missing or wrong.
        """
        postbox = postbox_of(app.config.get("POSTBOX"), 'app.config["POSTBOX"]', "app.config")
        state = super().init_app(app)
        # Other extensions send by app.extensions["mail"], and have never seen this object.
        vars(state)["connect"] = partial(Connection, state, postbox)
        return state

    def connect(self) -> flask_mail.Connection:
        """A connection to the mail server of this object's application, or of the current one."""
        # Flask-Mail finds the application, or says that it was not set up.
        return super().connect().mail.connect()


class Connection(flask_mail.Connection):
    """:class:`flask_mail.Connection` with click tracking, as :meth:`Mail.connect` makes it.

    :param mail: Flask-Mail's own record of an application.
    :param postbox: what does the rewriting.
    """

    def __init__(self, mail: Any, postbox: Postbox) -> None:
        super().__init__(mail)
        self.postbox: Final = postbox

    def send(self, message: flask_mail.Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Send a message with tracking links; the message itself keeps its own.

        :param message: the message.
        :param envelope_from: the envelope's sender, if it is not the message's.
        """
        with outermost() as first:
            sent = _tracked(message, self.postbox) if first else message
            super().send(sent, envelope_from)
            message.date = sent.date  # Flask-Mail dates the message that it is given


def _tracked(message: flask_mail.Message, postbox: Postbox) -> flask_mail.Message:
    """A copy of a message, made of the same, that is written with tracking links; the message itself if it cannot be
    written at all.
    """
    sent = copy.copy(message)
    sent.date = time.time() if message.date is None else message.date
    try:
        built = sent.as_bytes()
        recipients = envelope(flask_mail.sanitize_addresses(message.send_to))
    except Exception:  # Flask-Mail meets it as well, and has checks of its own before
        return message
    raw = postbox.before_send(built, recipients=recipients)
    vars(sent).update(as_bytes=partial(bytes, raw), as_string=partial(str, raw, "utf-8", "replace"))
    if raw is not built and "html" in sent.alts and flask_mail.email_dispatched.receivers:
        sent.alts = {**sent.alts, "html": _html(raw, sent.alts["html"])}
    return sent


def _html(raw: bytes, otherwise: str) -> str:
    """The HTML of a message as it is written."""
    for part in email.message_from_bytes(raw).walk():
        content = part.get_payload(decode=True)
        if part.get_content_type() == "text/html" and isinstance(content, bytes):
            # Flask-Mail writes no charset that Python does not know; a program's own as_bytes() may.
            with suppress(LookupError):
                return content.decode(part.get_content_charset("utf-8"), "replace").replace("\r\n", "\n")
    return otherwise
