"""Real brokers for tests, each a process of its own on a free port, with what it keeps in a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

__all__ = ["Broker", "Nats", "RabbitMQ", "Redis", "program"]

START: float = 60.0


def program(name: str) -> str:
    """The path of a program, or a skip where it is missing."""
    # Debian's command in /usr/sbin starts RabbitMQ as a user of its own, who may not write where tests do.
    places = ("/usr/lib/rabbitmq/bin", os.environ.get("PATH", ""), "/usr/sbin")
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


class Broker:
    """A server that can be killed and started again.

    :ivar port: where it listens, on loopback; the same after each start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, env=self.environment(), start_new_session=True
            )
        deadline = time.monotonic() + START
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it can be used."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        """To all of its processes: some servers are started by a script."""
        assert self._process is not None
        os.killpg(self._process.pid, number)


class Redis(Broker):
    """redis-server, which writes each command to disk before it answers."""

    def command(self) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", *durable]


class RabbitMQ(Broker):
    """rabbitmq-server, with a port mapper and a cookie of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.create_server(("127.0.0.1", 0)) as mapper, socket.create_server(("127.0.0.1", 0)) as distribution:
            self._mapper_port, self._distribution_port = (one.getsockname()[1] for one in (mapper, distribution))
        self._mapper: subprocess.Popen[bytes] | None = None
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.local = 127.0.0.1:{self.port}\nlog.console = true\n")
        (folder / "enabled_plugins").write_text("[].\n")

    def command(self) -> list[str]:
        return [program("rabbitmq-server")]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HOME": folder,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": f"rabbit{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": folder,
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def start(self) -> None:
        if self._mapper is None:
            command = [program("epmd"), "-port", str(self._mapper_port), "-address", "127.0.0.1"]
            self._mapper = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().start()

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


class Nats(Broker):
    """nats-server with JetStream."""

    def command(self) -> list[str]:
        return [program("nats-server"), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]
