"""A real Postfix for tests: an instance of its own, with its own configuration, queue and log."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Postfix", "running_postfix"]

START = 30.0

# Every service with no chroot, and as little else as a mail needs.
SERVICES = """\
{port}    inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
pickup    unix n - n 60 1 pickup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """An instance.

    :ivar port: where it takes mail.
    """

    def __init__(self, folder: Path, next_hop: int, settings: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._config = folder / "config"
        self._log = folder / "mail.log"
        written = {
            "compatibility_level": "3.6",
            "queue_directory": str(folder / "queue"),
            "data_directory": str(folder / "data"),
            "maillog_file": str(self._log),
            "maillog_file_prefixes": str(folder),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "postfix.example.com",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "relayhost": f"[127.0.0.1]:{next_hop}",
            "alias_maps": "",
            "smtp_dns_support_level": "disabled",
            "minimal_backoff_time": "1s",
            "queue_run_delay": "1s",
            **settings,
        }
        for name in ("config", "queue", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        (self._config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in written.items()))
        (self._config / "master.cf").write_text(SERVICES.format(port=f"127.0.0.1:{self.port}"))

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text() if self._log.exists() else ""

    def run(self, command: str) -> None:
        """Tell it to do something."""
        done = subprocess.run(
            [_program(), "-c", str(self._config), command], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log

    def wait_until(self, text: str, count: int = 1) -> None:
        """Wait until it has logged this so often."""
        until = time.monotonic() + START
        flushed = time.monotonic()
        while self.log.count(text) < count:
            assert time.monotonic() < until, self.log
            if time.monotonic() > flushed + 2:  # its own next try may be a long way off: it passes over what is busy
                self.run("flush")
                flushed = time.monotonic()
            time.sleep(0.02)


@contextmanager
def running_postfix(next_hop: int, **settings: str) -> Iterator[Postfix]:
    """Run an instance that sends everything to this port.

    :param settings: further lines of its ``main.cf``.
    """
    _program()
    # Not pytest's folder, where only root may look: Postfix works as users of its own.
    with tempfile.TemporaryDirectory(prefix="postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postfix = Postfix(folder, next_hop, settings)
        postfix.run("start")
        try:
            yield postfix
        finally:
            postfix.run("stop")


def _program() -> str:
    found = shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        pytest.skip("postfix is not installed")
    if os.geteuid() != 0:
        pytest.skip("Postfix starts as root only")
    return found
