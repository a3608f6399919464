"""``/healthz`` and ``/metrics``: what they say of a service that is well, and of one that is not."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sqlite3
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import get, hrefs
from tornado.httpclient import AsyncHTTPClient

from postbox_plugin import Click, Mail, Postbox, Settings, hookimpl, new_key
from postbox_plugin.errors import PauseNotifier, SettingsError
from postbox_plugin.outbox.journal import Journal
from postbox_plugin.service import serve
from postbox_plugin.service.admin import examine
from postbox_plugin.settings import ServeSettings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@asynccontextmanager
async def service(tmp_path: Path, *plugins: object) -> AsyncIterator[tuple[Postbox, str]]:
    """A running service and the address of its admin server."""
    ports = free_port(), free_port()
    listen = ServeSettings(http=f"127.0.0.1:{ports[0]}", admin=f"127.0.0.1:{ports[1]}")
    settings = Settings(
        domain="localhost", http_port=ports[0], keys=[new_key()], spool=str(tmp_path / "spool"), serve=listen
    )
    postbox = Postbox(settings, plugins)
    stopping, serving = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(postbox, stopping=stopping, ready=lambda _: serving.set()))
    try:
        async with asyncio.timeout(10):
            await serving.wait()
        yield postbox, f"http://127.0.0.1:{ports[1]}"
    finally:
        stopping.set()
        await task


async def health(address: str) -> tuple[int, dict[str, Any]]:
    response = await AsyncHTTPClient().fetch(f"{address}/healthz", raise_error=False)
    return response.code, json.loads(response.body)


async def metrics(address: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, but for the number of the outbox."""
    response = await AsyncHTTPClient().fetch(f"{address}/metrics")
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "outbox")): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


def links(postbox: Postbox, count: int) -> list[str]:
    mail = Mail(sender="shop@example.com", recipient="reader@example.com")
    return hrefs(postbox.track_html('<a href="http://example.com/">x</a>' * count, mail))


class Down:
    """A notifier that needs a person."""

    @hookimpl
    def postbox_click(self, click: Click) -> None:
        raise PauseNotifier("the password was changed")


def test_a_service_that_is_well(tmp_path: Path) -> None:
    """200, and what was counted."""

    async def main() -> None:
        async with service(tmp_path, Down()) as (postbox, address):
            for link in links(postbox, 3):
                assert (await get(link, headers={"User-Agent": "curl/8"})).code == 302
            other = Postbox(Settings(domain="localhost", http_port=80, keys=[new_key()]))
            token = links(other, 1)[0].rpartition("/")[2]
            assert (await get(links(postbox, 1)[0].rpartition("/")[0] + "/" + token)).code == 404
            async with asyncio.timeout(10):
                while not (await health(address))[1]["notifiers"]["Down"]["paused"]:
                    await asyncio.sleep(0.05)
            code, said = await health(address)
            assert (code, said["status"], said["problems"]) == (200, "ok", [])
            assert said["processes"] == [{"outbox": 0, "error": "", "waitingForDisk": 0}]
            assert said["notifiers"]["Down"]["paused"] == "the password was changed"
            found = await metrics(address)
            assert found["postbox_healthy",] == 1
            assert found["postbox_clicks_total", "machine"] == 3
            assert found["postbox_responses_total", "302"] == 3
            assert found["postbox_responses_total", "404"] == 1
            assert found["postbox_unknown_key_tokens_total",] == 1
            assert found["postbox_clicks_lost_total",] == 0
            assert found["postbox_journal_commit_clicks_sum",] == 3
            assert (
                found["postbox_journal_commit_seconds_bucket", "+Inf"] == found["postbox_journal_commit_seconds_count",]
            )
            assert found["postbox_notifier_paused", "Down"] == 1
            assert found["postbox_backlog_clicks", "Down"] + found["postbox_retrying_clicks", "Down"] == 3

    asyncio.run(main())


def test_a_disk_that_fails_is_told_and_so_is_its_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the reason while clicks wait in memory; 200 once they are on disk."""
    monkeypatch.setattr("postbox_plugin.outbox.writer.RETRY", 0.05)

    def failing(self: Journal, entries: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> None:
        async with service(tmp_path, Down()) as (postbox, address):
            with monkeypatch.context() as broken:
                broken.setattr(Journal, "append", failing)
                assert (await get(links(postbox, 1)[0])).code == 302
                code, said = await health(address)
                assert (code, said["status"]) == (503, "failing")
                assert "outbox-0 cannot write" in said["problems"][0]
                assert "database or disk is full; 1 clicks wait in memory" in said["problems"][0]
                found = await metrics(address)
                assert (found["postbox_healthy",], found["postbox_journal_writable",]) == (0, 0)
                assert found["postbox_clicks_waiting_for_disk",] == 1
            async with asyncio.timeout(10):
                while (await metrics(address))["postbox_journal_commit_clicks_sum",] != 1:
                    await asyncio.sleep(0.05)
            assert (await health(address))[0] == 200

    asyncio.run(main())


def test_a_process_that_hangs_does_not_hang_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped is named; one that is missing is counted."""
    monkeypatch.setattr("postbox_plugin.service.admin.PATIENCE", 0.3)
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom postbox_plugin.outbox import Outbox\n"
        "async def main():\n    await Outbox(Path(sys.argv[1]), []).start()\n    print(flush=True)\n"
        "    await asyncio.sleep(60)\nasyncio.run(main())"
    )

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            assert (await examine(tmp_path, 1)).problems == []
            assert (await examine(tmp_path, 2)).problems == ["1 of 2 processes answer"]
            os.kill(process.pid, signal.SIGSTOP)
            hung, missing = (await examine(tmp_path, 1)).problems
            assert hung.startswith("outbox-0: the service behind")
            assert missing == "0 of 1 processes answer"
        finally:
            process.kill()
            await process.wait()
        # Its socket is still there, and nobody behind it.
        assert (await examine(tmp_path, 1)).problems == ["0 of 1 processes answer"]

    asyncio.run(main())


def test_an_address_that_is_taken_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ServeSettings(http="127.0.0.1:0", admin=f"127.0.0.1:{taken.getsockname()[1]}")
        settings = Settings(domain="localhost", keys=[new_key()], spool=str(tmp_path), serve=listen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Tornado leaves the socket open that it could not bind
            with pytest.raises(SettingsError, match=r"serve\.admin: cannot listen on"):
                asyncio.run(serve(Postbox(settings)))
            gc.collect()
