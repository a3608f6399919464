"""``postbox serve``: the redirect routes on sockets of their own, until a signal says stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from postbox_plugin.errors import SettingsError
from postbox_plugin.postbox import Postbox
from postbox_plugin.redirect import routes

__all__ = ["serve"]

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
IDLE_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 1.0
"""Seconds beyond ``journal_deadline`` that open requests get when the service stops."""
POLL_SECONDS: Final = 0.01

_log = logging.getLogger("postbox.service")


async def serve(postbox: Postbox, *, ready: Callable[[list[str]], None] | None = None) -> None:
    """Answer tracking links until SIGTERM or SIGINT; then stop accepting, finish what is open, and stop the notifiers.

    :param postbox: what to serve, where its ``[serve]`` settings say.
    :param ready: called with the addresses that are listened on, once they are.
    :raises SettingsError: if an address cannot be listened on, or the certificate cannot be read.
    :raises OutboxError: if the outbox cannot be opened.
    """
    settings = postbox.settings.serve
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    application = Application([*routes(postbox)])
    servers: list[HTTPServer] = []
    addresses: list[str] = []
    async with postbox.running():
        try:
            for scheme, where in (("http", settings.http), ("https", settings.https)):
                if where:
                    tls = _tls(settings.cert, settings.key) if scheme == "https" else None
                    server, bound = _listen(application, scheme, where, tls)
                    servers.append(server)
                    addresses += bound
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            _log.info("listening on %s", ", ".join(addresses))
            if ready is not None:
                ready(addresses)
            await stopping.wait()
            _log.info("stopping")
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await _close(servers, postbox)


def _listen(
    application: Application, scheme: str, where: str, tls: ssl.SSLContext | None
) -> tuple[HTTPServer, list[str]]:
    host, _, port = where.rpartition(":")
    try:
        sockets = bind_sockets(int(port), host.strip("[]"))
    except OSError as error:
        problem = f"cannot listen on {where} ({error.strerror or error})"
        raise SettingsError(f"serve.{scheme}", problem, "Choose an address of this machine and a free port") from error
    server = HTTPServer(
        application,
        ssl_options=tls,
        idle_connection_timeout=IDLE_SECONDS,
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=MAX_BODY_BYTES,
    )
    server.add_sockets(sockets)
    return server, [f"{scheme}://{host}:{sock.getsockname()[1]}" for sock in sockets]


async def _close(servers: list[HTTPServer], postbox: Postbox) -> None:
    """Accept nobody more, answer whoever has asked already, and close all connections."""
    for server in servers:
        server.stop()
        server.conn_params.no_keep_alive = True  # what comes in on open connections is the last there
    until = asyncio.get_running_loop().time() + postbox.settings.journal_deadline + ANSWER_SECONDS
    await asyncio.sleep(0)
    while postbox.readers_waiting and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - it happens once
        await asyncio.sleep(POLL_SECONDS)
    for server in servers:
        await server.close_all_connections()


def _tls(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        problem = f"cannot use the certificate {cert} with the key {key} ({error.strerror or error})"
        raise SettingsError("serve.cert", problem, "Name a certificate chain and its key, both PEM files") from error
    return context
