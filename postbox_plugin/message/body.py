"""The body of one HTML part: its text, through charset and transfer encoding, and back.

Encoded, a body is text here as ``email.message`` holds it: each byte that is not ASCII is a surrogate escape (PEP 383).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from postbox_plugin.links.rewrite import MAX_LINK, Edit
from postbox_plugin.message import transfer
from postbox_plugin.message.charsets import is_plain, read_text

__all__ = ["HtmlBody", "html_body"]


class HtmlBody(Protocol):
    """The body of an inline HTML part."""

    @property
    def html(self) -> str:
        """Its text."""

    @property
    def faithful(self) -> bool:
        """Whether a character that is not ASCII is what its author wrote."""

    @property
    def longest_link(self) -> int:
        """The most characters that a new link may have here: a line of it must fit where lines are not encoded."""

    def spliced(self, edits: Sequence[Edit]) -> str:
        """The encoded body with changes made to its text, and everything else as it was."""

    def replaced(self, html: str) -> str:
        """The encoded body with another text.

        :raises Unreadable: if the text does not fit its transfer encoding.
        """


def html_body(encoded: str, encoding: str, charset: str) -> HtmlBody:
    """Read the body of an inline HTML part.

    :param encoded: the body as it stands in the message.
    :param encoding: its Content-Transfer-Encoding.
    :param charset: the charset parameter of its Content-Type; ``""`` without one.
    :raises Unreadable: if it cannot be read safely.
    """
    encoding, charset = encoding.strip().lower(), charset.strip().lower()
    if encoded.isascii() and transfer.is_plain(encoding) and is_plain(charset):
        return _Plain(encoded, charset, encoding)
    return _Encoded(encoded, charset, encoding)


class _Encoded:
    """A body in bytes, through charset and transfer encoding."""

    __slots__ = ("_data", "_encoding", "_text", "faithful", "html", "longest_link")

    def __init__(self, encoded: str, charset: str, encoding: str) -> None:
        self._data: Final = encoded.encode("ascii", "surrogateescape")
        self._encoding: Final = encoding
        self._text: Final = read_text(transfer.decode(self._data, encoding), charset)
        self.html: Final = self._text.text
        self.faithful: Final = self._text.faithful
        self.longest_link: Final = transfer.MAX_LINE if transfer.is_plain(encoding) else MAX_LINK

    def spliced(self, edits: Sequence[Edit]) -> str:
        spliced = transfer.splice(self._data, self._encoding, self._text.byte_edits(edits))
        return spliced.decode("ascii", "surrogateescape")

    def replaced(self, html: str) -> str:
        replaced = transfer.encode(self._text.encode(html), self._encoding, self._data)
        return replaced.decode("ascii", "surrogateescape")


class _Plain:
    """A body that is its own text, as most are that were not encoded: no copy of it is made."""

    __slots__ = ("_charset", "_encoding", "html")

    faithful: Final = True
    longest_link: Final = transfer.MAX_LINE

    def __init__(self, encoded: str, charset: str, encoding: str) -> None:
        self._charset: Final = charset
        self._encoding: Final = encoding
        self.html: Final = encoded

    def spliced(self, edits: Sequence[Edit]) -> str:
        return transfer.splice_plain(self.html, edits)

    def replaced(self, html: str) -> str:
        return _Encoded(self.html, self._charset, self._encoding).replaced(html)
