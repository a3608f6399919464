"""Commands that are found by entry point, in the group ``postbox.commands``: functions, or ``typer.Typer`` objects."""

from __future__ import annotations

import logging
from typing import Any

import typer
from typer.core import TyperGroup

from postbox_plugin import discovery

__all__ = ["CommandGroup"]

_log = logging.getLogger("postbox.plugins")


class CommandGroup(TyperGroup):
    """Our own commands, and those that other distributions bring. A foreign one never hides one of ours, is loaded when
    it is called or listed, and takes nothing down where it cannot be.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, our own first."""
        own = super().list_commands(ctx)
        foreign = (entry.name for entry in discovery.installed(discovery.COMMANDS) if _usable(entry))
        return [*own, *(name for name in foreign if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or ``None``."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = discovery.find(discovery.COMMANDS, cmd_name)
        return _command(entry) if entry is not None and _usable(entry) else None


def _usable(entry: discovery.Installed) -> bool:
    return not entry.blocked and not entry.error and _command(entry) is not None


def _command(entry: discovery.Installed) -> Any:
    try:
        if isinstance(entry.value, typer.Typer):
            app = entry.value
        else:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command(entry.name)(entry.value)
        command = typer.main.get_command(app)
    except Exception as error:  # whatever typer thinks of a foreign object
        _log.warning("%s from %s is not a command: %s: %s", entry.name, entry.source, type(error).__name__, error)
        return None
    command.name = entry.name
    return command
