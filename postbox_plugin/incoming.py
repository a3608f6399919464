"""The way in: an opened link and a request become a click, and the click is kept."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from postbox_plugin.click import Click, ClickDetail, ClickedMail, CommonHeaders, Tracking, timestamp
from postbox_plugin.mail import OpenedLink
from postbox_plugin.plugins import PluginHost
from postbox_plugin.privacy import blurred_address, blurred_user_agent, stricter
from postbox_plugin.settings import Settings

if TYPE_CHECKING:
    from postbox_plugin.outbox import Outbox

__all__ = ["ClickRecorder"]

MAX_USER_AGENT: Final = 1024
"""The most characters of a user agent that are kept."""

_log = logging.getLogger("postbox.redirect")
_lost = logging.getLogger("postbox.lost")


class ClickRecorder:
    """Makes clicks and hands them to the outbox.

    :ivar outbox: where clicks are kept; ``None`` while the ``Postbox`` is not running.
    """

    def __init__(self, settings: Settings, plugins: PluginHost) -> None:
        self._settings: Final = settings
        self._plugins: Final = plugins
        self.outbox: Outbox | None = None

    async def record(self, link: OpenedLink, *, address: str, user_agent: str, headers: Mapping[str, str]) -> None:
        """Keep a click. Waits for the disk, but no longer than ``journal_deadline``, and lets no exception through."""
        try:
            click = self._click(link, address, user_agent, headers)
            if self.outbox is None:
                _lose(click, "the Postbox is not running: wrap the server in `async with postbox.running()`")
                return
            writing = asyncio.ensure_future(self.outbox.put(click))
            # Whether or not somebody still waits for it then, a click that could not be written must not vanish.
            writing.add_done_callback(lambda done: _check(done, click))
            await asyncio.wait((writing,), timeout=self._settings.journal_deadline)
        except Exception:
            _log.exception("a click could not be recorded; the reader is redirected all the same")

    def _click(self, link: OpenedLink, address: str, user_agent: str, headers: Mapping[str, str]) -> Click:
        headers_of_mail = link.headers
        click = Click(
            mail=ClickedMail(
                timestamp=timestamp(link.sent_at),
                message_id=link.message_id,
                identity_id=link.identity,
                common_headers=CommonHeaders(
                    from_=headers_of_mail.get("from", ()),
                    date="".join(headers_of_mail.get("date", ())),
                    to=headers_of_mail.get("to", ()),
                    message_id=link.message_id,
                    original_message_id="".join(headers_of_mail.get("message-id", ())),
                    subject="".join(headers_of_mail.get("subject", ())),
                ),
                tags=link.message_tags,
            ),
            click=ClickDetail(
                ip_address=address,
                timestamp=timestamp(datetime.now(UTC)),
                user_agent=user_agent[:MAX_USER_AGENT],
                url=link.url,
                link_tags=link.tags,
            ),
            event_id=_new_event_id(),
            tracking=Tracking(link_index=link.index),
        )
        verdict = self._plugins.classify(click, headers)
        level = stricter(self._settings.privacy, link.privacy)
        return msgspec.structs.replace(
            click,
            click=msgspec.structs.replace(
                click.click,
                ip_address=blurred_address(click.click.ip_address, level),
                user_agent=blurred_user_agent(click.click.user_agent, level),
            ),
            tracking=Tracking(link_index=link.index, verdict=verdict.verdict, reason=verdict.reason),
        )


def _check(written: asyncio.Future[None], click: Click) -> None:
    if written.cancelled():
        _lose(click, "its writing was cancelled")
    elif error := written.exception():
        _lose(click, str(error))


def _lose(click: Click, reason: str) -> None:
    """The last resort, and the one place where a log holds personal data."""
    _lost.error("%s", click.to_json().decode(), extra={"reason": reason})
    _log.error("a click could not be kept and went to the logger postbox.lost: %s", reason)


def _new_event_id() -> str:
    """As Postbox's look: 21 characters, a colon, and the number of the event."""
    return base64.urlsafe_b64encode(os.urandom(16))[:21].decode("ascii") + ":0"
