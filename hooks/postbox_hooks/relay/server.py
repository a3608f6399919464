"""The relay as a whole: listens, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from postbox_hooks.relay.delivery import Delivery, Rewrite
from postbox_hooks.relay.session import Session, Shared
from postbox_hooks.relay.settings import HostAndPort, RelaySettings
from postbox_hooks.relay.upstream import Upstream
from postbox_plugin.errors import SettingsError

__all__ = ["relay"]

BACKLOG: Final = 1024

_log = logging.getLogger("postbox.relay")


async def relay(
    settings: RelaySettings,
    rewrite: Rewrite,
    *,
    quick: bool,
    stop_limit: float,
    stopping: asyncio.Event,
    ready: Callable[[HostAndPort], None] | None = None,
) -> None:
    """Take mails, rewrite them and hand them on; when told to stop, accept nobody more, finish the mails that are under
    way, and hang up.

    :param settings: the table ``[relay]``.
    :param rewrite: does the rewriting.
    :param quick: whether no plugin has a say in it.
    :param stop_limit: seconds that mails under way have at the end.
    :param stopping: set it to stop.
    :param ready: called with the address that is listened on, once it is.
    :raises SettingsError: if the address cannot be listened on, or a certificate cannot be read.
    """
    # The resolver may take its time.
    hostname = settings.hostname or await asyncio.to_thread(socket.getfqdn)
    upstream = Upstream(settings, hostname)
    delivery = Delivery(rewrite, split=settings.split, quick=quick)
    shared = Shared(settings, hostname, upstream, delivery, _certificate(settings))
    server = await _listen(settings, shared)
    try:
        host, port, *_ = server.sockets[0].getsockname()
        _log.info("listening on %s:%d, for %s", f"[{host}]" if ":" in host else host, port, settings.upstream)
        if ready is not None:
            ready(HostAndPort(host, port))
        await stopping.wait()
        _log.info("stopping")
    finally:
        shared.stopping = True
        server.close()
        await _finish(shared, stop_limit)
        await upstream.close()
        await asyncio.sleep(0)  # closes what was hung up


async def _finish(shared: Shared, stop_limit: float) -> None:
    """Let every mail under way have its answer, or run out of time."""
    for session in list(shared.sessions):
        if session.idle:
            session.leave()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stop_limit):
            while shared.sessions:
                shared.left.clear()
                await shared.left.wait()
    for session in list(shared.sessions):
        session.abort()


async def _listen(settings: RelaySettings, shared: Shared) -> asyncio.Server:
    host, port = settings.address
    try:
        return await asyncio.get_running_loop().create_server(
            partial(Session, shared),
            host,
            port,
            backlog=BACKLOG,
            ssl=shared.tls if settings.listen_tls == "tls" else None,
        )
    except OSError as error:
        problem = f"cannot listen on {settings.listen} ({error.strerror or error})"
        raise SettingsError("relay.listen", problem, "Choose an address of this machine and a free port") from error


def _certificate(settings: RelaySettings) -> ssl.SSLContext | None:
    if not settings.cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.cert, settings.key)
    except OSError as error:
        problem = f"cannot use the certificate {settings.cert} with the key {settings.key} ({error.strerror or error})"
        remedy = "Name a certificate chain and its key, both PEM files"
        raise SettingsError("relay.cert", problem, remedy) from error
    return context
