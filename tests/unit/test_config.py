"""Settings from files and the environment, and the secrets they refer to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from postbox_plugin.config import VARIABLES, load
from postbox_plugin.errors import SettingsError
from postbox_plugin.settings import ServeSettings, Settings

# Fixed, for they stand in the names of tests.
KEY, OTHER = "A" * 43, "B" * 42 + "A"
BASE = {"POSTBOX_DOMAIN": "click.example.com", "POSTBOX_KEYS": KEY}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a postbox.toml with a domain and a key, and whatever else is given."""

    def written(text: str = "", head: str = f'domain = "click.example.com"\nkeys = ["{KEY}"]\n') -> Path:
        path = tmp_path / "postbox.toml"
        path.write_text(head + text, encoding="utf-8")
        return path

    return written


def refused(path: Path | None, environ: dict[str, str] | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return caught.value


def test_file(write: Write) -> None:
    """The sample of the documentation loads as it stands."""
    text = """
    https_port = 8443
    trusted_proxies = ["127.0.0.0/8"]
    [serve]
    http = "127.0.0.1:8081"
    [[notify]]
    use = "log"
    path = "clicks.jsonl"
    """
    settings = load(write(text), {})
    assert settings.domain == "click.example.com"
    assert settings.https_port == 8443
    assert settings.serve.http == "127.0.0.1:8081"
    assert settings.notify[0].options == {"path": "clicks.jsonl"}


def test_environment_alone() -> None:
    """Without a file, every setting comes from its variable."""
    environ = BASE | {
        "POSTBOX_KEYS": f" {KEY} , {OTHER}",
        "POSTBOX_PATH": "/go/",
        "POSTBOX_HTTPS_PORT": "8443",
        "POSTBOX_TRUSTED_PROXIES": "127.0.0.0/8, ::1/128",
        "POSTBOX_CARRY": "",
        "POSTBOX_JOURNAL_DEADLINE": "0.5",
        "POSTBOX_STRICT": "Yes",
        "POSTBOX_SERVE_HTTP": "0.0.0.0:80",
        "POSTBOX_NOTIFY": '[{"use": "log", "path": "clicks.jsonl"}]',
        "POSTBOX_PLUGIN": '[{"use": "leave-alone", "rules": {"mine": ["my words"]}}]',
    }
    settings = load(None, environ)
    assert settings.plugin[0].options == {"rules": {"mine": ["my words"]}}
    assert list(settings.keys) == [KEY, OTHER]
    assert settings.path == "/go/"
    assert settings.https_port == 8443
    assert list(settings.trusted_proxies) == ["127.0.0.0/8", "::1/128"]
    assert list(settings.carry) == []
    assert settings.journal_deadline == 0.5
    assert settings.strict is True
    assert settings.serve.http == "0.0.0.0:80"
    assert settings.notify[0].options == {"path": "clicks.jsonl"}


def test_every_setting_has_a_variable() -> None:
    """Each setting can be set by an environment variable of its name."""
    names = {field.name for field in msgspec.structs.fields(Settings)} - {"serve"}
    nested = {f"serve.{field.name}" for field in msgspec.structs.fields(ServeSettings)}
    assert set(VARIABLES.values()) == names | nested
    assert VARIABLES["POSTBOX_SERVE_HTTP"] == "serve.http"


def test_environment_outweighs_the_file(write: Write) -> None:
    """A variable wins over the file, also inside [serve], and leaves the rest of the file alone."""
    path = write(
        'spool = "there"\n[serve]\nhttp = "127.0.0.1:1"\nhttps = "127.0.0.1:2"\ncert = "c.pem"\nkey = "k.pem"\n'
    )
    settings = load(path, {"POSTBOX_DOMAIN": "other.example.com", "POSTBOX_SERVE_HTTP": "127.0.0.1:3"})
    assert settings.domain == "other.example.com"
    assert settings.serve.http == "127.0.0.1:3"
    assert settings.serve.https == "127.0.0.1:2"


def test_outweighed_references_are_not_followed(write: Write) -> None:
    """What a variable replaces need not be there: keys given directly do without the file's secret."""
    path = write(head='domain = "click.example.com"\nkeys = ["env:NOT_SET"]\n')
    assert list(load(path, {"POSTBOX_KEYS": KEY}).keys) == [KEY]


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("POSTBOX_HTTPS_PORT", "https", "https_port"),
        ("POSTBOX_HTTPS_PORT", "", "https_port"),
        ("POSTBOX_HTTP_PORT", "99999", "http_port"),
        ("POSTBOX_STRICT", "maybe", "strict"),
        ("POSTBOX_JOURNAL_DEADLINE", "soon", "journal_deadline"),
        ("POSTBOX_DOMAIN", "https://click.example.com", "domain"),
        ("POSTBOX_KEYS", "", "keys"),
        ("POSTBOX_KEYS", "short", "keys[0]"),
        ("POSTBOX_KEYS", f"{KEY},", "keys[1]"),
        ("POSTBOX_TRUSTED_PROXIES", "127.0.0.0/8,lan", "trusted_proxies[1]"),
        ("POSTBOX_PRIVACY", "some", "privacy"),
        ("POSTBOX_SERVE_HTTP", "8080", "serve.http"),
        ("POSTBOX_NOTIFY", "log", "notify"),
        ("POSTBOX_NOTIFY", '{"use": "log"}', "notify"),
        ("POSTBOX_NOTIFY", '[{"name": "log"}]', "notify[0].use"),
        ("POSTBOX_PLUGIN", "leave-alone", "plugin"),
        ("POSTBOX_PLUGIN", '[{"rules": {}}]', "plugin[0].use"),
        ("POSTBOX_NOTIFY", '[{"use": "webhook", "secret": "env:NOT_SET"}]', "notify[0].secret"),
    ],
)
def test_errors_name_the_variable(write: Write, variable: str, value: str, key: str) -> None:
    """A wrong variable is blamed by its own name, with and without a file."""
    for error in (refused(None, BASE | {variable: value}), refused(write(), {variable: value})):
        assert error.where == variable
        assert error.key == key


def test_errors_name_the_file(write: Write) -> None:
    """What stands in the file is blamed on the file, even where variables are set."""
    path = write("http_port = 0\n")
    error = refused(path, BASE)
    assert (error.where, error.key) == (str(path), "http_port")


@pytest.mark.parametrize("missing", ["POSTBOX_DOMAIN", "POSTBOX_KEYS"])
def test_nothing_set(missing: str) -> None:
    """Without file and variable, the error names the variable to set."""
    error = refused(None, {name: value for name, value in BASE.items() if name != missing})
    assert missing in error.remedy


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("a = 1\n\n\nb = [1,\n", 5),
        ('a = "no end', 1),
        ("a = 1\na = 2\n", 2),
        ("[serve]\n[serve]\n", 2),
    ],
)
def test_toml_errors_name_file_and_line(write: Write, text: str, line: int) -> None:
    """A syntax error names the file and the line."""
    path = write(text, "")
    error = refused(path)
    assert error.where == str(path)
    assert error.key == f"line {line}"


def test_not_utf8(tmp_path: Path) -> None:
    """A file in another encoding is an error that names the line."""
    path = tmp_path / "postbox.toml"
    path.write_bytes(b'domain = "click.example.com"\nhome_url = "\xff"\n')
    error = refused(path)
    assert (error.where, error.key) == (str(path), "line 2")
    assert "UTF-8" in error.problem


def test_no_such_file(tmp_path: Path) -> None:
    """A missing file is named."""
    error = refused(tmp_path / "postbox.toml", BASE)
    assert error.where == str(tmp_path / "postbox.toml")
    assert "does not exist" in error.problem


def test_folder_instead_of_file(tmp_path: Path) -> None:
    """A folder is no file of settings."""
    assert "cannot be read (Is a directory)" in refused(tmp_path).problem


def test_env_reference(write: Write) -> None:
    """env:NAME is the variable of that name, in keys and anywhere in a [[notify]] block."""
    path = write(
        '[[notify]]\nuse = "webhook"\nsecret = "env:HOOK"\nheaders = { token = "env:HOOK" }\nmore = ["env:HOOK"]\n',
        'domain = "click.example.com"\nkeys = ["env:NEW", "env:OLD"]\n',
    )
    settings = load(path, {"NEW": f"{KEY}\n", "OLD": OTHER, "HOOK": "whsec_1"})
    assert list(settings.keys) == [KEY, OTHER]
    assert settings.notify[0].options == {
        "secret": "whsec_1",
        "headers": {"token": "whsec_1"},
        "more": ["whsec_1"],
    }


def test_file_reference_is_relative_to_the_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file:PATH in a file starts at that file's folder, and the content is stripped."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text(f"  {KEY}\n\n")
    path = write(head='domain = "click.example.com"\nkeys = ["file:secrets/key"]\n')
    monkeypatch.chdir("/")
    assert list(load(path, {}).keys) == [KEY]
    absolute = write(head=f'domain = "click.example.com"\nkeys = ["file:{tmp_path}/secrets/key"]\n')
    assert list(load(absolute, {}).keys) == [KEY]


def test_references_in_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable of ours says may be a reference too; a relative path starts at the current folder."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "notify.json").write_text('[{"use": "log"}]')
    monkeypatch.chdir(tmp_path)
    environ = {
        "POSTBOX_DOMAIN": "env:CLICK_DOMAIN",
        "CLICK_DOMAIN": "click.example.com",
        "POSTBOX_KEYS": "file:key,env:OLD",
        "OLD": OTHER,
        "POSTBOX_HTTP_PORT": "env:PORT",
        "PORT": "8080",
        "POSTBOX_NOTIFY": "file:notify.json",
    }
    settings = load(None, environ)
    assert settings.domain == "click.example.com"
    assert list(settings.keys) == [KEY, OTHER]
    assert settings.http_port == 8080
    assert settings.notify[0].use == "log"


def test_references_elsewhere_are_text(write: Write) -> None:
    """In a file, only keys and [[notify]] hold secrets; other settings mean what they say."""
    assert load(write('identity = "env:NAME"\n'), {"NAME": "x"}).identity == "env:NAME"


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("env:NOT_SET", "env:NOT_SET refers to an environment variable that is not set"),
        ("env:EMPTY", "env:EMPTY is empty"),
        ("file:missing", "file:missing cannot be read (No such file or directory)"),
        ("file:blank", "file:blank is empty"),
        ("file:binary", "file:binary cannot be read (it is not UTF-8 text)"),
        ("file:.", "file:. cannot be read (Is a directory)"),
    ],
)
def test_broken_reference(write: Write, tmp_path: Path, reference: str, problem: str) -> None:
    """A reference that leads nowhere names the setting, the reference and what to do."""
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    path = write(head=f'domain = "click.example.com"\nkeys = ["{KEY}", "{reference}"]\n')
    error = refused(path, {"EMPTY": ""})
    assert (error.where, error.key, error.problem) == (str(path), "keys[1]", problem)
    assert error.remedy


def test_broken_reference_in_a_block(write: Write) -> None:
    """A reference in a [[notify]] block is named by its place there."""
    path = write('[[notify]]\nuse = "webhook"\nheaders = { a = "env:NOT_SET" }\n')
    assert refused(path).key == "notify[0].headers.a"


def test_secrets_stay_out_of_errors(write: Write, tmp_path: Path) -> None:
    """What a reference leads to is not repeated by an error about it."""
    (tmp_path / "key").write_text("a-secret-that-is-no-key")
    path = write(head='domain = "click.example.com"\nkeys = ["file:key"]\n')
    assert "a-secret" not in str(refused(path))


@pytest.mark.parametrize(
    ("text", "spool"), [("", "postbox-spool"), ('spool = "box"\n', "box"), ('spool = "../box"\n', "../box")]
)
def test_spool_is_relative_to_the_file(write: Write, tmp_path: Path, text: str, spool: str) -> None:
    """The outbox is where the file says, whatever folder a command is started in."""
    assert Path(load(write(text), {}).spool) == tmp_path / spool


def test_paths_of_the_certificate_are_relative_to_the_file(write: Write, tmp_path: Path) -> None:
    """cert and key start at the file's folder."""
    serve = load(write('[serve]\nhttps = "127.0.0.1:2"\ncert = "c.pem"\nkey = "/etc/k.pem"\n'), {}).serve
    assert (serve.cert, serve.key) == (str(tmp_path / "c.pem"), "/etc/k.pem")


def test_paths_from_the_environment_are_relative_to_the_current_folder(write: Write) -> None:
    """A spool given by variable is taken as it stands."""
    assert load(write(), {"POSTBOX_SPOOL": "box"}).spool == "box"
    assert load(None, BASE).spool == "postbox-spool"


def test_wrong_table_is_an_error_not_a_crash(write: Write) -> None:
    """A file with a text where [serve] belongs is refused, also when a variable sets something of it."""
    path = write('serve = "x"\n')
    assert refused(path).key == "serve"
    assert refused(path, {"POSTBOX_SERVE_HTTP": "127.0.0.1:1"}).key == "serve"


def test_unreadable_file(write: Write) -> None:
    """A file that may not be read is named, with the reason."""
    if os.geteuid() == 0:
        # root reads everything; a path below a file is what it cannot open
        error = refused(write() / "below")
        assert "cannot be read (Not a directory)" in error.problem
    else:
        path = write()
        path.chmod(0)
        assert "cannot be read (Permission denied)" in refused(path).problem
