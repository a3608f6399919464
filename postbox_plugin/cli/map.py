"""``postbox map``: the mail, with the clicks of each link on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from postbox_plugin.cli.options import body_type, read_input
from postbox_plugin.cli.output import shown
from postbox_plugin.cli.rewrite import text_of
from postbox_plugin.cli.stats import Clicks, OnlyTags, read
from postbox_plugin.stats.reading import STDIN

__all__ = ["click_map"]


def click_map(
    message: Annotated[
        Path,
        typer.Argument(
            metavar="MESSAGE", help="A raw message, as written or as sent; HTML if its name ends in .html or .htm."
        ),
    ],
    clicks: Clicks,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The page to write; standard output if not given."),
    ] = None,
    tag: OnlyTags = None,
    remote_images: Annotated[
        bool,
        typer.Option(
            "--remote-images", help="Let the page load pictures that are not in the message; their hosts will see it."
        ),
    ] = False,
) -> None:
    """Write a page that shows a mail with the clicks of each link on it.

    Links are told apart by their place in the mail, so a mail that went to
    many readers has one map, with the clicks of all. The page is one file; it
    loads nothing from elsewhere, runs no script of the mail, and its links
    lead nowhere.

    \b
    Examples:
      postbox map newsletter.eml clicks.jsonl -o map.html
      postbox map newsletter.html clicks.jsonl.*.gz --tag campaign=spring -o map.html
    """
    from postbox_plugin.stats.page import click_map as page_of  # noqa: PLC0415 - no other command needs the page

    if output is None and sys.stdout.isatty():
        raise typer.BadParameter("say where to write the page: -o map.html", param_hint="--output")
    if message == STDIN and STDIN in clicks:
        raise typer.BadParameter("standard input is either the message or clicks", param_hint="CLICKS")
    if body_type(message) == "text/mjml":
        raise typer.BadParameter(f"{message} is MJML: give the message that was sent, or HTML", param_hint="MESSAGE")
    data = read_input(message)
    aggregation = read(clicks, tag)
    page = page_of(text_of(message, data) if body_type(message) else data, aggregation, remote_images=remote_images)
    encoded = page.encode("utf-8", "replace")
    if output is None:
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(encoded)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written ({error.strerror})", param_hint="--output") from None
    found = aggregation.result()
    typer.echo(f"{shown(output)}: clicks by people: {found.clicks}, by machines: {found.machines}")
