"""What is installed: the entry points of the four groups, each loaded at most once, when it is first needed, and
guarded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import msgspec

from postbox_plugin.hookspecs import NAME

__all__ = [
    "COMMANDS",
    "DISABLED_VARIABLE",
    "NOTIFIERS",
    "OPTIONAL",
    "PLUGINS",
    "TABLES",
    "Installed",
    "find",
    "installed",
    "names",
]

PLUGINS: Final = NAME
"""Plugins that are on once they are installed: modules, instances, or classes without arguments."""

OPTIONAL: Final = f"{NAME}.optional"
"""Plugins that are off until a ``[[plugin]]`` block uses them: classes whose keyword arguments are its options."""

NOTIFIERS: Final = f"{NAME}.notifiers"
"""Classes whose keyword arguments are the options of a ``[[notify]]`` block."""

COMMANDS: Final = f"{NAME}.commands"
"""Further subcommands of ``postbox``: functions or ``typer.Typer`` objects."""

TABLES: Final = f"{NAME}.tables"
"""Classes whose keyword arguments are what stands in the table of that name, which is the table of such a command."""

DISABLED_VARIABLE: Final = "POSTBOX_DISABLED_PLUGINS"
"""The environment variable that names what is not to be loaded, separated by commas."""

_log = logging.getLogger("postbox.plugins")


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """One entry point.

    :ivar name: its name.
    :ivar source: the distribution and version that brings it, and the object it names.
    :ivar blocked: whether the environment says not to load it.
    :ivar value: what it names; ``None`` if it is blocked or could not be loaded.
    :ivar error: why it could not be loaded; ``""`` if it could.
    """

    name: str
    source: str
    blocked: bool = False
    value: Any = None
    error: str = ""


def installed(group: str) -> Iterator[Installed]:
    """The entry points of a group. One that fails to load is logged and returned with its error; the others are not
    affected.

    :param group: :data:`PLUGINS`, :data:`OPTIONAL`, :data:`NOTIFIERS` or :data:`COMMANDS`.
    """
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        yield _look_up(point)


def find(group: str, name: str) -> Installed | None:
    """The entry point of that name, and no other loaded for it; ``None`` if there is none.

    :param group: as for :func:`installed`.
    :param name: its name.
    """
    return next((_look_up(point) for point in entry_points(group=group) if point.name == name), None)


def names(group: str) -> list[str]:
    """The names of a group's entry points; none is loaded for it.

    :param group: as for :func:`installed`.
    """
    return sorted(point.name for point in entry_points(group=group))


def _look_up(point: EntryPoint) -> Installed:
    if point.name in {name.strip() for name in os.environ.get(DISABLED_VARIABLE, "").split(",")}:
        return Installed(name=point.name, source=_source(point), blocked=True)
    return _load(point)


@cache
def _load(point: EntryPoint) -> Installed:
    try:
        return Installed(name=point.name, source=_source(point), value=point.load())
    except Exception as error:  # whatever a foreign module raises while it is imported
        reason = f"{type(error).__name__}: {error}"
        _log.warning("cannot load %s from %s: %s", point.name, _source(point), reason)
        return Installed(name=point.name, source=_source(point), error=reason)


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version} ({point.value})" if point.dist else point.value
