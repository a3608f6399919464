"""Shell samples, run as a reader would type them, but without a network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Program", "run", "running"]

# A virtual environment of the reader's own, whose pip needs no network; everything else is what it says.
_PRELUDE: Final = f"""
python3() {{
    [[ "$1 $2" == "-m venv" ]] || {{ echo "not foreseen: python3 $*" >&2; return 1; }}
    "{sys.executable}" -m venv --without-pip "$3"
    printf '#!/bin/sh\\nexec "%s" "%s" "$(dirname "$0")/.." "$@"\\n' \\
        "{sys.executable}" "{Path(__file__).parent / "offline_pip.py"}" > "$3/bin/pip"
    chmod +x "$3/bin/pip"
}}
"""
# Who is started in the background of a script ignores Ctrl-C, and so would all that it starts.
_HEED_CTRL_C: Final = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_START: Final = 30.0


def _environment(variables: dict[str, str]) -> dict[str, str]:
    ours = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path} | ours | variables


def run(text: str, folder: Path, **variables: str) -> str:
    """Run commands, each of which must succeed; what they print.

    :param text: the commands.
    :param folder: where.
    :param variables: of the environment.
    """
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _PRELUDE + text],
        cwd=folder,
        env=_environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


class Program:
    """A program that runs until it is stopped.

    :ivar log: the file with what it printed.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.log: Final = log
        self._process: Final = process

    def printed(self, text: str) -> str:
        """Wait until it has printed something; all that it printed."""
        deadline = time.monotonic() + _START
        while text not in (so_far := self.log.read_text("utf-8")):
            assert self._process.poll() is None, so_far
            assert time.monotonic() < deadline, so_far
            time.sleep(0.05)
        return so_far

    def stop(self) -> int:
        """Press Ctrl-C; its exit code."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            return self._process.wait(_START)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise


@contextmanager
def running(text: str, folder: Path, name: str, **variables: str) -> Iterator[Program]:
    """Run commands of which the last runs until it is stopped.

    :param text: the commands.
    :param folder: where.
    :param name: tells its log from others'.
    :param variables: of the environment.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _HEED_CTRL_C, "bash", "-euo", "pipefail", "-c", _PRELUDE + text],
            cwd=folder,
            env=_environment(variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.stop()
