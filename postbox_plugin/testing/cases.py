"""The tests that every notifier must pass, against the real server that it delivers to.

Subclass :class:`NotifierCases` in a test module, under a name that pytest collects, and fill in what it does not know::

    class TestRedis(NotifierCases):
        @pytest.fixture
        def server(self, tmp_path): ...

        def notifier(self, server): ...

        async def received(self, server): ...
"""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from postbox_plugin.mail import Mail
from postbox_plugin.outbox import Administration
from postbox_plugin.postbox import Postbox
from postbox_plugin.settings import Settings
from postbox_plugin.tokens.keyring import new_key

__all__ = ["NotifierCases", "Server"]

PATIENCE: Final = 60.0
"""Seconds that clicks get to arrive: a notifier that was down is tried again with growing pauses."""

_HREF: Final = re.compile(r'href="([^"]+)"')


class Server(Protocol):
    """What a notifier delivers to: a real server of the test's own, on a port that stays the same."""

    def start(self) -> None:
        """Start it, with what it kept, and return when it can be used."""

    def kill(self) -> None:
        """Kill it, as a crash does; what it has acknowledged must be there after the next start."""

    def pause(self) -> None:
        """Let it hang: connections stay open, and nothing is answered."""

    def resume(self) -> None:
        """Let it go on."""


class NotifierCases(ABC):
    """Delivery through the real host: a spool, retries, and the server at its best and worst.

    :cvar refusal: what the error says of the clicks of :meth:`refused`, as a regular expression; ``""`` where the
        server refuses nothing.
    """

    refusal: str = ""

    @abstractmethod
    def notifier(self, server: Any) -> object:
        """A new notifier for that server, not started.

        :param server: the value of the fixture ``server``, a :class:`Server`.
        """

    @abstractmethod
    async def received(self, server: Any) -> list[bytes]:
        """The body of every message that the server has, repetitions included.

        :param server: as for :meth:`notifier`.
        """

    def refused(self, server: Any) -> object:
        """A new notifier whose clicks the server refuses: a stream that does not exist, a wrong password.

        :param server: as for :meth:`notifier`.
        """
        raise NotImplementedError

    def test_it_delivers_each_click_as_it_is(self, server: Any, tmp_path: Path) -> None:
        """The body is the notification's JSON, complete, once each."""

        async def run() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host:
                await host.click(range(100))
                await self._all(server, range(100))
                await host.is_done()

        asyncio.run(run())
        clicks = [json.loads(body) for body in asyncio.run(self.received(server))]
        assert len({click["eventId"] for click in clicks}) == len(clicks) == 100
        for click in clicks:
            assert click["eventType"] == "Click"
            assert click["click"]["url"] == "https://example.com/жизнь?a=1&b=2"
            assert click["mail"]["commonHeaders"]["to"] == ["Reader <reader@example.com>"]

    def test_a_server_that_is_down_at_the_start_gets_its_clicks_later(self, server: Any, tmp_path: Path) -> None:
        """The service starts without it."""
        server.kill()

        async def run() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host:
                await host.click(range(20))
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)
                await self._all(server, range(20))
                await host.is_done()

        asyncio.run(run())

    def test_a_server_that_is_killed_and_comes_back_gets_them_all(self, server: Any, tmp_path: Path) -> None:
        """Clicks that come while it dies and while it is away arrive after it is back, each with its one event id."""

        async def run() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host:
                await host.click(range(50))
                await self._some(server)
                clicking = asyncio.create_task(host.click(range(50, 300), pause=0.002))
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.kill)
                await clicking
                await asyncio.to_thread(server.start)
                await self._all(server, range(300))
                await host.is_done()

        asyncio.run(run())
        events: dict[str, set[str]] = {}
        for body in asyncio.run(self.received(server)):
            click = json.loads(body)
            events.setdefault(click["click"]["linkTags"]["n"][0], set()).add(click["eventId"])
        assert all(len(ids) == 1 for ids in events.values())

    def test_a_server_that_hangs_holds_no_reader_up(self, server: Any, tmp_path: Path) -> None:
        """What was asked of it in that time arrives when it goes on."""

        async def run() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host:
                await host.click([0])
                await self._all(server, [0])
                server.pause()
                try:
                    async with asyncio.timeout(5):
                        await host.click(range(1, 100))
                    assert await host.left() > 0
                finally:
                    server.resume()
                await self._all(server, range(100))
                await host.is_done()

        asyncio.run(run())

    def test_a_stop_keeps_what_was_not_delivered_for_the_next_start(self, server: Any, tmp_path: Path) -> None:
        """The service ends within its limit though the server is away."""
        server.kill()

        async def first() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host, asyncio.timeout(30):
                await host.click(range(20))

        async def second() -> None:
            async with _Host(tmp_path, self.notifier(server)) as host:
                await self._all(server, range(20))
                await host.is_done()

        asyncio.run(first())
        server.start()
        asyncio.run(second())

    def test_what_is_refused_is_not_taken_for_delivered(self, server: Any, tmp_path: Path) -> None:
        """It is tried again, or the notifier pauses, and the error says why."""
        if not self.refusal:
            return

        async def run() -> None:
            async with _Host(tmp_path, self.refused(server)) as host:
                await host.click([0])
                await _until(host.error)
                assert re.search(self.refusal, await host.error())
                assert await host.left() == 1

        asyncio.run(run())

    async def _all(self, server: Any, numbers: Any) -> None:
        wanted = {str(number) for number in numbers}
        await self._until(server, lambda found: wanted <= found)

    async def _some(self, server: Any) -> None:
        await self._until(server, bool)

    async def _until(self, server: Any, enough: Callable[[set[str]], bool]) -> None:
        async def has_enough() -> bool:
            return enough({_number(body) for body in await self.received(server)})

        await _until(has_enough)


class _Host:
    """A ``Postbox`` that runs, and people who click on its links.

    :param folder: for the spool.
    :param notifier: the notifier under test.
    """

    def __init__(self, folder: Path, notifier: object) -> None:
        self._spool = folder / "spool"
        settings = Settings(
            domain="click.example.com",
            keys=[new_key()],
            spool=str(self._spool),
            stop_limit=2.0,
        )
        self._postbox = Postbox(settings, [notifier])
        self._running = self._postbox.running()

    async def __aenter__(self) -> _Host:
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._running.__aexit__(*error)

    async def click(self, numbers: Any, *, pause: float = 0.0) -> None:
        """Click on one link for each number, which its tags carry."""
        for number in numbers:
            mail = Mail(sender="shop@example.com", recipient="Reader <reader@example.com>")
            html = self._postbox.track_html(
                f'<a postbox:tags="n:{number}" href="https://example.com/жизнь?a=1&amp;b=2">x</a>', mail
            )
            found = _HREF.search(html)
            assert found
            link = self._postbox.open(found[1])
            await self._postbox.record(link, address="192.0.2.1", user_agent="Mozilla/5.0 (X11)", headers={})
            await asyncio.sleep(pause)

    async def is_done(self) -> None:
        """Wait until the outbox knows that everything was taken."""

        async def has_all() -> bool:
            return not await self.left()

        await _until(has_all)

    async def left(self) -> int:
        """How many clicks were not taken yet."""
        return sum([one.waiting + one.retrying + one.dead for one in await self._status()])

    async def error(self) -> str:
        """What the notifier last failed with."""
        return "".join([one.paused or one.error for one in await self._status()])

    def _status(self) -> Awaitable[Any]:
        return asyncio.to_thread(Administration(self._spool).status)


async def _until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110 - servers in other processes set no event
            await asyncio.sleep(0.05)


def _number(body: bytes) -> str:
    click: Any = msgspec.json.decode(body)
    return str(click["click"]["linkTags"]["n"][0])
