"""The notifier ``kafka``: produces each click to a topic of Kafka, or of what speaks its protocol::

    [[notify]]
    use = "kafka"
    servers = ["127.0.0.1:9092"]
    topic = "clicks"

    [notify.settings]                     # what else librdkafka can be told
    "security.protocol" = "SASL_SSL"
    "sasl.mechanism" = "PLAIN"
    "sasl.username" = "..."
    "sasl.password" = "env:KAFKA_PASSWORD"

The value is the notification as JSON, the key the mail's ``messageId``, and ``eventId`` a header. A click is
acknowledged once all in-sync replicas have it (``acks=all``), and librdkafka's own repetitions add none twice
(``enable.idempotence``). What librdkafka logs goes to the logger ``postbox.notify.kafka``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from postbox_hooks._threads import Thread
from postbox_plugin import Click, PostboxError, hookimpl
from postbox_plugin.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    import confluent_kafka

__all__ = ["KafkaError", "KafkaNotifier"]

FLUSH: Final = 1.0
"""Seconds that messages get at the stop: whoever waited for them has been told to come again."""
POLL: Final = 0.1
"""Seconds after which the thread looks whether it is to stop."""

_log = logging.getLogger("postbox.notify.kafka")

_SERVER = re.compile(r"(?:\w+://)?[^\s,/]+")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OURS: Final = {
    "acks": "is all, for anything else acknowledges what can be lost",
    "bootstrap.servers": "is the option servers",
    "delivery.report.only.error": "would keep back that a click was taken",
    "delivery.timeout.ms": "is the option request_timeout",
    "message.timeout.ms": "is the option request_timeout",
    "metadata.broker.list": "is the option servers",
    "request.required.acks": "is all, for anything else acknowledges what can be lost",
    "transactional.id": "is for transactions, which clicks need none of",
}


class KafkaError(PostboxError):
    """A click was not taken; the message says why."""


class KafkaNotifier:
    """Produces each click to one topic.

    :param servers: brokers to ask first, ``host:port`` each.
    :param topic: the topic.
    :param settings: further settings of librdkafka; their values are taken for secrets.
    :param request_timeout: seconds that a click has to be acknowledged.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if confluent-kafka is not installed.
    """

    def __init__(
        self,
        *,
        servers: list[str],
        topic: str = "clicks",
        settings: dict[str, str | int | float | bool] | None = None,
        request_timeout: float = 10.0,
    ) -> None:
        try:
            import confluent_kafka  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise MissingExtra("the notifier kafka", "confluent-kafka", "kafka") from None
        if not servers or not all(map(_SERVER.fullmatch, servers)):
            fix = 'Write for example servers = ["127.0.0.1:9092"]'
            raise SettingsError("servers", "has no address of a broker, or something else", fix)
        if not _TOPIC.fullmatch(topic):
            fix = 'Write for example topic = "clicks": letters, digits, ".", "_" and "-"'
            raise SettingsError("topic", f"{topic!r} is no name of a topic", fix)
        for key in settings or {}:
            if key in _OURS:
                raise SettingsError(f"settings.{key}", _OURS[key], "Remove it")
        if not 0 < request_timeout < float("inf"):
            raise SettingsError("request_timeout", f"{request_timeout} is no number of seconds to wait", "Write 10.0")
        self._topic: Final = topic
        self._settings: Final = {
            "client.id": "postbox-plugin",
            "enable.idempotence": True,
            **(settings or {}),
            "acks": "all",
            "bootstrap.servers": ",".join(servers),
            "message.timeout.ms": max(1, round(request_timeout * 1000)),
        }
        self._producer: _Producer | None = None
        self._making: Final = asyncio.Lock()

    @hookimpl
    async def postbox_start(self) -> None:
        """Make the producer, which connects by itself.

        :raises SettingsError: if librdkafka does not know one of ``settings``, or its value.
        """
        await self._usable()

    @hookimpl
    async def postbox_stop(self) -> None:
        """Wait a moment for what is on its way, and close the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Produce one click.

        :raises KafkaError: if the brokers have not acknowledged it in time, or refused it.
        """
        producer = await self._usable()
        await producer.send(self._topic, click)

    async def _usable(self) -> _Producer:
        """The producer; another one after an error that librdkafka takes for the end of the first."""
        if self._producer is None or self._producer.is_broken:
            async with self._making:
                if self._producer is not None and self._producer.is_broken:
                    await self.postbox_stop()
                if self._producer is None:
                    producer = _Producer()
                    await producer.open(self._settings)
                    self._producer = producer
        return self._producer


class _Producer:
    """A producer of librdkafka, and the thread in which it reports.

    :ivar is_broken: whether it had an error after which it takes nothing any more.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self._loop: Final = asyncio.get_running_loop()
        self._client: confluent_kafka.Producer | None = None
        self._thread: Final = Thread("postbox-kafka")
        self._is_closing: Final = threading.Event()
        self._moved: Final = asyncio.Event()
        self._trouble = ""
        self._unreported: Final[set[asyncio.Future[str]]] = set()
        self._reports: list[tuple[asyncio.Future[str], str]] = []

    async def open(self, settings: dict[str, Any]) -> None:
        """Make it.

        :raises SettingsError: if librdkafka does not take the settings.
        """
        import confluent_kafka  # noqa: PLC0415

        try:
            self._client = await self._thread.call(
                partial(confluent_kafka.Producer, settings | {"error_cb": self._failed}, logger=_log)
            )
        except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
            raise SettingsError("settings", _said(error), "See CONFIGURATION.md of librdkafka") from None
        else:
            self._serving = self._thread.call(self._serve)
        finally:
            self._thread.end()

    async def close(self) -> None:
        """Wait a moment for what is on its way, then give it up."""
        self._is_closing.set()
        await self._serving

    async def send(self, topic: str, click: Click) -> None:
        """Produce one click, and return when the brokers have it.

        :raises KafkaError: if they have not.
        """
        reported: asyncio.Future[str] = self._loop.create_future()
        while not self._enqueue(topic, click, reported):
            # Each message in the queue is reported in time, and makes room.
            self._moved.clear()
            await self._moved.wait()
        self._unreported.add(reported)
        try:
            problem = await reported
        finally:
            self._unreported.remove(reported)
        if problem:
            raise KafkaError(problem)

    def _enqueue(self, topic: str, click: Click, reported: asyncio.Future[str]) -> bool:
        """Put one click into librdkafka's queue; whether there was room."""
        import confluent_kafka  # noqa: PLC0415

        client = self._client
        if client is None:
            raise KafkaError(self._trouble or "the connection was closed")
        try:
            client.produce(
                topic,
                click.to_json(),
                key=click.message_id,
                headers=[("eventId", click.event_id.encode())],
                on_delivery=partial(self._delivered, reported),
            )
        except BufferError:
            return False
        except confluent_kafka.KafkaException as error:
            raise KafkaError(_said(error)) from None
        return True

    # In the thread

    def _serve(self) -> None:
        import confluent_kafka  # noqa: PLC0415

        client = self._client
        assert client is not None
        try:
            while not self._is_closing.is_set():
                client.poll(POLL)
                self._hand_over()
            client.flush(FLUSH)
        except confluent_kafka.KafkaException as error:
            # Fatal, the library calls it: it would report nothing any more.
            self._trouble = _said(error)
            self.is_broken = True
        # With the last reference, which is here, librdkafka's threads end: not in the loop, which would wait for them.
        self._client = None
        del client
        self._hand_over()
        self._call_in_loop(self._give_up)

    def _failed(self, error: confluent_kafka.KafkaError) -> None:
        self._trouble = error.str()

    def _delivered(
        self, reported: asyncio.Future[str], error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message
    ) -> None:
        problem = error.str() if error is not None else ""
        if error is None:
            self._trouble = ""
        elif self._trouble and error.name() == "_MSG_TIMED_OUT":
            # Only what else went wrong says why.
            problem += f" ({self._trouble})"
        self._reports.append((reported, problem))

    def _hand_over(self) -> None:
        reports, self._reports = self._reports, []
        if reports:
            self._call_in_loop(self._settle, reports)

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        # The loop may be gone: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # In the loop

    def _settle(self, reports: list[tuple[asyncio.Future[str], str]]) -> None:
        self._moved.set()
        for reported, problem in reports:
            if not reported.done():
                reported.set_result(problem)

    def _give_up(self) -> None:
        problem = self._trouble or "the connection was closed"
        self._settle([(reported, problem) for reported in self._unreported])


def _said(error: BaseException) -> str:
    """What an error of the library says, without the type that stands around it."""
    what = error.args[0] if error.args else error
    return what.str() if hasattr(what, "str") else str(what)
