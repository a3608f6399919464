"""README.md is held to its word: its samples run, its output is what they print, its tables are what the code has.

The tutorial is followed in ``test_tutorial.py``.
"""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import os
import re
import smtplib
import socket
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from email.message import EmailMessage
from importlib.metadata import metadata
from pathlib import Path

import django
import msgspec
import pytest
from readme import (
    COMMANDS,
    CONFIGURATIONS,
    DIAGRAM,
    DJANGO,
    HEADINGS,
    INTRODUCTION,
    NOTIFICATION,
    PROGRAM,
    README,
    SAMPLES,
    TUTORIAL,
    Sample,
    random_parts_named,
    rows,
)
from shell import run, running
from sinks import running_sink

from postbox_hooks.leave_alone import RULES
from postbox_hooks.notify.kafka import KafkaNotifier
from postbox_hooks.notify.kinesis import KinesisNotifier
from postbox_hooks.notify.log import LogNotifier
from postbox_hooks.notify.nats import NatsNotifier
from postbox_hooks.notify.rabbitmq import RabbitMQNotifier
from postbox_hooks.notify.redis import RedisNotifier
from postbox_hooks.notify.sqs import SqsNotifier
from postbox_hooks.notify.webhook import WebhookNotifier
from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin import Click, Postbox, hookspecs, new_key
from postbox_plugin.config import load_table
from postbox_plugin.settings import NotifySettings, PluginSettings, ServeSettings, Settings
from postbox_plugin.testing import sample_click

CHECKOUT = Path(__file__).parents[2]
SECRETS = {
    "POSTBOX_KEY": new_key(),
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "AMQP_URL": "amqps://user:password@rabbitmq.example.com/",
    "KAFKA_PASSWORD": "secret",
    "SMTP_PASSWORD": "secret",
}
"""What the configurations of the README refer to as ``env:NAME``."""


def the(samples: list[Sample], section: str) -> Sample:
    """The one sample of a section."""
    (sample,) = (sample for sample in samples if sample.section == section)
    return sample


def test_no_sample_is_passed_over() -> None:
    """Every fenced block is among those that a test of this file or of the tutorial executes, and nothing that looks
    like a sample is anything else.
    """
    groups = (INTRODUCTION, TUTORIAL, DJANGO, PROGRAM, CONFIGURATIONS, COMMANDS, NOTIFICATION, DIAGRAM)
    executed = [sample for group in groups for sample in group if group is not PROGRAM or sample not in INTRODUCTION]
    assert sorted(executed) == SAMPLES
    assert sum("```" in line for line in README.splitlines()) == 2 * len(SAMPLES)
    assert "~~~" not in README
    assert not re.search(r"\n\n(    |\t)", re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE))


def test_the_first_sample_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """The example at the top runs as it stands, and its output stands below it."""
    program, output = INTRODUCTION
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.text], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr == ""
    assert random_parts_named(done.stdout) == random_parts_named(output.text)


def test_the_python_samples_run_one_after_the_other(tmp_path: Path) -> None:
    """Each goes on where the one before ended, against a real SMTP server and a real configuration file."""
    configuration = the(CONFIGURATIONS, "Settings").text.replace("/var/lib/postbox", str(tmp_path / "spool"))
    (tmp_path / "postbox.toml").write_text(configuration, "utf-8")
    with running_sink() as sink:
        program = "\n".join(sample.text for sample in PROGRAM)
        for there, here in (("2525", str(sink.port)), ("listen(8080", "listen(0")):
            assert there in program
            program = program.replace(there, here)
        (tmp_path / "samples.py").write_text(program, "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", "samples.py"],
            cwd=tmp_path,
            env=os.environ | SECRETS,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert len(sink.mails) == 2
    for arrived in sink.mails:
        assert b"click.example.com/c/" in arrived.raw.replace(b"=\r\n", b"")


@pytest.mark.parametrize("sample", DJANGO, ids=lambda sample: str(sample.line))
def test_django_takes_the_settings(sample: Sample, tmp_path: Path) -> None:
    """Django's own check is content with what the README writes into a project's settings."""
    (tmp_path / "settings.py").write_text(sample.text, "utf-8")
    command = [sys.executable, "-m", "django", "check", "--settings", "settings", "--pythonpath", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | SECRETS, capture_output=True, text=True, check=False)
    if "MAILERS" in sample.text and django.VERSION < (6, 1):
        assert f"for Django {django.get_version()} knows no MAILERS" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, ""), sample


@pytest.mark.parametrize("sample", CONFIGURATIONS, ids=lambda sample: sample.section)
def test_every_configuration_is_one(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README writes into a postbox.toml are settings, options and plugins that exist, and can be had."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    given = sample.text
    if sample.section != "Settings":
        given = f'domain = "click.example.com"\nkeys = ["env:POSTBOX_KEY"]\n{given}'
    path = tmp_path / "postbox.toml"
    path.write_text(given, "utf-8")
    postbox = Postbox.from_file(path)
    assert [info for info in postbox.plugins_report() if info.state == "failed"] == []
    blocks = tomllib.loads(given)
    assert [block.use for block in postbox.settings.notify] == [block["use"] for block in blocks.get("notify", ())]
    assert [block.use for block in postbox.settings.plugin] == [block["use"] for block in blocks.get("plugin", ())]
    if "relay" in blocks:
        assert load_table(path, SECRETS, "relay", RelaySettings, {}).upstream_password == "secret"


def test_the_rules_of_leave_alone_are_the_code_s() -> None:
    """The rules that the README shows are those that hold without others."""
    (block,) = tomllib.loads(the(CONFIGURATIONS, "Links to leave alone").text)["plugin"]
    assert block["rules"] == {name: list(phrases) for name, phrases in RULES.items()}


def test_the_notification_is_one() -> None:
    """The notification that the README shows is what a click becomes."""
    (shown,) = NOTIFICATION
    assert json.loads(sample_click().to_json()) == json.loads(shown.text)
    assert Click.from_json(shown.text) == sample_click()


def test_the_diagram_names_hooks_that_exist() -> None:
    """The hooks of a click's life are named in it, in the order in which they are called."""
    (diagram,) = DIAGRAM
    named = re.findall(r"postbox_\w+", diagram.text)
    assert named == [
        *("postbox_convert", "postbox_before_send", "postbox_link"),
        *("postbox_classify", "postbox_click"),
    ]
    assert set(named) <= set(hookspecs.__all__)


# The shell


def test_every_command_block_has_a_test() -> None:
    """Those below, and no others."""
    assert [sample.section for sample in COMMANDS] == [
        "Try it",
        "Try it",
        "Everything that can set an SMTP host",
        "Read the numbers",
    ]


def test_the_demo_is_tried(tmp_path: Path) -> None:
    """Its commands lead to an inbox, and Ctrl-C ends it. (That it works is seen in ``test_demo.py``.)"""
    with running(COMMANDS[0].text, tmp_path, "demo") as program:
        program.printed("Ctrl-C ends the demo")
        program.stop()
        assert "nothing is left behind" in program.log.read_text("utf-8")


def test_tox_runs_what_the_readme_says() -> None:
    """It says ``tox`` and means every Python that the project has classifiers for."""
    assert COMMANDS[1].text == "tox\n"
    listed = re.findall(r"^env_list = (.*)$", (CHECKOUT / "tox.ini").read_text("utf-8"), re.MULTILINE)[0].split(", ")
    minors = [text[len("py3") :] for text in listed if re.fullmatch(r"py3\d+", text)]
    assert f"every Python from 3.{min(minors)} to 3.{max(minors)}" in README


def test_the_relay_is_started(tmp_path: Path) -> None:
    """Its command, with its configuration, hands on a mail with tracking links."""
    sample, configuration = COMMANDS[2], the(CONFIGURATIONS, COMMANDS[2].section)
    (tmp_path / "postbox.toml").write_text(
        f'domain = "click.example.com"\nkeys = ["env:POSTBOX_KEY"]\n{configuration.text}', "utf-8"
    )
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", "reader@example.org"
    message.set_content('<a href="https://example.com/">', "html")
    with running_sink() as sink:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        here = {"LISTEN": f"127.0.0.1:{port}", "UPSTREAM": f"127.0.0.1:{sink.port}"}
        here |= {"UPSTREAM_TLS": "none", "UPSTREAM_USER": "", "UPSTREAM_PASSWORD": ""}
        variables = SECRETS | {f"POSTBOX_RELAY_{name}": value for name, value in here.items()}
        with running(sample.text, tmp_path, "relay", **variables) as relay:
            relay.printed(str(port))
            with smtplib.SMTP("127.0.0.1", port) as client:
                client.send_message(message)
        assert b"https://click.example.com/c/" in sink.mails[0].raw


def test_the_numbers_are_read(tmp_path: Path) -> None:
    """Its commands count clicks, and make a map."""
    click = sample_click().to_json() + b"\n"
    (tmp_path / "clicks.jsonl").write_bytes(click)
    (tmp_path / "clicks.jsonl.1.gz").write_bytes(gzip.compress(click))
    message = EmailMessage()
    message.set_content('<a href="https://example.com/some-link">', "html")
    (tmp_path / "newsletter.eml").write_bytes(message.as_bytes())
    assert "https://example.com/some-link" in run(COMMANDS[3].text, tmp_path)
    assert "https://example.com/some-link" in (tmp_path / "map.html").read_text("utf-8")


def test_the_extras_of_the_readme_exist() -> None:
    """What the README says to install can be installed, and no extra is kept from the reader."""
    real = set(metadata("postbox-plugin").get_all("Provides-Extra") or ())
    named = {name for text in re.findall(r'"(?:postbox-plugin|\.)\[([\w,-]+)\]"', README) for name in text.split(",")}
    for text in re.findall(r"\(extras? ([^)]+)\)", README):
        named |= set(re.findall(r"`([\w-]+)`", text))
    assert named == real


def test_the_commands_of_the_readme_exist() -> None:
    """Each `postbox ...` that the README names is a command."""
    for command in sorted(set(re.findall(r"`postbox (\w+)", README))):
        done = subprocess.run(
            [sys.executable, "-m", "postbox_plugin", command, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"NO_COLOR": "1"},
        )
        assert done.returncode == 0, (command, done.stderr)


# Tables and links


def shown_settings() -> dict[str, str]:
    """The settings of the table, each with its default as written."""
    shown = {}
    for names, defaults, _ in rows("setting"):
        table = (re.match(r"`\[+(\w+)\]+`", names) or [""])[0]
        keys = re.findall(r"`(\w+)`", names)
        values = re.findall(r"`([^`]+)`", defaults) or [defaults]
        for key, value in zip(keys, values if len(values) == len(keys) else values * len(keys), strict=True):
            shown[f"{table.strip('`[]')}.{key}".lstrip(".")] = value
    return shown


def defaults(prefix: str, record: type[msgspec.Struct]) -> Mapping[str, object]:
    return {
        f"{prefix}{field.name}": field.default
        for field in msgspec.structs.fields(record)
        if field.name not in ("serve", "notify", "plugin", "options")
    }


def test_the_settings_table_is_the_code_s() -> None:
    """Every setting stands in the table with its default, and nothing else does."""
    real = {
        **defaults("", Settings),
        **defaults("serve.", ServeSettings),
        **defaults("notify.", NotifySettings),
        **defaults("plugin.", PluginSettings),
    }
    shown = shown_settings()
    assert shown.keys() == real.keys()
    for name, value in shown.items():
        if value in ("", "the value of"):
            continue
        written = tomllib.loads(f"value = {value}")["value"] if value != "use" else ""
        assert written == (list(real[name]) if isinstance(real[name], tuple) else real[name]), name


@pytest.mark.parametrize(
    ("name", "notifier"),
    [
        ("log", LogNotifier),
        ("webhook", WebhookNotifier),
        ("redis", RedisNotifier),
        ("rabbitmq", RabbitMQNotifier),
        ("nats", NatsNotifier),
        ("kafka", KafkaNotifier),
        ("kinesis", KinesisNotifier),
        ("sqs", SqsNotifier),
    ],
)
def test_the_options_of_notifiers_are_the_code_s(name: str, notifier: type) -> None:
    """Every option of a shipped notifier stands in its table with its default, and nothing else does."""
    options = inspect.signature(notifier).parameters
    shown = {re.findall(r"`(\w+)`", row[0])[0]: row[1].strip("`") for row in rows(f"`{name}` option")}
    assert list(shown) == list(options)
    for option, value in shown.items():
        default = options[option].default
        if value == "":  # needed, even where the class takes an empty one in order to say so
            assert not default or default is inspect.Parameter.empty, option
        else:
            assert (None if value == "none" else tomllib.loads(f"value = {value}")["value"]) == default, option


def test_the_relay_s_table_is_the_code_s() -> None:
    """Every setting of the relay stands in its table with its default, and nothing else does."""
    shown = {re.findall(r"`(\w+)`", row[0])[0]: row[1].strip("`") for row in rows("`relay` setting")}
    options = inspect.signature(RelaySettings).parameters
    assert list(shown) == list(options)
    real = RelaySettings(upstream="smtp.example.com:587")
    for name, value in shown.items():
        if value:
            default = getattr(real, name)
            assert tomllib.loads(f"value = {value}")["value"] == (list(default) if name == "networks" else default), (
                name
            )


def signatures(body: list[ast.stmt]) -> dict[str, tuple[list[tuple[str, str]], str]]:
    """The hooks among some statements: their arguments with their types, and the type of what they return."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("postbox_"):
            arguments = [argument for argument in node.args.args if argument.arg != "self"]
            typed = [(argument.arg, ast.unparse(argument.annotation)) for argument in arguments if argument.annotation]
            assert len(typed) == len(arguments)
            assert node.returns is not None
            found[node.name] = typed, ast.unparse(node.returns)
    return found


def test_every_hook_is_in_the_readme_with_its_signature() -> None:
    """The class that shows the hooks has each specification, with its arguments, their types, and what it returns."""
    (shown,) = (node for node in ast.parse(the(PROGRAM, "Hooks").text).body if isinstance(node, ast.ClassDef))
    assert signatures(shown.body) == signatures(ast.parse(inspect.getsource(hookspecs)).body)
    assert set(re.findall(r"`(postbox_\w+)\(", README)) <= set(hookspecs.__all__)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_what_the_readme_links_to_is_there() -> None:
    """Relative links of the README lead to files of the repository, those within it to headings, each of which the
    table of contents has.
    """
    text = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text):
        assert (CHECKOUT / target).exists(), target
    assert len(set(HEADINGS)) == len(HEADINGS)
    anchors = {anchor(heading) for heading in HEADINGS}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    contents = text[text.index("## Contents") : text.index("## Try it")]
    assert anchors - set(re.findall(r"\]\(#([^)]+)\)", contents)) == {"postbox-plugin", "contents", "licence"}
