"""Files of clicks, as the notifier ``log`` writes them: one JSON object a line, gzipped or not."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from postbox_plugin.errors import PostboxError
from postbox_plugin.stats.aggregate import Aggregation

__all__ = ["STDIN", "BrokenLine", "read_clicks", "total_size"]

STDIN: Final = Path("-")

_BUFFER: Final = 1 << 20
_LINES_A_REPORT: Final = 4096
_GZIP: Final = b"\x1f\x8b"  # RFC 1952, 2.3.1


class BrokenLine(NamedTuple):
    """A line that is no click.

    :ivar file: the file it is in; ``-`` for standard input.
    :ivar line: its number, from 1.
    :ivar problem: what is wrong with it.
    """

    file: str
    line: int
    problem: str


def read_clicks(
    files: Sequence[Path],
    aggregation: Aggregation,
    *,
    broken: Callable[[BrokenLine], None],
    progress: Callable[[int], None],
) -> int:
    """Count the clicks of files. A line that is none is named, and passed over.

    :param files: their paths; ``-`` is standard input.
    :param aggregation: what counts them.
    :param broken: called with each line that is no click.
    :param progress: called now and then with how many bytes of all the files are read.
    :return: how many lines were clicks.
    :raises PostboxError: if a file cannot be read.
    """
    before = clicks = 0
    for path in files:
        with _opened(path) as (file, lines):
            number = 0
            try:
                for number, line in enumerate(lines, 1):
                    try:
                        aggregation.add(line)
                        clicks += 1
                    except ValueError as error:
                        if not line.isspace():
                            broken(BrokenLine(str(path), number, str(error)))
                    if not number % _LINES_A_REPORT and file.seekable():
                        progress(before + file.tell())
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                broken(BrokenLine(str(path), number + 1, f"the rest of the file cannot be unpacked ({error})"))
            before += _size(path)
            progress(before)
    return clicks


def total_size(files: Sequence[Path]) -> int | None:
    """How many bytes all the files have; ``None`` where nobody can say, as of standard input.

    :param files: their paths.
    """
    return None if STDIN in files or not all(path.is_file() for path in files) else sum(map(_size, files))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader[RawIOBase], Iterable[bytes]]]:
    """The file as it is, and unpacked where it is packed: whatever its name says."""
    try:
        raw = sys.stdin.buffer if path == STDIN else path.open("rb", buffering=0)
        file = BufferedReader(cast(RawIOBase, raw), _BUFFER)
        try:
            packed = file.peek(len(_GZIP)).startswith(_GZIP)
            yield file, BufferedReader(_Unpacked(file), _BUFFER) if packed else file
        finally:
            if path == STDIN:
                file.detach()  # which is not ours to close
            else:
                file.close()
    except OSError as error:
        raise PostboxError(f"{path} cannot be read ({error.strerror or error})") from None


class _Unpacked(RawIOBase):
    """What is in a gzipped file. ``GzipFile`` has lines too, but slow ones, and of a file that was cut off it keeps the
    last to itself.
    """

    def __init__(self, file: BufferedReader[RawIOBase]) -> None:
        self._file: Final = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
