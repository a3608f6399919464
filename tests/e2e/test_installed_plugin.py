"""The package of ``examples/notifier_package``, built and installed in a virtual environment of its own beside ours."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

from postbox_plugin import Mail, Postbox, Settings, new_key

EXAMPLE = Path(__file__).parents[2] / "examples" / "notifier_package"

# Sends a mail of a list, and clicks each of its links twice.
PROGRAM = """
import asyncio, re, sqlite3
from contextlib import closing
from email.message import EmailMessage

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from postbox_plugin import Postbox
from postbox_plugin.redirect import routes

message = EmailMessage()
message["From"] = "weekly@example.com"
message["To"] = "reader@example.net"
message["List-Id"] = "The Weekly <weekly.example.com>"
message["List-Unsubscribe"] = "<https://example.com/leave>"
message.set_content(
    '<a href="http://example.com/story">Read on</a> <a href="https://example.com/leave">Leave</a>', subtype="html"
)

def kept():
    with closing(sqlite3.connect("clicks.db")) as database:
        try:
            return database.execute("SELECT count(*) FROM clicks").fetchone()[0]
        except sqlite3.OperationalError:  # the notifier has not made the table yet
            return 0

async def main():
    postbox = Postbox.from_file("postbox.toml")
    links = re.findall('href="([^"]*)"', postbox.before_send(message).get_content())
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([*routes(postbox)]))
    server.add_socket(socket)
    async with postbox.running():
        client = AsyncHTTPClient()
        for link in links[:1] * 2:
            here = link.replace("http://click.example.com", "http://127.0.0.1:%d" % socket.getsockname()[1])
            answer = await client.fetch(here, follow_redirects=False, raise_error=False)
            assert answer.code == 302, answer
        async with asyncio.timeout(20):
            while kept() < 2:
                await asyncio.sleep(0.02)
    server.stop()
    await server.close_all_connections()
    print(*links, sep="\\n")

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed."""
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=clean())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def clean() -> dict[str, str]:
    """The environment without what would lead Python elsewhere, or a plugin astray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POSTBOX_"))}
    # These tests click sooner than any person.
    return {**kept, "POSTBOX_DISABLED_PLUGINS": "machines"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment that sees this project and its dependencies, and has the example's
    wheel installed.
    """
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    # addsitedir, because .pth files in there (an editable installation's) count too.
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]
    (packages / "ours.pth").write_text("".join(lines), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a postbox.toml that has a block for the example's notifier."""
    text = f"""
    domain = "click.example.com"
    keys = ["{new_key()}"]
    spool = "spool"
    [[notify]]
    use = "sqlite"
    path = "clicks.db"
    """
    (tmp_path / "postbox.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_without_the_package_nothing_is_tagged() -> None:
    """Where the package is not installed, as here, its plugin has no say."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    assert {info.name for info in postbox.plugins_report()}.isdisjoint({"sqlite", "mailing-lists"})
    mail = Mail(
        headers=[("List-Id", "<weekly.example.com>"), ("To", "reader@example.net")], recipients=["reader@example.net"]
    )
    html = postbox.track_html('<a href="http://example.com/">x</a>', mail)
    assert postbox.open(html.split('"')[1]).message_tags == {}


def test_clicks_reach_both_plugins(python: Path, project: Path) -> None:
    """After installation and one [[notify]] block the notifier gets every click; the plugin works after installation
    alone.
    """
    tracked, unsubscribe = run(python, "-c", PROGRAM, cwd=project).splitlines()
    assert tracked.startswith("http://click.example.com/c/")
    assert unsubscribe == "https://example.com/leave"
    with closing(sqlite3.connect(project / "clicks.db")) as database:
        rows = database.execute("SELECT event_id, recipient, url, machine, notification FROM clicks").fetchall()
    assert len(rows) == 2
    for event_id, recipient, url, machine, notification in rows:
        assert (recipient, url, machine) == ("reader@example.net", "http://example.com/story", 0)
        assert json.loads(notification)["eventId"] == event_id
        assert json.loads(notification)["mail"]["tags"] == {"list": ["weekly.example.com"]}


def test_postbox_plugins_lists_them(python: Path, project: Path) -> None:
    """`postbox plugins` shows both, with the package they come from."""
    shown = run(python, "-m", "postbox_plugin", "plugins", cwd=project)
    for name in ("sqlite", "mailing-lists"):
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [name])
        assert "clicks-in-sqlite 1.0" in line
        assert "active" in line


def refusal(python: Path, project: Path, line: str) -> str:
    """What a start says that fails because of one more line in the [[notify]] block."""
    settings = project / "postbox.toml"
    settings.write_text(f"{settings.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    start = "Postbox.from_file('postbox.toml').running().__aenter__()"
    command = [str(python), "-c", f"import asyncio; from postbox_plugin import Postbox; asyncio.run({start})"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=clean())
    assert ran.returncode == 1
    return ran.stderr


def test_a_mistyped_option_is_named(python: Path, project: Path) -> None:
    """An option that the class does not have is an error that names the nearest one."""
    said = refusal(python, project, "machins = false")
    assert "SettingsError: postbox.toml: notify[0].machins: " in said
    assert "'machines'" in said


def test_an_option_of_the_wrong_type_is_named(python: Path, project: Path) -> None:
    """An option of another type than the class says is an error that names it."""
    assert "SettingsError: postbox.toml: notify[0].machines: " in refusal(python, project, 'machines = "no"')


def test_what_the_class_refuses_is_an_error_of_the_settings(python: Path, project: Path) -> None:
    """A ValueError of the class is told with the file and the block."""
    said = refusal(python, project, 'table = "a; DROP TABLE b"')
    assert "SettingsError: postbox.toml: notify[0]: table: 'a; DROP TABLE b' is no name" in said
