"""The service under load, killed and stopped at any moment: a click that was answered with a redirect is never lost.

Ten kills in an ordinary run, a hundred where POSTBOX_TORTURE says so (``tox -e torture``).
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from services import Readers, Service, notified

from postbox_plugin.outbox import Administration

KILLS = int(os.environ.get("POSTBOX_TORTURE", "10"))
READERS = 16

pytestmark = pytest.mark.timeout(60 + 12 * KILLS)


def test_what_was_answered_is_notified_however_often_it_is_killed(tmp_path: Path) -> None:
    """At least once, and with one event id."""

    async def main() -> set[str]:
        service = Service(tmp_path, workers=2)
        await service.start()
        readers = Readers(service)
        reading = [asyncio.create_task(readers.read()) for _ in range(READERS)]
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.2, 1.0))
            await service.kill()
        readers.enough = True
        await asyncio.gather(*reading)
        await service.stop()
        service.workers = max(2, service.files())  # then each file is somebody's at once
        await service.start()
        administration = Administration(tmp_path / "spool")
        async with asyncio.timeout(60):
            while any(one.waiting or one.retrying for one in await asyncio.to_thread(administration.status)):
                await asyncio.sleep(0.1)
        assert await service.stop() == 0
        found = notified(service)
        assert {number for number, events in found.items() if len(events) > 1} == set()
        assert len(readers.answered) > 10 * KILLS
        return readers.answered - set(found)

    assert asyncio.run(main()) == set()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_answers_everybody_who_has_asked(tmp_path: Path, workers: int) -> None:
    """SIGTERM under load: no request that was read is dropped, every click is notified, and the exit code is 0."""

    async def main() -> None:
        service = Service(tmp_path, workers)
        for _ in range(3):
            await service.start()
            readers = Readers(service)
            readers.answered.clear()
            reading = [asyncio.create_task(readers.read()) for _ in range(READERS)]
            await asyncio.sleep(0.7)
            assert await service.stop() == 0
            readers.enough = True
            await asyncio.gather(*reading)
            assert len(readers.answered) > 50
            found = notified(service)
            assert readers.answered <= set(found)
            # A request whose answer did not come was one that the service had not read.
            assert not readers.cut & set(found)
            service.clicks.unlink()
        assert "postbox.lost" not in service.log.read_text()

    asyncio.run(main())
