"""``postbox demo``: the main job on this machine, with nothing to set up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import partial
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from postbox_plugin.errors import MissingExtra, PostboxError

__all__ = ["demo"]

CLICKS: Final = 5
"""How many links ``--click`` opens."""


def demo(
    click: Annotated[
        bool,
        typer.Option("--click", help="Open some links without a browser, print the notifications as JSON, and end."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the inbox page; 0 for a free one.", show_default=True)
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the inbox page in the browser.")] = True,
) -> None:
    """See the main job at work: a newsletter, tracked, sent, opened, clicked.

    Writes a newsletter, replaces its links, sends it by SMTP to an inbox on this machine, and shows that inbox as a web
    page, with every click's notification as it arrives. Nothing leaves this machine, and nothing stays on it.

    \b
    Examples:
      postbox demo
      postbox demo --click | head -n 1 | python -m json.tool
    """
    console = Console(stderr=True, highlight=False)
    try:
        asyncio.run(_click(console, port) if click else _show(console, port, browser=browser))
    except MissingExtra as error:
        typer.echo(f"postbox: {error}", err=True)
        raise typer.Exit(2) from None
    except PostboxError as error:
        typer.echo(f"postbox: {error}", err=True)
        raise typer.Exit(1) from None


async def _click(console: Console, port: int) -> None:
    from postbox_hooks.demo.clicker import click, some_of  # noqa: PLC0415 - Tornado is slow to import, and this module is imported by every command
    from postbox_hooks.demo.feed import Notification  # noqa: PLC0415
    from postbox_hooks.demo.stage import stage  # noqa: PLC0415

    def show(notification: Notification) -> None:
        # Bytes, for JSON is UTF-8 whatever the terminal's encoding (RFC 8259, 8.1).
        sys.stdout.buffer.write(json.dumps(notification, ensure_ascii=False).encode() + b"\n")
        sys.stdout.buffer.flush()

    async with stage(port, partial(_say, console)) as running:
        links = some_of(running.tagged_links(), CLICKS)
        _say(console, f"opening {len(links)} links")
        await click(links, running.feed, show, certificate=running.certificate)
        _say(console, f"{len(links)} notifications came in by webhook")


async def _show(console: Console, port: int, *, browser: bool) -> None:
    from postbox_hooks.demo.stage import stage  # noqa: PLC0415

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with stage(port, partial(_say, console)) as running:
        console.print(
            f"\n  The inbox:  [bold]{running.address}/[/bold]\n\n  Open it and press links; Ctrl-C ends the demo.\n"
        )
        if browser and _is_interactive():
            import webbrowser  # noqa: PLC0415

            await asyncio.to_thread(webbrowser.open, running.address)
        await stopped.wait()
    _say(console, "stopped; nothing is left behind")


def _is_interactive() -> bool:
    """Whether a person sits here who can see a browser's window."""
    # Without a display, a text browser would take over the terminal.
    display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return display and sys.stdout.isatty() and sys.stderr.isatty()


def _say(console: Console, step: str) -> None:
    console.print("[green]*[/green]", Text(step), soft_wrap=True)
