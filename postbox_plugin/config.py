"""Settings from the world: a TOML file, environment variables, and the secrets that either of them refers to.

A value may stand elsewhere: ``env:NAME`` is the environment variable of that name, ``file:PATH`` the content of that
file, without the white space around it. This holds for the keys, for every text of a ``[[notify]]`` or ``[[plugin]]``
block and of a command's table, and for whatever an environment variable of ours says. A text that itself begins with
``env:`` or ``file:`` has to be put where such a reference leads.

Commands that come from elsewhere have tables of their own, by the entry-point group ``postbox.tables``.
:func:`load` leaves those to :func:`load_table`.

Relative paths in a file (``file:``, ``spool``, ``serve.cert``, ``serve.key``, also the default of ``spool``) start at
the folder of that file, so that a service and a command line started elsewhere mean the same outbox; those in an
environment variable start at the current folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec

from postbox_plugin import discovery
from postbox_plugin.checked import unknown_key
from postbox_plugin.errors import SettingsError
from postbox_plugin.hookspecs import NAME
from postbox_plugin.options import construct, kinds
from postbox_plugin.settings import ServeSettings, Settings, from_mapping

__all__ = [
    "CONFIG_VARIABLE",
    "VARIABLES",
    "FilePath",
    "followed",
    "load",
    "load_table",
    "set_by_environment",
    "source_of",
]

_MAY_REFER: Final = ("keys", "notify", "plugin")

CONFIG_VARIABLE: Final = f"{NAME.upper()}_CONFIG"
"""The environment variable that names the TOML file for the command line."""

FilePath = Annotated[str, msgspec.Meta(extra={"path": True})]
"""The type of an option in a command's table that names a file: relative to the folder of the settings' file."""

Table = TypeVar("Table")

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_LINE: Final = re.compile(r"\s*\(at line (\d+), column (\d+)\)\Z")
_DEFAULT_SPOOL: Final[str] = next(field.default for field in msgspec.structs.fields(Settings) if field.name == "spool")


def _variable(*place: str) -> str:
    """The environment variable of a setting: ``POSTBOX_SERVE_HTTP`` of ``serve``, ``http``."""
    return "_".join((NAME, *place)).upper()


def _settings(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> dict[str, tuple[tuple[str, ...], Any]]:
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for field in msgspec.structs.fields(kind):
        place = (*path, field.name)
        if field.type is ServeSettings:
            found |= _settings(ServeSettings, place)
        else:
            found[_variable(*place)] = (place, field.type)
    return found


_PLACES: Final = _settings(Settings)

VARIABLES: Final[Mapping[str, str]] = {variable: ".".join(place) for variable, (place, _) in _PLACES.items()}
"""Every environment variable that holds a setting, with that setting: ``POSTBOX_SERVE_HTTP`` holds ``serve.http``."""


def load(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings. An environment variable outweighs what the file says.

    Lists are separated by commas (``POSTBOX_KEYS=env:NEW,env:OLD``), ``POSTBOX_NOTIFY`` and ``POSTBOX_PLUGIN`` are
    JSON lists of objects, and an empty variable is an empty value.

    :param path: the TOML file, or ``None`` to read the environment alone.
    :param environ: the environment, as a rule ``os.environ``.
    :raises SettingsError: naming the file or variable, the setting, what is wrong and what to write.
    """
    where = "the environment" if path is None else str(path)
    variables = set_by_environment(environ)
    values = {} if path is None else _from_file(Path(path), environ, [_PLACES[variable][0] for variable in variables])
    for variable in variables:
        place, kind = _PLACES[variable]
        try:
            _put(values, place, _converted(environ[variable], ".".join(place), kind, _References(Path(), environ)))
        except SettingsError as error:
            raise error.at(variable) from None
    if path is None:
        _need(values, "domain", "POSTBOX_DOMAIN=click.example.com")
        _need(values, "keys", "POSTBOX_KEYS to what `postbox keys new` prints")
    try:
        return from_mapping(values, where)
    except SettingsError as error:
        # File and environment are one to whoever checks the settings, but not to whoever has to correct them.
        blamed = (variable for variable in variables if _concerns(error.key, VARIABLES[variable]))
        raise error.at(next(blamed, where)) from None


def load_table(
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    name: str,
    factory: Callable[..., Table],
    given: Mapping[str, Any],
) -> Table:
    """Read the table of one command: ``[relay]``, and ``POSTBOX_RELAY_UPSTREAM`` for its ``upstream``.

    :param path: as for :func:`load`, like ``environ``.
    :param name: the name of the table.
    :param factory: the class whose keyword arguments its settings are.
    :param given: settings from the command line, which outweigh the environment, which outweighs the file.
    :raises SettingsError: as :func:`load` does.
    """
    types = kinds(factory)
    variables = {option: _variable(name, option) for option in types}
    set_here = {option: variable for option, variable in variables.items() if variable in environ}
    values = {} if path is None else _table(Path(path), environ, name, factory, {*set_here, *given})
    for option, variable in set_here.items():
        key = f"{name}.{option}"
        try:
            values[option] = _converted(environ[variable], key, types[option], _References(Path(), environ))
        except SettingsError as error:
            raise error.at(variable) from None
    place = f"the table [{name}]" if path is not None else f"a postbox.toml, or set POSTBOX_{name.upper()}_..."
    try:
        return construct(factory, {**values, **given}, name, "the environment" if path is None else str(path), place)
    except SettingsError as error:
        sources = set_here | dict.fromkeys(given, "the command line")
        blamed = (source for option, source in sources.items() if _concerns(error.key, f"{name}.{option}"))
        raise error.at(next(blamed, error.where)) from None


def set_by_environment(environ: Mapping[str, str]) -> list[str]:
    """Those of :data:`VARIABLES` that are set, even if to nothing.

    :param environ: the environment.
    """
    return [variable for variable in VARIABLES if variable in environ]


def followed(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a mapping, with ``env:NAME`` and ``file:PATH`` followed where a file may have them too.

    :param given: the settings by name.
    :param environ: the environment.
    :raises SettingsError: if one leads nowhere.
    """
    references = _References(Path(), environ)
    return {name: references.everywhere(name, value) if name in _MAY_REFER else value for name, value in given.items()}


def source_of(key: str, path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> str:
    """Where a setting came from that is neither a list nor in one: the name of a variable or of the file.

    :param key: the setting: ``serve.http``.
    :param path: as for :func:`load`, like ``environ``.
    """
    variable = _variable(*key.split("."))
    return variable if variable in environ else "the environment" if path is None else str(path)


class _References:
    """Follows ``env:`` and ``file:``.

    :param folder: what a relative path is relative to.
    :param environ: the environment.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ

    def follow(self, key: str, text: str) -> str:
        scheme, colon, name = text.partition(":")
        if not colon or scheme not in ("env", "file"):
            return text
        value = self._variable(key, name) if scheme == "env" else self._content(key, name)
        if not value:
            raise SettingsError(key, f"{text} is empty", "Put the value there")
        return value

    def everywhere(self, key: str, value: Any) -> Any:
        """The same value with every text in it followed, also those in lists and tables."""
        if isinstance(value, str):
            return self.follow(key, value)
        if isinstance(value, list | tuple):
            return [self.everywhere(f"{key}[{place}]", item) for place, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: self.everywhere(f"{key}.{name}", item) for name, item in value.items()}
        return value

    def _variable(self, key: str, name: str) -> str:
        if name not in self._environ:
            problem = f"env:{name} refers to an environment variable that is not set"
            raise SettingsError(key, problem, f"Set {name}, or write the value some other way")
        return self._environ[name].strip()

    def _content(self, key: str, name: str) -> str:
        path = self._folder / name
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            remedy = f"Make {path} a readable file that holds nothing but the value"
            raise SettingsError(key, f"file:{name} cannot be read ({_why(error)})", remedy) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        here = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise SettingsError(
            "the file", f"does not exist{here}", "Write it, or name the one that is meant", str(path)
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"line {line}", "is not UTF-8", "Save the file as UTF-8", str(path)) from None
    except OSError as error:
        raise SettingsError("the file", f"cannot be read ({_why(error)})", "Make it readable", str(path)) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
        place = _LINE.search(problem)
        line = int(place[1]) if place else text.count("\n") + 1
        problem = problem[: place.start()] if place else problem.removesuffix(" (at end of document)")
        remedy = 'Write TOML: name = "text", name = 1, name = true, name = ["text"]'
        raise SettingsError(f"line {line}", f"is not TOML ({problem})", remedy, str(path)) from None


def _from_file(path: Path, environ: Mapping[str, str], outweighed: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """The values of a file, without those that the environment outweighs; references followed, paths anchored."""
    values = _read(path)
    for place in outweighed:
        _drop(values, place)
    _leave_tables(values, str(path))
    references = _References(path.parent, environ)
    for name in _MAY_REFER:
        if name in values:
            try:
                values[name] = references.everywhere(name, values[name])
            except SettingsError as error:
                raise error.at(str(path)) from None
    if ("spool",) not in outweighed:
        values.setdefault("spool", _DEFAULT_SPOOL)
    for table, name in ((values, "spool"), (values.get("serve"), "cert"), (values.get("serve"), "key")):
        if isinstance(table, dict) and isinstance(table.get(name), str) and table[name]:
            table[name] = str(path.parent / table[name])
    return values


def _leave_tables(values: dict[str, Any], where: str) -> None:
    """Take out the tables that are not ours but a command's."""
    own = [field.name for field in msgspec.structs.fields(Settings)]
    others = [name for name, value in values.items() if name not in own and isinstance(value, dict)]
    tables = discovery.names(discovery.TABLES) if others else []
    for name in others:
        if name not in tables:
            raise unknown_key(name, [*own, *tables]).at(where)
        del values[name]


def _table(
    path: Path, environ: Mapping[str, str], name: str, factory: Callable[..., object], outweighed: set[str]
) -> dict[str, Any]:
    """A command's table, without what is outweighed; references followed, paths anchored."""
    values = _read(path).get(name, {})
    if not isinstance(values, dict):
        raise SettingsError(name, "is not a table", f"Write [{name}], and its settings below", str(path))
    references = _References(path.parent, environ)
    types = kinds(factory, annotations=True)
    found = {}
    for option, value in values.items():
        if option not in outweighed:
            try:
                found[option] = references.everywhere(f"{name}.{option}", value)
            except SettingsError as error:
                raise error.at(str(path)) from None
            if types.get(option) == FilePath and isinstance(value, str) and value:
                found[option] = str(path.parent / value)
    return found


def _converted(text: str, key: str, kind: Any, references: _References) -> Any:
    """The value of an environment variable, in the type of its setting."""
    if get_origin(kind) is Sequence and get_args(kind) == (str,):
        items = [item.strip() for item in text.split(",")] if text.strip() else []
        return references.everywhere(key, items)
    text = references.follow(key, text.strip())
    if get_origin(kind) is Sequence:
        return _blocks(key, text, references)
    if get_origin(kind) is dict:
        return _texts(key, text, references)
    if kind is bool:
        return _truth(key, text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(key, f"{text!r} is not {what}", f"Write {what}") from None
    return text


def _truth(key: str, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise SettingsError(key, f"{text!r} is neither true nor false", "Write true or false")
    return text.lower() in _TRUE


def _blocks(key: str, text: str, references: _References) -> Any:
    use = '{"use": "log", "path": "clicks.jsonl"}' if key == "notify" else '{"use": "leave-alone"}'
    example = f"Write for example [{use}]"
    try:
        blocks = msgspec.json.decode(text or "[]", type=list[dict[str, Any]])
    except msgspec.DecodeError:
        raise SettingsError(key, "is not a JSON list of objects", example) from None
    return references.everywhere(key, blocks)


def _texts(key: str, text: str, references: _References) -> Any:
    try:
        texts = msgspec.json.decode(text or "{}", type=dict[str, str])
    except msgspec.DecodeError:
        raise SettingsError(key, "is not a JSON object of texts", """Write for example {"name": "..."}""") from None
    return references.everywhere(key, texts)


def _put(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *tables, name = place
    table: Any = values
    for step in tables:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            return  # the file has something else where the table belongs; checking the settings says so
    table[name] = value


def _drop(values: dict[str, Any], place: tuple[str, ...]) -> None:
    *tables, name = place
    table: Any = values
    for step in tables:
        table = table.get(step) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(name, None)


def _need(values: dict[str, Any], key: str, example: str) -> None:
    if key not in values:
        raise SettingsError(key, "is missing", f"Set {example}, or give a postbox.toml", "the environment")


def _concerns(key: str, setting: str) -> bool:
    return key == setting or key.startswith((f"{setting}[", f"{setting}."))


def _why(error: OSError | ValueError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"
