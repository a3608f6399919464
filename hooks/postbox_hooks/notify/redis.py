"""The notifier ``redis``: adds each click to a Redis stream::

    [[notify]]
    use = "redis"
    url = "redis://127.0.0.1:6379/0"      # rediss:// for TLS; unix:///path for a socket
    stream = "clicks"

An entry has the fields ``eventId``, ``messageId`` and ``click``, the notification as JSON. Redis acknowledges what it
has in memory; set ``appendfsync always`` there if an acknowledged click must survive a crash of that machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postbox_plugin import Click, hookimpl
from postbox_plugin.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    import redis.asyncio

__all__ = ["RedisNotifier"]


class RedisNotifier:
    """Adds each click to one stream.

    :param url: the server, as redis-py reads it, with password and database; it is taken for a secret.
    :param stream: the key of the stream, which is made where it is missing.
    :param maxlen: about how many entries the stream keeps, the oldest go first; 0 for all.
    :param request_timeout: seconds to connect, and to wait for an answer.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if redis is not installed.
    """

    def __init__(self, *, url: str, stream: str = "clicks", maxlen: int = 0, request_timeout: float = 10.0) -> None:
        try:
            import redis.asyncio  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise MissingExtra("the notifier redis", "redis", "redis") from None
        if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise SettingsError("url", "is no address of Redis", 'Write for example url = "redis://127.0.0.1:6379/0"')
        if not stream:
            raise SettingsError("stream", "is empty", 'Write for example stream = "clicks"')
        if maxlen < 0:
            raise SettingsError("maxlen", f"{maxlen} is negative", "Write 0 to keep all entries")
        self._url: Final = url
        self._stream: Final = stream
        self._maxlen: Final = maxlen or None
        self._timeout: Final = request_timeout
        self._client: redis.asyncio.Redis | None = None

    @hookimpl
    async def postbox_start(self) -> None:
        """Make the client, which connects with the first click."""
        import redis.asyncio  # noqa: PLC0415

        # Repetition is the host's: a retry of the client's own would add an entry twice without a word.
        self._client = redis.asyncio.Redis.from_url(
            self._url,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=None,
            client_name="postbox-plugin",
        )

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Add one click.

        :raises redis.RedisError: if Redis did not say that it has it.
        """
        assert self._client is not None, "postbox_start comes first"
        await self._client.xadd(
            self._stream,
            {"eventId": click.event_id, "messageId": click.message_id, "click": click.to_json()},
            maxlen=self._maxlen,
            approximate=True,
        )
