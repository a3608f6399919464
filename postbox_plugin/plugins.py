"""The plugins of one installation: registered, checked, and called one by one.

pluggy finds and checks the implementations. The calls are made here, because pluggy's own stop at the first
exception and can leave a coroutine unawaited, and no plugin may keep a mail, a click or another plugin from getting
through.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
import pluggy
from pluggy import HookImpl

from postbox_plugin import discovery, hookspecs
from postbox_plugin.click import Click, Verdict
from postbox_plugin.errors import PluginError, PostboxError, SettingsError
from postbox_plugin.mail import Link, Mail
from postbox_plugin.notifier import Notifier
from postbox_plugin.options import construct
from postbox_plugin.registration import Plugin, name_of, register
from postbox_plugin.settings import NotifySettings, PluginSettings

__all__ = ["PluginHost", "PluginInfo"]

_HUMAN: Final = Verdict("human")

_log = logging.getLogger("postbox.plugins")

Result = TypeVar("Result")


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``postbox plugins``.

    :ivar name: the name it is registered under.
    :ivar kind: ``given`` to ``Postbox``, ``installed`` in the group ``postbox``, ``optional``, or a ``notifier``.
    :ivar source: where it comes from: a module, or a distribution and its version.
    :ivar state: ``active``, ``available`` (no block of the settings uses it), ``blocked`` or ``failed``.
    :ivar hooks: the hooks it implements, where that is known.
    :ivar error: why it failed.
    """

    name: str
    kind: str
    source: str
    state: str
    hooks: tuple[str, ...] = ()
    error: str = ""


class PluginHost:
    """The plugins of one ``Postbox``.

    :param plugins: plugins in the order their before-send hooks are called, after those of the installed plugins.
    :param notify: the ``[[notify]]`` blocks; their notifiers are made when they are first asked for.
    :param strict: let exceptions of before-send hooks through.
    :param source: what an error about a block of the settings names as its place.
    :param blocks: the ``[[plugin]]`` blocks; their plugins come after the installed ones, and before ``plugins``.
    :raises PluginError: if one of ``plugins`` is not a plugin; it says how it would be one.
    :raises SettingsError: if a ``[[plugin]]`` block uses no known plugin, or its options are not the plugin's.
    """

    def __init__(
        self,
        plugins: Iterable[object],
        notify: Sequence[NotifySettings],
        *,
        strict: bool,
        source: str,
        blocks: Sequence[PluginSettings] = (),
    ) -> None:
        self._source: Final = source
        self._notify: Final = tuple(notify)
        self._strict: Final = strict
        self._manager: Final = pluggy.PluginManager(hookspecs.NAME)
        self._manager.add_hookspecs(hookspecs)
        self._blocks: Final = {block.use for block in blocks}
        used = (self._used(place, block) for place, block in enumerate(blocks))
        self._optional: Final = [plugin for plugin in used if plugin is not None]
        self._given: Final = [register(self._manager, name_of(plugin), plugin) for plugin in plugins]
        self._lock: Final = threading.Lock()
        self._installed: list[Plugin] | None = None
        self._failed: Final[list[PluginInfo]] = []
        self._ordered: Final[dict[str, list[HookImpl]]] = {}

    @property
    def converts(self) -> bool:
        """Whether a plugin may know texts that are not HTML."""
        return bool(self._implementations("postbox_convert"))

    def convert(self, content_type: str, text: str, file: str) -> str | None:
        """The HTML that a text stands for, by the first plugin that knows its type; ``None`` where none does.

        :raises PluginError: if a plugin returns something else. Whatever a plugin raises comes through.
        """
        for impl in self._implementations("postbox_convert"):
            html = _call(impl, content_type=content_type, text=text, file=file)
            if html is not None and not isinstance(html, str):
                raise PluginError(f"plugin {impl.plugin_name}: postbox_convert must return text or None, not {html!r}")
            if html is not None:
                return html
        return None

    def convert_part(self, content_type: str, text: str) -> str | None:
        """As :meth:`convert`, for a part of a message: what a plugin raises keeps no mail back.

        :param content_type: the type of the part, in lower case.
        :param text: its text.
        """
        try:
            return self.convert(content_type, text, "")
        except Exception as error:
            if self._strict:
                raise
            # Our own errors say all there is to say; a traceback would hide it.
            trace = None if isinstance(error, PostboxError) else error
            _log.error("a %s part goes out as it came: %s", content_type, error, exc_info=trace)
            return None

    def before_send(self, mail: Mail) -> None:
        """Let each plugin change the mail in its turn. What a plugin that raises had changed is put back."""
        for impl in self._implementations("postbox_before_send"):
            kept = (list(mail.html_parts), mail.tags, mail.track)
            try:
                _call(impl, mail=mail)
                _check_html(mail.html_parts, len(kept[0]))
            except Exception:
                mail.html_parts, mail.tags, mail.track = kept
                if self._strict:
                    raise
                _log.exception("plugin %s failed in postbox_before_send; its change is dropped", impl.plugin_name)

    @property
    def decide_links(self) -> bool:
        """Whether any plugin has a word on links."""
        return bool(self._implementations("postbox_link"))

    def link(self, link: Link, attributes: Mapping[str, str], mail: Mail) -> Link:
        """The first plugin's word on a link that would be tracked; the link itself where none has one."""
        decided = self._first("postbox_link", Link, link=link, mail=mail, attributes=attributes)
        if decided is None:
            return link
        # Where a link stands and what it leads to is not the plugins' to change.
        reason = "" if decided.track else decided.reason or "a plugin's decision"
        return link.replace(track=decided.track, reason=reason, tags=decided.tags)

    def classify(self, click: Click, request_headers: Mapping[str, str]) -> Verdict:
        """The first plugin's verdict on a click; human where none has one."""
        return self._first("postbox_classify", Verdict, click=click, request_headers=request_headers) or _HUMAN

    def notifiers(self) -> list[Notifier]:
        """Everything that implements the click hook, ready to be started: given, installed and configured.

        :raises SettingsError: if a ``[[notify]]`` block uses no known notifier, or its options are not the notifier's.
        :raises PluginError: if what the block uses cannot be loaded, or two notifiers have one name.
        """
        made = [_notifier(plugin) for plugin in self._active() if "postbox_click" in plugin.hooks]
        made += [_notifier(self._configured(place), block) for place, block in enumerate(self._notify)]
        seen: set[str] = set()
        for notifier in made:
            if notifier.name in seen:
                raise PluginError(f"two notifiers are named {notifier.name!r}: give one of them another name")
            seen.add(notifier.name)
        return made

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts and stops the plugins that want to be but are no notifiers, which the outbox starts and stops."""
        others = [plugin for plugin in self._active() if "postbox_click" not in plugin.hooks]
        for plugin in others:
            await _lifecycle(plugin, "postbox_start")
        try:
            yield
        finally:
            for plugin in reversed(others):
                await _lifecycle(plugin, "postbox_stop")

    def infos(self) -> list[PluginInfo]:
        """What is loaded, from where and with which hooks; what is installed but not used; what failed, and why."""
        groups = {"installed": discovery.PLUGINS, "optional": discovery.OPTIONAL}
        entries = [(kind, entry) for kind, group in groups.items() for entry in discovery.installed(group)]
        known = {entry.name: (kind, entry.source) for kind, entry in entries}
        found = []
        for plugin in self._active():
            given = plugin in self._given
            kind, source = ("given", _module_of(plugin)) if given else known[plugin.name]
            hooks = tuple(plugin.hooks)
            found.append(PluginInfo(name=plugin.name, kind=kind, source=source, state="active", hooks=hooks))
        found += self._failed
        for kind, entry in entries:
            unused = kind == "optional" and entry.name not in self._blocks
            state = "blocked" if entry.blocked else "failed" if entry.error else "available"
            if entry.blocked or unused:
                found.append(
                    PluginInfo(name=entry.name, kind=kind, source=entry.source, state=state, error=entry.error)
                )
        return [*found, *self._notifier_infos()]

    def _notifier_infos(self) -> Iterable[PluginInfo]:
        used = {block.use for block in self._notify}
        known = {entry.name: entry for entry in discovery.installed(discovery.NOTIFIERS)}
        for entry in known.values():
            if entry.name not in used:
                state = "blocked" if entry.blocked else "failed" if entry.error else "available"
                yield PluginInfo(name=entry.name, kind="notifier", source=entry.source, state=state, error=entry.error)
        for place, block in enumerate(self._notify):
            source = known[block.use].source if block.use in known else ""
            try:
                hooks = tuple(self._configured(place).hooks)
            except (PluginError, SettingsError) as error:
                yield PluginInfo(name=block.name, kind="notifier", source=source, state="failed", error=str(error))
            else:
                yield PluginInfo(name=block.name, kind="notifier", source=source, state="active", hooks=hooks)

    def _configured(self, place: int) -> Plugin:
        """A new instance of what a ``[[notify]]`` block uses, checked as every plugin is, in a manager of its own."""
        block, key = self._notify[place], f"notify[{place}]"
        entry = discovery.find(discovery.NOTIFIERS, block.use)
        if entry is None:
            names = ", ".join(discovery.names(discovery.NOTIFIERS)) or "none"
            raise SettingsError(
                f"{key}.use", f"there is no notifier {block.use!r}", f"Installed are: {names}", self._source
            )
        if entry.blocked:
            problem = f"{block.use!r} is blocked by {discovery.DISABLED_VARIABLE}"
            raise SettingsError(
                f"{key}.use", problem, "Remove it from that variable, or remove the block", self._source
            )
        if entry.error:
            raise PluginError(f"{key}: cannot load {block.use!r} from {entry.source}: {entry.error}")
        manager = pluggy.PluginManager(hookspecs.NAME)
        manager.add_hookspecs(hookspecs)
        plugin = register(manager, block.name, construct(entry.value, block.options, key, self._source))
        if "postbox_click" not in plugin.hooks:
            raise PluginError(f"{key}: {entry.source} has no postbox_click marked with @hookimpl, so it is no notifier")
        return plugin

    def _active(self) -> list[Plugin]:
        with self._lock:
            if self._installed is None:
                self._installed = [
                    plugin
                    for entry in discovery.installed(discovery.PLUGINS)
                    if not entry.blocked
                    and entry.name not in self._blocks
                    and (plugin := self._register_installed(entry)) is not None
                ]
            return [*self._installed, *self._optional, *self._given]

    def _used(self, place: int, block: PluginSettings) -> Plugin | None:
        """What a ``[[plugin]]`` block uses, made with its options; ``None`` where the environment blocks it."""
        key = f"plugin[{place}]"
        entry = discovery.find(discovery.OPTIONAL, block.use) or discovery.find(discovery.PLUGINS, block.use)
        if entry is None:
            names = ", ".join(sorted({*discovery.names(discovery.OPTIONAL), *discovery.names(discovery.PLUGINS)}))
            problem, remedy = f"there is no plugin {block.use!r}", f"Installed are: {names or 'none'}"
            raise SettingsError(f"{key}.use", problem, remedy, self._source)
        if entry.blocked:
            return None
        if entry.error:
            raise PluginError(f"{key}: cannot load {block.use!r} from {entry.source}: {entry.error}")
        if inspect.isclass(entry.value):
            made = construct(entry.value, block.options, key, self._source, "the [[plugin]] block")
            return register(self._manager, block.use, made)
        if block.options:
            problem = f"{block.use!r} has no options"
            raise SettingsError(key, problem, f"Remove {', '.join(block.options)}", self._source)
        return register(self._manager, block.use, entry.value)

    def _register_installed(self, entry: discovery.Installed) -> Plugin | None:
        error = entry.error
        if not error:
            try:
                value = entry.value() if inspect.isclass(entry.value) else entry.value
                return register(self._manager, entry.name, value)
            except Exception as problem:  # a foreign class may raise anything when it is made
                error = f"{type(problem).__name__}: {problem}"
                _log.warning("cannot use plugin %s from %s: %s", entry.name, entry.source, error)
        self._failed.append(
            PluginInfo(name=entry.name, kind="installed", source=entry.source, state="failed", error=error)
        )
        return None

    def _implementations(self, hook: str) -> list[HookImpl]:
        """In the order they are called: ``tryfirst``, then as given, then ``trylast``."""
        if hook not in self._ordered:
            found = [plugin.hooks[hook] for plugin in self._active() if hook in plugin.hooks]
            self._ordered[hook] = sorted(found, key=lambda impl: (not impl.tryfirst, impl.trylast))
        return self._ordered[hook]

    def _first(self, hook: str, kind: type[Result], **arguments: object) -> Result | None:
        for impl in self._implementations(hook):
            try:
                result = _call(impl, **arguments)
                if result is not None and not isinstance(result, kind):
                    raise PluginError(f"{hook} must return {kind.__name__} or None, not {result!r}")
            except Exception:
                _log.exception("plugin %s failed in %s; it counts as having no opinion", impl.plugin_name, hook)
                continue
            if result is not None:
                return result
        return None


def _module_of(plugin: Plugin) -> str:
    instance = next((impl.plugin for impl in plugin.hooks.values()), None)
    return str(getattr(instance, "__module__", "") or getattr(instance, "__name__", ""))


def _notifier(plugin: Plugin, block: NotifySettings | None = None) -> Notifier:
    limits = {} if block is None else {name: getattr(block, name) for name in ("concurrency", "timeout", "retry_for")}
    return Notifier(
        plugin.name,
        click=_taking_click(plugin.hooks["postbox_click"]),
        start=_function(plugin, "postbox_start"),
        stop=_function(plugin, "postbox_stop"),
        **limits,
    )


def _function(plugin: Plugin, hook: str) -> Callable[[], Any] | None:
    return plugin.hooks[hook].function if hook in plugin.hooks else None


def _taking_click(impl: HookImpl) -> Callable[[Click], Any]:
    """The hook as a function of a click, also if it asks for none. A coroutine function stays one, for the loop."""
    function: Callable[..., Any] = impl.function
    return function if impl.argnames else lambda _: function()


async def _lifecycle(plugin: Plugin, hook: str) -> None:
    impl = plugin.hooks.get(hook)
    if impl is None:
        return
    try:
        result = _call(impl)
        if inspect.isawaitable(result):
            await result
    except Exception:
        _log.exception("plugin %s failed in %s", plugin.name, hook)


def _call(impl: HookImpl, **arguments: object) -> Any:
    """Call one implementation with those of the arguments that it asks for."""
    return impl.function(*(arguments[name] for name in impl.argnames))


def _check_html(parts: object, count: int) -> None:
    if not isinstance(parts, list) or len(parts) != count or not all(isinstance(part, str) for part in parts):
        raise PluginError(f"mail.html_parts must stay a list of {count} texts")
