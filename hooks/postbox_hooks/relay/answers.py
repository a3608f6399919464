"""What a mail server says to a command (RFC 5321, 4.2), with enhanced status codes (RFC 3463) where it is us who say
it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["LOST", "UNREACHABLE", "Answer"]


class Answer(NamedTuple):
    """A reply.

    :ivar code: three digits.
    :ivar text: its lines, separated by newlines; what was no UTF-8 is there as surrogates.
    """

    code: int
    text: str

    @property
    def accepts(self) -> bool:
        """Whether the command did what it was to do."""
        return 200 <= self.code < 300

    @property
    def refuses(self) -> bool:
        """Whether it did not, now or for ever."""
        return 400 <= self.code < 600

    @property
    def temporary(self) -> bool:
        """Whether it may do so later."""
        return 400 <= self.code < 500

    def encode(self) -> bytes:
        """As it goes over the wire, but for the last line ending."""
        *lines, last = self.text.split("\n")
        reply = "".join(f"{self.code}-{line}\r\n" for line in lines) + f"{self.code} {last}"
        return reply.encode("utf-8", "surrogateescape")


UNREACHABLE: Final = Answer(451, "4.4.1 The mail server behind this relay cannot be reached; try again later")
LOST: Final = Answer(451, "4.4.2 The connection to the mail server behind this relay was lost; try again later")
