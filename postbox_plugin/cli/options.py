"""Options that several commands share, and how they are turned into settings and messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from postbox_plugin.config import CONFIG_VARIABLE, load, source_of
from postbox_plugin.errors import SettingsError
from postbox_plugin.postbox import Postbox
from postbox_plugin.settings import Settings

__all__ = [
    "AsJson",
    "Config",
    "MessageFile",
    "Recipients",
    "Sender",
    "Subject",
    "Tags",
    "body_type",
    "config_file",
    "make_postbox",
    "naming_the_source",
    "read_input",
    "read_settings",
    "tags_given",
]

DEFAULT_FILE: Final = Path("postbox.toml")

_BODY_TYPES: Final = {".html": "text/html", ".htm": "text/html", ".mjml": "text/mjml"}

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        show_default="postbox.toml if there is one, else the environment alone",
        help="The file of settings.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MessageFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A raw message, or a body if its name ends in .html, .htm or .mjml; - reads a message from stdin.",
    ),
]
Recipients: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient",
        "-r",
        metavar="ADDRESS",
        help="Who it goes to; repeat for several. Needed for a body; for a message, To, Cc and Bcc if not given.",
    ),
]
Sender: TypeAlias = Annotated[
    str, typer.Option("--sender", metavar="ADDRESS", help="Who a body is from; a message says so itself.")
]
Subject: TypeAlias = Annotated[
    str, typer.Option("--subject", metavar="TEXT", help="The subject of a body; a message has its own.")
]
Tags: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="A message tag, which every click carries; repeat for several."),
]


def config_file(config: Path | None) -> Path | None:
    """The file that settings come from: the one given, else the default where it is there, else none."""
    return config if config is not None else DEFAULT_FILE if DEFAULT_FILE.exists() else None


def read_settings(config: Path | None) -> Settings:
    """The settings that a command works with.

    :raises SettingsError: as :func:`postbox_plugin.config.load` does.
    """
    return load(config_file(config), os.environ)


def make_postbox(config: Path | None) -> Postbox:
    """The ``Postbox`` that a command works with.

    :param config: what the option ``--config`` holds.
    :raises SettingsError: as :func:`postbox_plugin.config.load` does.
    """
    path = config_file(config)
    return Postbox.from_env() if path is None else Postbox.from_file(path)


@contextmanager
def naming_the_source(config: Path | None, command_line: Container[str] = ()) -> Iterator[None]:
    """An error about a setting that only shows when it is used names where that came from, as all others do.

    :param config: what the option ``--config`` holds.
    :param command_line: the settings that stand there: ``relay.listen``.
    """
    try:
        yield
    except SettingsError as error:
        source = source_of(error.key, config_file(config), os.environ)
        raise error.at("the command line" if error.key in command_line else source) from error.__cause__


def read_input(path: Path) -> bytes:
    """The bytes of a file, or of standard input for ``-``."""
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read ({error.strerror})", param_hint="FILE") from None


def body_type(path: Path) -> str:
    """The media type of a file whose name says that it is a body and no message; ``""`` for a message."""
    return _BODY_TYPES.get(path.suffix.lower(), "")


def tags_given(texts: Sequence[str] | None) -> dict[str, list[str]]:
    """Message tags from ``KEY=VALUE``; a key given twice has both values."""
    tags: dict[str, list[str]] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
        tags.setdefault(key, []).append(value)
    return tags
