"""The notifier ``rabbitmq``: publishes each click to an exchange of RabbitMQ::

    [[notify]]
    use = "rabbitmq"
    url = "amqp://user:password@127.0.0.1:5672/"   # amqps:// for TLS
    routing_key = "clicks"                         # with the default exchange, the name of the queue

Messages are persistent and confirmed; one that no queue takes is not acknowledged, so a queue must be bound before.
``message_id`` is the ``eventId``, and the header ``messageId`` the mail's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postbox_plugin import Click, PostboxError, hookimpl
from postbox_plugin.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection, AbstractExchange

__all__ = ["RabbitMQError", "RabbitMQNotifier"]


class RabbitMQError(PostboxError):
    """A click was not taken; the message says why, without a secret."""


class RabbitMQNotifier:
    """Publishes each click to one exchange.

    :param url: the server, with user, password and virtual host; it is taken for a secret.
    :param exchange: the exchange, which must exist; ``""`` for the default one.
    :param routing_key: the routing key.
    :param request_timeout: seconds to connect, and to wait for a confirmation.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if aio-pika is not installed.
    """

    def __init__(
        self, *, url: str, exchange: str = "", routing_key: str = "clicks", request_timeout: float = 10.0
    ) -> None:
        try:
            import aio_pika  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise MissingExtra("the notifier rabbitmq", "aio-pika", "rabbitmq") from None
        if urlsplit(url).scheme not in ("amqp", "amqps"):
            fix = 'Write for example url = "amqp://user:password@127.0.0.1:5672/"'
            raise SettingsError("url", "is no address of RabbitMQ", fix)
        if not (exchange or routing_key):
            fix = 'Write for example routing_key = "clicks", the name of a queue'
            raise SettingsError("routing_key", "is empty, and the default exchange needs it", fix)
        self._url: Final = url
        self._name: Final = exchange
        self._routing_key: Final = routing_key
        self._timeout: Final = request_timeout
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting: Final = asyncio.Lock()

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connection."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            await connection.close()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Publish one click.

        :raises RabbitMQError: if RabbitMQ has not confirmed it, or no queue takes it.
        """
        import aio_pika  # noqa: PLC0415
        from aiormq.exceptions import AMQPError, PublishError  # noqa: PLC0415

        message = aio_pika.Message(
            click.to_json(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=click.event_id,
            headers={"messageId": click.message_id},
        )
        try:
            exchange = await self._connected()
            await exchange.publish(message, self._routing_key, mandatory=True, timeout=self._timeout)
        except PublishError:
            where = f"exchange {self._name!r}" if self._name else "the default exchange"
            raise RabbitMQError(f"no queue takes the routing key {self._routing_key!r} of {where}: bind one") from None
        except (AMQPError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError) as error:
            raise RabbitMQError(str(error) or type(error).__name__) from error

    async def _connected(self) -> AbstractExchange:
        """The exchange, over a connection made with the first click, and again when it was lost."""
        async with self._connecting:
            if self._exchange is None or self._connection is None or not self._usable:
                import aio_pika  # noqa: PLC0415

                if self._connection is not None:
                    await self._connection.close()
                self._connection = await aio_pika.connect(
                    self._url, timeout=self._timeout, client_properties={"connection_name": "postbox-plugin"}
                )
                # Without the latter, a message that no queue takes is confirmed like any other.
                channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
                self._channel = channel
                default = channel.default_exchange
                self._exchange = await channel.get_exchange(self._name) if self._name else default
            return self._exchange

    @property
    def _usable(self) -> bool:
        return not (self._connection is None or self._connection.is_closed or self._channel.is_closed)
