"""smtplib's classes with click tracking: drop-in replacements that rewrite what they send.

Two lines make a script track::

    from postbox_hooks.mail.smtplib import SMTP

    with SMTP("mail.example.com", 587, postbox=Postbox.from_file("postbox.toml")) as smtp:
        smtp.send_message(message)

The envelope decides who a message goes to, so a Bcc counts. Everything else is smtplib's own: its arguments, what it
returns, what it raises. Where a library wants a class, ``functools.partial(SMTP, postbox=postbox)`` is one.

For libraries that call smtplib themselves (yagmail, redmail, envelope, Apprise, pyramid_mailer, ...)::

    from postbox_hooks.mail.smtplib import install

    install(Postbox.from_file("postbox.toml"))
"""

from __future__ import annotations

import functools
import smtplib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from postbox_hooks._shared import installed, outermost, rewritten
from postbox_plugin import Postbox

__all__ = ["LMTP", "SMTP", "SMTP_SSL", "install"]


class _Tracking(smtplib.SMTP):
    """Rewrites where every message passes: ``send_message`` ends in ``sendmail`` too, with the envelope made and the
    Bcc header gone.
    """

    def __init__(self, *args: Any, postbox: Postbox | None = None, **options: Any) -> None:
        if not isinstance(postbox, Postbox):
            name = type(self).__name__
            given = "" if postbox is None else f", not {type(postbox).__name__}"
            raise TypeError(f"{name} needs the Postbox that rewrites{given}: write {name}(host, port, postbox=postbox)")
        self.postbox: Final = postbox
        super().__init__(*args, **options)

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: Any,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """As smtplib's, with tracking links in what is sent."""
        with outermost() as first:
            if first:
                msg = rewritten(self.postbox, to_addrs, msg)
            return super().sendmail(from_addr, to_addrs, msg, mail_options, rcpt_options)


class SMTP(_Tracking):
    """:class:`smtplib.SMTP` with click tracking.

    :param postbox: what does the rewriting.
    :raises TypeError: without a ``postbox``.
    """


class SMTP_SSL(_Tracking, smtplib.SMTP_SSL):  # noqa: N801 - smtplib's own name
    """:class:`smtplib.SMTP_SSL` with click tracking.

    :param postbox: what does the rewriting.
    :raises TypeError: without a ``postbox``.
    """


class LMTP(_Tracking, smtplib.LMTP):
    """:class:`smtplib.LMTP` with click tracking.

    :param postbox: what does the rewriting.
    :raises TypeError: without a ``postbox``.
    """


def install(postbox: Postbox, *classes: type[smtplib.SMTP]) -> ExitStack:
    """Make smtplib itself track, for libraries that call it: every ``sendmail`` and ``send_message`` of this process,
    also of connections that are open already.

    May be called more than once, and undone in any order: the Postbox that was installed last, and not undone, does
    the rewriting. Nothing is rewritten twice where a library is sent through another adapter as well.

    :param postbox: what does the rewriting.
    :param classes: further classes to cover: subclasses whose ``sendmail`` is their own and never calls smtplib's.
        (python-emails has such a one, but signs before it: use its own adapter.)
    :returns: what undoes it: by its ``close()``, or at the end of a ``with`` block.
    :raises TypeError: if ``postbox`` is not one.
    """
    return installed(postbox, (smtplib.SMTP, *classes), "sendmail", _stand_in)


def _stand_in(original: Callable[..., Any], current: Callable[[], Postbox | None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sendmail(self: smtplib.SMTP, from_addr: str, to_addrs: Any, msg: Any, *args: Any, **options: Any) -> Any:
        postbox = current()
        if postbox is None:
            return original(self, from_addr, to_addrs, msg, *args, **options)
        with outermost() as first:
            if first:
                msg = rewritten(postbox, to_addrs, msg)
            return original(self, from_addr, to_addrs, msg, *args, **options)

    return sendmail
