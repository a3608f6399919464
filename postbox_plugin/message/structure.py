"""Which parts of a message are inline HTML, and which messages nobody may change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from functools import lru_cache
from typing import Any, Final, TypeAlias

from postbox_plugin.message.charsets import Unreadable
from postbox_plugin.message.skeleton import MAX_PARAMETER_BYTES

__all__ = [
    "AnyMessage",
    "charset_of",
    "encoded_body",
    "examine",
    "header_of",
    "is_inline",
    "media_type",
    "walk",
]

MAX_DEPTH: Final = 32

_SIGNATURE_HEADERS: Final = ("DKIM-Signature", "ARC-Seal")
# What is shown as it is, or stands for nothing else: AMP is a part of its own beside the HTML.
_FINAL_TEXT: Final = frozenset(("text/html", "text/plain", "text/x-amp-html"))
_SEALED_TYPES: Final = frozenset(
    ("multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
)

_CHARACTER: Final = re.compile(r"[^\0-\x7f\udc80-\udcff]")

AnyMessage: TypeAlias = "Message[Any, Any]"


def examine(message: AnyMessage) -> tuple[str, list[AnyMessage], list[AnyMessage]]:
    """Why this message must go out as it came, ``""`` if it may be changed; its text/html parts in their order; and
    its parts of other text types, of which some plugin may make HTML. Attachments are among them, but nothing of an
    enclosed message.

    :param message: the whole message.
    """
    for name in _SIGNATURE_HEADERS:
        if name in message:
            return f"already signed ({name})", [], []
    html: list[AnyMessage] = []
    others: list[AnyMessage] = []
    for part, content_type, depth in walk(message):
        if content_type in _SEALED_TYPES:
            return f"signed or encrypted ({content_type})", [], []
        if depth > MAX_DEPTH:
            return f"its parts are nested deeper than {MAX_DEPTH}", [], []
        if content_type == "text/html" and not part.is_multipart():
            html.append(part)
        elif content_type.startswith("text/") and content_type not in _FINAL_TEXT and not part.is_multipart():
            others.append(part)
    return "", html, others


def header_of(part: AnyMessage, name: str) -> str | None:
    """The value of a part's first header of that name, as it was written or set.

    Its policy is not asked: the header parsers of the modern policies take time that grows with the square of the
    length, and raise whatever happens inside them.

    :param name: in lower case.
    """
    return next((str(value) for field, value in part.raw_items() if field.lower() == name), None)


def media_type(part: AnyMessage) -> str:
    """The type of a part, without parameters, in lower case; what is none is ``text/plain`` (RFC 2045, 5.2)."""
    content_type = header_of(part, "content-type")
    if content_type is None:
        return part.get_default_type()  # message/rfc822 in a digest
    kind = _without_parameters(content_type)
    return kind if kind.count("/") == 1 else "text/plain"


def is_inline(part: AnyMessage) -> bool:
    """Whether a part is shown as part of the mail; an unknown disposition makes it an attachment (RFC 2183, 2.8)."""
    disposition = header_of(part, "content-disposition")
    return disposition is None or _without_parameters(disposition) == "inline"


def _without_parameters(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def encoded_body(part: AnyMessage) -> str | None:
    """The body of a part as it stands in the message, each byte that is not ASCII as a surrogate escape (PEP 383);
    ``None`` if it is text that was never encoded.

    :param part: a part without parts of its own.
    """
    # get_payload() would decode what is 8bit with the charset, and not strictly.
    payload = vars(part).get("_payload")
    if not isinstance(payload, str):
        return None
    return payload if payload.isascii() or not _CHARACTER.search(payload) else None


def charset_of(part: AnyMessage) -> str:
    """The charset parameter of a part's Content-Type, in lower case; ``""`` without one.

    :raises Unreadable: if the header is longer than anybody should parse.
    """
    content_type = header_of(part, "content-type") or ""
    if len(content_type) > MAX_PARAMETER_BYTES:
        raise Unreadable(f"its Content-Type has more than {MAX_PARAMETER_BYTES} bytes")
    return _charset_of(content_type)


@lru_cache(64)  # the parts of a mailing's messages all have the same
def _charset_of(content_type: str) -> str:
    part: AnyMessage = Message()
    part["Content-Type"] = content_type
    return part.get_content_charset("")


def walk(message: AnyMessage, depth: int = 0) -> Iterator[tuple[AnyMessage, str, int]]:
    """The message and its parts with their types, but no part of an enclosed message (RFC 2046, 5.2)."""
    content_type = media_type(message)
    yield message, content_type, depth
    if not content_type.startswith("multipart/") or depth > MAX_DEPTH:
        return
    payload = message.get_payload()
    if isinstance(payload, list):
        for part in payload:
            if isinstance(part, Message):
                yield from walk(part, depth + 1)
