"""README.md is held to its word: its samples run, its output is what they print, its tables are what the code has."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
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
from postbox_plugin.settings import NotifySettings, PluginSettings, ServeSettings, Settings, from_mapping
from postbox_plugin.testing import sample_click

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [text for given, text in BLOCKS if given == language]


def python_samples() -> list[str]:
    """The samples in their order: each goes on where the one before ended. Django's settings are files of their own."""
    return [text for text in blocks("python") if not text.startswith("# settings.py")]


def random_parts_named(text: str) -> str:
    """The text with the name of what is different each time in its place: message ids and tokens."""
    text = re.sub(r"X-Postbox-Message-Id: \S{16}", "X-Postbox-Message-Id: ID", text)
    return re.sub(r"/c/[A-Za-z0-9_-]+(=\n[A-Za-z0-9_-]+)*", "/c/TOKEN", text)


def test_the_first_sample_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """The example at the top runs as it stands, and its output stands below it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", python_samples()[0]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stderr == ""
    assert random_parts_named(done.stdout) == random_parts_named(blocks("text")[0])


def test_all_samples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python sample of the README runs, against a real SMTP server and a real configuration file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTBOX_KEY", new_key())
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    configuration = blocks("toml")[0].replace("/var/lib/postbox", str(tmp_path / "spool"))
    Path("postbox.toml").write_text(configuration, "utf-8")
    with running_sink() as sink:
        program = "\n".join(python_samples()).replace("2525", str(sink.port))
        Path("readme.py").write_text(program.replace("listen(8080", "listen(0"), "utf-8")
        done = subprocess.run([sys.executable, "-W", "error", "readme.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(sink.mails) == 2
    for arrived in sink.mails:
        assert b"click.example.com/c/" in arrived.raw.replace(b"=\r\n", b"")


def test_django_settings_are_settings() -> None:
    """What the README writes into a Django project's settings is what the backend takes."""
    for text in (text for text in blocks("python") if text.startswith("# settings.py")):
        module = types.ModuleType("settings")
        exec(text, module.__dict__)
        assert from_mapping(module.POSTBOX, "settings.POSTBOX").domain == "click.example.com"


def test_the_configuration_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The postbox.toml of the README has only settings that exist."""
    given = tomllib.loads(blocks("toml")[0]) | {"keys": [new_key()]}
    assert [block.use for block in from_mapping(given, "README.md").notify] == ["log", "webhook"]


def test_the_rules_of_leave_alone_are_the_code_s() -> None:
    """The rules that the README shows are those that hold without others, and can be put into a postbox.toml."""
    (text,) = (text for text in blocks("toml") if "leave-alone" in text)
    given = tomllib.loads(text) | {"domain": "click.example.com", "keys": [new_key()]}
    assert Postbox.from_mapping(given).settings.plugin[0].use == "leave-alone"
    assert given["plugin"][0]["rules"] == {name: list(phrases) for name, phrases in RULES.items()}


def test_the_notification_is_one() -> None:
    """The notification that the README shows is what a click becomes."""
    (shown,) = blocks("json")
    assert json.loads(sample_click().to_json()) == json.loads(shown)
    assert Click.from_json(shown) == sample_click()


def rows(first_cell: str) -> list[list[str]]:
    """The rows of the table whose head begins with that cell."""
    lines = README[README.index(f"| {first_cell} |") :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


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
    """Every option of a shipped notifier stands in its table, and nothing else does."""
    options = inspect.signature(notifier).parameters
    assert [re.findall(r"`(\w+)`", row[0])[0] for row in rows(f"`{name}` option")] == list(options)


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


def test_the_relay_s_configuration_is_one(tmp_path: Path) -> None:
    """The table [relay] of the README has only settings that exist."""
    (config,) = [block for block in blocks("toml") if "[relay]" in block]
    (tmp_path / "postbox.toml").write_text(config)
    environ = {"SMTP_PASSWORD": "secret"}
    settings = load_table(tmp_path / "postbox.toml", environ, "relay", RelaySettings, {})
    assert (settings.upstream_password, settings.listen) == ("secret", "127.0.0.1:2525")


def test_every_hook_is_in_the_table_with_its_signature() -> None:
    """The table of hooks has each specification with its arguments."""
    shown = " ".join(row[0] for row in rows("hook"))
    for name in hookspecs.__all__:
        if name.startswith("postbox_"):
            arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
            assert f"`{name}({arguments})`" in shown


def test_what_the_readme_links_to_is_there() -> None:
    """Relative links of the README lead to files of the repository."""
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target


def test_the_commands_of_the_readme_exist() -> None:
    """Each `postbox ...` that the README names is a command."""
    named = set(re.findall(r"`postbox (\w+)", README)) - {"serve"}
    for command in sorted(named):
        done = subprocess.run(
            [sys.executable, "-m", "postbox_plugin", command, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"NO_COLOR": "1"},
        )
        assert done.returncode == 0, (command, done.stderr)
