"""Clicks into an outbox, awaited."""

from __future__ import annotations

import asyncio

from postbox_plugin import Click
from postbox_plugin.errors import OutboxError
from postbox_plugin.outbox import Outbox

__all__ = ["kept"]


async def kept(outbox: Outbox, click: Click) -> None:
    """Put a click, and wait until it is on disk.

    :raises OutboxError: if it never will be.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: OutboxError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    outbox.put(click, done)
    await future
