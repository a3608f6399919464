"""smtplib's classes with click tracking: drop-in replacements that rewrite what they send.

Two lines make a script track::

    from postbox_hooks.mail.smtplib import SMTP

    with SMTP("mail.example.com", 587, postbox=Postbox.from_file("postbox.toml")) as smtp:
        smtp.send_message(message)

The envelope decides who a message goes to, so a Bcc counts. Everything else is smtplib's own: its arguments, what it
returns, what it raises. Where a library wants a class, ``functools.partial(SMTP, postbox=postbox)`` is one.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence
from typing import Any, Final

from postbox_hooks._shared import envelope, outermost
from postbox_plugin import Postbox

__all__ = ["LMTP", "SMTP", "SMTP_SSL"]

_LINE_ENDING: Final = re.compile(r"\r\n|\r|\n")


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
                msg = _rewritten(self.postbox, to_addrs, msg)
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


def _rewritten(postbox: Postbox, to_addrs: str | Sequence[str], msg: Any) -> bytes:
    """The message that ``sendmail`` is to send instead.

    :param to_addrs: as for ``sendmail``: a text is one address.
    :param msg: as for ``sendmail``: bytes, or text in ASCII with any line endings.
    """
    # The same that smtplib would make of a text, and the same exception where it is not ASCII.
    raw = _LINE_ENDING.sub("\r\n", msg).encode("ascii") if isinstance(msg, str) else bytes(msg)
    return postbox.before_send(raw, recipients=envelope([to_addrs] if isinstance(to_addrs, str) else to_addrs))
