"""All settings, as records that check themselves. Pure: ``config.py`` reads files and the environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import ada_url
import msgspec

from postbox_plugin.checked import Checked, check_positive, unknown_key
from postbox_plugin.errors import SettingsError
from postbox_plugin.tokens.keyring import KeyRing

__all__ = [
    "CARRIABLE",
    "NotifySettings",
    "PluginSettings",
    "Privacy",
    "ServeSettings",
    "Settings",
    "from_mapping",
]

Privacy = Literal["full", "truncated", "none"]

CARRIABLE: Final = ("from", "to", "subject", "date", "message-id")
"""The headers that a token can carry to the notification."""

_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Record = TypeVar("Record", bound=msgspec.Struct)


MAX_WORKERS: Final = 256


class ServeSettings(Checked, frozen=True, kw_only=True):
    """``[serve]``: what ``postbox serve`` listens on.

    :ivar http: ``host:port`` for http, or ``""`` for none.
    :ivar https: ``host:port`` for https, or ``""`` for none; needs ``cert`` and ``key``.
    :ivar cert: the certificate chain, a PEM file.
    :ivar key: its private key, a PEM file.
    :ivar workers: how many processes serve.
    :ivar max_connections: the most connections that each process holds open; for a new one, the oldest is closed.
    :ivar admin: ``host:port`` for ``/healthz`` and ``/metrics``, or ``""`` for none. Keep it from the public.
    """

    http: str = "127.0.0.1:8080"
    https: str = ""
    cert: str = ""
    key: str = ""
    workers: int = 1
    max_connections: int = 4096
    admin: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.workers <= MAX_WORKERS:
            fix = "Write for example 2; one for each processor is the most that helps"
            raise SettingsError("workers", f"{self.workers} is not from 1 to {MAX_WORKERS}", fix)
        check_positive(self, "max_connections")
        for name in ("http", "https", "admin"):
            value = getattr(self, name)
            match = _LISTEN.fullmatch(value)
            if value and (match is None or int(match[2]) > 65535):
                raise SettingsError(
                    name, f"{value!r} is not host:port", 'Write for example "127.0.0.1:8080" or "[::1]:8080"'
                )
        if self.https and not (self.cert and self.key):
            missing = "key" if self.cert else "cert"
            raise SettingsError(missing, "is missing, and https needs it", f'Add {missing} = "/path/to/{missing}.pem"')
        if not (self.http or self.https):
            raise SettingsError("http", "there is nothing to listen on", 'Write http = "127.0.0.1:8080"')


class NotifySettings(Checked, frozen=True, kw_only=True):
    """One ``[[notify]]`` block: a notifier, and how clicks are delivered to it. ``repr`` shows no option's value, for
    some are secrets.

    :ivar use: the notifier's entry-point name in the group ``postbox.notifiers``.
    :ivar name: tells two of a kind apart; its clicks wait in the outbox under this name. ``use`` if left empty.
    :ivar concurrency: the most calls in flight at once.
    :ivar timeout: seconds after which a call is given up and tried again later.
    :ivar retry_for: seconds after which a click that was never taken goes to the dead letters.
    :ivar options: everything else in the block: the notifier's own keyword arguments.
    """

    use: str
    name: str = ""
    concurrency: int = 64
    timeout: float = 30.0
    retry_for: float = 3 * 86400.0
    options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.use:
            raise SettingsError(
                "use", "is missing", 'Name a notifier, for example use = "log"; `postbox plugins` lists them'
            )
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.use)
        if not _NAME.fullmatch(self.name):
            raise SettingsError(
                "name", f"{self.name!r} is not a name", "Use letters, digits, '_', '.' and '-', at most 64"
            )
        check_positive(self, "concurrency", "timeout", "retry_for")

    def __repr__(self) -> str:
        return f"NotifySettings(use={self.use!r}, name={self.name!r}, options={sorted(self.options)})"


class PluginSettings(Checked, frozen=True, kw_only=True):
    """One ``[[plugin]]`` block: a plugin that is off until it is named here, or options for one that is on. ``repr``
    shows no option's value.

    :ivar use: the plugin's entry-point name in the group ``postbox.optional`` or ``postbox``.
    :ivar options: everything else in the block: the plugin's own keyword arguments.
    """

    use: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.use:
            raise SettingsError(
                "use", "is missing", 'Name a plugin, for example use = "leave-alone"; `postbox plugins` lists them'
            )

    def __repr__(self) -> str:
        return f"PluginSettings(use={self.use!r}, options={sorted(self.options)})"


class Settings(Checked, frozen=True, kw_only=True):
    """Everything that can be set. Keys appear in no ``repr``.

    :ivar domain: the host name of tracking links, without scheme, port or path.
    :ivar keys: the key ring, each key as :func:`postbox_plugin.new_key` makes it; the first seals, all open.
    :ivar path: the path that tracking links begin with; begins and ends with ``/``.
    :ivar https_port: the public port of https links.
    :ivar http_port: the public port of http links.
    :ivar spool: the folder of the outbox; made with mode 0700 when first needed.
    :ivar trusted_proxies: networks whose ``Forwarded`` and ``X-Forwarded-For`` are believed.
    :ivar home_url: offered as a link on the page for links that do not open.
    :ivar carry: the headers that a token carries to the notification: of ``from``, ``to``, ``subject``, ``date`` and
        ``message-id``.
    :ivar identity: the sender identity (``mail.identityId``); the domain of From if empty.
    :ivar privacy: what a click keeps of the address and user agent: ``full``, ``truncated`` (to IPv4 /24 or IPv6 /48,
        and to major versions), or ``none``.
    :ivar journal_deadline: the most seconds a reader waits for the disk.
    :ivar stop_limit: seconds that calls of notifiers have to end when the service stops.
    :ivar strict: an exception in a before-send hook or in the rewriting is raised instead of logged; for tests.
    :ivar serve: what ``postbox serve`` listens on.
    :ivar notify: the notifiers.
    :ivar plugin: the plugins that are switched on, or given options, in the order their hooks are called.
    :raises SettingsError: naming the setting, what is wrong and what to write.
    """

    domain: str = ""
    keys: Sequence[str] = ()
    path: str = "/c/"
    https_port: int = 443
    http_port: int = 80
    spool: str = "postbox-spool"
    trusted_proxies: Sequence[str] = ()
    home_url: str = ""
    carry: Sequence[str] = ("from", "to", "subject", "date")
    identity: str = ""
    privacy: Privacy = "full"
    journal_deadline: float = 1.0
    stop_limit: float = 10.0
    strict: bool = False
    serve: ServeSettings = ServeSettings()
    notify: Sequence[NotifySettings] = ()
    plugin: Sequence[PluginSettings] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_domain(self.domain)
        KeyRing(self.keys)
        if not _PATH.fullmatch(self.path):
            raise SettingsError("path", f"{self.path!r} is not a path", 'Begin and end it with "/", for example "/c/"')
        for name in ("https_port", "http_port"):
            if not 0 < getattr(self, name) < 65536:
                raise SettingsError(name, "is not a port", "Write a number from 1 to 65535")
        for place, network in enumerate(self.trusted_proxies):
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise SettingsError(
                    f"trusted_proxies[{place}]", str(error), 'Write for example "127.0.0.0/8"'
                ) from None
        if self.home_url and urlsplit(self.home_url).scheme not in ("http", "https"):
            raise SettingsError(
                "home_url", f"{self.home_url!r} is not a web address", 'Write for example "https://example.com/"'
            )
        for place, header in enumerate(self.carry):
            if header not in CARRIABLE:
                raise SettingsError(
                    f"carry[{place}]", f"{header!r} cannot be carried", f"Choose from {', '.join(CARRIABLE)}"
                )
        check_positive(self, "journal_deadline", "stop_limit")
        seen: set[str] = set()
        for place, notifier in enumerate(self.notify):
            if notifier.name in seen:
                raise SettingsError(
                    f"notify[{place}].name",
                    f"there are two notifiers named {notifier.name!r}",
                    'Tell them apart with name = "..."',
                )
            seen.add(notifier.name)
        seen.clear()
        for place, plugin in enumerate(self.plugin):
            if plugin.use in seen:
                raise SettingsError(
                    f"plugin[{place}].use", f"there are two blocks for {plugin.use!r}", "Make one block of the two"
                )
            seen.add(plugin.use)

    def origin(self, scheme: str) -> str:
        """``scheme://domain``, with the public port where it is not the scheme's own.

        :param scheme: ``https`` or ``http``.
        """
        port, usual = (self.https_port, 443) if scheme == "https" else (self.http_port, 80)
        return f"{scheme}://{self.domain}" if port == usual else f"{scheme}://{self.domain}:{port}"

    def __repr__(self) -> str:
        shown = f"domain={self.domain!r}, keys=<{len(self.keys)} hidden>, spool={self.spool!r}"
        return f"Settings({shown}, notify={list(self.notify)!r}, plugin={list(self.plugin)!r})"


def from_mapping(given: Mapping[str, Any], where: str = "Settings") -> Settings:
    """Settings from a mapping of plain values, as TOML or a framework's own settings hold them.

    :param given: the settings by name; ``serve`` is a mapping, ``notify`` and ``plugin`` are lists of mappings.
    :param where: what an error names as their source.
    :raises SettingsError: naming ``where``, the key and the remedy.
    """
    values = dict(given)
    if isinstance(values.get("serve"), Mapping):
        values["serve"] = _record(ServeSettings, values["serve"], where, "serve.")
    values["notify"] = _blocks("notify", NotifySettings, values, where)
    values["plugin"] = _blocks("plugin", PluginSettings, values, where)
    return _record(Settings, values, where, "")


def _blocks(name: str, kind: type[Record], values: Mapping[str, Any], where: str) -> tuple[Record, ...]:
    """The ``[[name]]`` blocks as records; what is not for the record itself is among its options."""
    blocks = values.get(name, ())
    if not isinstance(blocks, list | tuple) or not all(isinstance(block, Mapping) for block in blocks):
        raise SettingsError(name, "is not a list of tables", f"Write each as a [[{name}]] block", where)
    own = {field.name for field in msgspec.structs.fields(kind)} - {"options"}
    return tuple(
        _record(
            kind,
            {"use": ""}
            | {key: value for key, value in block.items() if key in own}
            | {"options": {key: value for key, value in block.items() if key not in own}},
            where,
            f"{name}[{place}].",
        )
        for place, block in enumerate(blocks)
    )


def _record(kind: type[Record], values: Mapping[str, Any], where: str, prefix: str) -> Record:
    known = [field.name for field in msgspec.structs.fields(kind)]
    try:
        for key in values:
            if key not in known:
                raise unknown_key(key, known)
        return kind(**values)
    except SettingsError as error:
        raise error.at(where, prefix) from None


def _check_domain(domain: str) -> None:
    example = 'Write only the host name, for example domain = "click.example.com"'
    if not domain:
        raise SettingsError("domain", "is missing", example)
    for mark, what in (("://", "a scheme"), ("/", "a path"), ("@", "a user"), (":", "a port")):
        if mark in domain:
            remedy = "Set the port with https_port and http_port" if mark == ":" else example
            raise SettingsError("domain", f"{domain!r} has {what}", remedy)
    try:
        host = ada_url.URL(f"http://{domain}/").hostname
    except ValueError:
        raise SettingsError("domain", f"{domain!r} is not a host name", example) from None
    if host != domain.lower():
        raise SettingsError("domain", f"{domain!r} is not in its ASCII form", f"Write {host!r}")
