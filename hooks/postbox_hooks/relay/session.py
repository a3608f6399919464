"""One client's connection. aiosmtpd reads commands, and does STARTTLS and AUTH; what concerns mail is here."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
import ssl
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, AnyStr, Final

from postbox_hooks.relay.answers import LOST, Answer
from postbox_hooks.relay.delivery import Delivery
from postbox_hooks.relay.incoming import read_message
from postbox_hooks.relay.limit import TimeLimit
from postbox_hooks.relay.path import MAIL, RCPT, Addressed, read
from postbox_hooks.relay.settings import RelaySettings
from postbox_hooks.relay.splitting import MOST_RECIPIENTS
from postbox_hooks.relay.trace import received
from postbox_hooks.relay.transaction import Transaction
from postbox_hooks.relay.upstream import CLOSING, Upstream
from postbox_plugin.errors import MissingExtra

try:
    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, TLSSetupException
except ImportError:
    raise MissingExtra("the relay", "aiosmtpd", "relay") from None

__all__ = ["Session", "Shared"]

MOST_FAILED_LOGINS: Final = 3
LONGEST_COMMAND: Final = 4096
"""Bytes. RFC 5321, 4.5.3.1.4, says 512; extensions add to it, and RCPT with DSN comes to over 1,000 (RFC 3461)."""
LONGEST_PIECE: Final = 64 * 1024
"""Bytes that are read at once."""

_PASSED_ON: Final = ("8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")

_OK: Final = Answer(250, "2.0.0 OK")
_READY: Final = b"354 End data with <CR><LF>.<CR><LF>"
_GREET: Final = Answer(503, "5.5.1 Say EHLO first")
_AUTHENTICATE: Final = Answer(530, "5.7.0 Authentication required")
_NOT_YOU: Final = Answer(550, "5.7.1 This relay does not take mail from your address")
_NO_AUTH: Final = Answer(502, "5.5.1 AUTH is not offered here")
_TOO_OFTEN: Final = Answer(CLOSING, "4.7.0 Too many failed logins")
_STOPPING: Final = Answer(CLOSING, "4.3.2 This relay is shutting down; try again later")
_NESTED: Final = Answer(503, "5.5.1 MAIL was said already")
_NO_MAIL: Final = Answer(503, "5.5.1 Say MAIL first")
_NO_RECIPIENT: Final = Answer(554, "5.5.1 No valid recipients")
_MAIL_SYNTAX: Final = Answer(501, "5.5.4 Syntax: MAIL FROM:<address> [parameters]")
_RCPT_SYNTAX: Final = Answer(501, "5.5.4 Syntax: RCPT TO:<address> [parameters]")
_NO_ARGUMENT: Final = Answer(501, "5.5.4 This command takes no argument")
_TOO_LARGE: Final = Answer(552, "5.3.4 The message is larger than this relay takes")
_TOO_MANY: Final = Answer(452, "4.5.3 Too many recipients for one mail; send the others another one")
_FAILED: Final = "451 4.3.0 The relay failed; try again later"

# aiosmtpd's own answers, most of which have no enhanced status code (RFC 2034), greeting and STARTTLS aside.
_BARE: Final = re.compile(r"(?!220)([245])\d\d(?= )(?! [245]\.\d)")

_log = logging.getLogger("postbox.relay")


@dataclass
class Shared:
    """What all sessions have in common.

    :ivar settings: the table ``[relay]``.
    :ivar hostname: our own name.
    :ivar upstream: where mails go.
    :ivar delivery: what becomes of them on the way.
    :ivar tls: the certificate; ``None`` without one.
    :ivar sessions: those that are connected.
    :ivar left: set whenever one disconnects.
    :ivar stopping: whether the relay takes no further mail.
    """

    settings: RelaySettings
    hostname: str
    upstream: Upstream
    delivery: Delivery
    tls: ssl.SSLContext | None
    sessions: set[Session] = field(default_factory=set)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False


class Session(SMTP):
    """A client's connection.

    :param shared: what it has in common with the others.
    """

    command_size_limit = LONGEST_COMMAND
    line_length_limit = LONGEST_PIECE
    # What every other server asks, and some clients wait for.
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, shared: Shared) -> None:
        self._shared: Final = shared
        self._trusted: Final = shared.settings.trusted
        self._always_encrypted: Final = shared.settings.listen_tls == "tls"
        self._transaction: Transaction | None = None
        self._at_work = False
        self._failed_logins = 0
        super().__init__(
            None,
            hostname=shared.hostname,
            ident="ESMTP postbox relay",
            enable_SMTPUTF8=True,
            tls_context=None if self._always_encrypted else shared.tls,
            timeout=shared.settings.timeout,
            auth_require_tls=not (shared.settings.plaintext_auth or self._always_encrypted),
            authenticator=self._authenticate_user,
            loop=asyncio.get_running_loop(),
        )
        self._limit: Final = TimeLimit(self._timeout_cb)
        self._timeout_handle = self._limit  # type: ignore[assignment]  # all that aiosmtpd does is cancel it
        self.command_size_limits = defaultdict(lambda: LONGEST_COMMAND)  # aiosmtpd's are the class's, changed by each

    @property
    def idle(self) -> bool:
        """Whether the client has no mail under way."""
        return self._transaction is None and not self._at_work

    def leave(self) -> None:
        """Tell a client that waits for nothing that the relay stops, and hang up."""
        if self.transport is not None and not self.transport.is_closing():
            self._writer.write(_STOPPING.encode() + b"\r\n")
            self.transport.close()

    def abort(self) -> None:
        """Hang up, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client, or one that is encrypted from here on."""
        self._shared.sessions.add(self)
        peer = ipaddress.ip_address(transport.get_extra_info("peername")[0])
        self._address = getattr(peer, "ipv4_mapped", None) or peer  # on a socket that takes both, IPv4 looks like IPv6
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone: what it did not finish is not sent."""
        super().connection_lost(error)
        self._shared.sessions.discard(self)
        self._shared.left.set()
        if self._transaction is not None:
            self._transaction.drop()

    async def push(self, status: AnyStr) -> None:
        """Say something."""
        await super().push(_BARE.sub(r"\g<0> \1.0.0", status, count=1) if isinstance(status, str) else status)

    async def handle_exception(self, error: Exception) -> str:
        """Whatever went wrong here is no fault of the mail."""
        if isinstance(error, TLSSetupException):
            _log.warning("a client failed to begin TLS: %s", type(error.__cause__).__name__)
        else:
            _log.error("a command failed", exc_info=error)
        return _FAILED

    async def smtp_EHLO(self, hostname: str | None) -> None:
        """What is offered is what can be passed on."""
        if not hostname:
            await self.push("501 5.5.4 Syntax: EHLO hostname")
            return
        await self._abandon()
        with self._working():
            offers, upstream_limit = await self._shared.upstream.offers()
        settings = self._shared.settings
        limits = [limit for limit in (settings.size_limit, upstream_limit) if limit]
        lines = [self._shared.hostname, f"SIZE {min(limits)}", *(name for name in _PASSED_ON if name in offers)]
        if self.tls_context and not self._encrypted:
            lines.append("STARTTLS")
        if settings.users and (self._encrypted or settings.plaintext_auth):
            lines.append("AUTH LOGIN PLAIN")
        self._greeted(hostname, extended=True)
        await self._reply(Answer(250, "\n".join([*lines, "HELP"])))

    async def smtp_HELO(self, hostname: str | None) -> None:
        """As ever."""
        if not hostname:
            await self.push("501 5.5.4 Syntax: HELO hostname")
            return
        await self._abandon()
        self._greeted(hostname, extended=False)
        await self._reply(Answer(250, self._shared.hostname))

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """aiosmtpd's, with nothing under way (RFC 3207, 4.2)."""
        await self._abandon()
        await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str | None) -> None:
        """aiosmtpd's, for those who are known here, and not for ever."""
        if not self._shared.settings.users:
            await self._reply(_NO_AUTH)
            return
        mechanism, _, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(f"{mechanism.upper()} {rest}".strip())
        if self._failed_logins >= MOST_FAILED_LOGINS:
            await self._reply(_TOO_OFTEN)

    async def smtp_MAIL(self, arg: str | None) -> None:
        """Begins a transaction with the upstream server."""
        sender = read(MAIL, arg or "")
        refusal = self._refusal() or (_NESTED if self._transaction else None) or self._mail_refusal(sender)
        if refusal is not None or sender is None:
            await self._reply(refusal or _MAIL_SYNTAX)
            return
        self._transaction = Transaction(self._shared.upstream, sender)
        with self._working():
            answer = await self._transaction.mail()
            if not answer.accepts:
                await self._abandon()
        await self._reply(answer)

    async def smtp_RCPT(self, arg: str | None) -> None:
        """Adds a recipient, if the upstream server takes it."""
        recipient = read(RCPT, arg or "")
        transaction = self._transaction
        if transaction is None:
            await self._reply(self._refusal() or _NO_MAIL)
        elif recipient is None or not recipient.path or (recipient.parameters and not self._extended):
            await self._reply(_RCPT_SYNTAX)
        elif self._shared.settings.split and len(transaction.recipients) >= MOST_RECIPIENTS:
            await self._reply(_TOO_MANY)
        else:
            with self._working():
                answer = await transaction.rcpt(recipient)
            await self._reply(answer)

    async def smtp_DATA(self, arg: str | None) -> None:
        """Takes a message, and has an answer when the upstream server has one."""
        transaction = self._transaction
        if arg or transaction is None or not transaction.recipients:
            wrong = _NO_MAIL if transaction is None else _NO_RECIPIENT
            await self._reply(_NO_ARGUMENT if arg else self._refusal() or wrong)
            return
        try:
            answer = LOST
            if not transaction.lost:
                await self.push(_READY)
                message = await read_message(self._reader, self._shared.settings.size_limit, self._reset_timeout)
                with self._working():
                    answer = _TOO_LARGE
                    if message is not None:
                        answer = await self._shared.delivery.deliver(transaction, message, self._trace(transaction))
                        recipients = len(transaction.recipients)
                        _log.info("a mail of %d bytes to %d: %d", len(message), recipients, answer.code)
        finally:
            await self._abandon()
        await self._reply(answer)

    async def smtp_RSET(self, arg: str | None) -> None:
        """Ends what was begun."""
        if arg:
            await self._reply(_NO_ARGUMENT)
            return
        await self._abandon()
        await self._reply(_OK)

    async def smtp_QUIT(self, arg: str | None) -> None:
        """Ends what was begun, and the connection."""
        if not arg:
            await self._abandon()
        await super().smtp_QUIT(arg)

    async def _reply(self, answer: Answer) -> None:
        await self.push(answer.encode())
        if answer.code == CLOSING and self.transport is not None:
            self.transport.close()
        elif self._shared.stopping and self.idle:
            self.leave()

    async def _abandon(self) -> None:
        """Give the upstream connection back."""
        if self._transaction is not None:
            with self._working():
                await self._transaction.end()
            self._transaction = None

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """While it is not the client who is waited for."""
        before, self._at_work = self._at_work, True
        try:
            yield
        finally:
            self._at_work = before
            if self.transport is not None:
                self._reset_timeout()

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._limit.start(duration or self._timeout_duration)

    def _timeout_cb(self) -> None:
        if self._at_work:
            self._reset_timeout()
        else:
            super()._timeout_cb()  # type: ignore[no-untyped-call]

    @property
    def _encrypted(self) -> bool:
        return self._always_encrypted or (self.session is not None and self.session.ssl is not None)

    @property
    def _extended(self) -> bool:
        return self.session is not None and bool(self.session.extended_smtp)

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        assert self.session is not None
        self.session.extended_smtp = extended
        self.session.host_name = hostname

    def _refusal(self) -> Answer | None:
        """Why this client may not send now."""
        assert self.session is not None
        if self._shared.stopping:
            return _STOPPING
        if not self.session.host_name:
            return _GREET
        if self.session.authenticated or self._is_trusted():
            return None
        return _AUTHENTICATE if self._shared.settings.users else _NOT_YOU

    def _mail_refusal(self, sender: Addressed | None) -> Answer | None:
        """Why this MAIL command needs not be passed on."""
        if sender is None or (sender.parameters and not self._extended):
            return _MAIL_SYNTAX
        body, size = sender.parameters.get("BODY", "7BIT"), sender.parameters.get("SIZE", "0")
        if body.upper() not in ("7BIT", "8BITMIME") or not (size.isascii() and size.isdecimal()):
            return _MAIL_SYNTAX
        return _TOO_LARGE if int(size) > self._shared.settings.size_limit else None

    def _is_trusted(self) -> bool:
        return any(self._address in network for network in self._trusted)

    def _authenticate_user(
        self, _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        found = False
        for name, password in self._shared.settings.users.items():  # all of them: what takes longer tells who is known
            named = hmac.compare_digest(name.encode(), given.login)
            found |= hmac.compare_digest(password.encode(), given.password) and named
        if not found:
            self._failed_logins += 1
            _log.warning("a client failed to log in")
        return AuthResult(success=found, handled=False)

    def _trace(self, transaction: Transaction) -> bytes:
        assert self.session is not None
        kind = "UTF8SMTP" if "SMTPUTF8" in transaction.sender.parameters else "ESMTP" if self._extended else "SMTP"
        protocol = kind + ("S" if self._encrypted else "") + ("A" if self.session.authenticated else "")
        return received(
            helo=self.session.host_name or "", address=str(self._address), by=self._shared.hostname, protocol=protocol
        )
