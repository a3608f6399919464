"""A mail server that keeps what it is sent: the demo's inbox, seen from SMTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from postbox_plugin.errors import MissingExtra

__all__ = ["smtp_sink"]


@asynccontextmanager
async def smtp_sink(deliver: Callable[[bytes], None]) -> AsyncIterator[int]:
    """Run an SMTP server on a free port of this machine.

    :param deliver: called with the bytes of each message that came in.
    :return: the port.
    :raises MissingExtra: without the ``aiosmtpd`` library.
    """
    try:
        from aiosmtpd.smtp import SMTP  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("the demo", "aiosmtpd", "demo") from None

    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            deliver(envelope.original_content)
            return "250 Kept"

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        # A name of our own, or aiosmtpd asks the resolver for one, which can take seconds.
        lambda: SMTP(Handler(), hostname="localhost", enable_SMTPUTF8=True, loop=loop),
        "127.0.0.1",
        0,
    )
    async with server:
        port: int = server.sockets[0].getsockname()[1]
        yield port
