"""A running relay for tests, and mail servers for it to send to that do what is asked of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from postbox_hooks.relay.server import relay
from postbox_hooks.relay.settings import HostAndPort, RelaySettings
from postbox_plugin import Postbox

__all__ = ["CLOSE", "Script", "Server", "running_relay", "running_server", "settings"]

CLOSE = "close"
"""In a script: hang up."""

EXTENSIONS = ("SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")

Script = Callable[[str, str], "str | float | None"]
"""What a mail server answers: given the verb (``MESSAGE`` after the last dot) and the whole line (the message), a
reply, :data:`CLOSE`, seconds to wait before the usual reply, or ``None`` for the usual one.
"""


def settings(port: int, **changes: Any) -> RelaySettings:
    """Settings of a relay on a free port, for a server on this machine."""
    given = {
        "upstream": f"127.0.0.1:{port}",
        "upstream_tls": "none",
        "listen": "127.0.0.1:0",
        "hostname": "relay.example.com",
        "timeout": 20.0,
    }
    return RelaySettings(**{**given, **changes})


@contextmanager
def running_relay(
    given: RelaySettings, postbox: Postbox | None, *, quick: bool = True, stop_limit: float = 5.0
) -> Iterator[int]:
    """Run a relay in a thread of its own; its port is the value.

    :param postbox: what does the rewriting; ``None`` for none.
    :param quick: whether small mails are rewritten in the loop.
    """

    def rewrite(message: bytes, recipients: Sequence[str], tags: Mapping[str, str]) -> bytes:
        return message if postbox is None else postbox.before_send(message, recipients=recipients, message_tags=tags)

    port = 0
    started = threading.Event()

    def ready(address: HostAndPort) -> None:
        nonlocal port
        port = address.port
        started.set()

    def serve(stopping: asyncio.Event) -> Any:
        return relay(given, rewrite, quick=quick, stop_limit=stop_limit, stopping=stopping, ready=ready)

    with in_a_thread(serve, started):
        yield port


@contextmanager
def in_a_thread(serve: Any, started: threading.Event) -> Iterator[None]:
    """Run a server in an event loop of its own until the end of the block.

    :param serve: called with the event that tells it to stop.
    """
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve(stopping))
        except BaseException as error:
            failed.append(error)
            started.set()

    thread = threading.Thread(target=run, name="relay")
    thread.start()
    try:
        assert started.wait(10), "it did not start"
        if not failed:
            yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
        assert not thread.is_alive(), "it did not stop"
    if failed:
        raise failed[0]


@dataclass
class Server:
    """A mail server that follows a script.

    :ivar script: what it answers.
    :ivar extensions: what it offers; nothing, not even EHLO, if empty.
    :ivar port: where it listens.
    :ivar said: the commands of each connection.
    :ivar messages: the messages that it said 250 to, as they came over the wire.
    :ivar most_connections: how many there were at once.
    """

    script: Script = lambda _verb, _line: None
    extensions: Sequence[str] = EXTENSIONS
    port: int = 0
    said: list[list[str]] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    most_connections: int = 0
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, started: threading.Event, stopping: asyncio.Event) -> None:
        """Listen until told to stop, then hang up on everybody."""
        server = await asyncio.start_server(self._client, "127.0.0.1", self.port, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stopping.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        while self._connections:
            await asyncio.sleep(0.01)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        self.most_connections = max(self.most_connections, len(self._connections))
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._talk(reader, writer)
        self._connections.discard(connection)
        writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said: list[str] = []
        self.said.append(said)
        writer.write((await self._reply("CONNECT", "", "220 server.example.com") + "\r\n").encode())
        ehlo = "250-server.example.com\r\n" + "".join(f"250-{line}\r\n" for line in self.extensions) + "250 HELP"
        usual = {"EHLO": ehlo if self.extensions else "502 What?", "DATA": "354 Go on", "QUIT": "221 Bye"}
        while line := (await reader.readuntil(b"\r\n")).decode().rstrip():
            said.append(line)
            verb = line.partition(" ")[0].upper()
            reply = await self._reply(verb, line, usual.get(verb, "250 2.0.0 Fine"))
            if reply == CLOSE:
                return
            writer.write(f"{reply}\r\n".encode())
            if reply.startswith("354"):
                message = await reader.readuntil(b"\r\n.\r\n")
                reply = await self._reply("MESSAGE", message.decode("latin-1"), "250 2.0.0 Taken as 1234")
                if reply.startswith("250") or reply == "taken and " + CLOSE:
                    self.messages.append(message[:-3])
                if reply.endswith(CLOSE):
                    return
                writer.write(f"{reply}\r\n".encode())
            await writer.drain()

    async def _reply(self, verb: str, line: str, usual: str) -> str:
        reply = self.script(verb, line)
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            return usual
        return usual if reply is None else reply


@contextmanager
def running_server(server: Server) -> Iterator[Server]:
    """Run a mail server in a thread of its own, on the port that it had before if it had one."""
    started = threading.Event()
    with in_a_thread(lambda stopping: server.serve(started, stopping), started):
        yield server
