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
    body_type,
    make_postbox,
    read_input,
    tags_given,
)
from postbox_plugin.errors import PostboxError
from postbox_plugin.mail import Mail
from postbox_plugin.postbox import Postbox

__all__ = ["body_mail", "html_of", "rewrite", "text_of"]


def rewrite(
    file: MessageFile,
    *,
    recipient: Recipients = None,
    sender: Sender = "",
    subject: Subject = "",
    tag: Tags = None,
    config: Config = None,
) -> None:
    """Write a message, or a body of HTML or MJML, with its links tracked.

    Standard output gets the bytes of the message and nothing else. What
    cannot be rewritten comes out as it went in, and standard error says why.
    MJML comes out as HTML.

    \b
    Examples:
      postbox rewrite order.eml > tracked.eml
      postbox rewrite - -r anna@example.com < order.eml
      postbox rewrite offer.html --sender shop@example.com -r anna@example.com --tag campaign=spring
      postbox rewrite offer.mjml --sender shop@example.com -r anna@example.com
    """
    logging.getLogger("postbox.send").setLevel(logging.INFO)
    postbox = make_postbox(config)
    data = read_input(file)
    if body_type(file):
        mail = body_mail(file, sender, recipient, subject, tag)
        written = postbox.track_html(html_of(postbox, file, data), mail).encode()
    else:
        written = postbox.before_send(data, recipients=recipient, message_tags=tags_given(tag))
    sys.stdout.buffer.write(written)
    sys.stdout.buffer.flush()


def body_mail(file: Path, sender: str, recipients: list[str] | None, subject: str, tags: list[str] | None) -> Mail:
    """The mail that a body without a message belongs to."""
    if not sender or not recipients:
        missing = "--recipient" if sender else "--sender"
        problem = f"{file} is a body and no message, so it does not say who it is from and to"
        raise typer.BadParameter(f"{problem}: add {missing} ADDRESS", param_hint=missing)
    return Mail(sender=sender, recipient=recipients[0], recipients=recipients, subject=subject, tags=tags_given(tags))


def html_of(postbox: Postbox, file: Path, data: bytes) -> str:
    """The HTML that a file holds, or stands for."""
    text, content_type = text_of(file, data), body_type(file)
    return text if content_type == "text/html" else postbox.convert(text, content_type, file=str(file))


def text_of(file: Path, data: bytes) -> str:
    """The text of a body, which is the same byte for byte when encoded again, as UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PostboxError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
