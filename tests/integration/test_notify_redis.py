"""The notifier ``redis`` against redis-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio
from brokers import Redis

from postbox_hooks.notify.redis import RedisNotifier
from postbox_plugin.errors import SettingsError
from postbox_plugin.testing import NotifierCases


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    broker = Redis(folder)
    broker.start()
    yield broker
    broker.kill()


class TestRedis(NotifierCases):
    refusal = "WRONGTYPE"

    def notifier(self, server: Redis) -> object:
        return RedisNotifier(url=f"redis://127.0.0.1:{server.port}/0", request_timeout=1.0)

    def refused(self, server: Redis) -> object:
        with redis.Redis(port=server.port) as client:
            client.set("text", "no stream")
        return RedisNotifier(url=f"redis://127.0.0.1:{server.port}/0", stream="text")

    async def received(self, server: Redis) -> list[bytes]:
        async with redis.asyncio.Redis(port=server.port) as client:
            return [fields[b"click"] for _, fields in await client.xrange("clicks")]

    def test_an_entry_has_the_ids_beside_the_click_and_the_oldest_go(self, server: Redis, tmp_path: Path) -> None:
        import asyncio

        from postbox_plugin.testing import sample_click

        async def main() -> None:
            notifier = RedisNotifier(url=f"redis://127.0.0.1:{server.port}/0", stream="few", maxlen=10)
            await notifier.postbox_start()
            for number in range(500):
                await notifier.postbox_click(sample_click(f"e{number}"))
            await notifier.postbox_stop()

        asyncio.run(main())
        with redis.Redis(port=server.port, decode_responses=True) as client:
            entries = client.xrange("few")
        assert len(entries) < 250
        assert entries[-1][1] == {
            "eventId": "e499",
            "messageId": "QA_JPkU2fkpIWdkx",
            "click": sample_click("e499").to_json().decode(),
        }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "http://a/"}, "url"),
        ({"url": "redis://a", "stream": ""}, "stream"),
        ({"url": "redis://a", "maxlen": -1}, "maxlen"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RedisNotifier(**options)  # type: ignore[arg-type]
    assert named in str(refused.value)


def test_the_password_is_in_no_repr() -> None:
    assert "secret" not in repr(RedisNotifier(url="redis://:secret@127.0.0.1/0"))
