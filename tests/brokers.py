"""Real brokers for tests, each a process of its own on a free port, with what it keeps in a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

__all__ = ["Broker", "Gate", "Kafka", "Moto", "Nats", "RabbitMQ", "Redis", "program"]

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

    def close(self) -> None:
        """Kill it for good."""
        self.kill()

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
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


class Nats(Broker):
    """nats-server with JetStream."""

    def command(self) -> list[str]:
        return [program("nats-server"), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]


class Moto(Broker):
    """moto's server, which is Kinesis and SQS; it keeps all in memory, so tests kill the :class:`Gate` before it."""

    # What an account has to have, and moto does not look at.
    ACCOUNT = {"region": "ru-central1", "access_key_id": "id", "secret_access_key": "secret"}  # noqa: RUF012

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "MOTO_ALLOW_NONEXISTENT_REGION": "true"}


class Gate(Broker):
    """The way to a server that forgets what it has when it is killed: a process that passes bytes on.

    What clients know of Kinesis and SQS is such a front, whose machines come and go before a store that stays. Killed,
    it cuts connections at any byte, also between a request that was taken and its answer; paused, it hangs.

    :param folder: for its log.
    :param server: where it leads to.
    """

    SCRIPT = """
import asyncio, sys

async def main(port, behind):
    async def serve(reader, writer):
        further = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(copy(reader, further[1]), copy(further[0], writer))

    async def copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    await (await asyncio.start_server(serve, "127.0.0.1", port)).serve_forever()

asyncio.run(main(*map(int, sys.argv[1:])))
"""

    def __init__(self, folder: Path, server: Broker) -> None:
        super().__init__(folder)
        self.server = server

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.SCRIPT, str(self.port), str(self.server.port)]


class Kafka(Broker):
    """librdkafka's own mock cluster (``mock_kafka.py``), which keeps all in memory: killing takes it off the network.

    :ivar servers: the addresses of its brokers.
    """

    servers: list[str]

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("mock_kafka.py"))]

    def start(self) -> None:
        if self._process is None:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
            assert self._process.stdout is not None
            self.servers = self._process.stdout.readline().decode().strip().split(",")
        else:
            self.order("up")

    def kill(self) -> None:
        """Cut all connections, and take no new ones."""
        self.order("down")

    def order(self, command: str) -> None:
        """Give it one of the commands that it obeys."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"done\n", (self.folder / "log").read_text()

    def close(self) -> None:
        if self._process is not None:
            with self._process:
                self._process.kill()
