"""Receivers of webhooks at their worst, all at once: each gets every click in the end, and nobody waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from servers import get, hrefs, redirecting

from postbox_plugin import Mail
from postbox_plugin.outbox import Administration
from postbox_plugin.settings import NotifySettings
from postbox_plugin.testing import RecordingNotifier

CLICKS = 30
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the Standard Webhooks specification

Mood = Callable[[int, asyncio.StreamWriter], Awaitable[bytes]]
"""Given the number of a request and where to write, what to write at the end."""


class Receiver:
    """A server in some mood, until it is well.

    :ivar asked: when each event id came.
    :ivar taken: the event ids that were answered with 200.
    """

    def __init__(self, mood: Mood) -> None:
        self._mood = mood
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.name = mood.__name__
        self.port = 0
        self.well = False
        self.asked: defaultdict[str, list[float]] = defaultdict(list)
        self.taken: set[str] = set()

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(map(len, self.asked.values()))

    async def start(self) -> None:
        """Listen; the second time, on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in head.split("\r\n")[1:-2])}
        event_id = json.loads(await reader.readexactly(int(fields["content-length"])))["eventId"]
        assert fields["webhook-id"] == event_id
        self.asked[event_id].append(time.monotonic())
        answer = OK if self.well else await self._mood(self.requests, writer)
        if answer == OK:
            self.taken.add(event_id)
        writer.write(answer)
        await writer.drain()


async def is_down(number: int, writer: asyncio.StreamWriter) -> bytes:
    """It does not even listen."""
    raise AssertionError("nobody listens")


async def answers_500(number: int, writer: asyncio.StreamWriter) -> bytes:
    """Whatever it is asked."""
    return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"


async def answers_429(number: int, writer: asyncio.StreamWriter) -> bytes:
    """And says when to come again."""
    return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


async def answers_410(number: int, writer: asyncio.StreamWriter) -> bytes:
    """It wants no more."""
    return b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"


async def never_answers(number: int, writer: asyncio.StreamWriter) -> bytes:
    """The connection stays open."""
    await asyncio.Event().wait()
    return b""


async def drips(number: int, writer: asyncio.StreamWriter) -> bytes:
    """An answer that would take half a minute."""
    for byte in OK[:-1]:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0.7)
    return b""


async def hangs_up(number: int, writer: asyncio.StreamWriter) -> bytes:
    """Once it has read the request."""
    raise ConnectionResetError


async def is_slow(number: int, writer: asyncio.StreamWriter) -> bytes:
    """But takes everything."""
    await asyncio.sleep(0.3)
    return OK


async def flaps(number: int, writer: asyncio.StreamWriter) -> bytes:
    """Each time something else, and every fourth time well."""
    moods = (answers_500, answers_429, hangs_up)
    return OK if number % 4 == 0 else await moods[number % 4 - 1](number, writer)


MOODS = (is_down, answers_500, answers_429, answers_410, never_answers, drips, hangs_up, is_slow, flaps)


def test_every_receiver_gets_every_click_in_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one event id each, the same that a notifier in good health got at once."""
    recording = RecordingNotifier()

    async def main() -> None:
        receivers = [Receiver(mood) for mood in MOODS]
        blocks = []
        for one in receivers:
            await one.start()
            options = {"url": f"http://127.0.0.1:{one.port}/", "secret": SECRET, "request_timeout": 0.5}
            blocks.append(NotifySettings(use="webhook", name=one.name, options=options))
        await receivers[0].stop()
        async with redirecting(tmp_path, recording, notify=blocks) as postbox:
            mail = Mail(sender="shop@example.com", recipient="reader@example.com")
            for link in hrefs(postbox.track_html('<a href="http://example.com/">x</a>' * CLICKS, mail)):
                assert (await get(link)).code == 302
            events = {click.event_id for click in await recording.wait_for(CLICKS)}
            assert len(events) == CLICKS
            administration = Administration(tmp_path / "spool")
            async with asyncio.timeout(60):
                while any(one.requests < 10 for one in receivers if one.name not in ("is_down", "answers_410")):
                    await asyncio.sleep(0.05)
                status = await asyncio.to_thread(administration.status)
                assert [one.name for one in status if one.paused] == ["answers_410"]
                for one in receivers:
                    one.well = True
                await receivers[0].start()
                assert await asyncio.to_thread(administration.resume, "answers_410")
                while not all(one.taken == events for one in receivers):
                    await asyncio.sleep(0.05)
                while any(one.waiting or one.retrying for one in await asyncio.to_thread(administration.status)):
                    await asyncio.sleep(0.05)
        for one in receivers:
            assert one.asked.keys() == events, one.name
            await one.stop()
        (told,) = (one for one in receivers if one.name == "answers_429")
        for times in told.asked.values():
            # Retry-After is the least that is waited.
            assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times))
        assert len(recording.clicks) == CLICKS
        # One line for an outage, however many calls it cuts.
        assert sum("notifier never_answers fails" in record.getMessage() for record in caplog.records) == 1

    asyncio.run(main())
