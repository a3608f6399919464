"""What a supervisor is told by ``postbox serve``: systemd's ``Type=notify``."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from services import Service

from postbox_plugin.service import supervisor


def listening(address: str) -> socket.socket:
    """A supervisor's end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_told_when_the_service_serves_and_when_it_stops(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, however many workers there are; ready means that a click is answered."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening(str(tmp_path / "s")) as sock:
            starting = asyncio.create_task(service.start())
            assert await loop.sock_recv(sock, 1000) == b"READY=1"
            await service.click([1])
            await starting
            assert await service.stop() == 0
            assert await loop.sock_recv(sock, 1000) == b"STOPPING=1"
            with pytest.raises(BlockingIOError):
                sock.recv(1000)

    service = Service(tmp_path, workers)
    asyncio.run(main())


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """``@`` is the null byte of Linux's abstract namespace."""
    name = f"postbox-test-{id(monkeypatch)}"
    with listening(f"\0{name}") as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        supervisor.tell("READY=1")
        assert sock.recv(1000) == b"READY=1"


def test_a_supervisor_that_is_gone_or_never_was_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor.tell("READY=1")
    assert not caplog.records
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    supervisor.tell("READY=1")
    assert "does not listen" in caplog.text
