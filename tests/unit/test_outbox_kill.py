"""No click is lost between put's return and the acknowledgement, whenever the process is killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from postbox_plugin.outbox import Administration

KILLS = 10

SERVICE = """
import asyncio, itertools, os, sys
from pathlib import Path
import msgspec
from postbox_plugin import Click
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Outbox

spool, life, slow = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "thread"
acknowledged = os.open(spool.parent / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
delivered = {name: os.open(spool.parent / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in ("steady", "flaky")}
RECORD = {
    "mail": {"timestamp": "", "messageId": "m", "identityId": "", "commonHeaders": {"to": ["reader@example.com"]}},
    "click": {"ipAddress": "", "timestamp": "", "userAgent": "", "url": "https://example.com/"},
    "tracking": {"linkIndex": 0},
}
calls = itertools.count()

async def steady(click):
    os.write(delivered["steady"], click.event_id.encode() + b"\\n")

async def flaky(click):
    if life != "last" and next(calls) % 7 == 0:
        raise ConnectionError("flaky")
    await asyncio.sleep(0.001)
    os.write(delivered["flaky"], click.event_id.encode() + b"\\n")

async def reader(outbox, number):
    for count in itertools.count():
        event_id = f"{life}-{number}-{count}"
        kept = asyncio.get_running_loop().create_future()
        outbox.put(msgspec.convert(RECORD | {"eventId": event_id}, Click), kept.set_result)
        assert await kept is None
        os.write(acknowledged, event_id.encode() + b"\\n")

async def main():
    # A limit of nothing makes every commit a slow one.
    notifiers = [Notifier("steady", click=steady), Notifier("flaky", click=flaky)]
    outbox = Outbox(spool, notifiers, slow_commit=0.0 if slow else 10.0)
    await outbox.start()
    print("up", flush=True)
    if life == "last":
        await outbox.retry()
        while any(one.waiting + one.retrying + one.dead for one in await outbox.status()):
            await asyncio.sleep(0.02)
        await outbox.stop()
    else:
        await asyncio.gather(*(reader(outbox, number) for number in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("commits", ["loop", "thread"])
def test_a_killed_service_loses_no_click_that_it_acknowledged(tmp_path: Path, commits: str) -> None:
    """Killed under load and started again, several times: every acknowledged click reaches every notifier."""
    spool = tmp_path / "spool"
    chance = random.Random(11)
    for life in range(KILLS // 2):
        command = [sys.executable, "-c", SERVICE, str(spool), str(life), commits]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            time.sleep(chance.uniform(0.05, 0.3))
            process.kill()
    subprocess.run([sys.executable, "-c", SERVICE, str(spool), "last", commits], check=True, timeout=60)
    acknowledged = (tmp_path / "acknowledged").read_text().split()
    assert len(acknowledged) > 100
    assert len({event_id.split("-")[0] for event_id in acknowledged}) == KILLS // 2
    for name in ("steady", "flaky"):
        delivered = Counter((tmp_path / name).read_text().split())
        assert set(acknowledged) <= set(delivered)
        # At least once, but not without measure.
        assert delivered.total() < 2 * len(acknowledged) + 5000
    assert sum(one.waiting + one.retrying + one.dead for one in Administration(spool).status()) == 0
