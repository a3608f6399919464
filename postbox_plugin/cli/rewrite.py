"""``postbox rewrite``: a message in, the message that would be sent instead out."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import typer

from postbox_plugin.cli.options import (
    Config,
    MessageFile,
    Recipients,
    Sender,
    Subject,
    Tags,
    is_html,
    make_postbox,
    read_input,
    tags_given,
)
from postbox_plugin.errors import PostboxError
from postbox_plugin.mail import Mail

__all__ = ["html_mail", "rewrite"]


def rewrite(
    file: MessageFile,
    *,
    recipient: Recipients = None,
    sender: Sender = "",
    subject: Subject = "",
    tag: Tags = None,
    config: Config = None,
) -> None:
    """Write a message, or HTML, with its links tracked.

    Standard output gets the bytes of the message and nothing else. What
    cannot be rewritten comes out as it went in, and standard error says why.

    \b
    Examples:
      postbox rewrite order.eml > tracked.eml
      postbox rewrite - -r anna@example.com < order.eml
      postbox rewrite offer.html --sender shop@example.com -r anna@example.com --tag campaign=spring
    """
    logging.getLogger("postbox.send").setLevel(logging.INFO)
    postbox = make_postbox(config)
    data = read_input(file)
    if is_html(file):
        mail = html_mail(file, sender, recipient, subject, tag)
        written = postbox.track_html(decoded(file, data), mail).encode()
    else:
        written = postbox.before_send(data, recipients=recipient, message_tags=tags_given(tag))
    sys.stdout.buffer.write(written)
    sys.stdout.buffer.flush()


def html_mail(file: Path, sender: str, recipients: list[str] | None, subject: str, tags: list[str] | None) -> Mail:
    """The mail that HTML without a message belongs to."""
    if not sender or not recipients:
        missing = "--recipient" if sender else "--sender"
        raise typer.BadParameter(f"{file} is HTML, which does not say it itself", param_hint=missing)
    return Mail(sender=sender, recipient=recipients[0], recipients=recipients, subject=subject, tags=tags_given(tags))


def decoded(file: Path, data: bytes) -> str:
    """HTML as text; UTF-8, byte for byte the same when encoded again."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PostboxError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
