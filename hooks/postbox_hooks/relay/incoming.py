"""A message as it comes after DATA (RFC 5321, 4.1.1.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["read_message"]

_LINE: Final = b"\r\n"
_END: Final = b"\r\n.\r\n"


async def read_message(reader: asyncio.StreamReader, limit: int, progress: Callable[[], None]) -> bytes | None:
    """Read up to the line that is a dot, and not one byte further.

    Only CR LF ends a line: whoever takes less can be made to see two mails where others see one.

    :param limit: the most bytes of a message.
    :param progress: called whenever something came.
    :returns: the message without the dots that were put before dots; ``None`` if it is larger than ``limit``.
    """
    pieces: list[bytes] = []
    size = 0

    def keep(piece: bytes) -> None:
        nonlocal size
        progress()
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        else:
            pieces.clear()

    # The line ending before the first line is that of the command, which is read already: line by line, then, for as
    # long as the next one could be the end.
    line = _LINE
    while line.endswith(_LINE):
        line = await reader.readexactly(1)
        if line == b".":
            line += await _up_to(reader, _LINE)
        while line.endswith(b"\r"):
            line += await reader.readexactly(1)
        if line == _END[len(_LINE) :]:
            return _without_dots(pieces, size, limit)
        keep(line)
    while not (piece := await _up_to(reader, _END)).endswith(_END):
        keep(piece)
    keep(piece[: len(_LINE) - len(_END)])
    return _without_dots(pieces, size, limit)


async def _up_to(reader: asyncio.StreamReader, separator: bytes) -> bytes:
    """What comes next, up to and with the separator; without it if there is more than the reader wants to hold."""
    try:
        return await reader.readuntil(separator)
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed)


def _without_dots(pieces: list[bytes], size: int, limit: int) -> bytes | None:
    if size > limit:
        return None
    message = b"".join(pieces)
    pieces.clear()
    return message.removeprefix(b".").replace(b"\r\n.", _LINE)
