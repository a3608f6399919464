"""Bytes of an HTML body as text, and changes of the text as changes of the bytes."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from postbox_plugin.links.rewrite import Edit, apply

__all__ = ["ByteEdit", "Text", "Unreadable", "is_plain", "read_text"]

ByteEdit = tuple[int, int, bytes]
"""Replace the bytes from the first number to the second by these."""

_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


# Codecs of Python's that no mail program knows as charsets.
_NO_CHARSETS: Final = frozenset(("idna", "punycode", "raw-unicode-escape", "unicode-escape"))
# Every ASCII byte, and escape sequences of ISO-2022 (RFC 1468), after which ASCII bytes are halves of characters.
_ASCII_AND_ESCAPES: Final = bytes(range(0x80)) + b"\x1b$B!!\x1b(B"


class Unreadable(Exception):
    """A body that cannot be read safely; the message of the exception says why."""


class Text:
    """The text of a body, and the way back.

    :ivar text: one string. Where the bytes are not what the charset says, each character is one byte.
    :ivar faithful: whether a character that is not ASCII is what its author wrote.
    """

    __slots__ = ("_bytewise", "_codec", "_data", "faithful", "text")

    def __init__(self, data: bytes, text: str, codec: str, *, bytewise: bool = False, faithful: bool = True) -> None:
        self._data = data
        self._codec = codec
        self._bytewise = bytewise
        self.text = text
        self.faithful = faithful

    def byte_edits(self, edits: Sequence[Edit]) -> list[ByteEdit]:
        """The same changes of the bytes; what lies between them is not touched."""
        if self._bytewise:
            return [(start, end, new.encode(self._codec)) for start, end, new in edits]
        found: list[ByteEdit] = []
        position = offset = 0
        for start, end, new in edits:
            before = self.text[position:start].encode(self._codec)
            replaced = self.text[start:end].encode(self._codec)
            if not self._data.startswith(before + replaced, offset):
                return [self._whole(apply(self.text, edits))]
            offset += len(before)
            found.append((offset, offset + len(replaced), new.encode(self._codec)))
            offset += len(replaced)
            position = end
        if self._data[offset:] != self.text[position:].encode(self._codec):
            return [self._whole(apply(self.text, edits))]
        return found

    def encode(self, text: str) -> bytes:
        """Another text in this charset; what it does not have is written as character references."""
        return text.encode(self._codec, "xmlcharrefreplace")

    def _whole(self, text: str) -> ByteEdit:
        """For a stateful charset, where a piece of the text is not a piece of the bytes: all between the first and
        the last byte that differ.
        """
        new = text.encode(self._codec)
        start = _common_length(new, self._data)
        tail = _common_length(new[start:][::-1], self._data[start:][::-1])
        return start, len(self._data) - tail, new[start : len(new) - tail]


def is_plain(charset: str) -> bool:
    """Whether ASCII bytes are what they are in ASCII.

    :param charset: the charset parameter of a Content-Type; ``""`` where there is none.
    :raises Unreadable: if there is no such charset.
    """
    return _extends_ascii(_codec(charset or "us-ascii"))


def read_text(data: bytes, charset: str) -> Text:
    """The text of a body.

    :param data: the body without its transfer encoding.
    :param charset: the charset parameter of its Content-Type; ``""`` where there is none.
    :raises Unreadable: if nobody can say where its markup is.
    """
    # A byte order mark outweighs what the header says (WHATWG Encoding, "decode").
    codec = next((name for mark, name in _BOMS if data.startswith(mark)), "") or _codec(charset or "us-ascii")
    if data.isascii() and _extends_ascii(codec):
        return Text(data, data.decode("ascii"), codec, bytewise=True)
    try:
        text = data.decode(codec)
        if text.encode(codec) == data:
            return Text(data, text, codec)
    except UnicodeError:
        pass  # not what it says it is: below
    if not _extends_ascii(codec):
        raise Unreadable(f"its body is not valid {codec}")
    return Text(data, data.decode("latin-1"), "latin-1", bytewise=True, faithful=False)


def _codec(charset: str) -> str:
    try:
        info = codecs.lookup(charset)
        "".encode(info.name)  # raises for what is a codec, but of bytes or of text only
    except (LookupError, ValueError):
        info = None
    if info is None or info.name in _NO_CHARSETS:
        raise Unreadable(f"its charset {charset!r} is not known")
    return info.name


def _common_length(one: bytes, other: bytes) -> int:
    """How many bytes two texts begin with alike."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


@lru_cache(maxsize=128)
def _extends_ascii(codec: str) -> bool:
    try:
        return _ASCII_AND_ESCAPES.decode(codec) == _ASCII_AND_ESCAPES.decode("ascii")
    except UnicodeError:
        return False
