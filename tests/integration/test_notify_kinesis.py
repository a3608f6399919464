"""The notifier ``kinesis`` against moto's server."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from brokers import Gate, Moto
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from postbox_hooks import _batches
from postbox_hooks.notify.kinesis import KinesisNotifier
from postbox_plugin.errors import MissingExtra, PostboxError, SettingsError
from postbox_plugin.testing import NotifierCases, sample_click

pytestmark = pytest.mark.xdist_group("moto")  # it takes seconds to start


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    server = Moto(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.kill()


class Stream(Gate):
    """A gate to moto, and a stream of its own behind it."""

    def __init__(self, folder: Path, moto: Moto) -> None:
        super().__init__(folder, moto)
        self.name = f"clicks-{uuid.uuid4()}"
        self.client = boto3.client(
            "kinesis",
            endpoint_url=f"http://127.0.0.1:{moto.port}",
            region_name="ru-central1",
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )
        self.client.create_stream(StreamName=self.name, ShardCount=2)

    def records(self) -> list[Any]:
        """What the stream has."""
        found = []
        for shard in self.client.list_shards(StreamName=self.name)["Shards"]:
            position = self.client.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while records := (answer := self.client.get_records(ShardIterator=position))["Records"]:
                found += records
                position = answer["NextShardIterator"]
        return found


@pytest.fixture
def server(moto: Moto, tmp_path: Path) -> Iterator[Stream]:
    folder = tmp_path / "gate"
    folder.mkdir()
    stream = Stream(folder, moto)
    stream.start()
    yield stream
    stream.kill()
    stream.client.close()


def notifier(port: int, **options: Any) -> KinesisNotifier:
    options = {"stream": "clicks", "request_timeout": 1.0, **Moto.ACCOUNT, **options}
    return KinesisNotifier(endpoint_url=f"http://127.0.0.1:{port}", **options)


class TestKinesis(NotifierCases):
    refusal = "ResourceNotFoundException: Stream nowhere"

    def notifier(self, server: Stream) -> object:
        return notifier(server.port, stream=server.name)

    def refused(self, server: Stream) -> object:
        return notifier(server.port, stream="nowhere")

    async def received(self, server: Stream) -> list[bytes]:
        return [record["Data"] for record in await asyncio.to_thread(server.records)]

    def test_the_partition_key_is_the_message_id_and_an_arn_names_the_stream(self, server: Stream) -> None:
        arn = server.client.describe_stream_summary(StreamName=server.name)["StreamDescriptionSummary"]["StreamARN"]
        deliver(notifier(server.port, stream=arn), 1)
        (record,) = server.records()
        assert record["PartitionKey"] == sample_click().message_id


def deliver(target: KinesisNotifier, clicks: int) -> list[BaseException | None]:
    """Clicks that are in flight together, and what was raised for each."""

    async def run() -> list[BaseException | None]:
        await target.postbox_start()
        calls = (target.postbox_click(sample_click(f"event:{number}")) for number in range(clicks))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await target.postbox_stop()
        return outcomes

    return asyncio.run(run())


class Service:
    """Answers PutRecords as Kinesis does when a shard has no room for some of the records.

    :param refused: how often each click is refused, by its event id.
    """

    def __init__(self, httpserver: HTTPServer, **refused: int) -> None:
        self.port = httpserver.port
        self.calls: list[list[str]] = []
        self._refused = {name.replace("_", ":"): times for name, times in refused.items()}
        httpserver.expect_request("/", method="POST").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        sent = [json.loads(base64.b64decode(record["Data"])) for record in request.get_json(force=True)["Records"]]
        self.calls.append([click["eventId"] for click in sent])
        records = [self._outcome(click["eventId"]) for click in sent]
        answer = {"FailedRecordCount": sum("ErrorCode" in record for record in records), "Records": records}
        return Response(json.dumps(answer), content_type="application/x-amz-json-1.1")

    def _outcome(self, event: str) -> dict[str, str]:
        if self._refused.get(event, 0):
            self._refused[event] -= 1
            return {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard"}
        return {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "PAUSES", (0.01, 0.01, 0.01, 0.01))


def test_what_a_shard_has_no_room_for_is_put_again_and_nothing_else(httpserver: HTTPServer) -> None:
    """Of a call that was taken in part, the rest goes again; what was taken is acknowledged once."""
    service = Service(httpserver, event_1=1, event_3=2)
    assert deliver(notifier(service.port), 5) == [None] * 5
    assert service.calls == [[f"event:{n}" for n in range(5)], ["event:1", "event:3"], ["event:3"]]


def test_what_stays_refused_fails_alone(httpserver: HTTPServer) -> None:
    """After a few times the error is raised, and only for the click that was refused."""
    service = Service(httpserver, event_1=1000)
    first, second, third = deliver(notifier(service.port), 3)
    assert first is third is None
    assert isinstance(second, PostboxError)
    assert str(second) == "ProvisionedThroughputExceededException: Rate exceeded for shard"
    assert service.calls[1:] == [["event:1"]] * 4


def test_a_call_has_at_most_500_records(httpserver: HTTPServer) -> None:
    """More clicks in flight than fit go in several calls."""
    service = Service(httpserver)
    assert deliver(notifier(service.port), 1100) == [None] * 1100
    assert sorted(map(len, service.calls)) == [100, 500, 500]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stream": ""}, "stream"),
        ({"endpoint_url": "yds.serverless.yandexcloud.net"}, "endpoint_url"),
        ({"endpoint_url": "https://id:hush@yds.serverless.yandexcloud.net"}, "endpoint_url"),
        ({"access_key_id": "id"}, "secret_access_key"),
        ({"secret_access_key": "hush"}, "access_key_id"),
        ({"request_timeout": 0.0}, "request_timeout"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        KinesisNotifier(**{"stream": "clicks"} | options)
    assert refused.value.key == named
    assert "hush" not in str(refused.value)


def test_no_region_is_an_error_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    target = KinesisNotifier(stream="clicks", access_key_id="id", secret_access_key="hush")
    with pytest.raises(SettingsError, match="region"):
        asyncio.run(target.postbox_start())
    assert "hush" not in repr(target)


def test_without_its_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r'needs boto3, .* pip install "postbox-plugin\[kinesis\]"'):
        KinesisNotifier(stream="clicks")
