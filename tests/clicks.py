"""Clicks to count, as the notifier ``log`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Literal

from postbox_plugin.click import Click, ClickDetail, ClickedMail, CommonHeaders, Tracking

__all__ = ["click", "line"]

_events = count()


def click(
    index: int = 0,
    url: str = "https://example.com/",
    *,
    message: str = "message-1",
    event: str = "",
    machine: str = "",
    at: str = "2026-04-25T18:09:10.933666+00:00",
    tags: Mapping[str, tuple[str, ...]] | None = None,
    link_tags: Mapping[str, tuple[str, ...]] | None = None,
) -> Click:
    """A click: a person's, unless ``machine`` is the reason why it is not. Each has an eventId of its own."""
    verdict: Literal["human", "machine"] = "machine" if machine else "human"
    return Click(
        mail=ClickedMail(
            timestamp="2026-04-25T18:08:04.000000+00:00",
            message_id=message,
            identity_id="example.com",
            common_headers=CommonHeaders(to=("reader@example.com",), message_id=message, subject="Order shipped"),
            tags=tags or {},
        ),
        click=ClickDetail(
            ip_address="192.0.2.1", timestamp=at, user_agent="Mozilla/5.0", url=url, link_tags=link_tags or {}
        ),
        event_id=event or f"event-{next(_events)}:0",
        tracking=Tracking(link_index=index, verdict=verdict, reason=machine),
    )


def line(index: int = 0, url: str = "https://example.com/", **given: str) -> bytes:
    """The same as a line of a file."""
    return click(index, url, **given).to_json() + b"\n"  # type: ignore[arg-type]
