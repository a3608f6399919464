"""The options of a ``[[notify]]`` or ``[[plugin]]`` block, or of a command's table, held against the keyword arguments
of its class.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from postbox_plugin.checked import described, reason, unknown_key
from postbox_plugin.errors import PluginError, SettingsError

__all__ = ["construct", "kinds"]

_REMEDY: Final = "See the options of its class"

Made = TypeVar("Made")


def construct(
    factory: Callable[..., Made], options: Mapping[str, Any], key: str, where: str, place: str = "the [[notify]] block"
) -> Made:
    """An instance of a class, made with its options.

    :param factory: the class.
    :param options: the options that are given.
    :param key: the block or table, as an error names it: ``notify[1]``.
    :param where: the file or call that it stands in, as an error names it.
    :param place: where to add what is missing.
    :raises SettingsError: if an option is unknown, missing or of the wrong type.
    :raises PluginError: if the class does not take its options as keyword arguments.
    """
    wanted = _parameters(factory)
    hints = kinds(factory)
    converted = {}
    for name, value in options.items():
        if name not in wanted:
            raise unknown_key(name, wanted).at(where, f"{key}.")
        kind = hints.get(name, Any)
        try:
            converted[name] = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{key}.{name}", reason(error), f"Write {described(kind)}", where) from None
    for name, parameter in wanted.items():
        if parameter.default is parameter.empty and name not in options:
            raise SettingsError(f"{key}.{name}", "is missing", f"Add {name} = ... to {place}", where)
    try:
        return factory(**converted)
    except SettingsError as error:
        raise error.at(where, f"{key}.") from None
    except (TypeError, ValueError) as error:
        raise SettingsError(key, str(error), _REMEDY, where) from error


def kinds(factory: Callable[..., object], *, annotations: bool = False) -> dict[str, Any]:
    """The type of each option.

    :param factory: the class.
    :param annotations: keep what ``Annotated`` adds to a type.
    """
    function = factory.__init__ if inspect.isclass(factory) else factory
    hints = typing.get_type_hints(function, include_extras=annotations)
    return {name: kind for name, kind in hints.items() if name != "return"}


def _parameters(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(factory).parameters
    for parameter in parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            name = getattr(factory, "__qualname__", repr(factory))
            raise PluginError(f"{name} must take its options as keyword arguments, not as {parameter}")
    return dict(parameters)
