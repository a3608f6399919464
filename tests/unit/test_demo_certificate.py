"""The demo's certificate."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path

import pytest

from postbox_hooks.demo.certificate import make_certificate


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_serves_https_on_this_machine(tmp_path: Path, name: str) -> None:
    """A client that trusts it accepts it for this machine's names; the private key is private."""
    certificate, key = make_certificate(tmp_path)

    assert _greeting(certificate, key, trusted=certificate, name=name) == b"hello"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_is_good_for_nothing_else(tmp_path: Path) -> None:
    """Who trusts one trusts neither another one nor another name."""
    certificates = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        certificates.append(make_certificate(folder))
    (certificate, key), (other, _) = certificates

    for trusted, name in ((other, "localhost"), (certificate, "example.org")):
        with pytest.raises(ssl.SSLCertVerificationError):
            _greeting(certificate, key, trusted=trusted, name=name)


def _greeting(certificate: Path, key: Path, *, trusted: Path, name: str) -> bytes:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(trusted))

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def scenario() -> bytes:
        async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serving) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name)
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            return received

    return asyncio.run(scenario())
