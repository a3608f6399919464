"""``postbox serve``: the redirect routes on sockets of their own, until a signal says stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Final

from postbox_plugin.postbox import Postbox
from postbox_plugin.redirect import RedirectServer
from postbox_plugin.service.admin import Admin
from postbox_plugin.service.connections import Connections, Server, possible
from postbox_plugin.service.listening import Listening, certificate, listen
from postbox_plugin.service.supervisor import tell

__all__ = ["serve"]

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
ANSWER_SECONDS: Final = 1.0
"""Seconds beyond ``journal_deadline`` that open requests get when the service stops."""
QUIET_SECONDS: Final = 0.1
"""Seconds without a click after which open connections are taken to be idle when the service stops."""

_log = logging.getLogger("postbox.service")


async def serve(
    postbox: Postbox,
    *,
    listening: Sequence[Listening] | None = None,
    stopping: asyncio.Event | None = None,
    ready: Callable[[list[str]], None] | None = None,
    draining: Callable[[int], None] | None = None,
) -> None:
    """Answer tracking links until SIGTERM or SIGINT; then stop accepting, answer who has asked already, deliver what
    waits within ``stop_limit``, and stop the notifiers.

    :param postbox: what to serve, with its ``[serve]`` settings.
    :param listening: sockets that are bound already; made as the settings say if ``None``.
    :param stopping: set it to stop, as a signal does.
    :param ready: called with the addresses that are listened on, once they are.
    :param draining: told now and then, when it stops, how many clicks are still to be delivered.
    :raises SettingsError: if an address cannot be listened on, or the certificate cannot be read.
    :raises OutboxError: if the outbox cannot be opened.
    """
    settings = postbox.settings.serve
    stop = stopping or asyncio.Event()
    loop = asyncio.get_running_loop()
    bound = listen(settings) if listening is None else listening
    answering = RedirectServer(postbox)
    servers: list[Server] = []
    admin = None
    try:
        tls = certificate(settings) if settings.https else None
        if listening is None:  # several processes have one, their parent's
            admin = Admin(postbox.settings)
        connections = Connections(possible(settings.max_connections))
        async with postbox.running(draining=draining):
            watching = asyncio.create_task(connections.watch())
            try:
                for one in bound:
                    server = Server(
                        answering,
                        connections=connections,
                        ssl_options=tls if one.scheme == "https" else None,
                        max_header_size=MAX_HEADER_BYTES,
                        max_body_size=MAX_BODY_BYTES,
                    )
                    server.add_sockets(one.sockets)
                    servers.append(server)
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, stop.set)
                if admin is not None:
                    admin.start()
                # What there is now stays: no collection has to look at it again while readers wait.
                gc.collect()
                gc.freeze()
                addresses = [one.address for one in bound]
                _log.info("listening on %s", ", ".join(addresses))
                if listening is None:
                    tell("READY=1")
                if ready is not None:
                    ready(addresses)
                await stop.wait()
                _log.info("stopping")
                if listening is None:
                    tell("STOPPING=1")
            finally:
                gc.unfreeze()
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)
                watching.cancel()
                await _close(servers, postbox)
    finally:
        if admin is not None:
            await admin.stop()
        for one in bound:
            one.close()


async def _close(servers: list[Server], postbox: Postbox) -> None:
    """Accept nobody more, answer whoever has asked already, and close all connections."""
    for server in servers:
        server.stop()
        server.conn_params.no_keep_alive = True  # the next request on an open connection is the last there
    loop = asyncio.get_running_loop()
    until = loop.time() + postbox.settings.journal_deadline + ANSWER_SECONDS
    seen = -1
    while loop.time() < until and (postbox.readers_waiting or seen != postbox.clicks_seen):
        seen = postbox.clicks_seen
        await asyncio.sleep(QUIET_SECONDS)
    for server in servers:
        await server.close_all_connections()
