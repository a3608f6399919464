"""``postbox serve``: the redirect service."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from postbox_plugin.cli.options import Config, config_file, make_postbox, naming_the_source
from postbox_plugin.cli.output import Bar

__all__ = ["serve"]


def serve(
    config: Config = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="How many processes; else what `serve` sets.")
    ] = None,
) -> None:
    """Answer tracking links, and deliver the clicks, until stopped.

    Listens where the table `serve` of the settings says; SIGTERM and SIGINT
    stop it once what is under way is done.

    \b
    Example:
      postbox serve --config /etc/postbox/postbox.toml --workers 2
    """
    # No other command needs Tornado.
    from postbox_plugin.service import log_to_stderr, serve_with_workers  # noqa: PLC0415
    from postbox_plugin.service import serve as run  # noqa: PLC0415

    log_to_stderr()
    postbox = make_postbox(config)
    settings = postbox.settings
    if workers is not None:
        settings = msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, workers=workers))
    if settings.serve.workers == 1:
        with naming_the_source(config), Bar("clicks to deliver") as bar:
            asyncio.run(run(postbox, draining=bar.left))
    else:
        path = config_file(config)
        with naming_the_source(config), Bar("workers to end") as bar:
            asyncio.run(serve_with_workers(settings, str(path.absolute()) if path else "", draining=bar.left))
