"""What before-send hooks see: the mail as a whole, its headers, and one link of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

import msgspec

__all__ = ["Headers", "Link", "Mail", "OpenedLink", "Tags", "domain_of", "freeze_tags"]

Tags = Mapping[str, tuple[str, ...]]
"""Tags as they are notified: each key with its values, in the order given."""


_DOMAIN = re.compile(r"@([^@\s>]+)>?\s*\Z")


def freeze_tags(tags: Mapping[str, str | Iterable[str]] | None) -> dict[str, tuple[str, ...]]:
    """Bring tags into their one form.

    :param tags: ``{"campaign": "spring"}`` or ``{"campaign": ["spring", "sale"]}``.
    :raises TypeError: if a key or value is not text.
    """
    frozen = {}
    for key, values in (tags or {}).items():
        several = (values,) if isinstance(values, str) else tuple(values)
        if not isinstance(key, str) or not all(isinstance(value, str) for value in several):
            raise TypeError(f"tags are text, each key with one text or several, not {key!r}: {values!r}")
        frozen[key] = several
    return frozen


def domain_of(addresses: Sequence[str]) -> str:
    """The domain of the first address, in lower case; ``""`` where it has none.

    :param addresses: as they stand in an address header, one text an address.
    """
    match = _DOMAIN.search(addresses[0]) if addresses else None
    return match[1].lower() if match else ""


class Headers(tuple[tuple[str, str], ...]):
    """The headers of a mail in their order, name and unfolded value, found by name without regard to case.

    :param fields: name and value of each.
    """

    _by_name: dict[str, list[str]]

    def __new__(cls, fields: Iterable[tuple[str, str]] = ()) -> Self:
        self = super().__new__(cls, fields)
        self._by_name = {}
        for name, value in self:
            self._by_name.setdefault(name.lower(), []).append(value)
        return self

    def all(self, name: str) -> Sequence[str]:
        """The values of all headers of that name, in their order."""
        return self._by_name.get(name.lower(), ())

    def first(self, name: str) -> str:
        """The value of the first header of that name; ``""`` where there is none."""
        values = self._by_name.get(name.lower())
        return values[0] if values else ""


def _checked(fields: Iterable[tuple[str, str]]) -> Headers:
    if hasattr(fields, "items"):
        raise TypeError("headers are pairs of name and value: write headers=HEADERS.items()")
    fields = tuple(fields)
    for field in fields:
        if not (isinstance(field, tuple | list) and len(field) == 2 and all(isinstance(text, str) for text in field)):
            raise TypeError(f"headers are pairs of name and value, both text, not {field!r}")
    return Headers((name, value) for name, value in fields)


class Link(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # it holds texts, and can be in no cycle
    """One link of an outgoing mail, and what becomes of it.

    :ivar tag: the element it was found in, in lower case: ``a``, ``area``, ``v:roundrect``.
    :ivar url: the address the reader is to reach: the attribute's value, decoded (HTML standard, 13.2.5) and
        stripped as a browser does (WHATWG URL, 4.4), with ``http://`` before an address that had no scheme.
    :ivar index: its place among all the links of the mail, from 0; what ``tracking.linkIndex`` of a click says.
    :ivar start: where the attribute's value begins in the HTML of its part, in characters.
    :ivar end: where the attribute's value ends.
    :ivar tags: the link tags, from ``postbox:tags``.
    :ivar track: whether it becomes a tracking link.
    :ivar reason: why it does not; ``""`` where it does.
    """

    tag: str
    url: str
    index: int
    start: int
    end: int
    tags: Tags = {}
    track: bool = True
    reason: str = ""

    def replace(
        self,
        *,
        track: bool | None = None,
        reason: str | None = None,
        tags: Mapping[str, str | Iterable[str]] | None = None,
    ) -> Link:
        """This link with another decision or other tags: what a ``postbox_link`` hook returns.

        :param track: whether it is to become a tracking link.
        :param reason: why not.
        :param tags: its link tags.
        :raises TypeError: if a tag is not text.
        """
        return msgspec.structs.replace(
            self,
            track=self.track if track is None else track,
            reason=self.reason if reason is None else reason,
            tags=self.tags if tags is None else freeze_tags(tags),
        )


class OpenedLink(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracking link holds.

    :ivar url: the original address.
    :ivar index: the link's place among the links of its mail, from 0.
    :ivar tags: the link tags.
    :ivar message_id: our id of the message, as in ``X-Postbox-Message-Id``.
    :ivar sent_at: when the message was rewritten; aware, UTC, whole seconds.
    :ivar message_tags: the message tags.
    :ivar identity: the sender identity: a setting, or the domain of From.
    :ivar headers: the carried headers, by name in lower case; each with one text an address or value, as it stood.
    :ivar privacy: what a click may keep of who clicked: ``full``, ``truncated`` or ``none``.
    """

    url: str
    index: int
    tags: Tags
    message_id: str
    sent_at: datetime
    message_tags: Tags
    identity: str
    headers: Mapping[str, tuple[str, ...]]
    privacy: str


class Mail:
    """An outgoing mail, as before-send hooks see it.

    A hook may set :attr:`html` (or :attr:`html_parts`), :attr:`tags` and :attr:`track`; everything else is
    read-only. Senders that hand over JSON instead of MIME make one themselves, for
    :meth:`postbox_plugin.Postbox.track_html`.

    :param sender: the From address, bare or with a display name.
    :param recipient: the one recipient, bare or with a display name.
    :param subject: the Subject.
    :param html: the HTML body.
    :param tags: message tags, ``{"campaign": "spring"}``.
    :param message_id: our id of the message, 8 to 64 of ``[A-Za-z0-9_-]``; made up if left empty.
    :param headers: all headers, name and value, as they stand in the message but unfolded. Made of the other
        arguments if empty.
    :param recipients: everyone the message goes to; ``(recipient,)`` if empty.
    :param html_parts: the HTML bodies of a message that has several; ``[html]`` if empty.
    :raises TypeError: if ``recipient`` is not one text, or ``recipients`` is, or ``headers`` are not pairs of texts.
    """

    __slots__ = ("_headers", "_message_id", "_recipients", "_tags", "html_parts", "track")

    def __init__(
        self,
        *,
        sender: str = "",
        recipient: str = "",
        subject: str = "",
        html: str = "",
        tags: Mapping[str, str | Iterable[str]] | None = None,
        message_id: str = "",
        headers: Iterable[tuple[str, str]] = (),
        recipients: Iterable[str] = (),
        html_parts: Iterable[str] = (),
    ) -> None:
        if recipient and not isinstance(recipient, str):
            raise TypeError(
                f"recipient is one address, not {type(recipient).__name__}: a mail to several is not tracked"
            )
        if isinstance(recipients, str):
            raise TypeError(f"recipients is a list of addresses: write [{recipients!r}]")
        if not (headers and isinstance(headers, Headers)):
            given = (("From", sender), ("To", recipient), ("Subject", subject))
            headers = _checked(headers) or Headers((name, value) for name, value in given if value)
        self._headers = headers
        self._recipients = tuple(recipients) or ((recipient,) if recipient else ())
        self._message_id = message_id
        self.html_parts: list[str] = list(html_parts) or ([html] if html else [])
        self.tags = freeze_tags(tags)
        self.track = True

    @property
    def html(self) -> str:
        """The HTML body; ``""`` where the mail has none. Where it has several, the first (:attr:`html_parts` has
        them all).
        """
        return self.html_parts[0] if self.html_parts else ""

    @html.setter
    def html(self, value: str) -> None:
        if not self.html_parts:
            raise ValueError("this mail has no HTML part whose text could be replaced")
        self.html_parts[0] = value

    @property
    def tags(self) -> dict[str, tuple[str, ...]]:
        """The message tags; a click carries them as ``mail.tags``."""
        return self._tags

    @tags.setter
    def tags(self, value: Mapping[str, str | Iterable[str]]) -> None:
        self._tags = freeze_tags(value)

    @property
    def headers(self) -> Headers:
        """All headers in their order, name and unfolded value; ``mail.headers.all("Received")`` has the values of
        those of one name.
        """
        return self._headers

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everyone the message goes to: the envelope where it is known, else To, Cc and Bcc."""
        return self._recipients

    @property
    def message_id(self) -> str:
        """Our id of the message, as clicks carry it; ``""`` before one was made."""
        return self._message_id

    def assign_message_id(self, message_id: str) -> None:
        """For the host alone.

        :param message_id: the id that was made for this mail.
        """
        self._message_id = message_id

    def header(self, name: str) -> str:
        """The first header of that name; ``""`` where there is none.

        :param name: the header's name, in any case.
        """
        return self._headers.first(name)

    @property
    def sender(self) -> str:
        """The From header, as it stands."""
        return self.header("From")

    @property
    def subject(self) -> str:
        """The Subject header, as it stands (RFC 2047 encoding kept)."""
        return self.header("Subject")

    @property
    def recipient(self) -> str:
        """The one recipient; ``""`` where there are none or several."""
        return self._recipients[0] if len(self._recipients) == 1 else ""
