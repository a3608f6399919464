"""aiosmtplib with click tracking: its class as a drop-in replacement, and aiosmtplib itself for libraries that call it.

Two lines make a program track::

    from postbox_hooks.mail.aiosmtplib import SMTP

    async with SMTP(hostname="mail.example.com", port=587, postbox=Postbox.from_file("postbox.toml")) as smtp:
        await smtp.send_message(message)

``aiosmtplib.send()`` makes its connection itself, and so do fastapi-mail, Flask-Mailing and litestar-email. For these::

    from postbox_hooks.mail.aiosmtplib import install

    install(Postbox.from_file("postbox.toml"))

The envelope decides who a message goes to, so a Bcc counts. Everything else is aiosmtplib's own: its arguments, what it
returns, what it raises.

Rewriting takes about a millisecond for a usual mail, which the loop waits for. Messages over 64 KB are rewritten in a
thread (:func:`asyncio.to_thread`), so the hooks of plugins are called there too.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from postbox_hooks._shared import installed, outermost, rewritten
from postbox_plugin import Postbox
from postbox_plugin.errors import MissingExtra

try:
    import aiosmtplib
except ImportError:
    raise MissingExtra("postbox_hooks.mail.aiosmtplib", "aiosmtplib", "aiosmtplib") from None

__all__ = ["SMTP", "install"]

# Up to this size rewriting takes some milliseconds at worst (HTML full of links), and a tenth of one to hand over to a
# thread and back would be a good part of the usual.
_IN_THE_LOOP: Final = 64 * 1024


class SMTP(aiosmtplib.SMTP):
    """:class:`aiosmtplib.SMTP` with click tracking.

    Rewrites where every message passes: ``send_message`` ends in ``sendmail`` too, with the envelope made and the Bcc
    header gone.

    :param postbox: what does the rewriting.
    :param options: aiosmtplib's own: ``hostname``, ``port``, ...
    :raises TypeError: without a ``postbox``.
    """

    def __init__(self, *, postbox: Postbox | None = None, **options: Any) -> None:
        if not isinstance(postbox, Postbox):
            given = "" if postbox is None else f", not {type(postbox).__name__}"
            raise TypeError(
                f"SMTP needs the Postbox that rewrites{given}: write SMTP(hostname=..., port=..., postbox=postbox)"
            )
        self.postbox: Final = postbox
        super().__init__(**options)

    async def sendmail(
        self, sender: str, recipients: str | Sequence[str], message: str | bytes, /, **options: Any
    ) -> tuple[dict[str, aiosmtplib.SMTPResponse], str]:
        """As aiosmtplib's, with tracking links in what is sent.

        :param sender: the envelope's sender.
        :param recipients: its recipients; a text is one.
        :param message: bytes, or text in ASCII.
        :param options: aiosmtplib's own: ``mail_options``, ``rcpt_options``, ``timeout``.
        """
        with outermost() as first:
            if first:
                message = await _rewritten(self.postbox, recipients, message)
            return await super().sendmail(sender, recipients, message, **options)


def install(postbox: Postbox, *classes: type[aiosmtplib.SMTP]) -> ExitStack:
    """Make aiosmtplib itself track, for libraries that call it: ``aiosmtplib.send()``, and every ``sendmail`` and
    ``send_message`` of this process, also of connections that are open already.

    May be called more than once, and undone in any order: the Postbox that was installed last, and not undone, does
    the rewriting. Nothing is rewritten twice where a library is sent through another adapter as well.

    :param postbox: what does the rewriting.
    :param classes: further classes to cover: subclasses whose ``sendmail`` is their own and never calls aiosmtplib's.
    :returns: what undoes it: by its ``close()``, or at the end of a ``with`` block.
    :raises TypeError: if ``postbox`` is not one.
    """
    return installed(postbox, (aiosmtplib.SMTP, *classes), "sendmail", _stand_in)


def _stand_in(original: Callable[..., Any], current: Callable[[], Postbox | None]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def sendmail(
        self: aiosmtplib.SMTP, sender: str, recipients: Any, message: str | bytes, /, **options: Any
    ) -> Any:
        postbox = current()
        if postbox is None:
            return await original(self, sender, recipients, message, **options)
        with outermost() as first:
            if first:
                message = await _rewritten(postbox, recipients, message)
            return await original(self, sender, recipients, message, **options)

    return sendmail


async def _rewritten(postbox: Postbox, recipients: str | Sequence[str], message: str | bytes) -> bytes:
    if len(message) <= _IN_THE_LOOP:
        return rewritten(postbox, recipients, message)
    return await asyncio.to_thread(rewritten, postbox, recipients, message)
