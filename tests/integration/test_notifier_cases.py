"""The notifiers ``log`` and ``webhook`` pass the tests that every notifier must pass."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Broker

from postbox_hooks.notify.log import LogNotifier
from postbox_hooks.notify.webhook import WebhookNotifier
from postbox_plugin.testing import NotifierCases

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the specification


class Disk:
    """A folder for a log file, which can be away, and whose file somebody else can lock."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "here" / "clicks.jsonl"
        self._away = folder / "away"
        self._lock = -1
        self.file.parent.mkdir(parents=True)

    def start(self) -> None:
        self._away.rename(self.file.parent)

    def kill(self) -> None:
        self.file.parent.rename(self._away)

    def pause(self) -> None:
        self._lock = os.open(self.file, os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def resume(self) -> None:
        os.close(self._lock)


class TestLog(NotifierCases):
    refusal = "Not a regular file"

    @pytest.fixture
    def server(self, tmp_path: Path) -> Disk:
        return Disk(tmp_path / "disk")

    def notifier(self, server: Disk) -> object:
        return LogNotifier(path=str(server.file))

    def refused(self, server: Disk) -> object:
        os.mkfifo(server.file)
        return LogNotifier(path=str(server.file))

    async def received(self, server: Disk) -> list[bytes]:
        return server.file.read_bytes().splitlines() if server.file.exists() else []


class Receiver(Broker):
    """A web application that appends what is posted to it to a file, and refuses what is posted elsewhere."""

    SCRIPT = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/hook":
            os.write(file, body + b"\\n")
            self.send_response(204)
        else:
            self.send_response(401)
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass

file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.SCRIPT, str(self.port), str(self.folder / "received")]


class TestWebhook(NotifierCases):
    refusal = "401"

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Receiver]:
        (tmp_path / "receiver").mkdir()
        receiver = Receiver(tmp_path / "receiver")
        receiver.start()
        yield receiver
        receiver.kill()

    def notifier(self, server: Receiver) -> object:
        return WebhookNotifier(url=f"http://127.0.0.1:{server.port}/hook", secret=SECRET, request_timeout=2.0)

    def refused(self, server: Receiver) -> object:
        return WebhookNotifier(url=f"http://127.0.0.1:{server.port}/elsewhere", secret=SECRET)

    async def received(self, server: Receiver) -> list[bytes]:
        return (server.folder / "received").read_bytes().splitlines()
