"""Connections to the mail server that everything goes to: so many at once, kept for a while and used again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from postbox_hooks.relay.answers import LOST, UNREACHABLE, Answer
from postbox_hooks.relay.limit import TimeLimit
from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin.errors import MissingExtra, SettingsError

try:
    import aiosmtplib
    from aiosmtplib.protocol import SMTPProtocol
except ImportError:
    raise MissingExtra("the relay", "aiosmtplib", "relay") from None

__all__ = ["Connection", "Lost", "Upstream"]

CONNECT_SECONDS: Final = 60.0
"""For everything until the first mail: some servers let strangers wait for their greeting."""
QUIT_SECONDS: Final = 2.0
GO_ON: Final = 354
CLOSING: Final = 421
"""The reply code of a server that is about to hang up, in answer to anything (RFC 5321, 3.8)."""


# Whoever hands on a CR or LF that stands alone lets a server behind see the end of a message where there is none.
_LINE_ENDING: Final = re.compile(rb"\r\n|\r|\n")


class Lost(Exception):
    """The upstream server cannot be reached, or the connection broke before it had answered.

    :param answer: what to tell the client.
    :param reason: what to tell the log.
    """

    def __init__(self, answer: Answer, reason: str) -> None:
        super().__init__(reason)
        self.answer = answer


class Connection:
    """One connection to the upstream server, which has introduced itself.

    :param smtp: the connection.
    :param timeout: seconds that the server has for each answer.
    :param tired: called when it has rested for as long as it was told to.
    :ivar extensions: what the server offers: parameters by keyword, in capitals (RFC 5321, 4.1.1.1).
    :ivar used: whether it has had a mail before, so that the server may have had enough of it.
    """

    def __init__(self, smtp: aiosmtplib.SMTP, timeout: float, tired: Callable[[Connection], None]) -> None:
        self._smtp: Final = smtp
        self._timeout: Final = timeout
        self._answer: Final = TimeLimit(self._give_up)
        self._rest: Final = TimeLimit(lambda: tired(self))
        self._gave_up = False
        self.extensions: Final[Mapping[str, str]] = {
            name.upper(): parameters for name, parameters in smtp.esmtp_extensions.items()
        }
        self.used = False

    @property
    def alive(self) -> bool:
        """Whether it can be used, as far as anybody knows without trying."""
        return self._smtp.is_connected

    @property
    def size_limit(self) -> int:
        """The most bytes of a mail that the server takes (RFC 1870); 0 if it does not say."""
        size = self.extensions.get("SIZE", "").strip()
        return int(size) if size.isascii() and size.isdecimal() else 0

    async def say(self, *words: bytes) -> Answer:
        """Send a command.

        :raises Lost: if no answer comes.
        """
        return self._final(await self._response(self._smtp.execute_command(*words, timeout=None)))

    async def data(self, content: bytes) -> Answer:
        """Send DATA and a message: the answer to both.

        :raises Lost: if no answer comes, which leaves open whether the message was taken.
        """
        response = await self._response(self._smtp.execute_command(b"DATA", timeout=None))
        if response.code == GO_ON and self._smtp.protocol is not None:
            response = await self._response(self._send(self._smtp.protocol, content))
        elif response.code < 400:  # 250 where 354 was due takes no message
            self.close()
            raise Lost(LOST, f"it answered {response.code}")
        answer = self._final(response)
        if answer.code == CLOSING:
            self.close()
        return answer

    def rest(self, seconds: float) -> None:
        """Nobody uses it, for so long at the most.

        :param seconds: after which it is tired.
        """
        self._rest.start(seconds)

    def wake(self) -> None:
        """Somebody uses it again."""
        self._rest.stop()

    async def quit(self) -> None:
        """Take leave and close, within a moment."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await self._smtp.execute_command(b"QUIT", timeout=QUIT_SECONDS)
        self.close()

    def close(self) -> None:
        """Close it, whatever it is at: what waits to be sent is not."""
        transport = self._smtp.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        self._smtp.close()
        self._answer.cancel()
        self._rest.cancel()

    @staticmethod
    async def _send(protocol: SMTPProtocol, content: bytes) -> aiosmtplib.SMTPResponse:
        # aiosmtplib's own `data` goes through every line of a message twice, which is a third of all the work.
        protocol.write(_on_the_wire(content))
        return await protocol.read_response()

    async def _response(self, coming: Awaitable[aiosmtplib.SMTPResponse]) -> aiosmtplib.SMTPResponse:
        """What is answered in time. An answer that nobody waited for would be taken for that to the next command."""
        self._answer.start(self._timeout)
        try:
            return await coming
        except (aiosmtplib.SMTPException, OSError) as error:
            self.close()
            late = f"no answer within {self._timeout:g} seconds" if self._gave_up else type(error).__name__
            raise Lost(LOST, late) from error
        except BaseException:
            self.close()
            raise
        finally:
            self._answer.stop()

    def _give_up(self) -> None:
        self._gave_up = True
        self.close()

    def _final(self, response: aiosmtplib.SMTPResponse) -> Answer:
        answer = Answer(response.code, response.message)
        if not (answer.accepts or answer.refuses):
            self.close()
            raise Lost(LOST, f"it answered {answer.code}")
        return answer


class Upstream:
    """The upstream server: lends connections, and makes whoever wants more than there may be wait.

    :param settings: which server, how to log in, and how many connections there may be.
    :param hostname: how to introduce ourselves there.
    :raises SettingsError: if the file of authorities cannot be read.
    """

    def __init__(self, settings: RelaySettings, hostname: str) -> None:
        self._settings: Final = settings
        self._hostname: Final = hostname
        self._tls: Final = None if settings.upstream_tls == "none" else _trusting(settings.upstream_ca_file)
        self._free: Final = asyncio.Semaphore(settings.connections)
        # The last one used is the first one used again, so that those beyond the need are given up.
        self._idle: Final[list[Connection]] = []
        self._leaving: Final[set[asyncio.Task[None]]] = set()
        self._extensions: Mapping[str, str] | None = None
        self._size_limit = 0

    async def take(self) -> Connection:
        """A connection for one mail, as soon as there may be one more. Give it back.

        :raises Lost: if the server cannot be reached.
        """
        await self._free.acquire()
        for connection in self._kept():
            if connection.alive:
                return connection
        try:
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    async def replace(self, stale: Connection) -> Connection:
        """A new connection in place of one that the server has hung up on. The one given is gone, also if this fails.

        :raises Lost: if the server cannot be reached.
        """
        stale.close()
        for connection in self._kept():  # as old as that one, likely
            connection.close()
        try:
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """The mail is done with. The connection is kept if it is alive and has nothing under way."""
        self._free.release()
        if connection.alive:
            connection.used = True
            connection.rest(self._settings.idle_timeout)
            self._idle.append(connection)

    async def offers(self) -> tuple[Mapping[str, str], int]:
        """What the server offers, and the most bytes of a mail that it takes; as it last said, or nothing while it
        cannot be reached.
        """
        if self._extensions is None:
            with contextlib.suppress(Lost):
                self.give_back(await self.take())
        return self._extensions or {}, self._size_limit

    async def close(self) -> None:
        """Take leave of the server on all connections that nobody uses."""
        for connection in self._kept():
            self._leave(connection)
        await asyncio.gather(*self._leaving)

    def _kept(self) -> Iterator[Connection]:
        """Each connection that nobody uses; it is not kept any more."""
        while self._idle:
            connection = self._idle.pop()
            connection.wake()
            yield connection

    def _expire(self, connection: Connection) -> None:
        self._idle.remove(connection)
        self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(connection.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _connect(self) -> Connection:
        settings = self._settings
        smtp = aiosmtplib.SMTP(
            hostname=settings.server.host,
            port=settings.server.port,
            username=settings.upstream_user or None,
            password=settings.upstream_password or None,
            local_hostname=self._hostname,
            timeout=settings.timeout,
            use_tls=settings.upstream_tls == "tls",
            start_tls=settings.upstream_tls == "starttls",
            tls_context=self._tls,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await smtp.connect()
                await _greet(smtp)
        except (aiosmtplib.SMTPException, OSError) as error:
            smtp.close()
            # Whatever it says now is about this relay and not about the mail, which is not to bounce for it.
            raise Lost(UNREACHABLE, _why(error)) from error
        except BaseException:
            smtp.close()
            raise
        connection = Connection(smtp, settings.timeout, self._expire)
        self._extensions, self._size_limit = connection.extensions, connection.size_limit
        return connection


def _on_the_wire(content: bytes) -> bytes:
    """A message as it follows 354: lines end in CR LF, and one that begins with a dot has another one before it
    (RFC 5321, 4.5.2).
    """
    if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        content = _LINE_ENDING.sub(b"\r\n", content)
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    begin = b"." if content.startswith(b".") else b""
    return b"".join((begin, content.replace(b"\r\n.", b"\r\n.."), end))


def _why(error: aiosmtplib.SMTPException | OSError) -> str:
    """Why there is no connection, and which settings that may be for."""
    said = f"it answered {error.code}" if isinstance(error, aiosmtplib.SMTPResponseException) else str(error)
    settings: tuple[str, ...] = ("upstream",)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError) or "AUTH" in said:
        settings = ("upstream_user", "upstream_password")
    elif isinstance(error, aiosmtplib.SMTPResponseException):  # it has something against this relay
        settings = ()
    elif isinstance(error, ssl.SSLCertVerificationError):
        settings = ("upstream", "upstream_ca_file")
    elif isinstance(error, ssl.SSLError) or "STARTTLS" in said:
        settings = ("upstream_tls",)
    hint = f" (see {' and '.join(f'relay.{name}' for name in settings)})" if settings else ""
    return f"{type(error).__name__}: {said}{hint}"


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    """Say EHLO, or HELO to a server that does not know it; not if logging in has done so already."""
    if smtp.is_ehlo_or_helo_needed:
        try:
            await smtp.ehlo()
        except aiosmtplib.SMTPHeloError:
            await smtp.helo()


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        problem = f"cannot read {ca_file} ({error.strerror or error})"
        remedy = "Name a PEM file with the certificates of the authorities to trust"
        raise SettingsError("relay.upstream_ca_file", problem, remedy) from error
