"""``postbox keys``: making keys."""

from __future__ import annotations

from typing import Final

import typer

from postbox_plugin.tokens.keyring import new_key

__all__ = ["app"]

app: Final = typer.Typer(name="keys", no_args_is_help=True, help="Make keys for the key ring.")


@app.callback()
def _group() -> None:
    """Make keys for the key ring."""


@app.command()
def new() -> None:
    """Print a new key: 32 random bytes as base64url.

    Keep it secret, and keep it: without it, no link that it sealed opens. To
    rotate, add the new key to the end of `keys` everywhere, and then move it
    to the front.

    \b
    Example:
      export POSTBOX_KEY=$(postbox keys new)
    """
    typer.echo(new_key())
