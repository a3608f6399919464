"""The notifier ``rabbitmq`` against rabbitmq-server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import aio_pika
import pytest
from brokers import RabbitMQ

from postbox_hooks.notify.rabbitmq import RabbitMQNotifier
from postbox_plugin.errors import SettingsError
from postbox_plugin.testing import NotifierCases

pytestmark = pytest.mark.xdist_group("rabbitmq")  # it takes seconds to start


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    started = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    started.start()
    yield started
    started.close()


@pytest.fixture
def server(broker: RabbitMQ) -> RabbitMQ:
    if not broker.answers():
        broker.start()
    asyncio.run(empty_queue(broker))
    return broker


def url(server: RabbitMQ) -> str:
    return f"amqp://guest:guest@127.0.0.1:{server.port}/"


async def empty_queue(server: RabbitMQ) -> None:
    async with await aio_pika.connect(url(server)) as connection:
        channel = await connection.channel()
        await (await channel.declare_queue("clicks", durable=True)).purge()


class TestRabbitMQ(NotifierCases):
    refusal = "no queue takes the routing key 'nowhere' of the default exchange: bind one"

    def notifier(self, server: RabbitMQ) -> object:
        return RabbitMQNotifier(url=url(server), request_timeout=2.0)

    def refused(self, server: RabbitMQ) -> object:
        return RabbitMQNotifier(url=url(server), routing_key="nowhere")

    async def received(self, server: RabbitMQ) -> list[bytes]:
        """What waits in the queue, which is put back."""
        found: list[bytes] = []
        with contextlib.suppress(ConnectionError, aio_pika.exceptions.AMQPError):
            async with await aio_pika.connect(url(server)) as connection:
                queue = await (await connection.channel()).get_queue("clicks")
                while (message := await queue.get(fail=False)) is not None:
                    found.append(message.body)
        return found


@pytest.mark.parametrize(
    ("options", "named"), [({"url": "http://a/"}, "url"), ({"url": "amqp://a/", "routing_key": ""}, "routing_key")]
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RabbitMQNotifier(**options)
    assert named in str(refused.value)
