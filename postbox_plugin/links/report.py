"""What became of a message and of each of its links."""

from __future__ import annotations

import msgspec

from postbox_plugin.mail import Link

__all__ = ["Report"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What :meth:`postbox_plugin.Postbox.explain` says.

    :ivar reason: why no link of the message is tracked; ``""`` if links are.
    :ivar recipients: everyone it goes to, as far as can be told.
    :ivar message_id: our id of the message.
    :ivar message_tags: the tags that each of its clicks will carry.
    :ivar links: every link of its HTML, tracked or not, in order.
    :ivar size_before: the message's size in bytes as it came.
    :ivar size_after: its size as it would go out.
    """

    reason: str = ""
    recipients: tuple[str, ...] = ()
    message_id: str = ""
    message_tags: dict[str, tuple[str, ...]] = {}
    links: tuple[Link, ...] = ()
    size_before: int = 0
    size_after: int = 0

    @property
    def tracked(self) -> tuple[Link, ...]:
        """The links that become tracking links."""
        return tuple(link for link in self.links if link.track)
