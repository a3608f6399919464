"""The options of a ``[[notify]]`` or ``[[plugin]]`` block, held against the keyword arguments of the class it uses."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from postbox_plugin.checked import described, reason, unknown_key
from postbox_plugin.errors import PluginError, SettingsError

__all__ = ["construct"]

_REMEDY: Final = "See the options of its class"


def construct(factory: Callable[..., object], options: Mapping[str, Any], key: str, where: str) -> object:
    """An instance of a notifier or plugin, made with its options.

    :param factory: its class.
    :param options: what the block says beside what is for the delivery.
    :param key: the block, as an error names it: ``notify[1]``.
    :param where: the file or call the block stands in, as an error names it.
    :raises SettingsError: if an option is unknown, missing or of the wrong type.
    :raises PluginError: if the class does not take its options as keyword arguments.
    """
    wanted = _parameters(factory)
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
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
            raise SettingsError(f"{key}.{name}", "is missing", f"Add {name} = ... to the block", where)
    try:
        return factory(**converted)
    except SettingsError as error:
        raise error.at(where, f"{key}.") from None
    except (TypeError, ValueError) as error:
        raise SettingsError(key, str(error), _REMEDY, where) from error


def _parameters(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(factory).parameters
    for parameter in parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            name = getattr(factory, "__qualname__", repr(factory))
            raise PluginError(f"{name} must take its options as keyword arguments, not as {parameter}")
    return dict(parameters)
