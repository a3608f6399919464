"""Clicks that wait for a notifier that is down: they cost disk and no memory, and let new clicks pass when it is back.

Twenty thousand of them in an ordinary run, a million in ``tox -e torture``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLICKS = 1_000_000 if int(os.environ.get("POSTBOX_TORTURE", "10")) > 10 else 20_000

pytestmark = pytest.mark.timeout(1800)

SERVICE = """
import asyncio, json, sys
from pathlib import Path
from postbox_plugin.notifier import Notifier
from postbox_plugin.outbox import Outbox
from postbox_plugin.testing import sample_click

count = int(sys.argv[2])
is_down = True
taken = 0
put_at, overtook = {}, []

async def click(click):
    global taken
    if is_down:
        raise ConnectionError("down")
    taken += 1
    if click.event_id in put_at:
        overtook.append(taken - put_at[click.event_id])

def megabytes():  # not ru_maxrss, which begins with what the process had that started this one
    (most,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(most.split()[1]) / 1024

async def kept(outbox, event_ids):
    futures = []
    for event_id in event_ids:
        futures.append(asyncio.get_running_loop().create_future())
        outbox.put(sample_click(event_id), futures[-1].set_result)
    assert set(await asyncio.gather(*futures)) == {None}

async def main():
    global is_down
    outbox = Outbox(Path(sys.argv[1]), [Notifier("log", click=click)])
    await outbox.start()
    await kept(outbox, (f"first:{number}" for number in range(1000)))
    before = megabytes()
    for start in range(1000, count, 500):
        await kept(outbox, (f"old:{number}" for number in range(start, start + 500)))
    is_down = False
    await outbox.retry()
    while taken < 1000:  # what comes before it drains is part of it
        await asyncio.sleep(0.01)
    while taken < count - 2000:
        put_at[f"new:{len(put_at)}"] = taken
        await kept(outbox, [f"new:{len(put_at) - 1}"])
        await asyncio.sleep(0.05)
    while taken < count + len(put_at):
        await asyncio.sleep(0.05)
    (status,) = await outbox.status()
    assert (status.waiting, status.retrying, status.dead) == (0, 0, 0)
    await outbox.stop()
    print(json.dumps({"grew": megabytes() - before, "most": megabytes(), "new": len(put_at), "overtook": overtook}))

asyncio.run(main())
"""


def test_a_backlog_takes_no_memory_and_lets_new_clicks_pass(tmp_path: Path) -> None:
    """A new click is delivered after a few hundred of those that wait, however many these are."""
    command = [sys.executable, "-c", SERVICE, str(tmp_path), str(CLICKS)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["most"] < 150
    assert found["grew"] < 30
    assert found["new"] > 3
    assert len(found["overtook"]) == found["new"]
    assert max(found["overtook"]) < 2000
