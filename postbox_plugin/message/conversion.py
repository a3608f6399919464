"""Parts of other types than HTML as HTML parts, where a plugin knows what they stand for."""

from __future__ import annotations

import email
from collections.abc import Callable
from email.generator import BytesGenerator
from io import BytesIO
from typing import Any, Final

from postbox_plugin.message import transfer
from postbox_plugin.message.charsets import Unreadable
from postbox_plugin.message.objects import body_of, shallow_copy
from postbox_plugin.message.structure import AnyMessage, examine, is_inline, media_type

__all__ = ["Convert", "converted", "converted_bytes"]

Convert = Callable[[str, str], str | None]
"""A part's type and text in, HTML out; ``None`` if it is to stay what it is."""

_ENCODING: Final = "quoted-printable"


def converted(message: AnyMessage, convert: Convert, *, in_place: bool) -> AnyMessage | None:
    """The message with HTML parts in the place of those that stand for HTML; ``None`` if there are none.

    :param message: a message that may be changed; it is not, unless ``in_place``.
    :param convert: asked for each inline text part that is neither plain text nor HTML.
    :param in_place: change the message itself.
    """
    html: dict[int, str] = {}
    for part in filter(is_inline, examine(message)[2]):
        try:
            body = body_of(part)
        except Unreadable:
            continue  # nor will a mail program read it
        if not body.faithful and not body.html.isascii():
            continue
        new = convert(media_type(part), body.html)
        if new is not None:
            html[id(part)] = new
    return _rebuilt(message, html, in_place=in_place) if html else None


def converted_bytes(raw: bytes, convert: Convert) -> bytes | None:
    """The same for raw bytes, which are parsed and written anew if there is something to convert.

    :param raw: the message, with either line ending.
    :param convert: as for :func:`converted`.
    """
    changed = converted(email.message_from_bytes(raw), convert, in_place=True)
    if changed is None:
        return None
    newline = "\r\n" if raw.partition(b"\n")[0].endswith(b"\r") else "\n"
    written = BytesIO()
    # Headers stand as they stood: not folded anew.
    generator = BytesGenerator(written, mangle_from_=False, maxheaderlen=0)
    generator.flatten(changed, linesep=newline)
    return written.getvalue()


def _rebuilt(part: AnyMessage, html: dict[int, str], *, in_place: bool) -> AnyMessage:
    """The part with its new HTML, and a copy of each multipart that holds a changed one."""
    new = html.get(id(part))
    payload: Any = part.get_payload()
    if new is not None:
        text = new.replace("\r\n", "\n").encode("utf-8", "replace")
        payload = transfer.encode(text, _ENCODING, b"").decode("ascii")
    elif part.is_multipart():
        children = [_rebuilt(child, html, in_place=in_place) for child in payload]
        if all(one is other for one, other in zip(children, payload, strict=True)):
            return part
        payload = children
    else:
        return part
    changed = part if in_place else shallow_copy(part)
    changed.set_payload(payload)
    if new is not None:
        changed.replace_header("Content-Type", 'text/html; charset="utf-8"')
        del changed["Content-Transfer-Encoding"]
        changed["Content-Transfer-Encoding"] = _ENCODING
    return changed
