"""The configurations of nginx and systemd in ``examples``: nginx runs its own in front of the service."""

from __future__ import annotations

import asyncio
import configparser
import json
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from servers import hrefs, redirecting
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from postbox_plugin import Mail, Postbox
from postbox_plugin.testing import RecordingNotifier

EXAMPLES = Path(__file__).parents[2] / "examples"


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def nginx(folder: Path, service: int, http: int, https: int) -> Iterator[None]:
    """nginx with the example's configuration, but for ports and the certificate."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("click.example.com")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "chain.pem")
    site = (EXAMPLES / "nginx" / "click.example.com.conf").read_text()
    for written, here in {
        "127.0.0.1:8080": f"127.0.0.1:{service}",
        "listen 80;": f"listen 127.0.0.1:{http};",
        "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
        "/etc/letsencrypt/live/click.example.com/fullchain.pem": str(folder / "chain.pem"),
        "/etc/letsencrypt/live/click.example.com/privkey.pem": str(folder / "chain.pem"),
    }.items():
        assert site.count(written) == 1, written
        site = site.replace(written, here)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ {paths} access_log off; {site} }}"
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()
    assert process.returncode == 0, (folder / "log").read_text()


async def fetch(url: str, port: int, folder: Path, **headers: str) -> HTTPResponse:
    """Ask nginx, once it listens, as a browser asks the public address."""
    scheme, _, rest = url.partition("://")
    path = "/" + rest.partition("/")[2]
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.check_hostname = False
    async with asyncio.timeout(10):
        while True:
            try:
                return await AsyncHTTPClient().fetch(
                    f"{scheme}://127.0.0.1:{port}{path}",
                    headers={"Host": "click.example.com", **headers},
                    follow_redirects=False,
                    raise_error=False,
                    ssl_options=context,
                )
            except OSError:
                await asyncio.sleep(0.05)


def test_clicks_come_through_nginx_over_both_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address that nginx saw, whatever the reader's own headers say of it."""
    monkeypatch.setenv("POSTBOX_DISABLED_PLUGINS", "machines")
    recording = RecordingNotifier()

    async def main() -> None:
        async with redirecting(tmp_path, recording, trusted_proxies=["127.0.0.0/8"]) as postbox:
            ports = dict(zip(("http", "https"), free_ports(), strict=True))
            with nginx(tmp_path, postbox.settings.http_port, **ports):
                for scheme, port in ports.items():
                    link = tracked(postbox, f"{scheme}://example.com/")
                    spoofed = {"Forwarded": "for=192.0.2.66", "X-Forwarded-For": "192.0.2.77"}
                    answer = await fetch(link, port, tmp_path, **spoofed)
                    assert (answer.code, answer.headers["Location"]) == (302, f"{scheme}://example.com/")
                assert (await fetch("http://x/elsewhere", ports["http"], tmp_path)).code == 404
            clicks = await recording.wait_for(2)
            assert {click.url for click in clicks} == {"http://example.com/", "https://example.com/"}
            # Both hops are trusted here, for both are on loopback: what is left is what the reader said of himself.
            assert {click.click.ip_address for click in clicks} == {"192.0.2.77"}

    asyncio.run(main())


def tracked(postbox: Postbox, url: str) -> str:
    mail = Mail(sender="shop@example.com", recipient="reader@example.com")
    return hrefs(postbox.track_html(f'<a href="{url}">x</a>', mail))[0]


def test_the_unit_of_systemd_starts_what_exists() -> None:
    """Its command has options that `postbox serve` has, and its settings are what the README says of them."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((EXAMPLES / "systemd" / "postbox.service").read_text())
    service = unit["Service"]
    program, command, *options = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("postbox", "serve")
    said = subprocess.run(
        [sys.executable, "-m", "postbox_plugin", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [option for option in options if option.startswith("--") and option not in said] == []
    assert service["KillMode"] == "mixed"
    assert json.loads(service["TimeoutStopSec"]) > 10 + 5  # stop_limit, and a little
