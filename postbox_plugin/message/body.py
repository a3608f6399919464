"""The body of one HTML part: its text, through charset and transfer encoding, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postbox_plugin.links.rewrite import MAX_LINK, Edit
from postbox_plugin.message import transfer
from postbox_plugin.message.charsets import read_text

__all__ = ["HtmlBody"]


class HtmlBody:
    """The body of an inline HTML part.

    :param encoded: the body as it stands in the message.
    :param encoding: its Content-Transfer-Encoding.
    :param charset: the charset parameter of its Content-Type; ``""`` without one.
    :raises Unreadable: if it cannot be read safely.
    :ivar html: its text.
    :ivar faithful: whether a character that is not ASCII is what its author wrote.
    :ivar longest_link: the most characters that a new link may have here: a line of it must fit where lines are not
        encoded.
    """

    __slots__ = ("_encoded", "_encoding", "_text", "faithful", "html", "longest_link")

    def __init__(self, encoded: bytes, encoding: str, charset: str) -> None:
        self._encoded: Final = encoded
        self._encoding: Final = encoding.strip().lower()
        self._text: Final = read_text(transfer.decode(encoded, self._encoding), charset.strip().lower())
        self.html: Final = self._text.text
        self.faithful: Final = self._text.faithful
        self.longest_link: Final = MAX_LINK if self._encoding in ("base64", "quoted-printable") else transfer.MAX_LINE

    def spliced(self, edits: Sequence[Edit]) -> bytes:
        """The body with changes made to its text, and everything else as it was."""
        return transfer.splice(self._encoded, self._encoding, self._text.byte_edits(edits))

    def replaced(self, html: str) -> bytes:
        """The body with another text.

        :raises Unreadable: if the text does not fit its transfer encoding.
        """
        return transfer.encode(self._text.encode(html), self._encoding, self._encoded)
