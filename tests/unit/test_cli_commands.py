"""The commands of `postbox`: what they print, where, and how they exit."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

import pytest

from postbox_plugin import Mail, Postbox
from postbox_plugin.cli import main
from postbox_plugin.cli.output import ago, shown
from postbox_plugin.tokens.keyring import Key, new_key

KEY = new_key()

MESSAGE = b"""\
From: Shop <shop@example.com>\r
To: Anna <anna@example.com>\r
Subject: Hi\r
Content-Type: text/html; charset=utf-8\r
\r
<a postbox:tags='product:book;' href='https://example.com/a'>a</a>\r
\r
<a href='mailto:x@example.com'>b</a>
\r
"""


class Ran(NamedTuple):
    """What a command did."""

    code: object
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.text.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a postbox.toml in it."""
    (tmp_path / "postbox.toml").write_text(f'domain = "click.example.com"\nkeys = ["{KEY}"]\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `postbox` with arguments and what stands on its standard input."""

    for name in ("postbox.send", "postbox.plugins"):
        # What a command sets for its own process, this one gets rid of again.
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)

    def ran(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["postbox", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsysbinary.readouterr()
        return Ran(exit_.value.code, out, err.decode())

    return ran


def postbox() -> Postbox:
    return Postbox.from_file("postbox.toml")


def test_keys_new(run: Run) -> None:
    """`keys new` prints one key that works, another one each time."""
    first, second = run("keys", "new"), run("keys", "new")
    assert (first.code, first.err) == (0, "")
    assert Key(first.text.strip()).id != Key(second.text.strip()).id


def test_help_lists_every_command_with_its_purpose(run: Run) -> None:
    """The help lists the commands, our own and those found by entry point, and the exit codes."""
    ran = run("--help")
    assert ran.code == 0
    for name in (
        "demo",
        "relay",
        "serve",
        "rewrite",
        "explain",
        "open",
        "check",
        "keys",
        "plugins",
        "outbox",
        "stats",
        "map",
    ):
        assert f"\n  {name} " in ran.text
    assert "Exit codes: 0 it worked; 1 it did not; 2 the command or the settings" in " ".join(ran.text.split())


@pytest.mark.parametrize(
    "command",
    ["serve", "relay", "rewrite", "explain", "open", "check", "keys new", "plugins", "stats", "map"]
    + [f"outbox {name}" for name in ("status", "list", "retry", "resume", "purge")],
)
def test_every_command_has_an_example(run: Run, command: str) -> None:
    """Each command's help shows how it is called."""
    ran = run(*command.split(), "--help")
    assert ran.code == 0
    example = ran.text.partition("Example")[2]
    assert f"postbox {command}" in example


def test_version(run: Run) -> None:
    """--version prints the version and nothing else."""
    ran = run("--version")
    assert ran.code == 0
    assert ran.text.strip().count(".") == 2


def test_no_arguments(run: Run) -> None:
    """Without a command, the help is shown, as a misuse."""
    ran = run()
    assert ran.code == 2
    assert "Commands:" in ran.text + ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["rewrite"],
        ["rewrite", "no-such-file"],
        ["rewrite", "."],
        ["open"],
        ["explain", "postbox.toml", "--tag", "novalue"],
        ["rewrite", "page.html"],
        ["rewrite", "page.html", "--sender", "a@example.com"],
        ["outbox", "purge"],
        ["outbox", "purge", "log", "--recipient", "a@example.com"],
        ["outbox", "purge", "log", "--all"],
        ["outbox", "list", "--limit", "0"],
        ["check", "--config"],
    ],
)
def test_misuse_is_2(run: Run, folder: Path, arguments: list[str]) -> None:
    """A wrong command line says what is wrong on standard error, prints nothing else, and exits with 2."""
    (folder / "page.html").write_text("<p>x</p>")
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err


def test_wrong_settings_are_2(run: Run, folder: Path) -> None:
    """Wrong settings are one line on standard error: where, which, what, and what to do."""
    (folder / "postbox.toml").write_text('domian = "click.example.com"\n')
    ran = run("open", "https://click.example.com/c/x")
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err == "postbox: postbox.toml: domian: is not a setting. Did you mean 'domain'?\n"


def test_no_settings_are_2(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file and without variables, the error says what to set."""
    monkeypatch.chdir(tmp_path)
    ran = run("plugins")
    assert ran.code == 2
    assert "POSTBOX_DOMAIN" in ran.err


def test_environment_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no file, the environment will do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTBOX_DOMAIN", "click.example.com")
    monkeypatch.setenv("POSTBOX_KEYS", KEY)
    assert run("rewrite", "-", stdin=MESSAGE).code == 0


@pytest.mark.parametrize("how", ["option", "variable"])
def test_config_is_named(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """--config or POSTBOX_CONFIG names the file, before the one in the current folder."""
    (folder / "other.toml").write_text(f'domain = "other.example.com"\nkeys = ["{KEY}"]\n')
    if how == "variable":
        monkeypatch.setenv("POSTBOX_CONFIG", "other.toml")
    ran = run("rewrite", "-", *(["-c", "other.toml"] if how == "option" else []), stdin=MESSAGE)
    assert b"https://other.example.com/c/" in ran.out


def test_missing_config_is_an_error(run: Run, folder: Path) -> None:
    """A file that was named has to be there, whatever else is."""
    ran = run("plugins", "--config", "missing.toml")
    assert ran.code == 2
    assert ran.err.startswith("postbox: missing.toml: ")


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_rewrite_is_before_send(run: Run, folder: Path, source: str) -> None:
    """`rewrite` writes the very bytes of the message to send instead: line ends, trailing lines and all."""
    (folder / "order.eml").write_bytes(MESSAGE)
    ran = run("rewrite", "order.eml") if source == "file" else run("rewrite", "-", stdin=MESSAGE)
    assert (ran.code, ran.err) == (0, "")
    head, _, rest = ran.out.partition(b"<a ")
    link, _, tail = rest.partition(b">")
    assert b"X-Postbox-Message-Id: " in head
    assert tail == MESSAGE.partition(b"https://example.com/a'>")[2]
    opened = postbox().open(link.split(b"'")[1].decode())
    assert (opened.url, opened.tags) == ("https://example.com/a", {"product": ("book",)})


def test_rewrite_leaves_alone(run: Run, folder: Path) -> None:
    """What cannot be rewritten comes out as it went in, and that is no error."""
    ran = run("rewrite", "-", "-r", "a@example.com", "-r", "b@example.com", stdin=MESSAGE)
    assert (ran.code, ran.out) == (0, MESSAGE)


def test_rewrite_tags(run: Run, folder: Path) -> None:
    """--tag tags the message; a key given twice has both values."""
    ran = run("rewrite", "-", "--tag", "campaign=spring", "--tag", "campaign=sale=1", stdin=MESSAGE)
    link = ran.out.partition(b"href='")[2].partition(b"'")[0].decode()
    assert postbox().open(link).message_tags == {"campaign": ("spring", "sale=1")}


@pytest.mark.parametrize("name", ["offer.html", "OFFER.HTM"])
def test_rewrite_html(run: Run, folder: Path, name: str) -> None:
    """A file of HTML is tracked as HTML, byte for byte the same elsewhere."""
    before, after = "\ufeff<p>Привет\r\n<a href=", "</a></p>\n\n"
    (folder / name).write_bytes(f"{before}'https://example.com/'>x{after}".encode())
    ran = run("rewrite", name, "--sender", "Shop <shop@example.com>", "-r", "anna@example.com", "--subject", "Hi")
    assert (ran.code, ran.err) == (0, "")
    assert ran.text.startswith(before)
    assert ran.text.endswith(after)
    link = postbox().open(ran.text.partition("href='")[2].partition("'")[0])
    assert link.url == "https://example.com/"
    assert link.headers["subject"] == ("Hi",)


def test_rewrite_html_in_another_encoding(run: Run, folder: Path) -> None:
    """HTML that is not UTF-8 is an error, for it does not say what it is."""
    (folder / "offer.html").write_bytes(b"<p>\xcf\xf0</p>")
    ran = run("rewrite", "offer.html", "--sender", "a@example.com", "-r", "b@example.com")
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err == "postbox: offer.html is not UTF-8: invalid continuation byte at byte 3\n"


MJML = """<mjml><mj-body><mj-include path="parts/footer.mjml" /></mj-body></mjml>"""
FOOTER = """<mj-section><mj-column>
<mj-button href="https://example.com/?a=1&amp;copy=2" postbox:tags="a:b">é</mj-button>
</mj-column></mj-section>"""
FROM_AND_TO = ("--sender", "a@example.com", "-r", "b@example.com")


@pytest.mark.extra("mjml")
def test_mjml(run: Run, folder: Path) -> None:
    """A file of MJML is rewritten and explained as the HTML that it stands for, with what it includes."""
    (folder / "mails" / "parts").mkdir(parents=True)
    (folder / "mails" / "parts" / "footer.mjml").write_text(FOOTER, "utf-8")
    (folder / "mails" / "offer.mjml").write_text(MJML)
    ran = run("rewrite", "mails/offer.mjml", *FROM_AND_TO)
    assert (ran.code, ran.err) == (0, "")
    assert ran.text.startswith("<!doctype html>")
    assert "é" in ran.text
    opened = postbox().open(ran.text.partition('<a href="')[2].partition('"')[0])
    assert (opened.url, dict(opened.tags)) == ("https://example.com/?a=1&copy=2", {"a": ("b",)})
    explained = run("explain", "mails/offer.mjml", *FROM_AND_TO)
    assert explained.rows[-1][2:] == ["a", "tracked", "https://example.com/?a=1&copy=2", "a: b"]


@pytest.mark.extra("mjml")
def test_mjml_that_is_wrong(run: Run, folder: Path) -> None:
    """What is wrong with a template is said with file, line and component, and nothing else is printed."""
    (folder / "offer.mjml").write_text(f"<mjml><mj-body>\n{FOOTER.replace('mj-button', 'mj-buton')}</mj-body></mjml>")
    for command in ("rewrite", "explain"):
        ran = run(command, "offer.mjml", *FROM_AND_TO)
        assert (ran.code, ran.out) == (1, b"")
        place = "postbox: offer.mjml:3: mj-buton: there is no such component; did you mean mj-button?\n"
        assert ran.err.endswith(place)
    assert run("rewrite", "offer.mjml").code == 2


def test_explain(run: Run, folder: Path) -> None:
    """`explain` says of each link what becomes of it, as tab-separated lines when piped."""
    ran = run("explain", "-", stdin=MESSAGE)
    assert (ran.code, ran.err) == (0, "")
    assert ran.rows[0] == ["message", "1 of 2 links are tracked"]
    assert ["link", "line", "element", "what becomes of it", "address", "tags"] in ran.rows
    assert ["0", "1:39", "a", "tracked", "https://example.com/a", "product: book"] in ran.rows
    assert ran.rows[-1][0] == "1"
    assert ran.rows[-1][3] != "tracked"
    assert ran.rows[-1][4] == "mailto:x@example.com"


def test_explain_json(run: Run, folder: Path) -> None:
    """--json prints the report, with why a message is left alone."""
    report = json.loads(run("explain", "-", "--json", stdin=MESSAGE).out)
    assert [link["track"] for link in report["links"]] == [True, False]
    assert report["recipients"] == ["anna@example.com"]
    assert report["places"][0] == {"part": 0, "line": 1, "column": 39}
    assert report["notices"] == []
    assert report["size_after"] > report["size_before"] == len(MESSAGE)
    alone = json.loads(run("explain", "-", "--json", "-r", "a@example.com", "-r", "b@example.com", stdin=MESSAGE).out)
    assert alone["reason"]


def test_explain_html(run: Run, folder: Path) -> None:
    """HTML is explained as the body of a message from and to whom it says."""
    (folder / "offer.html").write_text('<a href="https://example.com/">x</a>')
    ran = run("explain", "offer.html", "--sender", "a@example.com", "-r", "b@example.com")
    assert ran.rows[-1][:5] == ["0", "1:10", "a", "tracked", "https://example.com/"]


def test_open(run: Run, folder: Path) -> None:
    """`open` shows what a link holds, as lines or as JSON, from the link or its token."""
    mail = Mail(sender="Shop <shop@example.com>", recipient="anna@example.com", tags={"campaign": "spring"})
    html = postbox().track_html("<a href='https://example.com/?a=1&amp;b=2' postbox:tags='k:v'>x</a>", mail)
    link = html.partition("href='")[2].partition("'")[0]
    ran = run("open", link)
    assert (ran.code, ran.err) == (0, "")
    for row in (["url", "https://example.com/?a=1&b=2"], ["tags.k", "v"], ["message_tags.campaign", "spring"]):
        assert row in ran.rows
    opened = json.loads(run("open", "--json", link.rpartition("/")[2]).out)
    assert opened["tags"] == {"k": ["v"]}
    assert opened["headers"]["to"] == ["anna@example.com"]


@pytest.mark.parametrize("url", ["https://click.example.com/c/forged", "https://example.com/", "AAAAAAAA"])
def test_open_refuses(run: Run, folder: Path, url: str) -> None:
    """A link that does not open is one line on standard error, and 1."""
    ran = run("open", url)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("postbox: ")
    assert ran.err.count("\n") == 1


def test_plugins(run: Run, folder: Path) -> None:
    """`plugins` lists notifiers and commands, where they come from, and whether they are used."""
    with (folder / "postbox.toml").open("a") as file:
        file.write('[[notify]]\nuse = "log"\nname = "mine"\n[[notify]]\nuse = "nobody"\n')
    ran = run("plugins")
    assert (ran.code, ran.err) == (0, "")
    found = {(row[0], row[1]): row for row in ran.rows}
    assert found["mine", "notifier"][2] == "active"
    assert "postbox_click" in found["mine", "notifier"][3].split()
    assert found["webhook", "notifier"][2] == "available"
    assert "postbox_hooks.notify.webhook" in found["webhook", "notifier"][4]
    assert found["nobody", "notifier"][2] == "failed"
    assert found["demo", "command"][2] == "active"


def test_blocked_command(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTBOX_DISABLED_PLUGINS takes a command away, and `plugins` says so."""
    monkeypatch.setenv("POSTBOX_DISABLED_PLUGINS", "demo, other")
    assert run("demo", "--help").code == 2
    assert "\n  demo " not in run("--help").text
    assert ["demo", "command", "blocked"] in [row[:3] for row in run("plugins").rows]


def test_control_characters_are_shown() -> None:
    """What a terminal would obey, or a reader be misled by, is shown instead of printed."""
    assert shown("a\x1b]0;x\x07\u202eb\r\n\tc") == "a\\x1b]0;x\\x07\\u202eb\\r\\n\\tc"
    assert shown("Привет 🎉") == "Привет 🎉"


def test_explain_is_safe_to_print(run: Run, folder: Path) -> None:
    """An address out of a mail cannot steer the terminal that it is shown on."""
    message = EmailMessage()
    message["From"], message["To"] = "a@example.com", "b@example.com"
    message.set_content("<a href='ftp://x/\x1b[2J'>x</a>", subtype="html")
    ran = run("explain", "-", stdin=message.as_bytes())
    assert b"\x1b" not in ran.out
    assert b"\\x1b[2J" in ran.out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (200000, "2 d")]
)
def test_ago(seconds: float, text: str) -> None:
    """Time spans are shown in their largest unit."""
    assert ago(seconds) == text
