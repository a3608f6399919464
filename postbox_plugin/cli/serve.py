"""``postbox serve``: the redirect service."""

from __future__ import annotations

import asyncio
import logging

from postbox_plugin.cli.options import Config, make_postbox

__all__ = ["serve"]


def serve(config: Config = None) -> None:
    """Answer tracking links, and deliver the clicks, until stopped.

    Listens where the table `serve` of the settings says; SIGTERM and SIGINT
    stop it once what is under way is done.

    \b
    Example:
      postbox serve --config /etc/postbox/postbox.toml
    """
    from postbox_plugin.service import serve as run  # noqa: PLC0415 - no other command needs Tornado

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    asyncio.run(run(make_postbox(config)))
