"""The unix socket through which commands reach the service that owns an outbox file: JSON, one line each way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from postbox_plugin.errors import OutboxError

__all__ = ["Advance", "ControlServer", "Request", "ask", "ignore"]

log = logging.getLogger("postbox.outbox")

READ_TIMEOUT: Final = 10.0
ANSWER_TIMEOUT: Final = 600.0
LONGEST_PATH: Final = 100
"""A unix socket's path has room for 107 bytes on Linux, 103 on macOS."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question or order; the fields are those of :class:`.administration.Administration`'s methods."""

    do: Literal["status", "health", "list", "retry", "resume", "purge"]
    name: str | None = None
    recipient: str | None = None
    dead_only: bool = False
    limit: int = 100


class _Answer(msgspec.Struct, omit_defaults=True):
    """The last line of an answer; before it there may be some that have nothing but ``more``."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    more: int | None = None


Advance = Callable[[int], None]
"""Told of how many clicks more something was done."""


def ignore(more: int) -> None:
    """An :data:`Advance` that nobody watches."""


class ControlServer:
    """Serves requests for as long as the service runs.

    :param path: the socket; a leftover is replaced, so the caller holds the lock of the outbox file beside it.
    :param answer: does what is asked, and tells how it gets on.
    """

    def __init__(self, path: Path, answer: Callable[[Request, Advance], Awaitable[Any]]) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        :raises OSError: if the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(self._path) as address:
                sock.bind(address)
            # Nobody can connect before it listens, so nobody can before this either.
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def stop(self) -> None:
        """Stop listening, and remove the socket."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def advance(more: int) -> None:
            if not writer.is_closing():
                writer.write(msgspec.json.encode(_Answer(more=more)) + b"\n")

        try:
            async with asyncio.timeout(READ_TIMEOUT):
                line = await reader.readline()
            writer.write(msgspec.json.encode(await self._reply(line, advance)) + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError) as error:
            log.info("a command on %s went away: %s", self._path, error)
        finally:
            writer.close()

    async def _reply(self, line: bytes, advance: Advance) -> _Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
            return _Answer(result=msgspec.Raw(msgspec.json.encode(await self._answer(request, advance))))
        except (OutboxError, msgspec.ValidationError, msgspec.DecodeError) as error:
            return _Answer(error=str(error))


def ask(path: Path, request: Request, kind: Any, *, timeout: float = ANSWER_TIMEOUT, advance: Advance = ignore) -> Any:
    """Ask the service behind a socket, and wait for the answer.

    :param kind: the type of the answer.
    :param timeout: the most seconds to wait for it.
    :param advance: told how the service gets on.
    :raises OutboxError: if the service says no, or stops before it has answered.
    :raises ConnectionError: if no service listens.
    :raises FileNotFoundError: if there is no socket.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(timeout)
        with _short(path) as address:
            sock.connect(address)
        deadline = time.monotonic() + timeout
        lines = sock.makefile("rb")
        try:
            sock.sendall(msgspec.json.encode(request) + b"\n")
            answer = _read(lines)
            while answer is not None and answer.more is not None and time.monotonic() < deadline:
                advance(answer.more)
                answer = _read(lines)
        except OSError as error:
            raise OutboxError(f"the service behind {path} did not answer: {error}") from error
        finally:
            lines.close()
    try:
        if answer is None or answer.more is not None:
            raise OutboxError(f"the service behind {path} stopped before it had answered")
        if answer.error is None:
            return msgspec.json.decode(answer.result, type=kind)
    except msgspec.DecodeError:
        raise OutboxError(f"the service behind {path} stopped before it had answered") from None
    raise OutboxError(answer.error)


def _read(lines: BinaryIO) -> _Answer | None:
    """The next line; ``None`` where there is none, or half a one."""
    try:
        return msgspec.json.decode(lines.readline(), type=_Answer)
    except msgspec.DecodeError:
        return None


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address of the socket that fits: a deep folder is named by a descriptor of it where the system allows that."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
