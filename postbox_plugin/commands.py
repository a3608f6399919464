"""For authors of commands in the entry-point group ``postbox.commands``: settings as our own commands take them.

A command with a table of its own in ``postbox.toml`` names the class of its settings in the group ``postbox.tables``,
under the name of the table, and takes the option ``--config`` of all commands::

    @dataclass(frozen=True, kw_only=True)
    class RelaySettings:
        upstream: str
        ca_file: FilePath = ""

    def relay(config: Config = None) -> None:
        settings = table(config, "relay", RelaySettings)
        postbox = make_postbox(config)

Each setting is an environment variable as well (``POSTBOX_RELAY_UPSTREAM``), texts may be ``env:NAME`` or
``file:PATH``, and what is unknown, missing or of the wrong type is an error that names file, key and remedy. The class
checks the rest when it is made, and raises ``SettingsError`` with the name of the setting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from postbox_plugin.cli.options import Config, config_file, make_postbox, naming_the_source
from postbox_plugin.config import FilePath, load_table

__all__ = ["Config", "FilePath", "make_postbox", "naming_the_source", "table"]

Table = TypeVar("Table")


def table(
    config: Path | None, name: str, factory: Callable[..., Table], given: Mapping[str, Any] | None = None
) -> Table:
    """The settings of a command, from its table and the environment.

    :param config: what the option ``--config`` holds.
    :param name: the name of the table.
    :param factory: the class of the settings: its keyword arguments are what the table may hold. An argument of the
        type ``FilePath`` names a file, relative to the folder of the settings' file.
    :param given: settings from the command line, which outweigh all others.
    :raises SettingsError: naming the file or variable, the key, what is wrong and what to write.
    """
    return load_table(config_file(config), os.environ, name, factory, given or {})
