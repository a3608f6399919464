"""A raw message without the middles of its long bodies: all that a MIME parser needs to find the parts, in a
fraction of the bytes.

Parsing then costs what the structure costs, not what the attachments do.
"""

from __future__ import annotations

import bisect
import re
from typing import Final

__all__ = ["Skeleton"]

MAX_PARTS: Final = 500
MAX_BOUNDARY_LINES: Final = 5000
MAX_HEADER_BYTES: Final = 1 << 20
MAX_PARAMETER_BYTES: Final = 1 << 14
"""The longest Content-Type or Content-Disposition: the time that parsers take for parameters grows with its square."""

_HEAD: Final = 128
_TAIL: Final = 64
_BLANK_LINE = re.compile(rb"\n\r?\n")
_PARAMETERS = re.compile(rb"^Content-(?:Type|Disposition)[ \t]*:(?:[^\n]*+\n[ \t])*+[^\n]*+", re.I | re.M)
_NOT_AT_LINE_END = re.compile(rb"[^\r\n-](?=[^\r\n-])")


class Skeleton:
    """The skeleton of a raw message.

    :param raw: the message.
    :ivar data: the skeleton.
    :ivar problem: why nobody should try to parse this message; ``""`` if one may.
    """

    __slots__ = ("_cuts", "_positions", "data", "problem")

    def __init__(self, raw: bytes) -> None:
        self.data = b""
        self._cuts: list[int] = []
        self._positions: list[int] = []
        self.problem = _why_not_divide(raw)
        if self.problem:
            return
        pieces: list[bytes] = []
        length = removed = position = 0
        while position < len(raw):
            # Nothing between two lines that begin with "--" can be a boundary.
            end = raw.find(b"\n--", position + 1)
            end = len(raw) if end < 0 else end
            cut_from, cut_to = _middle(raw, position, end)
            pieces += (raw[position:cut_from], raw[cut_to:end])
            if cut_to > cut_from:
                self._positions.append(length + cut_from - position)
                removed += cut_to - cut_from
                self._cuts.append(removed)
            length += end - position - (cut_to - cut_from)
            position = end
        self.data = b"".join(pieces)
        self.problem = _why_not_parse(self.data)

    def origin(self, position: int) -> int:
        """Where in the message a position of the skeleton is. No position inside a cut is ever asked for."""
        cut = bisect.bisect_right(self._positions, position - 1)
        return position + (self._cuts[cut - 1] if cut else 0)


def _middle(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """What can go of a section between two boundary lines: the middle of its body, well after the blank line."""
    if end - start <= 2 * (_HEAD + _TAIL):
        return start, start
    blank = _BLANK_LINE.search(raw, start, end)
    if blank is None:
        return start, start
    # Cut inside of lines, so that no new line comes about, least of all one that looks like a boundary.
    head = _NOT_AT_LINE_END.search(raw, blank.end() + _HEAD, end)
    tail = _NOT_AT_LINE_END.search(raw, max(blank.end(), end - _TAIL), end)
    if head is None or tail is None or head.end() >= tail.end():
        return start, start
    return head.end(), tail.end()


def _why_not_divide(raw: bytes) -> str:
    if raw.count(b"\n--") > MAX_BOUNDARY_LINES:
        return f"malformed: more than {MAX_BOUNDARY_LINES} lines that look like boundaries"
    blank = _BLANK_LINE.search(raw)
    if (blank.start() if blank else len(raw)) > MAX_HEADER_BYTES:
        return f"malformed: more than {MAX_HEADER_BYTES} bytes of headers"
    return ""


def _why_not_parse(data: bytes) -> str:
    if data.lower().count(b"boundary=") > MAX_PARTS:
        return f"malformed: more than {MAX_PARTS} multiparts"
    if len(data) > MAX_PARAMETER_BYTES and any(
        len(match[0]) > MAX_PARAMETER_BYTES for match in _PARAMETERS.finditer(data)
    ):
        return f"malformed: more than {MAX_PARAMETER_BYTES} bytes of parameters"
    return ""
