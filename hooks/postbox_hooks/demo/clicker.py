"""Clicks links of a mail without a browser, and waits for the notifications: ``postbox demo --click``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tornado.httpclient import AsyncHTTPClient

from postbox_hooks.demo.feed import Feed, Notification
from postbox_plugin.errors import PostboxError

__all__ = ["USER_AGENT", "click", "some_of"]

USER_AGENT: Final = "Mozilla/5.0 (postbox demo --click)"


def some_of(links: Sequence[str], count: int) -> list[str]:
    """That many links, from all over the mail, and one https link among them if there is one."""
    step = max(1, len(links) // count)
    chosen = list(links[::step][:count])
    secure = next((link for link in links if link.startswith("https:")), None)
    if secure is not None and not any(link.startswith("https:") for link in chosen):
        chosen[-1] = secure
    return chosen


async def click(
    links: Sequence[str],
    feed: Feed,
    arrived: Callable[[Notification], None],
    *,
    certificate: Path,
    deadline: float = 30.0,
) -> None:
    """Open each link as a browser would, and wait for the notification of each click.

    :param links: tracking links.
    :param feed: where the notifications come in.
    :param arrived: called with each notification as it comes in.
    :param certificate: whom to trust on https.
    :param deadline: seconds to wait for all of them.
    :raises PostboxError: if a link does not redirect, or a notification does not come in time.
    """
    client = AsyncHTTPClient()
    for link in links:
        response = await client.fetch(
            link, raise_error=False, follow_redirects=False, ca_certs=str(certificate), user_agent=USER_AGENT
        )
        if response.code != 302:
            raise PostboxError(f"a tracking link answered {response.code} instead of a redirect: {link}")
    missing = len(links)
    try:
        async with asyncio.timeout(deadline):
            async for event in feed.follow():
                if event is not None and event[1]["click"]["userAgent"] == USER_AGENT:
                    arrived(event[1])
                    missing -= 1
                    if not missing:
                        return
    except TimeoutError:
        pass
    raise PostboxError(f"{missing} of {len(links)} notifications did not come within {deadline:g} s")
