"""`postbox outbox`, over an outbox that a service has left behind."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from postbox_plugin import Click, Mail, Postbox, Settings, hookimpl, new_key
from postbox_plugin.cli import main
from postbox_plugin.errors import PauseNotifier, RetryLater

Run = Callable[..., tuple[object, str, str]]


class Gone:
    """A notifier that a person has to look at."""

    name = "gone"

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Refuse for good."""
        raise PauseNotifier("410 Gone")


class Busy:
    """A notifier that takes nothing now."""

    name = "busy"

    def __init__(self) -> None:
        self.called = asyncio.Event()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Refuse for an hour."""
        self.called.set()
        raise RetryLater(3600, "busy")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool of a service that has stopped: one click, which one notifier paused at and one will try again."""
    spool = tmp_path / "spool"
    key = new_key()
    (tmp_path / "postbox.toml").write_text(f'domain = "click.example.com"\nkeys = ["{key}"]\nspool = "spool"\n')
    monkeypatch.chdir(tmp_path)

    async def clicked() -> None:
        busy = Busy()
        postbox = Postbox(Settings(domain="click.example.com", keys=[key], spool=str(spool)), plugins=[Gone(), busy])
        mail = Mail(sender="shop@example.com", recipient="Anna <anna@example.com>")
        html = postbox.track_html('<a href="https://example.com/">x</a>', mail)
        link = postbox.open(html.split('"')[1])
        async with postbox.running():
            await postbox.record(link, address="192.0.2.1", user_agent="", headers={})
            async with asyncio.timeout(20):
                await busy.called.wait()

    asyncio.run(clicked())
    return spool


@pytest.fixture
def run(spool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `postbox outbox` with arguments."""

    def ran(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["postbox", "outbox", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        return (exit_.value.code, *capsys.readouterr())

    return ran


def test_status(run: Run) -> None:
    """`status` says of each notifier how it is doing."""
    code, out, err = run("status")
    assert (code, err) == (0, "")
    head, *rows = (line.split("\t") for line in out.splitlines())
    assert head[:3] == ["notifier", "state", "waiting"]
    found = {row[0]: row for row in rows}
    assert found["gone"][1] == "paused"
    assert "410 Gone" in found["gone"][-1]
    assert "busy" in found["busy"][-1]


def test_status_json(run: Run) -> None:
    """`status --json` has the records, numbers as numbers."""
    found = {one["name"]: one for one in json.loads(run("status", "--json")[1])}
    assert found["gone"]["paused"] == "410 Gone"
    assert found["busy"]["waiting"] + found["busy"]["retrying"] == 1
    assert found["busy"]["oldest"] >= 0


def test_list(run: Run) -> None:
    """`list` names the clicks by event id, and nobody who clicked."""
    code, out, err = run("list", "busy")
    assert (code, err) == (0, "")
    head, row = (line.split("\t") for line in out.splitlines())
    assert head[1] == "event"
    assert row[0] == "busy"
    assert "anna" not in out
    listed = json.loads(run("list", "--json", "-n", "5")[1])
    assert {one["notifier"] for one in listed} == {"busy", "gone"}
    assert row[1] in {one["event_id"] for one in listed}


def test_retry(run: Run) -> None:
    """`retry` says how many clicks are due again."""
    code, out, _ = run("retry", "busy")
    assert code == 0
    assert out.startswith("clicks that are tried again: ")


def test_resume(run: Run) -> None:
    """`resume` takes a pause away, once."""
    assert run("resume", "gone") == (0, "gone goes on\n", "")
    assert run("resume", "gone") == (0, "gone was not paused\n", "")
    assert "paused" not in run("status")[1]


def test_unknown_notifier(run: Run) -> None:
    """A name that the outbox does not know is an error, on one line."""
    code, out, err = run("resume", "nobody")
    assert (code, out) == (1, "")
    assert err.startswith("postbox: ")
    assert "nobody" in err


def test_purge_recipient(run: Run) -> None:
    """`purge --recipient` erases what is about one address, and nothing else."""
    assert run("purge", "--recipient", "bert@example.com")[1] == "clicks dropped: 0\n"
    code, out, _ = run("purge", "-r", "anna@example.com")
    assert (code, out) == (0, "clicks dropped: 1\n")
    assert json.loads(run("list", "--json")[1]) == []


def test_purge_notifier(run: Run) -> None:
    """`purge NOTIFIER` drops what waits for one notifier; that of the others stays."""
    assert run("purge", "gone")[0] == 0
    assert {one["notifier"] for one in json.loads(run("list", "--json")[1])} == {"busy"}


def test_no_outbox_yet(run: Run, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that no service has used is an error that says so."""
    monkeypatch.setenv("POSTBOX_SPOOL", str(spool.parent / "other"))
    code, _, err = run("status")
    assert code == 1
    assert "no service has used this spool yet" in err
