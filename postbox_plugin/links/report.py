"""What became of a message and of each of its links."""

from __future__ import annotations

import msgspec

from postbox_plugin.mail import Link

__all__ = ["Notice", "Place", "Report"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a link stands in the HTML that its author wrote.

    :ivar part: which HTML part of the message, from 0.
    :ivar line: the line of the address, from 1.
    :ivar column: its column, in characters, from 1.
    """

    part: int
    line: int
    column: int


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know before the message is sent.

    :ivar kind: ``clipped``: Gmail will show only a part of the message; ``text differs``: a link shows an address of
        another domain than it leads to; ``text is an address``: it will, once it is tracked; ``placeholder``: a
        template was not filled in.
    :ivar text: what it is about, for a person.
    :ivar link: the index of the link it is about.
    :ivar line: the line of its HTML part, from 1.
    """

    kind: str
    text: str
    link: int | None = None
    line: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What :meth:`postbox_plugin.Postbox.explain` says.

    :ivar reason: why no link of the message is tracked; ``""`` if links are.
    :ivar recipients: everyone it goes to, as far as can be told.
    :ivar message_id: our id of the message.
    :ivar message_tags: the tags that each of its clicks will carry.
    :ivar links: every link of its HTML, tracked or not, in order.
    :ivar size_before: the message's size in bytes as it came, or with the HTML that a plugin made of a part.
    :ivar size_after: its size as it would go out.
    :ivar places: where each of the links stands, in the same order.
    :ivar notices: what to know before it is sent.

    The last four are filled in by ``explain`` alone.
    """

    reason: str = ""
    recipients: tuple[str, ...] = ()
    message_id: str = ""
    message_tags: dict[str, tuple[str, ...]] = {}
    links: tuple[Link, ...] = ()
    size_before: int = 0
    size_after: int = 0
    places: tuple[Place, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def tracked(self) -> tuple[Link, ...]:
        """The links that become tracking links."""
        return tuple(link for link in self.links if link.track)
