"""The notifier ``nats`` against nats-server with JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from brokers import Nats
from nats.js.api import StorageType

from postbox_hooks.notify.nats import NatsNotifier
from postbox_plugin.errors import SettingsError
from postbox_plugin.testing import NotifierCases, sample_click


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    folder = tmp_path / "nats"
    folder.mkdir()
    broker = Nats(folder)
    broker.start()
    asyncio.run(add_stream(broker))
    yield broker
    broker.kill()


async def add_stream(server: Nats) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    await client.jetstream().add_stream(name="CLICKS", subjects=["clicks"], storage=StorageType.FILE)
    await client.close()


class TestNats(NotifierCases):
    refusal = "no stream takes the subject elsewhere"

    def notifier(self, server: Nats) -> object:
        return NatsNotifier(servers=[f"nats://127.0.0.1:{server.port}"], request_timeout=1.0)

    def refused(self, server: Nats) -> object:
        return NatsNotifier(servers=[f"nats://127.0.0.1:{server.port}"], subject="elsewhere")

    async def received(self, server: Nats) -> list[bytes]:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        try:
            stream = client.jetstream()
            last = (await stream.stream_info("CLICKS")).state.last_seq
            found = [await stream.get_msg("CLICKS", number) for number in range(1, last + 1)]
            return [message.data or b"" for message in found]
        finally:
            await client.close()

    def test_a_repetition_is_dropped_by_the_stream(self, server: Nats) -> None:
        async def main() -> None:
            notifier = NatsNotifier(servers=[f"nats://127.0.0.1:{server.port}"])
            for _ in range(3):
                await notifier.postbox_click(sample_click("same:0"))
            await notifier.postbox_stop()
            assert len(await self.received(server)) == 1

        asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"servers": []}, "servers"),
        ({"servers": ["http://a"]}, "servers"),
        ({"servers": ["nats://a"], "subject": "a.*"}, "subject"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        NatsNotifier(**options)  # type: ignore[arg-type]
    assert named in str(refused.value)
