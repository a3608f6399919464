"""The click: what notifiers receive, and its JSON, which is Yandex Cloud Postbox's.

The records mirror the notification field by field (``eventType``, ``mail``, ``click``, ``eventId``), so one
declaration is both the Python interface and the wire format. Our additions stay in one object of their own,
``tracking``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, Self

import msgspec

from postbox_plugin.mail import Tags

__all__ = ["Click", "ClickDetail", "ClickedMail", "CommonHeaders", "Tracking", "Verdict", "timestamp"]


def timestamp(moment: datetime) -> str:
    """RFC 3339 with an offset and microseconds, as all timestamps of a notification are.

    :param moment: an aware time.
    """
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat(timespec="microseconds")


class Verdict(msgspec.Struct, frozen=True):
    """Who clicked, as far as one can tell: what a ``postbox_classify`` hook returns.

    :ivar verdict: ``human`` or ``machine``.
    :ivar reason: what gave a machine away, in a few words; ``""`` for a human.
    """

    verdict: Literal["human", "machine"]
    reason: str = ""


class CommonHeaders(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``mail.commonHeaders``: the carried headers as they stood (RFC 2047 encoding kept).

    :ivar from_: one text an address; empty without the header (likewise ``to``).
    :ivar date: ``""`` without the header (likewise ``subject``).
    :ivar message_id: ours; the same as ``mail.messageId``.
    :ivar original_message_id: the message's own Message-ID where ``Settings.carry`` has it, else ``""``.
    """

    from_: tuple[str, ...] = msgspec.field(name="from", default=())
    date: str = ""
    to: tuple[str, ...] = ()
    message_id: str = ""
    original_message_id: str = ""
    subject: str = ""


class ClickedMail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``mail``: the message that the link was in.

    :ivar timestamp: when it was rewritten, RFC 3339.
    :ivar message_id: our id of it, as in its ``X-Postbox-Message-Id``.
    :ivar identity_id: the sender identity.
    :ivar tags: the message tags.
    """

    timestamp: str
    message_id: str
    identity_id: str
    common_headers: CommonHeaders
    tags: Tags = {}


class ClickDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``click``: the click itself.

    :ivar ip_address: who opened the link; ``""`` where privacy keeps none.
    :ivar timestamp: when, RFC 3339 with microseconds.
    :ivar user_agent: the ``User-Agent`` header; ``""`` without it.
    :ivar url: the original address.
    :ivar link_tags: from ``postbox:tags``.
    """

    ip_address: str
    timestamp: str
    user_agent: str
    url: str
    link_tags: Tags = {}


class Tracking(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``tracking``: what we add to Postbox's format.

    :ivar link_index: the link's place among the links of its mail, from 0.
    :ivar verdict: ``human`` or ``machine``.
    :ivar reason: what gave a machine away; ``""`` for a human.
    """

    link_index: int
    verdict: Literal["human", "machine"] = "human"
    reason: str = ""


class Click(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One click, as every notifier receives it, at least once.

    :ivar mail: the message the link was in.
    :ivar click: when, who, and which address.
    :ivar event_id: unique; the same each time this click is delivered. Use it to drop repetitions.
    :ivar tracking: the link's index and the verdict.
    """

    event_type: Literal["Click"] = "Click"
    mail: ClickedMail
    click: ClickDetail
    event_id: str
    tracking: Tracking

    @property
    def url(self) -> str:
        """The original address."""
        return self.click.url

    @property
    def link_tags(self) -> Tags:
        """The link tags."""
        return self.click.link_tags

    @property
    def message_id(self) -> str:
        """Our id of the message."""
        return self.mail.message_id

    @property
    def is_machine(self) -> bool:
        """Whether a prefetch, a scanner or a crawler is taken to have made this click."""
        return self.tracking.verdict == "machine"

    def to_json(self) -> bytes:
        """The notification, one line of UTF-8 JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read a notification; fields that this version does not know are passed over.

        :raises ValueError: if it is not a click notification.
        """
        return msgspec.json.decode(data, type=cls)
