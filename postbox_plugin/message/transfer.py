"""Transfer encodings (RFC 2045, section 6): what is in a body, and changing it where it stands.

A change writes anew what holds it and nothing else: of quoted-printable the lines it lies on, of base64 the whole,
in lines as long as they were, of the others just its bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections import deque
from collections.abc import Iterator, Sequence
from typing import AnyStr, Final

from postbox_plugin.message.charsets import ByteEdit, Unreadable

__all__ = ["MAX_LINE", "decode", "encode", "is_plain", "splice", "splice_plain"]

_Edit = tuple[int, int, AnyStr]

_IDENTITY: Final = ("", "7bit", "8bit", "binary")
_WHITE_SPACE: Final = string.whitespace.encode("ascii")
_BASE64_LINES = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
MAX_LINE: Final = 998
"""The longest line, in bytes, without its line ending (RFC 5322, 2.1.1)."""

_ENCODED_LINE: Final = 76  # RFC 2045, 6.7, rule 5, and 6.8
_SOFT_BREAK: Final = re.compile(rb"=\r?\n\Z")
# RFC 2045, 6.7, rule 3, has the white space deleted, which makes a soft line break of it; most decoders do not.
_AMBIGUOUS_BREAK: Final = re.compile(rb"=(?:[ \t]+\r?\n|\r(?!\n))")
_TO_BE_QUOTED: Final = re.compile(rb"[^\t\x20-\x3c\x3e-\x7e]")


def is_plain(encoding: str) -> bool:
    """Whether a transfer encoding leaves the content as it is."""
    return encoding in _IDENTITY


def decode(body: bytes, encoding: str) -> bytes:
    """The content of a body.

    :param body: the body as it stands in the message.
    :param encoding: its Content-Transfer-Encoding, in lower case; ``""`` where there is none.
    :raises Unreadable: if it is not in that encoding, or there is no such encoding.
    """
    if encoding in _IDENTITY:
        return body
    if encoding == "base64":
        compact = body.translate(None, _WHITE_SPACE)
        if compact and not (_BASE64_LINES.fullmatch(compact) and len(compact) % 4 == 0):
            raise Unreadable("its body is not valid base64")
        return binascii.a2b_base64(compact)
    if encoding == "quoted-printable":
        if _AMBIGUOUS_BREAK.search(body):
            raise Unreadable("its quoted-printable lines end in a way that decoders disagree on")
        return binascii.a2b_qp(body)
    raise Unreadable(f"its transfer encoding {encoding!r} is not known")


def encode(content: bytes, encoding: str, like: bytes) -> bytes:
    """Other content in the place of a body.

    :param content: the new content.
    :param encoding: the transfer encoding.
    :param like: the body that stood there, for its line length and line ending.
    :raises Unreadable: if the content does not fit the encoding.
    """
    if encoding == "base64":
        return _base64(content, like)
    if encoding == "quoted-printable":
        newline = _newline(like)
        return newline.join(_qp(line.removesuffix(b"\r"), newline) for line in content.split(b"\n"))
    if encoding in ("", "7bit") and not content.isascii():
        raise Unreadable("the new HTML is not ASCII, and its part is 7bit")
    return content


def splice(body: bytes, encoding: str, edits: Sequence[ByteEdit]) -> bytes:
    """A body with changes made to its content.

    :param body: the body as it stands in the message.
    :param encoding: its transfer encoding.
    :param edits: the changes, in order, without overlap, at offsets of the content that :func:`decode` returned.
    """
    if encoding == "quoted-printable":
        return _splice_qp(body, edits)
    if encoding == "base64":
        return _base64(_spliced(decode(body, encoding), edits), body)
    return splice_plain(body, edits)


def splice_plain(body: AnyStr, edits: Sequence[_Edit[AnyStr]]) -> AnyStr:
    """The same of a body without a transfer encoding: of its bytes, or, if it is ASCII, of its text."""
    line_feed = _line_feed(body)
    pieces: list[AnyStr] = []
    position = 0
    # While they are put together, the lines are measured: as a rule none is too long, and the body is done. `line` is
    # how long the line is by now that a value stands on; at the most, for no value's own line ends count.
    line = 0
    for start, end, new in edits:
        kept = body[position:start]
        last_break = kept.rfind(line_feed)
        if last_break < 0:
            line += len(kept) + len(new)
        elif line + kept.find(line_feed) > MAX_LINE:
            break
        else:
            line = len(kept) - last_break - 1 + len(new)
        pieces += (kept, new)
        position = end
    else:
        rest = body[position:]
        first_break = rest.find(line_feed)
        if line + (len(rest) if first_break < 0 else first_break) <= MAX_LINE:
            pieces.append(rest)
            return body[:0].join(pieces)
    return _spliced(body, _within_lines(body, edits))


def _spliced(content: AnyStr, edits: Sequence[_Edit[AnyStr]]) -> AnyStr:
    pieces: list[AnyStr] = []
    position = 0
    for start, end, new in edits:
        pieces += (content[position:start], new)
        position = end
    pieces.append(content[position:])
    return content[:0].join(pieces)


def _within_lines(body: AnyStr, edits: Sequence[_Edit[AnyStr]]) -> list[_Edit[AnyStr]]:
    """The edits, with line breaks around the new values where a line would become longer than a mail server has to
    take.

    White space around an address is no part of it (HTML, "valid URL potentially surrounded by spaces"), so a line
    may be broken there. The line was short enough before, hence so is each piece of it between two links.
    """
    line_feed = _line_feed(body)
    kept: list[_Edit[AnyStr]] = []
    passed = 0
    first = 0
    while first < len(edits):
        last, line_end = first, edits[first][0]
        line_start = body.rfind(line_feed, 0, line_end) + 1
        while last < len(edits) and edits[last][0] <= line_end:
            end = edits[last][1]
            if end >= line_end:
                line_end = body.find(line_feed, end)
                if line_end < 0:
                    line_end = len(body)
            last += 1
        if _outgrows(body[line_start:line_end], line_start, edits[first:last]):
            kept += edits[passed:first]
            kept += _on_lines_of_their_own(body, edits[first:last])
            passed = last
        first = last
    kept += edits[passed:]
    return kept


def _on_lines_of_their_own(body: AnyStr, edits: Sequence[_Edit[AnyStr]]) -> Iterator[_Edit[AnyStr]]:
    line_feed, newline = _line_feed(body), _newline(body)
    for start, end, new in edits:
        # Where an attribute goes that went over a line's end, so does what parted two lines.
        removed = newline if line_feed in body[start:end] else body[:0]
        yield start, end, newline + new + newline if new else removed


def _outgrows(lines: AnyStr, offset: int, edits: Sequence[_Edit[AnyStr]]) -> bool:
    """Whether the edits make one of these lines too long that was not. ``offset`` is where the lines begin."""
    if any(isinstance(new, bytes) and b"\0" in new for _, _, new in edits):  # a text in UTF-16 has no lines of bytes
        return False
    grown = _spliced(lines, [(start - offset, end - offset, new) for start, end, new in edits])
    return _longest_line(lines) <= MAX_LINE < _longest_line(grown)


def _longest_line(lines: AnyStr) -> int:
    carriage_return: AnyStr = "\r" if isinstance(lines, str) else b"\r"
    return max(len(line.removesuffix(carriage_return)) for line in lines.split(_line_feed(lines)))


def _line_feed(like: AnyStr) -> AnyStr:
    return "\n" if isinstance(like, str) else b"\n"


def _newline(body: AnyStr) -> AnyStr:
    """The line ending of a body: that of its first line."""
    line_feed, crlf = ("\n", "\r\n") if isinstance(body, str) else (b"\n", b"\r\n")
    end = body.find(line_feed)
    return crlf if end > 0 and body[end - 1 : end + 1] == crlf else line_feed


def _base64(content: bytes, like: bytes) -> bytes:
    lines = like.split()
    length = max(map(len, lines)) if len(lines) > 1 else _ENCODED_LINE
    text = base64.b64encode(content)
    trailing = like[len(like.rstrip()) :]
    return _newline(like).join(text[start : start + length] for start in range(0, len(text), length)) + trailing


def _splice_qp(body: bytes, edits: Sequence[ByteEdit]) -> bytes:
    lines = body.split(b"\n")
    lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    contents = [binascii.a2b_qp(line) for line in lines]
    if b"".join(contents) != binascii.a2b_qp(body):
        raise Unreadable("its quoted-printable lines depend on one another")
    starts = [0]
    for content in contents:
        starts.append(starts[-1] + len(content))
    newline = _newline(body)
    written: list[bytes] = []
    line = 0
    pending = deque(edits)
    while pending:
        while starts[line + 1] <= pending[0][0] and line + 1 < len(lines):
            written.append(lines[line])
            line += 1
        # The lines that hold this edit, and every further edit that begins on one of them.
        first, here = line, [pending.popleft()]
        while True:
            while starts[line + 1] < here[-1][1]:
                line += 1
            if not pending or pending[0][0] >= starts[line + 1]:
                break
            here.append(pending.popleft())
        line += 1
        written.append(_qp_block(lines[first:line], contents[first:line], starts[first], here, newline))
    written += lines[line:]
    return b"".join(written)


def _qp_block(
    lines: Sequence[bytes], contents: Sequence[bytes], start: int, edits: Sequence[ByteEdit], newline: bytes
) -> bytes:
    """Some lines of quoted-printable written anew, with the edits made. ``start`` is the offset of their content.

    Where a line of the content ended, it ends again as it did; where only a line of the encoding ended, nothing
    needs to.
    """
    content = b"".join(contents)
    breaks: list[tuple[int, bytes]] = []
    position = 0
    for line, decoded in zip(lines, contents, strict=True):
        position += len(decoded)
        if line.endswith(b"\n") and not _SOFT_BREAK.search(line):
            breaks.append((position, b"\r\n" if line.endswith(b"\r\n") else b"\n"))
    written: list[bytes] = []
    run: list[bytes] = []
    position = passed = 0
    for at, end, new in (*edits, (start + len(content), start + len(content), b"")):
        while passed < len(breaks) and breaks[passed][0] <= at - start:
            mark, ending = breaks[passed]
            passed += 1
            if mark > position:  # it did not lie within the edit before
                run.append(content[position:mark])
                written.append(_qp(b"".join(run).removesuffix(ending), newline) + ending)
                run = []
                position = mark
        run += (content[position : at - start], new)
        position = end - start
    rest = b"".join(run)
    if rest:  # the last line's end was a soft break, or lay within an edit
        written.append(_qp(rest, newline) + (b"=" + newline if lines[-1].endswith(b"\n") else b""))
    return b"".join(written)


def _qp(content: bytes, newline: bytes) -> bytes:
    """Content without a line break of its own as quoted-printable, in lines of at most 76 characters."""
    quoted = _TO_BE_QUOTED.sub(_quoted, content)
    if quoted.endswith((b" ", b"\t")):
        quoted = quoted[:-1] + b"=%02X" % quoted[-1]
    lines: list[bytes] = []
    start = 0
    room = _ENCODED_LINE - 1  # for the "=" of a soft break
    while len(quoted) - start > room:
        end = start + room
        cut = quoted.find(b"=", end - 2, end)  # a soft break does not part "=3D"
        lines.append(quoted[start : end if cut < 0 else cut])
        start += len(lines[-1])
    lines.append(quoted[start:])
    return (b"=" + newline).join(lines)


def _quoted(match: re.Match[bytes]) -> bytes:
    return b"=%02X" % match[0][0]
