"""The connections of readers: how many a process holds open, and how long each may take.

A flood of connections that say nothing, or say it slowly, keeps no reader out: for a new one, the oldest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from typing import Any, Final, cast

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream

__all__ = ["Connections", "Server", "possible"]

RESERVED: Final = 512
"""File descriptors that are kept for all else: the outbox, the notifiers' connections, commands."""
REQUEST_SECONDS: Final = 60.0
"""Seconds that a connection may take for a request, from when it is open or the answer before is written to the end of
its answer: one that is idle, sends its request by the byte or does not take its answer has no longer.
"""
LOOK: Final = 5.0
"""Seconds between looks for connections that have had their time."""

_log = logging.getLogger("postbox.service")


def possible(most: int) -> int:
    """How many connections this process can hold open, of ``most`` that it may.

    Where the system allows it, the process's limit on open files is raised for them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + RESERVED
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return most
    found = min(most, max(soft - RESERVED, soft // 2))
    _log.warning("at most %d connections, not %d: a process may have %d files open here (ulimit -n)", found, most, soft)
    return found


class Connections:
    """The open connections of a process, over all its servers, by when they began to wait for a request.

    :param most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._since: Final[dict[IOStream, float]] = {}
        self._clock: Final[Callable[[], float]] = asyncio.get_running_loop().time

    def waits(self, stream: IOStream) -> None:
        """A connection waits for its first request, or for the next. Where it is one too many, the oldest is closed.

        That one may be about to be answered; but only where so many have come since, and it waits for the disk for a
        second at most.
        """
        since = self._since
        since.pop(stream, None)
        since[stream] = self._clock()
        if len(since) > self._most:
            self._close(next(iter(since)))

    def is_gone(self, stream: IOStream) -> None:
        """A connection was closed."""
        self._since.pop(stream, None)

    async def watch(self) -> None:
        """Close those that have had their time, until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK, REQUEST_SECONDS))
            latest = self._clock() - REQUEST_SECONDS
            for stream in [stream for stream, began in self._since.items() if began < latest]:
                self._close(stream)

    def _close(self, stream: IOStream) -> None:
        del self._since[stream]
        stream.close()


class Server(HTTPServer):
    """Tornado's, with connections that are watched over. Made as its base class is, with ``connections`` beside.

    Tornado's own timeouts are left out: they set a timer for each request, and none of them ends an answer that is not
    taken.
    """

    def initialize(self, *arguments: Any, connections: Connections, **options: Any) -> None:  # type: ignore[override]
        """What Tornado calls in place of ``__init__``."""
        super().initialize(*arguments, **options)
        self.conn_params.header_timeout = None
        self._watched_over = connections

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Called for each new connection, of which Tornado accepts a hundred before it does anything else."""
        super().handle_stream(stream, address)
        self._watched_over.waits(stream)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called for each request, before anything of it is read."""
        stream = cast(HTTP1ServerConnection, server_conn).stream
        if stream.closed():
            return _Nobody(cast(HTTP1Connection, request_conn))
        self._watched_over.waits(stream)
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Called when a connection was closed, from either end."""
        self._watched_over.is_gone(cast(HTTP1ServerConnection, server_conn).stream)
        super().on_close(server_conn)


class _Nobody(HTTPMessageDelegate):
    """Drops what was sent ahead on a connection that was closed: thousands of requests, with which Tornado would go on.

    :param connection: the connection, for one request.
    """

    def __init__(self, connection: HTTP1Connection) -> None:
        self._connection: Final = connection

    def headers_received(self, start_line: object, headers: object) -> None:
        """Called with the first of them; without a stream there is no next."""
        self._connection.detach()
