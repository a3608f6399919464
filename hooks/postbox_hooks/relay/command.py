"""``postbox relay``: click tracking for everything that can set an SMTP host."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin.commands import Config, make_postbox, naming_the_source, table

if TYPE_CHECKING:
    from postbox_hooks.relay.delivery import Rewrite
    from postbox_plugin import Postbox

__all__ = ["is_quick", "relay"]


def relay(
    config: Config = None,
    *,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where clients connect to; else what `relay` sets.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The mail server that everything goes to.")
    ] = None,
    split: Annotated[
        bool | None, typer.Option("--split/--no-split", help="Send a mail to several as one to each.")
    ] = None,
) -> None:
    """Take mail by SMTP, track its links, and hand it to a mail server.

    For everything that can set an SMTP host, in any language. The table
    `relay` of the settings says who may send, and where it goes. The mail
    server's answers are the client's: what it did not accept, nobody is told
    was sent. SIGTERM and SIGINT stop it once the mails under way have their
    answer.

    \b
    Example:
      postbox relay --config /etc/postbox/postbox.toml
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's, which names senders and recipients
    options: dict[str, Any] = {"listen": listen, "upstream": upstream, "split": split}
    given = {key: value for key, value in options.items() if value is not None}
    settings = table(config, "relay", RelaySettings, given)
    postbox = make_postbox(config)

    def rewrite(message: bytes, recipients: Sequence[str], tags: Mapping[str, str]) -> bytes:
        return postbox.before_send(message, recipients=recipients, message_tags=tags)

    with naming_the_source(config, {f"relay.{key}" for key in given}):
        asyncio.run(_run(settings, rewrite, is_quick(postbox), postbox.settings.stop_limit))


def is_quick(postbox: Postbox) -> bool:
    """Whether no plugin, which may take its time, has a say in the rewriting of ordinary mails: those without MJML."""
    hooks = {hook for plugin in postbox.plugins_report() if plugin.state == "active" for hook in plugin.hooks}
    return hooks.isdisjoint(("postbox_before_send", "postbox_link"))


async def _run(settings: RelaySettings, rewrite: Rewrite, quick: bool, stop_limit: float) -> None:
    from postbox_hooks.relay.server import relay as run  # noqa: PLC0415 - needs the extra

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await run(settings, rewrite, quick=quick, stop_limit=stop_limit, stopping=stopping)
