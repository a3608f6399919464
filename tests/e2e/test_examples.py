"""The examples do what they say: each is run as a program, against real servers."""

from __future__ import annotations

import asyncio
import email
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import cast

import pytest
from pytest_httpserver import HTTPServer
from servers import get, hrefs
from sinks import Received, Sink, running_sink

from postbox_plugin import OpenedLink, Postbox, Settings, new_key

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = new_key()
# Nothing may be written into the checkout, and warnings are errors here too.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error", "POSTBOX_KEY": KEY}


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


def run(example: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the examples in a folder that is not theirs."""
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=60, check=False
    )


def opened(mail: Received) -> list[OpenedLink | str]:
    """The links of its HTML: what a tracking link holds, or the address of one that is not tracked."""
    message = cast(EmailMessage, email.message_from_bytes(mail.raw, policy=default))
    body = message.get_body(("html",))
    assert body is not None
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    ours = "https://click.example.com/c/"
    return [postbox.open(link) if link.startswith(ours) else link for link in hrefs(body.get_content())]


def test_smtplib_script(sink: Sink, tmp_path: Path) -> None:
    """One mail arrives, with tags, and with the link that opted out left alone."""
    done = run("smtplib_script/send.py", "localhost", str(sink.port), "reader@example.com", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (mail,) = sink.mails
    (book, unsubscribe) = opened(mail)
    assert isinstance(book, OpenedLink)
    assert book.url == "https://example.com/books/1?from=newsletter"
    assert (book.tags, book.message_tags) == ({"product": ("book",)}, {"campaign": ("spring",)})
    assert unsubscribe == "https://example.com/unsubscribe"
    assert b"postbox:" not in mail.raw


def test_smtplib_script_needs_no_key_to_be_tried(sink: Sink, tmp_path: Path) -> None:
    """Without POSTBOX_KEY it makes one."""
    arguments = ("localhost", str(sink.port), "reader@example.com")
    assert run("smtplib_script/send.py", *arguments, folder=tmp_path, POSTBOX_KEY="").returncode == 0
    assert b"click.example.com/c/" in sink.mails[0].raw


def test_json_api(httpserver: HTTPServer, tmp_path: Path) -> None:
    """Each reader gets links of their own, in the JSON that really goes over the wire."""
    httpserver.expect_request("/emails", method="POST", headers={"Authorization": "Bearer secret"}).respond_with_json(
        {"id": "1"}
    )
    readers = ["one@example.com", "two@example.com"]
    done = run("json_api/send_letters.py", httpserver.url_for("/emails"), *readers, folder=tmp_path, API_KEY="secret")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Sent 2 letters\n", "")
    postbox = Postbox(Settings(domain="click.example.com", keys=[KEY]))
    for reader, (request, _) in zip(readers, httpserver.log, strict=True):
        letter = request.json
        assert letter is not None
        assert letter["to"] == [reader]
        tracked, unsubscribe = hrefs(letter["html"])
        link = postbox.open(tracked)
        assert (link.url, link.headers["to"]) == ("https://example.com/books/1?from=newsletter", (reader,))
        assert (link.tags, link.message_tags) == ({"product": ("book",)}, {"campaign": ("spring",)})
        assert link.message_id == letter["headers"]["X-Postbox-Message-Id"]
        assert unsubscribe == "https://example.com/unsubscribe"


def test_django_project(sink: Sink, tmp_path: Path) -> None:
    """Its command sends one message object to two readers, and each gets links of their own."""
    readers = ["one@example.com", "two@example.com"]
    server = {"MAIL_HOST": "localhost", "MAIL_PORT": str(sink.port)}
    done = run("django_project/manage.py", "send_newsletter", *readers, folder=tmp_path, **server)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Sent 2 mails\n", "")
    links = [opened(mail)[0] for mail in sink.mails]
    assert all(isinstance(link, OpenedLink) and link.message_tags == {"campaign": ("spring",)} for link in links)
    assert [cast(OpenedLink, link).headers["to"] for link in links] == [(reader,) for reader in readers]
    assert len({cast(OpenedLink, link).message_id for link in links}) == 2


def test_django_project_is_checked(tmp_path: Path) -> None:
    """``manage.py check`` is content with it, and says what is wrong with a key that is none."""
    done = run("django_project/manage.py", "check", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("django_project/manage.py", "check", folder=tmp_path, POSTBOX_KEY="nonsense")
    assert done.returncode == 1
    assert "(postbox.E001) settings.POSTBOX: keys[0]" in done.stderr
    assert "nonsense" not in done.stderr


def test_framework_with_pluggy(sink: Sink, tmp_path: Path) -> None:
    """The framework calls our hook for each reader, by its own plugin manager."""
    readers = ["one@example.com", "two@example.com"]
    done = run("framework_with_pluggy/main.py", "localhost", str(sink.port), *readers, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    links = [opened(mail)[0] for mail in sink.mails]
    assert all(isinstance(link, OpenedLink) and link.url == "https://example.com/books/1" for link in links)
    assert [cast(OpenedLink, link).headers["to"] for link in links] == [(reader,) for reader in readers]
    assert [cast(OpenedLink, link).message_tags for link in links] == [{"campaign": ("spring",)}] * 2


def test_tornado_application(tmp_path: Path) -> None:
    """Its page has a tracking link; a click on it is redirected, and its own notifier prints the click."""
    command = [sys.executable, str(EXAMPLES / "tornado_application/app.py"), "0"]

    async def click() -> None:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                welcome = (await process.stdout.readline()).decode()
                page = re.search(r"http://localhost:\d+/", welcome)
                assert page is not None, welcome
                (link,) = hrefs((await get(page[0])).body.decode())
                assert link.startswith(f"{page[0]}c/")
                response = await get(link)
                assert (response.code, response.headers["Location"]) == (302, "http://example.com/books/1")
                said = (await process.stdout.readline()).decode()
                assert said == "reader@example.com clicked http://example.com/books/1 {'product': ('book',)}\n"
                process.send_signal(signal.SIGTERM)
                _, complaints = await process.communicate()
                assert (process.returncode, complaints) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    asyncio.run(click())
