"""One mail on its way: the upstream server hears each command when the client gives it, and its answers are the
client's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from postbox_hooks.relay.answers import LOST, Answer
from postbox_hooks.relay.path import Addressed
from postbox_hooks.relay.upstream import CLOSING, Connection, Lost, Upstream

__all__ = ["Transaction"]

# Which extension a parameter belongs to (RFC 1870, 6152, 6531, 4954, 3461).
_OF_MAIL: Final = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH",
    "RET": "DSN",
    "ENVID": "DSN",
}
_OF_RCPT: Final = {"NOTIFY": "DSN", "ORCPT": "DSN"}
# What has served its purpose if the upstream server does not know it: SIZE was held against our own limit, and AUTH
# goes only to servers that offer it (RFC 4954, 5).
_SERVED: Final = frozenset({"SIZE", "AUTH"})

_UNKNOWN: Final = Answer(555, "5.5.4 Parameters not recognized, or not offered by the mail server behind this relay")
_NOT_ASCII: Final = Answer(553, "5.6.7 An address that is not ASCII needs SMTPUTF8")
_RSET: Final = b"RSET"

_log = logging.getLogger("postbox.relay")


class Transaction:
    """A mail transaction (RFC 5321, 3.3) with the upstream server.

    :param upstream: lends the connection.
    :param sender: the client's MAIL command.
    :ivar sender: the MAIL command.
    :ivar recipients: the RCPT commands that were accepted.
    """

    def __init__(self, upstream: Upstream, sender: Addressed) -> None:
        self._upstream: Final = upstream
        self._connection: Connection | None = None
        self._open = False
        self.sender: Final = sender
        self.recipients: Final[list[Addressed]] = []

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, and everything that was accepted with it."""
        return self._connection is None or not self._connection.alive

    @property
    def size_limit(self) -> int:
        """The most bytes of a mail that the server takes; 0 if it does not say."""
        return 0 if self._connection is None else self._connection.size_limit

    async def mail(self) -> Answer:
        """Begin. Waits until a connection is free."""
        try:
            self._connection = await self._upstream.take()
            return await self._begin()
        except Lost as lost:
            return _told(lost)

    async def rcpt(self, recipient: Addressed) -> Answer:
        """Add a recipient.

        :param recipient: the client's command.
        """
        try:
            answer = await self._rcpt(recipient)
        except Lost as lost:
            answer = _told(lost)
        if answer.accepts:
            self.recipients.append(recipient)
        return answer

    async def data(self, content: bytes) -> Answer:
        """Send the message.

        :param content: the message, with line endings as they are on the wire.
        """
        try:
            return await self._data(content)
        except Lost as lost:
            return _told(lost)

    async def data_to(self, recipient: Addressed, content: bytes) -> Answer:
        """Send a message to one of the recipients, in a transaction of its own.

        :param recipient: the client's command.
        :param content: as for :meth:`data`.
        """
        try:
            await self._reset()
            answer = await self._begin()
            if answer.accepts:
                answer = await self._rcpt(recipient)
            return await self._data(content) if answer.accepts else answer
        except Lost as lost:
            return _told(lost)

    async def end(self) -> None:
        """Give the connection back, with nothing under way on it."""
        try:
            await self._reset()
        except Lost as lost:
            _told(lost)
        self.drop()

    def drop(self) -> None:
        """Give the connection back; if something is under way on it, it is closed, so that nothing is sent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._open:
                connection.close()
            self._upstream.give_back(connection)

    async def _begin(self) -> Answer:
        connection = self._connection
        if connection is None:
            raise Lost(LOST, "it is gone")
        if connection.used:
            # The server may have hung up on a connection that it has known for a while. Nothing was accepted yet.
            try:
                answer = await self._mail(connection)
            except Lost:
                answer = Answer(CLOSING, "")
            if answer.code != CLOSING:
                return answer
            self._connection = None
            self._connection = connection = await self._upstream.replace(connection)
        return await self._mail(connection)

    async def _mail(self, connection: Connection) -> Answer:
        words = _words("MAIL FROM", self.sender, connection, _OF_MAIL)
        if words is None:
            return _UNKNOWN
        if not self.sender.path.isascii() and "SMTPUTF8" not in self.sender.parameters:
            return _NOT_ASCII
        self._open = True
        answer = await connection.say(*words)
        self._open = answer.accepts
        return answer

    async def _rcpt(self, recipient: Addressed) -> Answer:
        connection = self._connection
        if connection is None or not connection.alive:
            raise Lost(LOST, "it is gone")
        words = _words("RCPT TO", recipient, connection, _OF_RCPT)
        if words is None:
            return _UNKNOWN
        if not recipient.path.isascii() and "SMTPUTF8" not in self.sender.parameters:
            return _NOT_ASCII
        return await connection.say(*words)

    async def _data(self, content: bytes) -> Answer:
        connection = self._connection
        if connection is None or not connection.alive:
            raise Lost(LOST, "it is gone")
        answer = await connection.data(content)
        if answer.accepts:
            self._open = False
            connection.used = True
        return answer

    async def _reset(self) -> None:
        if self._open and self._connection is not None and self._connection.alive:
            self._open = not (await self._connection.say(_RSET)).accepts


def _words(verb: str, command: Addressed, connection: Connection, extensions: Mapping[str, str]) -> list[bytes] | None:
    """The command for this server; ``None`` if it would not understand all of it."""
    offered = connection.extensions
    known = frozenset(name for name in command.parameters if extensions.get(name) in offered)
    if not command.parameters.keys() - known <= _SERVED:
        return None
    return command.words(verb, known)


def _told(lost: Lost) -> Answer:
    _log.warning("upstream: %s", lost)
    return lost.answer
