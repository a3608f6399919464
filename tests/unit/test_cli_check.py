"""`postbox serve` and `postbox check`: a service as operators run it, and whether it is set up right."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from postbox_plugin.cli.checks import Finding, run_checks
from postbox_plugin.tokens.keyring import new_key

COMMAND = [sys.executable, "-m", "postbox_plugin"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service on both schemes, set up in a folder: settings and certificate."""
    http, https = free_ports(2)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "postbox.toml").write_text(
        f"""
        domain = "localhost"
        http_port = {http}
        https_port = {https}
        keys = ["{new_key()}"]
        [serve]
        http = "127.0.0.1:{http}"
        https = "127.0.0.1:{https}"
        cert = "server.pem"
        key = "server.pem"
        """
    )
    return tmp_path


@contextlib.contextmanager
def serving(folder: Path, config: str = "postbox.toml") -> Iterator[subprocess.Popen[str]]:
    """`postbox serve`, from when it listens."""
    command = [*COMMAND, "serve", "--config", str(folder / config)]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            log = ""
            for line in process.stderr:
                log += line
                if "listening on" in line:
                    break
            assert "listening on" in log, log
            yield process
        finally:
            process.kill()


def check(folder: Path, config: str = "postbox.toml") -> tuple[int, dict[str, list[str]]]:
    """The exit code of `postbox check`, and what it says of each thing that it looks at."""
    ran = subprocess.run(
        [*COMMAND, "check", "-c", str(folder / config)],
        cwd="/",
        env=os.environ | {"SSL_CERT_FILE": str(folder / "ca.pem")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    rows = [line.split("\t") for line in ran.stdout.splitlines()]
    return ran.returncode, {row[1]: row for row in rows}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_told_to_stop(folder: Path, number: signal.Signals) -> None:
    """The service says where it listens, makes its spool beside the settings, and exits with 0 when told to."""
    with serving(folder) as process:
        assert (folder / "postbox-spool").stat().st_mode & 0o777 == 0o700
        process.send_signal(number)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert process.wait(30) == 0


def test_serve_on_a_taken_port(folder: Path) -> None:
    """A port that somebody else has is an error of the settings, on one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = subprocess.run(
            [*COMMAND, "serve", "-c", str(folder / "postbox.toml")],
            env=os.environ | {"POSTBOX_SERVE_HTTP": f"127.0.0.1:{taken.getsockname()[1]}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 2
    assert "postbox: POSTBOX_SERVE_HTTP: serve.http: cannot listen on" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_all_is_well(folder: Path) -> None:
    """With the service running, every check passes, on both schemes, and no click was made."""
    with serving(folder):
        code, found = check(folder)
        assert code == 0, found
        for name in ("settings", "keys", "links", "spool", "http", "https"):
            assert found[name][0] == "ok"
        assert found["notifiers"][0] == "skipped"
    status = subprocess.run(
        [*COMMAND, "outbox", "list", "-c", str(folder / "postbox.toml")], capture_output=True, text=True, check=True
    )
    assert status.stdout.count("\n") == 1


def test_service_with_another_key(folder: Path) -> None:
    """A sender and a service that do not share a key, the commonest mistake, are found."""
    other = (folder / "postbox.toml").read_text().splitlines()
    (folder / "sender.toml").write_text(
        "\n".join(f'keys = ["{new_key()}"]' if "keys" in line else line for line in other)
    )
    with serving(folder):
        code, found = check(folder, "sender.toml")
    assert code == 1
    assert found["links"][0] == "ok"
    for scheme in ("http", "https"):
        assert found[scheme][0] == "failed"
        assert "does not open" in found[scheme][2]
        assert "same keys" in found[scheme][3]


def test_untrusted_certificate(folder: Path) -> None:
    """A certificate that browsers do not trust is found."""
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    with serving(folder):
        code, found = check(folder)
    assert code == 1
    assert found["http"][0] == "ok"
    assert found["https"][0] == "failed"
    assert "no valid certificate" in found["https"][2]


def test_nobody_answers(folder: Path) -> None:
    """Without a service, both schemes fail and say what to start; the rest is still looked at."""
    code, found = check(folder)
    assert code == 1
    assert found["spool"][0] == "ok"
    for scheme in ("http", "https"):
        assert (found[scheme][0], "does not answer" in found[scheme][2]) == ("failed", True)
        assert "postbox serve" in found[scheme][3]


def in_process(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in run_checks(path)}


def test_domain_that_does_not_resolve(folder: Path) -> None:
    """A domain without an address is found. (Names below .invalid never have one: RFC 6761, 6.4.)"""
    (folder / "other.toml").write_text(f'domain = "click.invalid"\nkeys = ["{new_key()}"]\n')
    found = in_process(folder / "other.toml")
    assert found["http"].state == found["https"].state == "failed"
    assert "does not resolve" in found["http"].detail
    assert "record" in found["http"].remedy


def test_wrong_settings(folder: Path) -> None:
    """Settings that do not load are the only finding."""
    (folder / "other.toml").write_text('domain = "localhost"\n')
    code, found = check(folder, "other.toml")
    assert code == 1
    assert list(found) == ["settings"]
    assert "postbox keys new" in found["settings"][3]


def test_spool_open_to_others(folder: Path) -> None:
    """A spool that others may look into is found, with the command that closes it."""
    (folder / "postbox-spool").mkdir(mode=0o755)
    (folder / "postbox-spool").chmod(0o755)
    finding = in_process(folder / "postbox.toml")["spool"]
    assert (finding.state, finding.remedy) == ("failed", f"chmod 700 {folder / 'postbox-spool'}")


def test_spool_that_is_a_file(folder: Path) -> None:
    """A spool that cannot be written to is found."""
    (folder / "postbox-spool").touch()
    finding = in_process(folder / "postbox.toml")["spool"]
    assert finding.state == "failed"
    assert "not writable" in finding.detail


def test_notifier_that_cannot_be_made(folder: Path) -> None:
    """A [[notify]] block that is wrong is found, by its place."""
    with (folder / "postbox.toml").open("a") as file:
        file.write('\n[[notify]]\nuse = "log"\npaht = "clicks.jsonl"\n')
    finding = in_process(folder / "postbox.toml")["notifier log"]
    assert finding.state == "failed"
    assert "notify[0].paht" in finding.detail
