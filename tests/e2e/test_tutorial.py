"""The tutorial of README.md, followed to the letter: its commands, its files, and what they print."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from readme import TUTORIAL, random_parts_named
from shell import run, running

IN_EACH_TERMINAL = ". .venv/bin/activate\n"

if missing := [program for program in ("curl", "openssl") if shutil.which(program) is None]:
    pytest.skip(f"needs {' and '.join(missing)}", allow_module_level=True)


class Tutorial:
    """Its samples in their order, with free ports in the place of its own."""

    def __init__(self) -> None:
        self.ports: dict[str, str] = {}
        with ExitStack() as taken:
            for port in ("8025", "8080", "8000"):
                free = taken.enter_context(socket.create_server(("127.0.0.1", 0)))
                self.ports[port] = str(free.getsockname()[1])
        self._samples: Iterator[Any] = iter(TUTORIAL)

    def here(self, text: str) -> str:
        """A text with the free ports."""
        return re.sub("|".join(self.ports), lambda match: self.ports[match[0]], text)

    def next(self, language: str) -> str:
        """The next sample, which is of that language."""
        sample = next(self._samples)
        assert sample.language == language, sample
        return self.here(sample.text)

    def write(self, folder: Path, language: str, name: str) -> None:
        """Write the next sample into the file that its first line names."""
        text = self.next(language)
        assert text.startswith(f"# {name}\n")
        (folder / name).write_text(text, "utf-8")

    def is_over(self) -> bool:
        """Whether every sample was used."""
        return next(self._samples, None) is None


def without_what_differs(notification: dict[str, Any]) -> dict[str, Any]:
    """A notification without ids, times, and the version of curl."""
    mail, click = notification["mail"], notification["click"]
    assert mail["messageId"] == mail["commonHeaders"]["messageId"]
    assert click["userAgent"].startswith("curl/")
    headers = mail["commonHeaders"] | {"messageId": "ID"}
    return notification | {
        "mail": mail | {"timestamp": "", "messageId": "ID", "commonHeaders": headers},
        "click": click | {"timestamp": "", "userAgent": "curl"},
        "eventId": "ID",
    }


def lines_of(text: str) -> list[str]:
    """Its lines, with the name of whatever is in quotation marks in its place, but for the keys."""
    return [re.sub(r'(: |^ +)"[^"]*"(,?)$', r'\1"..."\2', line) for line in text.splitlines()]


def follow(tutorial: Tutorial, clone: Path, programs: ExitStack) -> None:
    folder = clone.parent / "first-clicks"
    run(tutorial.next("sh"), clone)
    run(tutorial.next("sh"), folder)
    tutorial.write(folder, "toml", "postbox.toml")
    tutorial.write(folder, "python", "app.py")
    tutorial.write(folder, "python", "send.py")
    commands = {name: IN_EACH_TERMINAL + tutorial.next("sh") for name in ("mail", "application", "service", "send")}

    mail = programs.enter_context(running(commands["mail"], folder, "mail"))
    application = programs.enter_context(running(commands["application"], folder, "application"))
    service = programs.enter_context(running(commands["service"], folder, "service"))
    service.printed("listening on")
    for port in (tutorial.ports["8025"], tutorial.ports["8000"]):
        wait_for(int(port))

    assert run(commands["send"], folder) == ""
    sent = mail.printed("END MESSAGE")
    assert random_parts_named(sent) == random_parts_named(tutorial.next("text"))

    (link,) = re.findall(r'href="([^"]+)"', sent)
    click = re.sub(r"http://\S+", link, tutorial.next("sh"))
    answer = run(click, folder)
    assert "302 Found" in answer
    assert "Location: http://example.com/new" in answer
    arrived, shown = application.printed("\n}\n"), tutorial.next("json")
    assert lines_of(arrived) == lines_of(shown)
    assert without_what_differs(json.loads(arrived)) == without_what_differs(json.loads(shown))

    application.stop()
    run(click, folder)
    failing = service.printed("notifier webhook fails: WebhookError: cannot connect to")
    assert "Connection refused" in failing
    waiting = run(IN_EACH_TERMINAL + tutorial.next("sh"), folder)
    assert re.search(r"^webhook\tactive\t0\t1\t", waiting, re.MULTILINE)
    again = programs.enter_context(running(commands["application"], folder, "application"))
    late = json.loads(again.printed("\n}\n"))
    assert without_what_differs(late) == without_what_differs(json.loads(shown))
    service.printed("notifier webhook takes clicks again")
    assert tutorial.is_over()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("localhost", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_the_tutorial_to_the_letter(tmp_path: Path) -> None:
    """Whoever types what stands there sees what stands there."""
    clone = tmp_path / "clone"
    clone.mkdir()
    with ExitStack() as programs:
        follow(Tutorial(), clone, programs)
