"""The notifications that have come in so far, for whoever wants to follow them as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

__all__ = ["Feed", "Notification"]

Notification = dict[str, Any]
"""A click notification as it came in, decoded from its JSON."""


class Feed:
    """Notifications in the order they came. A late follower gets the earlier ones first; a repetition is dropped."""

    def __init__(self) -> None:
        self._notifications: list[Notification] = []
        self._seen: set[str] = set()
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, notification: Notification) -> None:
        """Take a notification in, unless one of the same ``eventId`` is here already (delivery is at least once)."""
        if notification["eventId"] not in self._seen:
            self._seen.add(notification["eventId"])
            self._notifications.append(notification)
            self._wake()

    @property
    def notifications(self) -> Sequence[Notification]:
        """Those that have come in so far."""
        return self._notifications

    def close(self) -> None:
        """Let every follower come to its end."""
        self._closed = True
        self._wake()

    async def follow(self, start: int = 0, pause: float = 15.0) -> AsyncIterator[tuple[int, Notification] | None]:
        """The notifications from ``start`` on, each with its number, until the feed is closed.

        :param start: the number of the first, from 0.
        :param pause: seconds without any after which ``None`` comes, so that a follower can see whether its own reader
            is still there.
        """
        while True:
            while start < len(self._notifications):
                yield start, self._notifications[start]
                start += 1
            if self._closed:
                return
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                yield None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
