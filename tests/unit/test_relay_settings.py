"""The table ``[relay]``: what it takes, and what it says of what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin.config import load, load_table
from postbox_plugin.errors import SettingsError

HEAD = 'domain = "click.example.com"\nkeys = ["' + "A" * 43 + '"]\n'
UPSTREAM = {"upstream": "mail.example.com:587"}


def read(
    folder: Path, text: str, environ: dict[str, str] | None = None, given: dict[str, Any] | None = None
) -> RelaySettings:
    path = folder / "postbox.toml"
    path.write_text(HEAD + text, "utf-8")
    return load_table(path, environ or {}, "relay", RelaySettings, given or {})


def test_the_table_is_the_relay_s_and_nobody_else_s(tmp_path: Path) -> None:
    """`load` leaves it alone, whatever is in it; a table that belongs to nobody is an error."""
    path = tmp_path / "postbox.toml"
    path.write_text(HEAD + "[relay]\nnonsense = 1\n")
    assert load(path, {}).domain == "click.example.com"
    path.write_text(HEAD + '[rely]\nupstream = "x:1"\n')
    with pytest.raises(SettingsError, match=r"rely: is not a setting\. Did you mean 'relay'\?"):
        load(path, {})


def test_values_come_from_the_file_the_environment_and_the_command_line(tmp_path: Path) -> None:
    """Each outweighs the one before; references are followed, and paths start at the file's folder."""
    (tmp_path / "password").write_text("from a file\n")
    text = """
    [relay]
    upstream = "mail.example.com:587"
    upstream_user = "shop"
    upstream_password = "file:password"
    upstream_ca_file = "ca.pem"
    cert = "chain.pem"
    key = "/etc/key.pem"
    users = { one = "env:ONE" }
    listen = "127.0.0.1:1"
    size_limit = 1
    """
    environ = {
        "ONE": "1",
        "POSTBOX_RELAY_LISTEN": "[::1]:2",
        "POSTBOX_RELAY_SIZE_LIMIT": "2",
        "POSTBOX_RELAY_NETWORKS": "10.0.0.0/8, ::1",
        "POSTBOX_RELAY_SPLIT": "yes",
    }
    settings = read(tmp_path, text, environ, {"size_limit": 3})
    assert settings.upstream_password == "from a file"
    assert settings.upstream_ca_file == str(tmp_path / "ca.pem")
    assert (settings.cert, settings.key) == (str(tmp_path / "chain.pem"), "/etc/key.pem")
    assert settings.users == {"one": "1"}
    assert settings.address == ("::1", 2)
    assert settings.size_limit == 3
    assert settings.networks == ["10.0.0.0/8", "::1"]
    assert settings.split
    assert "from a file" not in repr(settings)


def test_the_environment_alone() -> None:
    """Without a file, as in a container; users are JSON."""
    environ = {
        "POSTBOX_RELAY_UPSTREAM": "mail.example.com:465",
        "POSTBOX_RELAY_UPSTREAM_TLS": "tls",
        "POSTBOX_RELAY_USERS": '{"shop": "env:PASSWORD"}',
        "POSTBOX_RELAY_PLAINTEXT_AUTH": "true",
        "PASSWORD": "secret",
    }
    settings = load_table(None, environ, "relay", RelaySettings, {})
    assert (settings.server, settings.upstream_tls) == (("mail.example.com", 465), "tls")
    assert settings.users == {"shop": "secret"}


@pytest.mark.parametrize(
    ("text", "environ", "given", "complaint"),
    [
        ("", {}, {}, "{path}: relay.upstream: is missing. Add upstream = ... to the table [relay]"),
        ("relay = 1", {}, {}, "{path}: relay: is not a table. Write [relay], and its settings below"),
        ("[relay]\nupstraem = 1", {}, {}, "{path}: relay.upstraem: is not a setting. Did you mean 'upstream'?"),
        (
            "[relay]\nupstream = 587",
            {},
            {},
            (
                "{path}: relay.upstream: has the wrong type (expected `str`, got `int`). Write text in quotes, for "
                'example "..."'
            ),
        ),
        (
            '[relay]\nupstream = "a:1"\nupstream_tls = "ssl"',
            {},
            {},
            '{path}: relay.upstream_tls: cannot be \'ssl\'. Write one of "starttls", "tls", "none"',
        ),
        (
            '[relay]\nupstream = "a:1"\nusers = { shop = "env:NOT_SET" }',
            {},
            {},
            "{path}: relay.users.shop: env:NOT_SET refers to an environment variable that is not set. Set NOT_SET, or ",
        ),
        (
            "",
            {"POSTBOX_RELAY_UPSTREAM": "mail"},
            {},
            "POSTBOX_RELAY_UPSTREAM: relay.upstream: 'mail' is not host:port. Write for",
        ),
        (
            "",
            {"POSTBOX_RELAY_USERS": "shop"},
            {},
            'POSTBOX_RELAY_USERS: relay.users: is not a JSON object of texts. Write for example {{"name": "..."}}',
        ),
        (
            "",
            {"POSTBOX_RELAY_UPSTREAM": "mail:1"},
            {"upstream": "mail"},
            "the command line: relay.upstream: 'mail' is not host:port. Write for example \"mail.example.com:587\"",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_remedy(
    text: str, environ: dict[str, str], given: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """File, variable or command line; the key; what to write."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, environ, given)
    assert str(caught.value).startswith(complaint.format(path=tmp_path / "postbox.toml"))


@pytest.mark.parametrize(
    ("given", "key", "complaint"),
    [
        ({"upstream": "mail.example.com:0"}, "upstream", "has no port"),
        ({"upstream": "localhost:25", "listen": "localhost:25"}, "upstream", "is where the relay itself listens"),
        ({"upstream": "smtp://mail:25"}, "upstream", "is not host:port"),
        ({"upstream": "[::1]:70000"}, "upstream", "is not host:port"),
        ({"listen": "2525"}, "listen", "is not host:port"),
        ({"listen": "0.0.0.0:2525"}, "listen", "is open to other machines"),
        ({"listen": "mail.example.com:25"}, "listen", "is open to other machines"),
        ({"networks": ["0.0.0.0/0"]}, "networks[0]", "would let everybody send"),
        ({"networks": ["10.0.0.0/8", "::/0"]}, "networks[1]", "would let everybody send"),
        ({"networks": ["10.0.0.1/8"]}, "networks[0]", "has host bits set"),
        ({"users": {"a": "b"}}, "cert", "AUTH needs STARTTLS"),
        ({"cert": "a.pem"}, "key", "is missing"),
        ({"listen_tls": "tls"}, "cert", 'is missing, and listen_tls = "tls" needs it'),
        ({"upstream_user": "a"}, "upstream_password", "is missing"),
        ({"upstream_user": "a", "upstream_password": "b", "upstream_tls": "none"}, "upstream_tls", "anybody to read"),
        ({"hostname": "two words"}, "hostname", "is not a host name"),
        ({"timeout": 0}, "timeout", "is not above zero"),
        ({"connections": -1}, "connections", "is not above zero"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], key: str, complaint: str) -> None:
    """An open relay, passwords in the clear, half of a pair."""
    with pytest.raises(SettingsError) as caught:
        RelaySettings(**{**UPSTREAM, **given})
    assert caught.value.key == key
    assert complaint in caught.value.problem


@pytest.mark.parametrize(
    ("given", "trusted"),
    [
        ({}, ["127.0.0.0/8", "::1/128"]),
        ({"users": {"a": "b"}, "plaintext_auth": True}, []),
        ({"users": {"a": "b"}, "plaintext_auth": True, "networks": ["10.0.0.0/8"]}, ["10.0.0.0/8"]),
        ({"listen": "0.0.0.0:25", "networks": ["10.0.0.0/8"]}, ["10.0.0.0/8"]),
        ({"listen": "localhost:2525"}, ["127.0.0.0/8", "::1/128"]),
    ],
)
def test_who_may_send(given: dict[str, Any], trusted: list[str]) -> None:
    """This machine, unless users or networks are named."""
    assert [str(network) for network in RelaySettings(**{**UPSTREAM, **given}).trusted] == trusted


def test_the_example_is_one() -> None:
    """`examples/relay/postbox.toml` has only settings that exist, for the relay and for the rest."""
    path = Path(__file__).parents[2] / "examples" / "relay" / "postbox.toml"
    environ = {"POSTBOX_KEY": "A" * 43, "SMTP_PASSWORD": "1", "SHOP_PASSWORD": "2", "WIKI_PASSWORD": "3"}
    assert load(path, environ).domain == "click.example.com"
    settings = load_table(path, environ, "relay", RelaySettings, {})
    assert settings.users == {"shop": "2", "wiki": "3"}
    assert [str(network) for network in settings.trusted] == ["10.1.2.0/24"]
