"""The notifier ``kafka`` against librdkafka's own mock cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as ClientError

from postbox_hooks.notify.kafka import KafkaError, KafkaNotifier
from postbox_plugin import config, new_key, options
from postbox_plugin.errors import MissingExtra, SettingsError
from postbox_plugin.testing import NotifierCases, sample_click

PRODUCE = 0
INIT_PRODUCER_ID = 22


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kafka]:
    folder = tmp_path / "kafka"
    folder.mkdir()
    broker = Kafka(folder)
    broker.start()
    yield broker
    broker.close()


def messages(server: Kafka) -> list[Any]:
    """What the topic has."""
    consumer = Consumer({
        "bootstrap.servers": ",".join(server.servers),
        "group.id": "test",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,
    })  # fmt: skip
    try:
        ahead = set(consumer.list_topics("clicks", timeout=10).topics["clicks"].partitions)
        consumer.assign([TopicPartition("clicks", partition, OFFSET_BEGINNING) for partition in ahead])
        found = []
        while ahead:
            for message in consumer.consume(1000, timeout=0.05):
                problem = message.error()
                if problem is None:
                    found.append(message)
                elif problem.code() == ClientError._PARTITION_EOF:
                    ahead.discard(message.partition())
                else:
                    raise KafkaException(problem)
        return found
    finally:
        consumer.close()


class TestKafka(NotifierCases):
    refusal = "KafkaError: Broker: Topic authorization failed"

    def notifier(self, server: Kafka) -> object:
        return KafkaNotifier(servers=server.servers, request_timeout=2.0)

    def refused(self, server: Kafka) -> object:
        server.order(f"forbid secrets {ClientError.TOPIC_AUTHORIZATION_FAILED}")
        return KafkaNotifier(servers=server.servers, topic="secrets")

    async def received(self, server: Kafka) -> list[bytes]:
        return [message.value() for message in await asyncio.to_thread(messages, server)]

    def test_the_key_is_the_message_id_and_the_event_id_a_header(self, server: Kafka) -> None:
        async def main() -> None:
            notifier = KafkaNotifier(servers=server.servers)
            await notifier.postbox_start()
            await notifier.postbox_click(sample_click("event:0"))
            await notifier.postbox_stop()

        asyncio.run(main())
        (message,) = messages(server)
        assert message.key() == sample_click().message_id.encode()
        assert message.headers() == [("eventId", b"event:0")]


def test_a_message_that_nobody_takes_in_time_is_an_error_that_says_why(server: Kafka) -> None:
    async def main() -> None:
        notifier = KafkaNotifier(servers=server.servers, request_timeout=1.0)
        await notifier.postbox_start()
        server.kill()
        with pytest.raises(KafkaError, match=r"Message timed out \(127\.0\.0\.1:.*(refused|Disconnected)"):
            await notifier.postbox_click(sample_click())
        await notifier.postbox_stop()

    asyncio.run(main())


def test_a_full_queue_makes_clicks_wait(server: Kafka) -> None:
    """librdkafka takes no more than so many at once: the others wait for room, the loop goes on, and none is lost."""

    async def main() -> None:
        notifier = KafkaNotifier(servers=server.servers, settings={"queue.buffering.max.messages": 10})
        await notifier.postbox_start()
        async with asyncio.timeout(30), asyncio.TaskGroup() as clicks:
            for number in range(200):
                clicks.create_task(notifier.postbox_click(sample_click(f"event:{number}")))
        await notifier.postbox_stop()

    asyncio.run(main())
    assert len(messages(server)) == 200


@pytest.mark.parametrize(
    ("request_kind", "error"),
    [
        (INIT_PRODUCER_ID, ClientError.CLUSTER_AUTHORIZATION_FAILED),
        (PRODUCE, ClientError.OUT_OF_ORDER_SEQUENCE_NUMBER),
    ],
)
def test_after_a_fatal_error_the_next_click_gets_a_new_producer(server: Kafka, request_kind: int, error: int) -> None:
    """What ends an idempotent producer of librdkafka for good ends no notifier, and what it had taken is not lost."""

    async def main() -> None:
        notifier = KafkaNotifier(servers=server.servers)
        server.order(f"fail {request_kind} {error}")
        await notifier.postbox_start()
        calls = (notifier.postbox_click(sample_click(f"first:{number}")) for number in range(8))
        first = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(outcome, KafkaError) for outcome in first)
        taken = {f"first:{number}" for number, outcome in enumerate(first) if outcome is None}
        for number in range(3):
            await notifier.postbox_click(sample_click(f"second:{number}"))
        await notifier.postbox_stop()
        arrived = {dict(message.headers())["eventId"].decode() for message in messages(server)}
        assert taken | {f"second:{number}" for number in range(3)} <= arrived

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"servers": []}, "servers"),
        ({"servers": ["127.0.0.1:9092,127.0.0.1:9093"]}, "servers"),
        ({"topic": "a/b"}, "topic"),
        ({"settings": {"acks": 1}}, "settings.acks"),
        ({"settings": {"bootstrap.servers": "b"}}, "settings.bootstrap.servers"),
        ({"request_timeout": 0.0}, "request_timeout"),
    ],
)
def test_an_option_that_cannot_work_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        KafkaNotifier(**{"servers": ["127.0.0.1:9092"]} | changes)
    assert refused.value.key == named


def test_settings_stand_in_a_table_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the types that librdkafka wants, and secrets that stand elsewhere."""
    monkeypatch.setenv("KAFKA_PASSWORD", "hush")
    (tmp_path / "postbox.toml").write_text(f"""
        domain = "click.example.com"
        keys = ["{new_key()}"]
        [[notify]]
        use = "kafka"
        servers = ["127.0.0.1:9092"]
        [notify.settings]
        "sasl.password" = "env:KAFKA_PASSWORD"
        "linger.ms" = 1.5
        "enable.idempotence" = false
    """)
    (block,) = config.load(tmp_path / "postbox.toml", os.environ).notify
    notifier = options.construct(KafkaNotifier, block.options, "notify[0]", "postbox.toml")
    assert isinstance(notifier, KafkaNotifier)
    given = {"sasl.password": "hush", "linger.ms": 1.5, "enable.idempotence": False, "acks": "all"}
    assert given.items() <= notifier._settings.items()


def test_a_setting_that_librdkafka_does_not_know_is_an_error_at_the_start() -> None:
    settings = {"sasl.password": "hush", "sasl.pasword": "hush"}
    notifier = KafkaNotifier(servers=["127.0.0.1:9092"], settings=settings)
    with pytest.raises(SettingsError, match=r"sasl\.pasword") as refused:
        asyncio.run(notifier.postbox_start())
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(notifier)


def test_without_its_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtra, match=r'needs confluent-kafka, .* pip install "postbox-plugin\[kafka\]"'):
        KafkaNotifier(servers=["127.0.0.1:9092"])
