"""An installation without any extra: what is promised of it, and what everything else says is missing.

Not named as a test, because it holds nowhere else: `tox -e none` names it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from servers import get, hrefs

import postbox_hooks.mail
from postbox_plugin import new_key
from postbox_plugin.errors import MissingExtra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
ADAPTERS = [module.name for module in pkgutil.iter_modules(postbox_hooks.mail.__path__)]
WITHOUT_EXTRA = {"smtplib"}
MESSAGE = b"From: a@example.com\r\nTo: b@example.com\r\nContent-Type: text/html\r\n\r\n<a href='http://example.com/'>x</a>\r\n"
COMMAND = [sys.executable, "-W", "error", "-m", "postbox_plugin"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements} - {"postbox-plugin"}


def test_nothing_of_an_extra_is_installed() -> None:
    """But for what the tests themselves use, and what the core's own libraries bring."""
    project = PROJECT["project"]
    extras = set().union(*map(names, project["optional-dependencies"].values()))
    own = names(PROJECT["dependency-groups"]["test"]) | names(project["dependencies"])
    installed = {(distribution.name or "").lower() for distribution in importlib.metadata.distributions()}
    assert (extras - own) & installed == set()


@pytest.mark.parametrize("name", ADAPTERS)
def test_each_mail_adapter_names_its_extra(name: str) -> None:
    """The error says which command installs what is missing, and that there is such an extra."""
    module = f"postbox_hooks.mail.{name}"
    if name in WITHOUT_EXTRA:
        importlib.import_module(module)
        return
    with pytest.raises(MissingExtra, match=rf"^{module} needs ") as raised:
        importlib.import_module(module)
    named = re.search(r'run  pip install "postbox-plugin\[([\w-]+)\]"$', str(raised.value))
    assert named is not None, raised.value
    assert named[1] in PROJECT["project"]["optional-dependencies"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def location(link: str, process: subprocess.Popen[bytes]) -> str:
    """Where a link leads, as soon as the service answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                response = await get(link)
            except OSError:
                assert process.poll() is None, "the service ended"
                await asyncio.sleep(0.1)
            else:
                assert response.code == 302
                return response.headers["Location"]


def test_a_mail_is_rewritten_and_its_click_is_kept(tmp_path: Path) -> None:
    """``postbox rewrite``, ``postbox serve`` and the notifier ``log``."""
    port = free_port()
    (tmp_path / "postbox.toml").write_text(
        f'domain = "127.0.0.1"\nhttp_port = {port}\nkeys = ["{new_key()}"]\n'
        f'[serve]\nhttp = "127.0.0.1:{port}"\n[[notify]]\nuse = "log"\npath = "clicks.jsonl"\n'
    )
    done = subprocess.run([*COMMAND, "rewrite", "-"], cwd=tmp_path, input=MESSAGE, capture_output=True, check=True)
    assert done.stderr == b""
    (link,) = hrefs(done.stdout.decode())
    with subprocess.Popen([*COMMAND, "serve"], cwd=tmp_path) as process:
        assert asyncio.run(location(link, process)) == "http://example.com/"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    (line,) = (tmp_path / "clicks.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["click"]["url"] == "http://example.com/"
