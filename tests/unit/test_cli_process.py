"""`postbox` as a process: pipes, signals, terminals, and commands that other distributions bring."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from postbox_plugin.tokens.keyring import new_key

MESSAGE = b"From: a@example.com\r\nTo: b@example.com\r\nContent-Type: text/html\r\n\r\n<a href='https://example.com/'>x</a>\r\n"

COMMAND = [sys.executable, "-m", "postbox_plugin"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a postbox.toml in it."""
    (tmp_path / "postbox.toml").write_text(f'domain = "click.example.com"\nkeys = ["{new_key()}"]\n')
    return tmp_path


def run(folder: Path, *arguments: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=os.environ | environ,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_bytes_through_a_pipe(folder: Path) -> None:
    """What goes through the pipe is bytes, whatever the locale."""
    message = MESSAGE.replace(b">x<", b">\xff\r\r\n\n<").replace(b"text/html", b"text/html; charset=koi8-r")
    ran = run(folder, "rewrite", "-", stdin=message, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.endswith(b"'>\xff\r\r\n\n</a>\r\n")
    assert b"https://click.example.com/c/" in ran.stdout


def test_why_a_message_is_left_alone(folder: Path) -> None:
    """`rewrite` says on standard error why it changed nothing."""
    ran = run(folder, "rewrite", "-", "-r", "a@example.com", "-r", "b@example.com", stdin=MESSAGE)
    assert (ran.returncode, ran.stdout) == (0, MESSAGE)
    assert ran.stderr.startswith(b"postbox: message left alone: ")
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["rewrite", "-"], ["explain", "-"]])
def test_closed_pipe_is_quiet(folder: Path, arguments: list[str]) -> None:
    """A reader that has seen enough (`| head`) is no error that anybody is told of."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder,
            input=MESSAGE,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert ran.stderr == b""


def test_interrupt_is_130(folder: Path) -> None:
    """Ctrl-C ends a command with 130 and without a traceback."""
    os.mkfifo(folder / "order.eml")
    with (
        subprocess.Popen([*COMMAND, "rewrite", "order.eml"], cwd=folder, stderr=subprocess.PIPE) as process,
        # Opening this end waits until the command has opened the other one; then it waits for the mail.
        (folder / "order.eml").open("wb"),
    ):
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(30) == 130


def on_terminal(folder: Path, *arguments: str, **environ: str) -> str:
    """What a command shows on a terminal of 100 columns."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | environ,
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    shown = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(main)
    process.wait(60)
    return shown.decode()


def test_table_on_a_terminal(folder: Path) -> None:
    """A person gets a table in colour, without tabs; and without colour where NO_COLOR is set."""
    (folder / "order.eml").write_bytes(MESSAGE)
    shown = on_terminal(folder, "explain", "order.eml")
    assert "\x1b[32mtracked" in shown
    assert "\t" not in shown
    assert "https://example.com/" in shown
    plain = on_terminal(folder, "explain", "order.eml", NO_COLOR="1")
    assert "\x1b[3" not in plain


def distribution(site: Path, name: str, module: str, code: str, points: str) -> None:
    """An installed distribution with entry points in the group of commands."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[postbox.commands]\n{points}\n")
    (site / f"{module}.py").write_text(textwrap.dedent(code))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed distributions that bring commands: two good ones and three bad ones."""
    site = tmp_path / "site"
    code = '''
        import typer

        def greet(name: str = "you") -> None:
            """Greet someone."""
            print(f"hello {name}")

        group = typer.Typer(help="A group.")

        @group.command()
        def one() -> None:
            print("one")

        @group.command()
        def two() -> None:
            print("two")

        number = 7

        def open() -> None:
            print("stolen")
    '''
    points = "greet = good:greet\nnumbers = good:group\nseven = good:number\nopen = good:open"
    distribution(site, "good", "good", code, points)
    distribution(site, "broken", "broken", "import nothing_of_that_name", "aaa-broken = broken:main")
    return site


def test_foreign_commands(folder: Path, site: Path) -> None:
    """A function or a typer.Typer of another distribution is a command as ours are."""
    path = str(site)
    assert run(folder, "greet", "--name", "Anna", PYTHONPATH=path).stdout == b"hello Anna\n"
    assert run(folder, "numbers", "two", PYTHONPATH=path).stdout == b"two\n"
    shown = run(folder, "--help", PYTHONPATH=path).stdout.decode()
    assert "Greet someone." in shown
    assert "A group." in shown


def test_broken_foreign_command(folder: Path, site: Path) -> None:
    """A command that cannot be loaded is named in a warning, and takes nothing down."""
    ran = run(folder, "--help", PYTHONPATH=str(site))
    assert ran.returncode == 0
    warnings = ran.stderr.decode()
    assert "cannot load aaa-broken from broken 1.0" in warnings
    assert "seven from good 1.0" in warnings
    assert "aaa-broken" not in ran.stdout.decode()
    assert "greet" in ran.stdout.decode()
    assert run(folder, "aaa-broken", PYTHONPATH=str(site)).returncode == 2


def test_own_command_is_not_hidden(folder: Path, site: Path) -> None:
    """A foreign command of the name of one of ours is not called."""
    ran = run(folder, "open", "x", PYTHONPATH=str(site))
    assert b"stolen" not in ran.stdout
    assert (ran.returncode, ran.stderr.count(b"\n")) == (1, 1)


def test_own_commands_load_no_foreign_one(folder: Path, site: Path) -> None:
    """What other distributions bring is loaded when it is asked for, and not before."""
    assert run(folder, "keys", "new", PYTHONPATH=str(site)).stderr == b""
