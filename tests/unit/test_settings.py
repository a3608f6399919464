"""Settings: strict, and every error says what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from postbox_plugin import Postbox
from postbox_plugin.errors import PostboxError, SettingsError
from postbox_plugin.settings import NotifySettings, PluginSettings, ServeSettings, Settings, from_mapping
from postbox_plugin.tokens.keyring import new_key

DOMAIN = "click.example.com"


def make(**changes: Any) -> Settings:
    return Settings(**{"domain": DOMAIN, "keys": [new_key()]} | changes)


def refused(**changes: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        from_mapping({"domain": DOMAIN, "keys": [new_key()]} | changes, "postbox.toml")
    return caught.value


def test_domain_and_key_are_enough() -> None:
    """A domain and a key are all that must be set."""
    settings = make()
    assert settings.path == "/c/"
    assert settings.carry == ("from", "to", "subject", "date")
    assert settings.serve == ServeSettings()
    assert settings.notify == ()


@pytest.mark.parametrize(
    ("domain", "problem"),
    [
        ("", "is missing"),
        ("https://click.example.com", "has a scheme"),
        ("click.example.com/c", "has a path"),
        ("click.example.com:8080", "has a port"),
        ("me@click.example.com", "has a user"),
        ("click example.com", "is not a host name"),
        ("почта.example", "is not in its ASCII form"),
    ],
)
def test_domain_is_a_host_name(domain: str, problem: str) -> None:
    """A domain with a scheme, port, path or user, or not in ASCII, is refused with what to write."""
    error = refused(domain=domain)
    assert error.key == "domain"
    assert problem in error.problem
    assert error.where == "postbox.toml"
    assert str(error).startswith("postbox.toml: domain: ")


def test_domain_outside_ascii_is_given_in_ascii() -> None:
    """The error for an international name says the form that works."""
    assert "xn--" in refused(domain="почта.example").remedy


def test_missing_key() -> None:
    """Without a key the error says how to make one."""
    error = refused(keys=[])
    assert error.key == "keys"
    assert "postbox keys new" in error.remedy


@pytest.mark.parametrize("text", ["short", "A" * 42, "A" * 86, "not base64 at all!"])
def test_wrong_sized_key(text: str) -> None:
    """A key that is not 32 bytes is named by its place, and its text is not repeated."""
    error = refused(keys=[new_key(), text])
    assert error.key == "keys[1]"
    assert text not in str(error)


def test_same_key_twice() -> None:
    """A key that stands in the ring twice is an error: a rotation went wrong."""
    key = new_key()
    error = refused(keys=[key, key])
    assert error.key == "keys[1]"
    assert key not in str(error)


def test_unknown_key_names_the_nearest() -> None:
    """A misspelt setting is an error that says which one was meant."""
    error = refused(domian=DOMAIN)
    assert error.key == "domian"
    assert "'domain'" in error.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("https_port", "443"),
        ("https_port", True),
        ("keys", "one-key"),
        ("strict", "yes"),
        ("spool", 5),
        ("privacy", "secret"),
        ("trusted_proxies", [1]),
        ("serve", "127.0.0.1:80"),
        ("journal_deadline", "1s"),
        ("notify", {"use": "log"}),
        ("notify", ["log"]),
        ("plugin", ["leave-alone"]),
    ],
)
def test_wrong_type(key: str, value: object) -> None:
    """A value of the wrong type is an error that names the setting."""
    error = refused(**{key: value})
    assert error.key == key
    assert error.remedy.startswith("Write")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("path", "c", "path"),
        ("path", "/c", "path"),
        ("path", "/c d/", "path"),
        ("path", "/c/?", "path"),
        ("https_port", 0, "https_port"),
        ("http_port", 65536, "http_port"),
        ("trusted_proxies", ["127.0.0.0/8", "loopback"], "trusted_proxies[1]"),
        ("trusted_proxies", ["10.0.0.1/8"], "trusted_proxies[0]"),
        ("home_url", "example.com", "home_url"),
        ("home_url", "javascript:alert(1)", "home_url"),
        ("carry", ["from", "bcc"], "carry[1]"),
        ("journal_deadline", 0, "journal_deadline"),
        ("journal_deadline", float("nan"), "journal_deadline"),
    ],
)
def test_out_of_range(key: str, value: object, named: str) -> None:
    """A value that cannot work is an error that names the setting and its place."""
    assert refused(**{key: value}).key == named


@pytest.mark.parametrize("path", ["/", "/c/", "/a/b-c/d_e/", "/~click/"])
def test_path(path: str) -> None:
    """A path begins and ends with a slash; the root will do."""
    assert make(path=path).path == path


@pytest.mark.parametrize(
    ("serve", "named"),
    [
        ({"http": "8080"}, "serve.http"),
        ({"http": "127.0.0.1:99999"}, "serve.http"),
        ({"http": "::1:8080"}, "serve.http"),
        ({"https": "127.0.0.1:8443"}, "serve.cert"),
        ({"https": "127.0.0.1:8443", "cert": "c.pem"}, "serve.key"),
        ({"http": ""}, "serve.http"),
        ({"port": 80}, "serve.port"),
        ({"workers": 0}, "serve.workers"),
        ({"max_connections": 0}, "serve.max_connections"),
    ],
)
def test_serve(serve: dict[str, object], named: str) -> None:
    """[serve] needs host and port, https its certificate, and something to listen on; and numbers that can work."""
    assert refused(serve=serve).key == named


def test_serve_on_ipv6() -> None:
    """An IPv6 address stands in brackets."""
    assert from_mapping({"domain": DOMAIN, "keys": [new_key()], "serve": {"http": "[::1]:80"}}).serve.http == "[::1]:80"


def test_notify_block() -> None:
    """What is not for the delivery is for the notifier; the name is that of the entry point unless given."""
    blocks = [{"use": "log", "path": "x"}, {"use": "log", "name": "second", "timeout": 5, "level": "INFO"}]
    settings = from_mapping({"domain": DOMAIN, "keys": [new_key()], "notify": blocks})
    first, second = settings.notify
    assert (first.use, first.name, first.options) == ("log", "log", {"path": "x"})
    assert (second.name, second.timeout, second.options) == ("second", 5, {"level": "INFO"})


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({}, "notify[0].use"),
        ({"use": 1}, "notify[0].use"),
        ({"use": "log", "name": "a b"}, "notify[0].name"),
        ({"use": "log", "concurrency": 0}, "notify[0].concurrency"),
        ({"use": "log", "concurrency": 1.5}, "notify[0].concurrency"),
        ({"use": "log", "timeout": -1}, "notify[0].timeout"),
        ({"use": "log", "retry_for": 0}, "notify[0].retry_for"),
    ],
)
def test_wrong_notify_block(block: dict[str, object], named: str) -> None:
    """A wrong [[notify]] block is named by its place."""
    assert refused(notify=[block]).key == named


def test_two_notifiers_of_one_name() -> None:
    """Two notifiers of one name would share their clicks, so they are an error."""
    error = refused(notify=[{"use": "log"}, {"use": "webhook"}, {"use": "log"}])
    assert error.key == "notify[2].name"
    assert "name =" in error.remedy


def test_plugin_block() -> None:
    """What is not the name of the plugin is among its options; a block without a name, or a second one, is wrong."""
    blocks = [{"use": "leave-alone", "rules": {"a": ["b"]}}, {"use": "optouts"}]
    first, second = from_mapping({"domain": DOMAIN, "keys": [new_key()], "plugin": blocks}).plugin
    assert (first.use, first.options) == ("leave-alone", {"rules": {"a": ["b"]}})
    assert (second.use, second.options) == ("optouts", {})
    assert refused(plugin=[{"rules": {}}]).key == "plugin[0].use"
    assert refused(plugin=[{"use": "a"}, {"use": "b"}, {"use": "a"}]).key == "plugin[2].use"


def test_secrets_in_no_repr() -> None:
    """Neither keys nor the options of notifiers and plugins appear in a repr."""
    key = new_key()
    settings = make(
        keys=[key],
        notify=[NotifySettings(use="webhook", options={"secret": "whsec_c2VjcmV0"})],
        plugin=[PluginSettings(use="x", options={"secret": "whsec_c2VjcmV0"})],
    )
    for text in (repr(settings), str(settings), repr(settings.notify), repr([settings])):
        assert key not in text
        assert "whsec" not in text
    assert "secret" in repr(settings.notify[0])


def test_origin_leaves_out_the_usual_port() -> None:
    """The port stands in an address only where it is not the scheme's own."""
    assert make().origin("https") == "https://click.example.com"
    assert make(https_port=8443).origin("https") == "https://click.example.com:8443"
    assert make(http_port=8080).origin("http") == "http://click.example.com:8080"


def test_a_mapping_may_refer_to_variables_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a file may; in a Settings the value itself is written, and the error says so."""
    key, old = new_key(), new_key()
    monkeypatch.setenv("THE_KEY", key)
    (tmp_path / "old").write_text(f"{old}\n")
    monkeypatch.chdir(tmp_path)
    postbox = Postbox.from_mapping({"domain": DOMAIN, "keys": ("env:THE_KEY", "file:old")})
    assert list(postbox.settings.keys) == [key, old]
    with pytest.raises(
        SettingsError, match=r"^app\.config: keys\[0\]: env:NO_KEY refers to an environment variable that"
    ):
        Postbox.from_mapping({"domain": DOMAIN, "keys": ["env:NO_KEY"]}, source="app.config")
    with pytest.raises(SettingsError, match=r"env: and file: are for files of settings, and Postbox\.from_mapping"):
        Postbox(Settings(domain=DOMAIN, keys=["env:THE_KEY"]))


def test_settings_error_is_ours_and_a_value_error() -> None:
    """Programs catch PostboxError, or ValueError as elsewhere."""
    error = refused(domain="")
    assert isinstance(error, PostboxError)
    assert isinstance(error, ValueError)


def test_settings_do_not_change() -> None:
    """Settings are frozen: senders and threads share them."""
    with pytest.raises(AttributeError):
        make().domain = "other.example"  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    """Each setting has its line in the docstring, which the documentation is made of."""
    for kind in (Settings, ServeSettings, NotifySettings):
        for field in msgspec.structs.fields(kind):
            assert f":ivar {field.name}:" in (kind.__doc__ or ""), f"{kind.__name__}.{field.name}"
