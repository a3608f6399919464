"""``postbox plugins``: what is installed, what of it is used, and what failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from postbox_plugin import discovery
from postbox_plugin.cli.options import Config, make_postbox
from postbox_plugin.cli.output import print_table
from postbox_plugin.plugins import PluginInfo

__all__ = ["plugins"]


def plugins(config: Config = None) -> None:
    """List what is installed, used, or failed to load.

    A notifier or plugin that no block of the settings uses is available;
    what failed says why.

    POSTBOX_DISABLED_PLUGINS blocks plugins by name, separated by commas.

    \b
    Example:
      postbox plugins --config /etc/postbox/postbox.toml
    """
    logging.getLogger("postbox.plugins").setLevel(logging.CRITICAL)  # what it would say is in the table
    found = [*make_postbox(config).plugins_report(), *_commands()]
    rows = ((one.name, one.kind, one.state, " ".join(one.hooks), one.error or one.source) for one in found)
    print_table(("name", "kind", "state", "hooks", "from, or what is wrong"), rows)


def _commands() -> Iterator[PluginInfo]:
    for entry in discovery.installed(discovery.COMMANDS):
        state = "blocked" if entry.blocked else "failed" if entry.error else "active"
        yield PluginInfo(name=entry.name, kind="command", source=entry.source, state=state, error=entry.error)
