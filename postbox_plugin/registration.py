"""What makes a plugin: checked when it is registered, so that a mistake is an error and not a hook never called."""

from __future__ import annotations

import inspect
from typing import Final, NamedTuple

import pluggy
from pluggy import HookImpl

from postbox_plugin import hookspecs
from postbox_plugin.errors import PluginError

__all__ = ["Plugin", "name_of", "register"]

_HOOKS: Final = tuple(name for name in hookspecs.__all__ if name.startswith(f"{hookspecs.NAME}_"))


class Plugin(NamedTuple):
    """A registered plugin.

    :ivar name: the name it is registered under.
    :ivar hooks: its implementations, by hook.
    """

    name: str
    hooks: dict[str, HookImpl]


def register(manager: pluggy.PluginManager, name: str, plugin: object) -> Plugin:
    """Register a plugin, after holding it against what pluggy passes over without a word.

    :param manager: a manager that knows our specifications.
    :param name: the name to register it under.
    :param plugin: a module or an instance.
    :raises PluginError: if it is not a plugin; it says how it would be one.
    """
    if inspect.isclass(plugin):
        raise PluginError(f"{plugin.__qualname__} is a class: register an instance, {plugin.__qualname__}()")
    for attribute in dir(plugin):
        if attribute.startswith(f"{hookspecs.NAME}_") and inspect.isroutine(getattr(plugin, attribute, None)):
            _check_hook(name, plugin, attribute)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"plugin {name!r} cannot be registered: {error}") from error
    hooks = {
        caller.name: impl
        for caller in manager.get_hookcallers(plugin) or ()
        for impl in caller.get_hookimpls()
        if impl.plugin is plugin
    }
    for hook, impl in hooks.items():
        if impl.hookwrapper or impl.wrapper:
            raise PluginError(f"plugin {name!r}: {hook} cannot be a wrapper; write it without wrapper=True")
    return Plugin(name, hooks)


def _check_hook(name: str, plugin: object, attribute: str) -> None:
    if attribute not in _HOOKS:
        raise PluginError(f"plugin {name!r}: there is no hook {attribute}; the hooks are {', '.join(_HOOKS)}")
    if not hasattr(getattr(plugin, attribute), f"{hookspecs.NAME}_impl"):
        raise PluginError(f"plugin {name!r}: {attribute} is not marked; put @postbox_plugin.hookimpl above it")


def name_of(plugin: object) -> str:
    """A name that stays the same from one start to the next, for the clicks that wait in the outbox under it."""
    name = getattr(plugin, "name", None)
    if isinstance(name, str) and name:
        return name
    return getattr(plugin, "__name__", type(plugin).__name__)
