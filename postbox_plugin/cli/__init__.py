"""The command line, ``postbox``: one file a command."""

from postbox_plugin.cli.app import main

__all__ = ["main"]
