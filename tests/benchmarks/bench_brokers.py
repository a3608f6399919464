"""Deliveries a second to each broker: the notifier beside its bare client, which does the same, as safely.

Both have 64 clicks in flight, each with an event id of its own, and wait for the broker's word on each, though not for
ever. A client that is made for asyncio is called from it; one that blocks is called as it likes best: from threads,
with as many clicks in a call as the service takes. The two take turns, several rounds long, and the table shows the
median of each.

All brokers run on this machine. Kafka is librdkafka's mock cluster, and Kinesis and SQS are a server that takes
everything and keeps nothing, so that the client is what is measured: moto, against which the notifiers are tested, is
slower by far than what it stands for. A broker that is not installed is left out::

    python tests/benchmarks/bench_brokers.py [redis nats ...] [--rounds 11] [--seconds 1]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from brokers import Broker, Kafka, Nats, RabbitMQ, Redis

from postbox_hooks.notify.kafka import KafkaNotifier
from postbox_hooks.notify.kinesis import KinesisNotifier
from postbox_hooks.notify.nats import NatsNotifier
from postbox_hooks.notify.rabbitmq import RabbitMQNotifier
from postbox_hooks.notify.redis import RedisNotifier
from postbox_hooks.notify.sqs import SqsNotifier
from postbox_plugin import Click
from postbox_plugin.testing import sample_click

IN_FLIGHT = 64
ACCOUNT = {"region": "ru-central1", "access_key_id": "id", "secret_access_key": "secret"}

Deliver = Callable[[float], Awaitable[int]]
"""Delivers clicks for so many seconds; the result is how many."""
Contestant = Callable[[Any], AbstractAsyncContextManager[Deliver]]

_CLICK = sample_click()
_numbers = itertools.count()


class QuickRedis(Redis):
    """redis-server, without a write to disk for each command: it would be the disk that is measured."""

    def command(self) -> list[str]:
        return [*super().command(), "--appendfsync", "everysec"]


class Amazon(Broker):
    """Answers PutRecords and SendMessageBatch: everything was taken."""

    SCRIPT = """
import asyncio, json, re, sys

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = int(re.search(rb"(?i)\\r\\ncontent-length: *([0-9]+)", head)[1])
            request = json.loads(await reader.readexactly(length))
            if "Records" in request:
                taken = [{"SequenceNumber": "1", "ShardId": "shardId-000000000000"}] * len(request["Records"])
                answer = {"FailedRecordCount": 0, "Records": taken}
            else:
                entries = request["Entries"]
                taken = [{"Id": entry["Id"], "MessageId": "1", "MD5OfMessageBody": "1"} for entry in entries]
                answer = {"Successful": taken}
            body = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    await (await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=2**24)).serve_forever()

asyncio.run(main())
"""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.SCRIPT, str(self.port)]


def new_click() -> Click:
    """A click that no broker has seen."""
    return msgspec.structs.replace(_CLICK, event_id=f"event:{next(_numbers)}")


def from_the_loop(send: Callable[[Click], Awaitable[object]]) -> Deliver:
    """One call a click."""

    async def deliver(seconds: float) -> int:
        sent = 0
        end = time.perf_counter() + seconds

        async def worker() -> None:
            nonlocal sent
            while time.perf_counter() < end:
                await send(new_click())
                sent += 1

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        return sent

    return deliver


def from_threads(send: Callable[[list[Click]], None], most: int) -> Deliver:
    """As many threads as it takes to have all in flight, each with so many in a call, at most."""

    async def deliver(seconds: float) -> int:
        end = time.perf_counter() + seconds

        def worker(size: int) -> int:
            sent = 0
            while time.perf_counter() < end:
                send([new_click() for _ in range(size)])
                sent += size
            return sent

        sizes = [min(most, IN_FLIGHT - begin) for begin in range(0, IN_FLIGHT, most)]
        return sum(await asyncio.gather(*(asyncio.to_thread(worker, size) for size in sizes)))

    return deliver


def ours(make: Callable[[Any], Any]) -> Contestant:
    """A notifier, called as the host does."""

    @asynccontextmanager
    async def contestant(server: Any) -> AsyncIterator[Deliver]:
        notifier = make(server)
        if hasattr(notifier, "postbox_start"):
            await notifier.postbox_start()
        yield from_the_loop(notifier.postbox_click)
        await notifier.postbox_stop()

    return contestant


@asynccontextmanager
async def bare_redis(server: Redis) -> AsyncIterator[Deliver]:
    """redis-py."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=server.port, socket_timeout=10, socket_connect_timeout=10) as client:
        yield from_the_loop(
            lambda click: client.xadd(
                "clicks", {"eventId": click.event_id, "messageId": click.message_id, "click": click.to_json()}
            )
        )


@asynccontextmanager
async def bare_rabbitmq(server: RabbitMQ) -> AsyncIterator[Deliver]:
    """aio-pika."""
    import aio_pika

    async with await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{server.port}/") as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)

        async def send(click: Click) -> None:
            message = aio_pika.Message(
                click.to_json(),
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=click.event_id,
                headers={"messageId": click.message_id},
            )
            await channel.default_exchange.publish(message, "clicks", mandatory=True, timeout=10)

        yield from_the_loop(send)


@asynccontextmanager
async def bare_nats(server: Nats) -> AsyncIterator[Deliver]:
    """nats-py."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    stream = client.jetstream()
    yield from_the_loop(
        lambda click: stream.publish("clicks", click.to_json(), headers={"Nats-Msg-Id": click.event_id})
    )
    await client.close()


@asynccontextmanager
async def bare_kafka(server: Kafka) -> AsyncIterator[Deliver]:
    """confluent-kafka: produced from one thread, which also polls for the reports."""
    import confluent_kafka

    client = confluent_kafka.Producer({
        "bootstrap.servers": ",".join(server.servers),
        "acks": "all",
        "enable.idempotence": True,
    })  # fmt: skip

    def produce(seconds: float) -> int:
        end = time.perf_counter() + seconds
        sent = reported = 0

        def report(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
            nonlocal reported
            assert error is None
            reported += 1

        while True:
            while sent - reported < IN_FLIGHT and time.perf_counter() < end:
                click = new_click()
                headers = [("eventId", click.event_id.encode())]
                client.produce("clicks", click.to_json(), click.message_id, headers=headers, on_delivery=report)
                sent += 1
            if sent == reported:
                return reported
            client.poll(1.0)

    async def deliver(seconds: float) -> int:
        return await asyncio.to_thread(produce, seconds)

    yield deliver


def boto3_client(name: str, server: Amazon) -> Any:
    import boto3

    return boto3.client(
        name,
        endpoint_url=f"http://127.0.0.1:{server.port}",
        region_name=ACCOUNT["region"],
        aws_access_key_id=ACCOUNT["access_key_id"],
        aws_secret_access_key=ACCOUNT["secret_access_key"],
    )


@asynccontextmanager
async def bare_kinesis(server: Amazon) -> AsyncIterator[Deliver]:
    """boto3, PutRecords."""
    client = boto3_client("kinesis", server)

    def send(clicks: list[Click]) -> None:
        records = [{"Data": click.to_json(), "PartitionKey": click.message_id} for click in clicks]
        assert client.put_records(StreamName="clicks", Records=records)["FailedRecordCount"] == 0

    yield from_threads(send, 500)
    client.close()


@asynccontextmanager
async def bare_sqs(server: Amazon) -> AsyncIterator[Deliver]:
    """boto3, SendMessageBatch."""
    client = boto3_client("sqs", server)

    def send(clicks: list[Click]) -> None:
        messages = [
            {
                "Id": str(number),
                "MessageBody": click.to_json().decode(),
                "MessageAttributes": {
                    "eventId": {"DataType": "String", "StringValue": click.event_id},
                    "messageId": {"DataType": "String", "StringValue": click.message_id},
                },
            }
            for number, click in enumerate(clicks)
        ]
        answer = client.send_message_batch(QueueUrl=queue_url(server), Entries=messages)
        assert len(answer["Successful"]) == len(messages)

    yield from_threads(send, 10)
    client.close()


def queue_url(server: Amazon) -> str:
    return f"http://127.0.0.1:{server.port}/123456789012/clicks"


async def declare_queue(server: RabbitMQ) -> None:
    import aio_pika

    async with await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{server.port}/") as connection:
        await (await connection.channel()).declare_queue("clicks", durable=True)


async def add_stream(server: Nats) -> None:
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    await client.jetstream().add_stream(name="CLICKS", subjects=["clicks"])
    await client.close()


async def nothing(_: Any) -> None:
    """Some brokers need no preparation."""


class Pair(NamedTuple):
    """A broker, our notifier, and its bare client."""

    server: type[Broker]
    prepare: Callable[[Any], Awaitable[None]]
    notifier: Callable[[Any], Any]
    bare: Contestant


PAIRS = {
    "redis": Pair(QuickRedis, nothing, lambda it: RedisNotifier(url=f"redis://127.0.0.1:{it.port}/0"), bare_redis),
    "rabbitmq": Pair(
        RabbitMQ,
        declare_queue,
        lambda it: RabbitMQNotifier(url=f"amqp://guest:guest@127.0.0.1:{it.port}/"),
        bare_rabbitmq,
    ),
    "nats": Pair(Nats, add_stream, lambda it: NatsNotifier(servers=[f"nats://127.0.0.1:{it.port}"]), bare_nats),
    "kafka": Pair(Kafka, nothing, lambda it: KafkaNotifier(servers=it.servers), bare_kafka),
    "kinesis": Pair(
        Amazon,
        nothing,
        lambda it: KinesisNotifier(stream="clicks", endpoint_url=f"http://127.0.0.1:{it.port}", **ACCOUNT),
        bare_kinesis,
    ),
    "sqs": Pair(Amazon, nothing, lambda it: SqsNotifier(queue_url=queue_url(it), **ACCOUNT), bare_sqs),
}


async def measure(pair: Pair, server: Broker, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """The rates of all rounds: the notifier's, and the bare client's."""
    contestants = (ours(pair.notifier), pair.bare)
    rates: tuple[list[float], list[float]] = ([], [])
    await pair.prepare(server)
    for number in range(rounds):
        # Whoever comes second finds a broker that has more to do: they take turns at that, too.
        for place in (0, 1) if number % 2 else (1, 0):
            async with contestants[place](server) as deliver:
                await deliver(0.2)  # connections are made before the clock starts
                begin = time.perf_counter()
                sent = await deliver(seconds)
                rates[place].append(sent / (time.perf_counter() - begin))
    return rates


def show(results: dict[str, tuple[list[float], list[float]]]) -> None:
    """The table."""
    table = Table(title=f"Deliveries a second, {IN_FLIGHT} in flight: median (lowest to highest)")
    table.add_column("broker")
    for column in ("notifier", "bare client", "ratio"):
        table.add_column(column, justify="right")
    for name, both in results.items():
        cells = [f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})" for rates in both]
        mine, bare = map(statistics.median, both)
        table.add_row(name, *cells, f"{mine / bare:.2f}")
    Console(width=120).print(table)


def main(names: Sequence[str], rounds: int, seconds: float) -> None:
    results = {}
    missing = []
    for name in names:
        pair = PAIRS[name]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            server = pair.server(Path(folder))
            try:
                server.start()
            except pytest.skip.Exception as reason:
                missing.append(str(reason))
                continue
            try:
                results[name] = asyncio.run(measure(pair, server, rounds, seconds))
            finally:
                server.close()
    show(results)
    for reason in missing:
        print(reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers", nargs="*", default=list(PAIRS), help="which of them; all if none is named")
    parser.add_argument("--rounds", type=int, default=11, help="how often each has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn is")
    arguments = parser.parse_args()
    main(arguments.brokers, arguments.rounds, arguments.seconds)
