"""``postbox relay`` as a process: from a configuration file to a mail, and its end."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sinks import running_sink

from postbox_hooks.notify.log import LogNotifier
from postbox_hooks.relay.command import is_quick
from postbox_plugin import Mail, Postbox, Settings, hookimpl, new_key

from .mail_cases import ADDRESSES, PLAIN, mime, tracking_links

COMMAND = [sys.executable, "-W", "error", "-m", "postbox_plugin", "relay"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file."""
    path = tmp_path / "postbox.toml"
    path.write_text(
        f'domain = "click.example.com"\nkeys = ["{new_key()}"]\n'
        '[relay]\nupstream = "mail.example.com:587"\nupstream_tls = "none"\nhostname = "relay.example.com"\n'
    )
    return path


@contextmanager
def relay(*arguments: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A relay and its port, which its log tells."""
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        assert process.stderr is not None
        found = re.search(r"INFO postbox\.relay: listening on 127\.0\.0\.1:(\d+), for ", process.stderr.readline())
        assert found
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_a_file_to_a_mail_and_to_its_end(number: signal.Signals, config: Path) -> None:
    """Options outweigh the file; a signal ends it with exit code 0; the log names nobody."""
    with (
        running_sink() as sink,
        relay("--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{sink.port}", cwd=config.parent) as (process, port),
    ):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as smtp:
            smtp.send_message(mime(PLAIN))
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    (arrived,) = sink.mails
    postbox = Postbox.from_file(config)
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    assert [line.partition("postbox.relay: ")[2].rstrip("0123456789") for line in log.splitlines()] == [
        f"a mail of {len(mime(PLAIN).as_bytes())} bytes to 1: ",
        "stopping",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "0.0.0.0:25"], "postbox: the command line: relay.listen: 0.0.0.0:25 is open to other machines"),
        (
            ["--listen", "127.0.0.1:{taken}"],
            "the command line: relay.listen: cannot listen on 127.0.0.1:{taken}",
        ),
        (["--config", "missing.toml"], "postbox: missing.toml: the file: does not exist"),
    ],
)
def test_what_cannot_start_says_why(arguments: list[str], complaint: str, config: Path) -> None:
    """Exit code 2, one line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, *(argument.replace("{taken}", port) for argument in arguments)],
            capture_output=True,
            text=True,
            cwd=config.parent,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    assert complaint.replace("{taken}", port) in done.stderr
    assert done.stderr.count("\n") == 1


class Greeter:
    """A plugin that changes mails."""

    @hookimpl
    def postbox_before_send(self, mail: Mail) -> None:
        mail.html = f"Hello! {mail.html}"


@pytest.mark.parametrize(
    ("plugins", "quick"),
    [([], True), ([LogNotifier(path="clicks.jsonl")], True), ([Greeter()], False)],
)
def test_only_where_no_plugin_has_a_say_is_a_mail_rewritten_in_the_loop(plugins: list[object], quick: bool) -> None:
    """Of plugins nobody knows how long they take."""
    assert is_quick(Postbox(Settings(domain="click.example.com", keys=[new_key()]), plugins)) is quick


@pytest.mark.parametrize("library", ["aiosmtpd", "aiosmtplib"])
def test_a_missing_library_is_named(library: str, config: Path, tmp_path: Path) -> None:
    """With the command to run; the other commands do without it."""
    hidden = tmp_path / "hidden" / library
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text(f'raise ImportError("No module named {library}")')
    environment = os.environ | {"PYTHONPATH": str(hidden.parent)}
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, cwd=config.parent, check=False, timeout=60, env=environment
    )
    assert done.returncode == 1
    assert done.stderr == (
        f'postbox: the relay needs {library}, which is not installed: run  pip install "postbox-plugin[relay]"\n'
    )
    done = subprocess.run(
        [*COMMAND[:-1], "--help"], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert "\n  relay " in done.stdout
