"""The notifier ``nats``: publishes each click to a JetStream of NATS::

    [[notify]]
    use = "nats"
    servers = ["nats://127.0.0.1:4222"]   # tls:// for TLS
    subject = "clicks"

The stream that takes this subject must exist. Its acknowledgement is the click's; ``Nats-Msg-Id`` is the ``eventId``,
by which the stream drops repetitions within its duplicate window.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postbox_plugin import Click, PostboxError, hookimpl
from postbox_plugin.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

__all__ = ["NatsError", "NatsNotifier"]

_SUBJECT = re.compile(r"[^\s*>.]+(?:\.[^\s*>.]+)*")


class NatsError(PostboxError):
    """A click was not taken; the message says why."""


class NatsNotifier:
    """Publishes each click to one subject.

    :param servers: the servers, with user and password; they are taken for secrets.
    :param subject: where to.
    :param credentials: a file of user credentials (``.creds``), where the servers ask for one.
    :param request_timeout: seconds to connect, and to wait for an acknowledgement.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if nats-py is not installed.
    """

    def __init__(
        self,
        *,
        servers: list[str],
        subject: str = "clicks",
        credentials: str = "",
        request_timeout: float = 10.0,
    ) -> None:
        try:
            import nats  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise MissingExtra("the notifier nats", "nats-py", "nats") from None
        if not servers or any(urlsplit(one).scheme not in ("nats", "tls", "ws", "wss") for one in servers):
            fix = 'Write for example servers = ["nats://127.0.0.1:4222"]'
            raise SettingsError("servers", "has no address of NATS, or something else", fix)
        if not _SUBJECT.fullmatch(subject):
            fix = 'Write for example subject = "clicks", without wildcards'
            raise SettingsError("subject", f"{subject!r} is no subject to publish to", fix)
        self._servers: Final = servers
        self._subject: Final = subject
        self._credentials: Final = credentials
        self._timeout: Final = request_timeout
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._connecting: Final = asyncio.Lock()

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connection."""
        client, self._client, self._stream = self._client, None, None
        if client is not None:
            await client.close()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Publish one click.

        :raises NatsError: if no stream has acknowledged it.
        """
        import nats.errors  # noqa: PLC0415
        from nats.js.errors import NoStreamResponseError  # noqa: PLC0415

        try:
            stream = await self._connected()
            await stream.publish(
                self._subject, click.to_json(), timeout=self._timeout, headers={"Nats-Msg-Id": click.event_id}
            )
        except NoStreamResponseError:
            raise NatsError(f"no stream takes the subject {self._subject}: add one that does") from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise NatsError(str(error) or type(error).__name__) from error

    async def _connected(self) -> JetStreamContext:
        """The connection, made with the first click, and again when it was given up."""
        async with self._connecting:
            if self._stream is None or self._client is None or self._client.is_closed:
                import nats  # noqa: PLC0415

                self._client = await nats.connect(
                    servers=self._servers,
                    name="postbox-plugin",
                    connect_timeout=max(1, round(self._timeout)),
                    user_credentials=self._credentials or None,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.5,
                    # What the server does not take now, the host brings again: nothing is buffered for later.
                    pending_size=0,
                    error_cb=_quietly,
                )
                self._stream = self._client.jetstream()
            return self._stream


async def _quietly(_: Exception) -> None:
    """Each click that is not taken says so itself."""
