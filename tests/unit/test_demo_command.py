"""``postbox demo``: its ways to fail."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from postbox_hooks.demo import clicker
from postbox_hooks.demo.command import demo
from postbox_hooks.demo.feed import Feed

pytestmark = pytest.mark.extra("demo")


def run(*arguments: str) -> Result:
    """The command, run with these arguments."""
    app = typer.Typer()
    app.command("demo")(demo)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("library", ["mjml", "aiosmtpd.smtp", "standardwebhooks.webhooks"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    """Exit code 2, the command to run, no traceback, and nothing left behind."""
    monkeypatch.setitem(sys.modules, library, None)

    result = run("--click")

    assert result.exit_code == 2
    assert f"needs {library.partition('.')[0]}, which is not installed" in result.stderr
    assert 'pip install "postbox-plugin[demo]"' in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert list(temporary.iterdir()) == []


def test_a_taken_port_is_named() -> None:
    """Exit code 1, with the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = run("--click", "--port", str(port))

    assert result.exit_code == 1
    assert f"port {port}" in result.stderr
    assert "choose another with --port" in result.stderr


def test_notifications_that_do_not_come_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 with the reason, and nothing on stdout."""
    monkeypatch.setattr(Feed, "add", lambda _feed, _notification: None)
    monkeypatch.setattr(clicker.click, "__kwdefaults__", {"deadline": 0.05})

    result = run("--click")

    assert result.exit_code == 1
    assert "5 of 5 notifications did not come within 0.05 s" in result.stderr
    assert result.stdout == ""


def test_the_help_has_an_example() -> None:
    """And says what each option does."""
    result = run("--help")

    assert result.exit_code == 0
    assert "postbox demo --click" in result.stdout
    for option in ("--click", "--port", "--no-browser"):
        assert option in result.stdout
