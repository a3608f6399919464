"""The notifier ``sqs`` against moto's server."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from brokers import Gate, Moto
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from postbox_hooks import _batches
from postbox_hooks.notify.sqs import SqsNotifier
from postbox_plugin import Click
from postbox_plugin.errors import MissingExtra, PostboxError, SettingsError
from postbox_plugin.testing import NotifierCases, sample_click

pytestmark = pytest.mark.xdist_group("moto")  # it takes seconds to start


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    server = Moto(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.kill()


class Queue(Gate):
    """A gate to moto, and a queue of its own behind it.

    :ivar messages: what was taken from the queue so far.
    """

    def __init__(self, folder: Path, moto: Moto, *, is_fifo: bool = False) -> None:
        super().__init__(folder, moto)
        self.client = boto3.client(
            "sqs",
            endpoint_url=f"http://127.0.0.1:{moto.port}",
            region_name="ru-central1",
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )
        name, attributes = f"clicks-{uuid.uuid4()}", {}
        if is_fifo:
            name, attributes = f"{name}.fifo", {"FifoQueue": "true"}
        self._url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.url = self._url.replace(f":{moto.port}/", f":{self.port}/")
        self.messages: list[Any] = []

    def take(self) -> list[Any]:
        """Take what has come."""
        every = {"AttributeNames": ["All"], "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}
        while messages := self.client.receive_message(QueueUrl=self._url, **every).get("Messages"):
            self.messages += messages
            taken = [{"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]} for one in messages]
            self.client.delete_message_batch(QueueUrl=self._url, Entries=taken)
        return self.messages


@pytest.fixture
def server(moto: Moto, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Queue]:
    folder = tmp_path / "gate"
    folder.mkdir()
    queue = Queue(folder, moto, is_fifo=getattr(request, "param", "") == "fifo")
    queue.start()
    yield queue
    queue.kill()
    queue.client.close()


def notifier(url: str) -> SqsNotifier:
    return SqsNotifier(queue_url=url, request_timeout=1.0, **Moto.ACCOUNT)


class TestSqs(NotifierCases):
    refusal = "NonExistentQueue|QueueDoesNotExist"

    def notifier(self, server: Queue) -> object:
        return notifier(server.url)

    def refused(self, server: Queue) -> object:
        return notifier(f"{server.url}-nowhere")

    async def received(self, server: Queue) -> list[bytes]:
        return [message["Body"].encode() for message in await asyncio.to_thread(server.take)]

    def test_the_ids_stand_beside_the_click(self, server: Queue) -> None:
        deliver(notifier(server.url), sample_click("event:0"))
        (message,) = server.take()
        attributes = {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
        assert attributes == {"eventId": "event:0", "messageId": sample_click().message_id}

    @pytest.mark.parametrize("server", ["fifo"], indirect=True)
    def test_a_fifo_queue_groups_by_message_and_drops_repetitions(self, server: Queue) -> None:
        for _ in range(2):
            deliver(notifier(server.url), sample_click("event:0"), sample_click("event:1"))
        messages = server.take()
        assert [message["Attributes"]["MessageDeduplicationId"] for message in messages] == ["event:0", "event:1"]
        assert {message["Attributes"]["MessageGroupId"] for message in messages} == {sample_click().message_id}

    def test_a_click_with_characters_that_no_message_can_hold(self, server: Queue) -> None:
        click = sample_click()
        click = msgspec.structs.replace(click, click=msgspec.structs.replace(click.click, user_agent="a\uffffb\ufffe"))
        deliver(notifier(server.url), click)
        (message,) = server.take()
        assert not set("\ufffe\uffff") & set(message["Body"])
        assert Click.from_json(message["Body"]) == click


def deliver(target: SqsNotifier, *clicks: Click) -> list[BaseException | None]:
    """Clicks that are in flight together, and what was raised for each."""

    async def run() -> list[BaseException | None]:
        await target.postbox_start()
        outcomes = await asyncio.gather(*map(target.postbox_click, clicks), return_exceptions=True)
        await target.postbox_stop()
        return outcomes

    return asyncio.run(run())


class Service:
    """Answers SendMessageBatch as SQS does when it does not take all of its messages.

    :param refused: for each event id, how often to refuse its click, and whether to blame the sender for it.
    """

    def __init__(self, httpserver: HTTPServer, refused: dict[str, tuple[int, bool]]) -> None:
        self.url = httpserver.url_for("/123456789012/clicks")
        self.calls: list[list[str]] = []
        self._refused = refused
        httpserver.expect_request("/", method="POST").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        entries = request.get_json(force=True)["Entries"]
        events = {entry["Id"]: json.loads(entry["MessageBody"])["eventId"] for entry in entries}
        self.calls.append(list(events.values()))
        answer: dict[str, list[dict[str, Any]]] = {"Failed": [], "Successful": []}
        for number, event in events.items():
            times, is_blamed = self._refused.get(event, (0, False))
            if times:
                self._refused[event] = times - 1, is_blamed
                failure = {"Id": number, "Code": "Some.Code", "Message": "is refused", "SenderFault": is_blamed}
                answer["Failed"].append(failure)
            elif event != "unsaid":
                answer["Successful"].append({"Id": number, "MessageId": "1", "MD5OfMessageBody": "1"})
        return Response(json.dumps(answer), content_type="application/x-amz-json-1.0")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "PAUSES", (0.01, 0.01))


def test_what_was_refused_goes_again_and_fails_alone(httpserver: HTTPServer) -> None:
    """A fault of the queue's passes, one of the sender's does not; what is not in the answer is not acknowledged."""
    service = Service(httpserver, {"passes": (1, False), "blamed": (1, True), "stays": (1000, False)})
    events = ["fine", "passes", "blamed", "stays", "unsaid"]
    fine, passes, *failed = deliver(notifier(service.url), *map(sample_click, events))
    assert fine is passes is None
    assert all(isinstance(error, PostboxError) for error in failed)
    assert list(map(str, failed)) == [
        "Some.Code: is refused",
        "Some.Code: is refused",
        "the queue did not say what became of a message",
    ]
    assert service.calls == [events, ["passes", "stays"], ["stays"]]


def test_a_call_has_at_most_10_messages_and_256_kib(httpserver: HTTPServer) -> None:
    """More clicks in flight than fit go in several calls; a big one takes the place of many."""
    service = Service(httpserver, {})
    small = [sample_click(f"event:{number}") for number in range(25)]
    big = sample_click("big")
    big = msgspec.structs.replace(big, click=msgspec.structs.replace(big.click, url="https://a/" + "я" * 130_000))
    assert deliver(notifier(service.url), *small, big) == [None] * 26
    assert sorted(map(len, service.calls)) == [1, 5, 10, 10]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"queue_url": "clicks"}, "queue_url"),
        ({"queue_url": "https://id:hush@sqs.eu-central-1.amazonaws.com/1/clicks"}, "queue_url"),
        ({"endpoint_url": "http://[::1/"}, "endpoint_url"),
        ({"access_key_id": "id"}, "secret_access_key"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        SqsNotifier(**{"queue_url": "https://sqs.eu-central-1.amazonaws.com/1/clicks"} | options)
    assert refused.value.key == named
    assert "hush" not in str(refused.value)


def test_without_its_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r'needs boto3, .* pip install "postbox-plugin\[sqs\]"'):
        SqsNotifier(queue_url="https://sqs.eu-central-1.amazonaws.com/1/clicks")
