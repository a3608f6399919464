"""`postbox stats` and `postbox map`: what they print and write, and what they say of files that are wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from clicks import click, line

from postbox_plugin.cli import main

MESSAGE = b"""\
From: Shop <shop@example.com>\r
Subject: Hi\r
Content-Type: text/html; charset=utf-8\r
\r
<a href='https://example.com/a'>\xd1\x87\xd0\xb0\xd0\xb9</a> <a href='https://example.com/b'>b</a>\r
"""


class Ran(NamedTuple):
    """What a command did."""

    code: object
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: without a postbox.toml, for neither command needs keys."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "order.eml").write_bytes(MESSAGE)
    (tmp_path / "clicks.jsonl").write_bytes(
        line(0, "https://example.com/a", message="m1")
        + line(0, "https://example.com/a", message="m2")
        + line(1, "https://example.com/b?reader=1", message="m2")
        + line(1, "https://example.com/b?reader=2", message="m3", at="2026-04-25T20:00:00+00:00")
        + line(1, "https://example.com/b?reader=3", machine="prefetch")
    )
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `postbox` with arguments and what stands on its standard input."""

    def ran(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["postbox", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return Ran(exit_.value.code, out, err)

    return ran


def test_stats(run: Run) -> None:
    """Totals, then a table each for links, tags and hours: tab-separated when piped, with all rows."""
    ran = run("stats", "clicks.jsonl")
    assert (ran.code, ran.err) == (0, "")
    assert ran.rows == [
        ["clicks", "4"],
        ["unique", "3 messages"],
        ["machines", "1 (prefetch: 1)"],
        [""],
        ["link", "clicks", "share", "unique", "machines", "address"],
        ["1", "2", "50%", "2", "1", "https://example.com/b?..."],
        ["0", "2", "50%", "2", "0", "https://example.com/a"],
        [""],
        ["hour (UTC)", "clicks", "share", "unique", "machines"],
        ["2026-04-25 18:00", "3", "75%", "2", "1"],
        ["2026-04-25 20:00", "1", "25%", "1", "0"],
    ]


def test_stats_as_json(run: Run) -> None:
    """--json prints all that was counted."""
    found = json.loads(run("stats", "clicks.jsonl", "--json").out)
    assert {name: found[name] for name in ("clicks", "unique", "machines", "repeated")} == {
        "clicks": 4,
        "unique": 3,
        "machines": 1,
        "repeated": 0,
    }
    assert found["links"][0] == {
        "clicks": 2,
        "share": 0.5,
        "unique": 2,
        "machines": 1,
        "index": 1,
        "address": "https://example.com/b",
        "differs": True,
    }
    assert [hour["hour"] for hour in found["hours"]] == ["2026-04-25T18:00:00Z", "2026-04-25T20:00:00Z"]


def test_stats_as_csv(run: Run, folder: Path) -> None:
    """--csv prints one table: each row says what it is about."""
    with (folder / "clicks.jsonl").open("ab") as file:
        file.write(click(0, tags={"a,b": ('"quoted"\n',)}, link_tags={"genre": ("tea",)}).to_json())
    rows = list(csv.DictReader(io.StringIO(run("stats", "clicks.jsonl", "--csv").out)))
    assert list(rows[0]) == ["by", "key", "value", "clicks", "share", "unique", "machines"]
    assert [(row["by"], row["key"], row["value"], row["clicks"], row["machines"]) for row in rows] == [
        ("all", "", "", "5", "1"),
        ("link", "1", "https://example.com/b", "2", "1"),
        ("link", "0", "https://example.com/a", "2", "0"),
        ("link", "0", "https://example.com/", "1", "0"),
        ("link tag", "genre", "tea", "1", "0"),
        ("message tag", "a,b", '"quoted"\n', "1", "0"),
        ("hour", "2026-04-25T18:00:00Z", "", "4", "1"),
        ("hour", "2026-04-25T20:00:00Z", "", "1", "0"),
        ("reason", "prefetch", "", "0", "1"),
    ]


def test_files_gzipped_and_from_standard_input(run: Run, folder: Path) -> None:
    """All are one: what stands in several is counted once. Whether a file is packed, it says itself."""
    plain = (folder / "clicks.jsonl").read_bytes()
    (folder / "packed").write_bytes(gzip.compress(plain) + gzip.compress(line(2)))
    (folder / "empty.jsonl").write_bytes(b"")
    both = run("stats", "clicks.jsonl", "packed", "empty.jsonl")
    assert (both.code, both.err) == (0, "")
    assert both.rows[0] == ["clicks", "5"]
    assert ["came again", "5"] in both.rows
    assert run("stats", "-", stdin=plain).rows[0] == ["clicks", "4"]
    assert run("stats", "-", "packed", stdin=gzip.compress(plain)).rows[0] == ["clicks", "5"]


def test_broken_lines_are_named_and_passed_over(run: Run, folder: Path) -> None:
    """With file and line; empty lines are nothing; what comes after counts."""
    (folder / "broken.jsonl").write_bytes(
        line(0) + line(1)[:40] + b"\n\n" + line(2) + b'{"eventType":"Open"}\n' + line(3)[:-1]
    )
    ran = run("stats", "broken.jsonl", "clicks.jsonl")
    assert ran.code == 0
    assert ran.rows[0] == ["clicks", "7"]
    first, second = ran.err.splitlines()
    assert first.startswith("postbox: broken.jsonl:2: not a click: ")
    assert second.startswith("postbox: broken.jsonl:5: not a click: ")
    assert "eventType" in second


def test_names_of_lines_stay_as_they_are(run: Run, folder: Path) -> None:
    """Neither ``:100:`` nor ``[bold]`` means anything in them; what a terminal would obey is shown."""
    (folder / "[bold]\x1b[2J.jsonl").write_bytes(line(0) * 99 + b"no\n")
    ran = run("stats", "[bold]\x1b[2J.jsonl")
    assert ran.err.startswith("postbox: [bold]\\x1b[2J.jsonl:100: not a click: ")


def test_many_broken_lines_are_not_all_named(run: Run, folder: Path) -> None:
    """Ten will do to see what is wrong."""
    (folder / "broken.jsonl").write_bytes(b"no\n" * 25 + line(0))
    ran = run("stats", "broken.jsonl")
    assert ran.code == 0
    assert len(ran.err.splitlines()) == 11
    assert ran.err.splitlines()[-1] == "postbox: lines that are no clicks, these and others: 25"


def test_a_file_that_is_cut_off(run: Run, folder: Path) -> None:
    """Of a gzipped file whose end is missing, what is there is counted."""
    packed = gzip.compress(b"".join(line(number % 7, message=f"m{number}") for number in range(5000)), 1)
    (folder / "cut.gz").write_bytes(packed[: len(packed) // 2])
    ran = run("stats", "cut.gz")
    assert ran.code == 0
    assert int(ran.rows[0][1]) > 1000
    (error,) = ran.err.splitlines()
    number = int(ran.rows[0][1]) + 1
    assert error.startswith(f"postbox: cut.gz:{number}: not a click: the rest of the file cannot be unpacked")


def test_a_file_without_a_click_is_an_error(run: Run, folder: Path) -> None:
    """Somebody has given the wrong file. An empty one is no error: nobody has clicked yet."""
    ran = run("stats", "order.eml")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1] == ("postbox: there is no click in it: give files that the notifier log wrote")
    (folder / "empty.jsonl").write_bytes(b"")
    assert run("stats", "empty.jsonl").rows[0] == ["clicks", "0"]


@pytest.mark.parametrize("command", [["stats"], ["map", "order.eml"]])
def test_only_clicks_with_a_tag(run: Run, folder: Path, command: list[str]) -> None:
    """--tag counts the clicks of one campaign out of a file of all."""
    with (folder / "clicks.jsonl").open("ab") as file:
        file.write(click(0, tags={"campaign": ("spring",)}).to_json())
    ran = run(*command, "clicks.jsonl", "--tag", "campaign=spring")
    assert ran.code == 0
    assert "1 messages" in ran.out if command == ["stats"] else "<dd>1</dd>" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stats"], "Missing argument"),
        (["stats", "no-such-file"], "no-such-file is not there"),
        (["stats", "clicks.jsonl", "."], ". is a folder"),
        (["stats", "clicks.jsonl", "--json", "--csv"], "give --json or --csv"),
        (["stats", "clicks.jsonl", "--tag", "x"], "'x' is not KEY=VALUE"),
        (["map", "order.eml"], "Missing argument"),
        (["map", "no-such-file", "clicks.jsonl"], "no-such-file cannot be read"),
        (["map", "-", "-"], "standard input is either the message or clicks"),
        (["map", "order.eml", "no-such-file"], "no-such-file is not there"),
        (["map", "order.eml", "clicks.jsonl", "-o", "no/map.html"], "no/map.html cannot be written"),
    ],
)
def test_misuse_is_2(run: Run, arguments: list[str], said: str) -> None:
    """A wrong command line says what is wrong, and prints and writes nothing."""
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in " ".join(ran.err.split())


def test_a_file_that_cannot_be_read(run: Run, folder: Path) -> None:
    """An error of the system is one line that names the file."""
    (folder / "loop").symlink_to("loop")
    ran = run("stats", "loop")
    assert ran.code == 2
    assert "loop is not there" in ran.err


def test_map(run: Run, folder: Path) -> None:
    """The page is written to a file, and one line says what is in it; or to standard output."""
    ran = run("map", "order.eml", "clicks.jsonl", "-o", "map.html")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "map.html: clicks by people: 4, by machines: 1\n"
    page = (folder / "map.html").read_bytes().decode()
    assert page.startswith("<!DOCTYPE html>")
    assert '<span class="name">чай</span>' in page
    assert page.count("<tr id=") == 2
    assert run("map", "order.eml", "clicks.jsonl").out == page


def test_map_of_html(run: Run, folder: Path) -> None:
    """HTML without a message will do; in another encoding than UTF-8 it is an error."""
    (folder / "offer.html").write_bytes(MESSAGE.partition(b"\r\n\r\n")[2])
    assert '<span class="name">чай</span>' in run("map", "offer.html", "clicks.jsonl").out
    (folder / "offer.html").write_bytes(b"<p>\xcf\xf0</p>")
    ran = run("map", "offer.html", "clicks.jsonl")
    assert (ran.code, ran.out) == (1, "")
    assert "offer.html is not UTF-8" in ran.err


def test_map_of_what_is_no_mail(run: Run, folder: Path) -> None:
    """A message without HTML is one line on standard error."""
    (folder / "text.eml").write_bytes(b"Subject: x\r\n\r\ntext\r\n")
    ran = run("map", "text.eml", "clicks.jsonl", "-o", "map.html")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "postbox: there is no mail to show clicks on: the message has no HTML part\n"
    assert not (folder / "map.html").exists()


def test_map_with_pictures_from_elsewhere(run: Run) -> None:
    """--remote-images lets the page load them."""
    assert "img-src data:;" in run("map", "order.eml", "clicks.jsonl").out
    assert "img-src data: http: https:;" in run("map", "order.eml", "clicks.jsonl", "--remote-images").out


def on_terminal(folder: Path, *arguments: str, stdout: bool) -> tuple[str, str]:
    """What a command shows on a terminal of 100 columns, and what it writes to a pipe if its output is not one."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "postbox_plugin", *arguments],
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=side,
        stdout=side if stdout else subprocess.PIPE,
        stderr=side,
    )
    os.close(side)
    shown = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(main)
    piped, _ = process.communicate(timeout=60)
    return shown.decode(), (piped or b"").decode()


def test_progress_is_shown_where_somebody_sees_it(folder: Path) -> None:
    """A bar on the terminal that standard error is; the figures go down the pipe without it."""
    shown, piped = on_terminal(folder, "stats", "clicks.jsonl", stdout=False)
    assert "reading clicks" in shown
    assert piped.startswith("clicks\t4\n")
    assert "reading" not in piped


def test_a_person_sees_tables_that_are_not_endless(folder: Path) -> None:
    """On a terminal each table has the most clicked, and says how many more there are."""
    lines = (line(number, at=f"2026-04-{1 + number // 24:02}T{number % 24:02}:00:00Z") for number in range(60))
    (folder / "many.jsonl").write_bytes(b"".join(lines) + line(50, at="2026-04-03T03:00:00Z"))
    shown, _ = on_terminal(folder, "stats", "many.jsonl", "-n", "5", stdout=True)
    assert shown.count("https://example.com/") == 5
    assert shown.count("and 55 more, with fewer clicks (--limit)") == 2
    assert "2026-04-03 03:00" in shown
    assert "\t" not in shown


def test_a_page_is_not_poured_over_a_terminal(folder: Path) -> None:
    """Without -o, a terminal is told how to say where the page is to go."""
    shown, _ = on_terminal(folder, "map", "order.eml", "clicks.jsonl", stdout=True)
    assert "say where to write the page: -o map.html" in re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "DOCTYPE" not in shown
