"""``postbox open``: what a tracking link holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from postbox_plugin.cli.options import AsJson, Config, make_postbox
from postbox_plugin.cli.output import print_json, print_pairs

__all__ = ["open_link"]


def open_link(
    url: Annotated[str, typer.Argument(metavar="URL", help="A tracking link, or its token alone.")],
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show what a tracking link holds. Nothing is fetched, and no click is made.

    \b
    Example:
      postbox open https://click.example.com/c/TOKEN
    """
    link = make_postbox(config).open(url)
    if as_json:
        print_json(link)
        return
    pairs: list[tuple[str, object]] = []
    for name, value in msgspec.structs.asdict(link).items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", ", ".join(texts)) for key, texts in value.items()]
        else:
            pairs.append((name, value))
    print_pairs(pairs)
