"""The ``postbox`` command as a whole: which commands there are, and what becomes of errors."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated, Final, NoReturn

import typer

from postbox_plugin.cli import check, explain, keys, outbox, plugins, rewrite, serve, stats
from postbox_plugin.cli import map as map_command
from postbox_plugin.cli import open as open_command
from postbox_plugin.cli.foreign import CommandGroup
from postbox_plugin.errors import PostboxError, SettingsError
from postbox_plugin.hookspecs import NAME

__all__ = ["app", "main"]

FAILED: Final = 1
MISUSED: Final = 2

app: Final = typer.Typer(
    cls=CommandGroup,
    name=NAME,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and colour are for people; what is piped is read by programs.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
app.command("serve")(serve.serve)
app.command("rewrite")(rewrite.rewrite)
app.command("explain")(explain.explain)
app.command("open")(open_command.open_link)
app.command("check")(check.check)
app.add_typer(keys.app)
app.command("plugins")(plugins.plugins)
app.add_typer(outbox.app)
app.command("stats")(stats.stats)
app.command("map")(map_command.click_map)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("postbox-plugin"))
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Click tracking for the mail framework you already have.

    Settings come from postbox.toml in the current folder, from the file that
    --config or POSTBOX_CONFIG names, and from environment variables
    (POSTBOX_DOMAIN, POSTBOX_KEYS, ...), which outweigh the file.

    Exit codes: 0 it worked; 1 it did not; 2 the command or the settings are
    wrong; 130 interrupted.
    """


def main() -> NoReturn:
    """Run the command that ``sys.argv`` holds, and exit with its code."""
    logging.basicConfig(level=logging.WARNING, format="postbox: %(message)s")
    try:
        app()
    except PostboxError as error:
        print(f"postbox: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(MISUSED if isinstance(error, SettingsError) else FAILED)
    finally:
        _flush()
    sys.exit(0)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough. The interpreter flushes once more at its end, and must find somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
