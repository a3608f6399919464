"""A real mail server for tests: it takes what is sent to it and keeps it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

__all__ = ["Received", "Sink", "running_sink"]


@dataclass(frozen=True)
class Received:
    """A mail as it arrived: its envelope, its bytes, and whether the connection was encrypted."""

    sender: str
    recipients: list[str]
    raw: bytes
    encrypted: bool


@dataclass
class Sink:
    """Where to send, and what came in."""

    port: int = 0
    mails: list[Received] = field(default_factory=list)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        """Takes everyone but ``refused@``."""
        if address.startswith("refused@"):
            return "550 No such reader"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        """Keeps a mail."""
        encrypted = session.ssl is not None
        self.mails.append(
            Received(envelope.mail_from, list(envelope.rcpt_tos), bytes(envelope.original_content), encrypted)
        )
        return "250 Kept"


@contextmanager
def running_sink(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    protocol: type[SMTP] = SMTP,
    login: tuple[str, str] | None = None,
) -> Iterator[Sink]:
    """Run a server on a free port, in a thread of its own.

    :param starttls: demand STARTTLS, with this certificate.
    :param tls: speak TLS from the first byte, with this certificate.
    :param protocol: ``SMTP`` or ``LMTP``.
    :param login: demand AUTH, with this name and password.
    """

    def authenticate(_server: SMTP, _session: Any, _envelope: Any, _mechanism: str, given: LoginPassword) -> AuthResult:
        return AuthResult(success=login is not None and given == tuple(text.encode() for text in login), handled=False)

    sink = Sink()
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        server = await loop.create_server(
            # A name of our own, or aiosmtpd asks the resolver for one, which can take seconds.
            lambda: protocol(
                sink,
                hostname="localhost",
                enable_SMTPUTF8=True,
                tls_context=starttls,
                require_starttls=starttls is not None,
                auth_required=login is not None,
                authenticator=authenticate,
                loop=loop,
            ),
            "127.0.0.1",
            0,
            ssl=tls,
        )
        sink.port = server.sockets[0].getsockname()[1]
        async with server:
            ready.set()
            await stopped.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="sink")
    thread.start()
    try:
        assert ready.wait(10), "the mail server did not start"
        yield sink
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0))  # lets what was cancelled end
        loop.close()
