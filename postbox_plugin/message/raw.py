"""Messages as raw bytes: only the spans of the HTML bodies change, and the lines of our own headers."""

from __future__ import annotations

import email
import re
from collections.abc import Mapping
from email.errors import MissingHeaderBodySeparatorDefect
from typing import Final

from postbox_plugin.mail import Headers
from postbox_plugin.message import flanker
from postbox_plugin.message.body import HtmlBody, html_body
from postbox_plugin.message.charsets import Unreadable
from postbox_plugin.message.headers import MESSAGE_ID, OWN_HEADERS, unfold
from postbox_plugin.message.skeleton import Skeleton
from postbox_plugin.message.structure import AnyMessage, charset_of, encoded_body, examine, header_of, is_inline

__all__ = ["RawMessage"]

_BLANK_LINE = re.compile(rb"\n\r?\n")
_BARE_CR = re.compile(rb"\r(?!\n)")  # a line's end to the standard library, and to nobody else (RFC 5322, 2.2)
_OWN_HEADER = re.compile(rb"^(?:" + "|".join(OWN_HEADERS).encode() + rb")[ \t]*:.*\n(?:[ \t].*\n)*", re.I | re.M)
_MESSAGE_ID_HEADER = re.compile(rb"^" + MESSAGE_ID.encode() + rb"[ \t]*:(.*)\n(?:[ \t].*\n)*", re.I | re.M)

_Span = tuple[int, int]


class RawMessage:
    """Raw bytes on their way out.

    :param raw: the message, with either line ending.
    :ivar headers: name and unfolded value of each header.
    :ivar untouchable: why it must go out as it came; ``""`` if it may be changed.
    :ivar bodies: its inline HTML bodies that can be read.
    :ivar problem: why a body cannot be read, if one cannot.
    :ivar convertible: whether it has an inline part of which a plugin may make HTML.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = raw
        self.bodies: Final[list[HtmlBody]] = []
        self.problem = ""
        self.convertible = False
        self._spans: Final[list[_Span]] = []
        blank = _BLANK_LINE.search(raw)
        # Where the header block ends, its last line ending included, and that line ending.
        self._headers_end = blank.start() + 1 if blank else len(raw)
        self._newline = b"\r\n" if blank and raw.endswith(b"\r\n", 0, self._headers_end) else b"\n"
        skeleton = Skeleton(raw)
        if skeleton.problem:
            self.headers = Headers()
            self.untouchable = skeleton.problem
            return
        message: AnyMessage = email.message_from_bytes(skeleton.data)
        self.headers = Headers((name, unfold(value)) for name, value in message.raw_items())
        self.untouchable, parts, others = examine(message)
        if not (blank and self.headers):
            self.untouchable = "not a message: it has no headers"
        elif _BARE_CR.search(raw, 0, self._headers_end) or _ends_elsewhere(message):
            self.untouchable = "malformed: a line among its headers is none"
        if self.untouchable:
            return
        spans = _agreed_spans(skeleton, parts) if parts else []
        if spans is None:
            self.untouchable = "malformed: two parsers see different parts in it"
            return
        self.convertible = any(map(is_inline, others))
        for part, span in zip(parts, spans, strict=True):
            if is_inline(part):
                self._add(part, span)

    def _add(self, part: AnyMessage, span: _Span) -> None:
        encoding = header_of(part, "content-transfer-encoding") or ""
        encoded = str(memoryview(self._raw)[slice(*span)], "ascii", "surrogateescape")
        try:
            body = html_body(encoded, encoding, charset_of(part))
        except Unreadable as error:
            self.problem = str(error)
        else:
            self.bodies.append(body)
            self._spans.append(span)

    @property
    def size(self) -> int:
        """The message's size in bytes."""
        return len(self._raw)

    def with_changes(self, bodies: Mapping[int, str], message_id: str) -> bytes:
        """The message with other HTML bodies and without the headers meant for us.

        :param bodies: the new bodies, in their transfer encoding, by their place in :attr:`bodies`.
        :param message_id: the value of ``X-Postbox-Message-Id``; ``""`` to leave it as it is.
        """
        raw = memoryview(self._raw)  # attachments are copied once, into the new message
        pieces: list[bytes | memoryview] = [self._header_block(message_id)]
        position = self._headers_end
        for place, body in sorted(bodies.items()):
            start, end = self._spans[place]
            pieces += (raw[position:start], body.encode("ascii", "surrogateescape"))
            position = end
        pieces.append(raw[position:])
        return b"".join(pieces)

    def _header_block(self, message_id: str) -> bytes:
        block = _OWN_HEADER.sub(b"", self._raw[: self._headers_end])
        if not message_id:
            return block
        found = _MESSAGE_ID_HEADER.search(block)
        if found and found[1].strip() == message_id.encode("ascii"):
            return block
        return _MESSAGE_ID_HEADER.sub(b"", block) + f"{MESSAGE_ID}: {message_id}".encode("ascii") + self._newline


def _ends_elsewhere(message: AnyMessage) -> bool:
    """Whether the standard library saw the body begin before the first blank line, at a line that is no header."""
    return any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in message.defects)


def _agreed_spans(skeleton: Skeleton, parts: list[AnyMessage]) -> list[_Span] | None:
    """Where the bodies of the HTML parts stand in the raw message, if flanker and the standard library agree on all.

    Either alone is fooled by some malformed message: flanker by a boundary with trailing blanks or a Content-Type
    folded after its colon, the standard library by others. A span that both see holds one HTML body and nothing else.
    """
    seen = flanker.html_bodies(skeleton.data.decode("latin-1"))
    if seen is None or len(seen) != len(parts):
        return None
    for part, span in zip(parts, seen, strict=True):
        if encoded_body(part) != skeleton.data[slice(*span)].decode("ascii", "surrogateescape"):
            return None
    return [(skeleton.origin(start), skeleton.origin(end)) for start, end in seen]
