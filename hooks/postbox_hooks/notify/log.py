"""The notifier ``log``: writes each click as one line of JSON, to a file or to a logger::

    [[notify]]
    use = "log"
    path = "clicks.jsonl"

A click is acknowledged once its line is on disk. The file may be rotated at any time, by renaming or by truncating, and
several processes may write to it. A crash can leave half a line behind; what comes next begins on a new line, so
whoever reads the file passes over a line that is not JSON.

Without ``path``, clicks go to the logger ``postbox.clicks`` at level INFO. A logger does not say what became of a
record, so they count as delivered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from postbox_hooks._batches import Batches
from postbox_hooks._threads import Thread
from postbox_plugin import Click, hookimpl

__all__ = ["LogNotifier"]

_clicks = logging.getLogger("postbox.clicks")
_log = logging.getLogger("postbox.notify")

# macOS has no fdatasync; there, fsync is the nearest.
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class LogNotifier:
    """Writes each click as one line of JSON. Clicks that wait at the same time share one write and one sync.

    :param path: the file to append to, made with mode 0640 if it is missing; relative to the working directory. If left
        empty, the logger ``postbox.clicks`` gets the clicks.
    """

    def __init__(self, *, path: str = "") -> None:
        self._sink: Final[_Sink] = _File(Path(path)) if path else _Logger()
        self._thread: Thread | None = None
        self._lines: Batches[bytes] | None = None

    @hookimpl
    async def postbox_start(self) -> None:
        """Open the file.

        :raises OSError: if it cannot be opened for appending.
        """
        thread = Thread("postbox-log")
        try:
            await thread.call(self._sink.open)
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        self._lines = Batches(self._append, [thread])

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the file."""
        if self._thread is not None and self._lines is not None:
            closed = self._thread.call(self._sink.close)
            self._lines.close()
            self._thread = self._lines = None
            await closed

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Write one click.

        :raises OSError: if its line could not be written and synced.
        """
        assert self._lines is not None, "postbox_start comes first"
        await self._lines.put(click.to_json() + b"\n")

    def _append(self, lines: Sequence[bytes]) -> list[None]:
        self._sink.append(lines)
        return [None] * len(lines)


class _Sink(Protocol):
    """Where lines go; called in one thread, never in two at once."""

    def open(self) -> None: ...
    def append(self, lines: Collection[bytes]) -> None: ...
    def close(self) -> None: ...


class _Logger:
    """The logger ``postbox.clicks``."""

    def open(self) -> None:
        if not (_clicks.isEnabledFor(logging.INFO) and _clicks.hasHandlers()):
            _log.warning(
                "the notifier log has no path, and the logger postbox.clicks drops what it is given: "
                "set a path, or set the logger to INFO and give it a handler"
            )

    def append(self, lines: Collection[bytes]) -> None:
        for line in lines:
            _clicks.info("%s", line.decode().rstrip())

    def close(self) -> None:
        """Nothing is open."""


class _File:
    """A file of lines that others may append to, rename, remove or truncate at any time.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def open(self) -> None:
        """Open it, and make it if there is none.

        :raises OSError: if it cannot be opened for reading and appending.
        """
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "Not a regular file; leave path out to use a logger", str(self._path))
        if status.st_size == 0:
            # Its name must last as well. A folder that we may not read is one that we cannot sync.
            with contextlib.suppress(PermissionError):
                _sync_folder(self._path.parent)

    def append(self, lines: Collection[bytes]) -> None:
        """Append lines: all of them, or none as far as that is in our power.

        :raises OSError: if they are not on disk.
        """
        try:
            with self._locked():
                self._append(b"".join(lines))
        except OSError as error:
            # Whatever is wrong may be wrong with this descriptor only.
            self.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        """Close it, which unlocks it too."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the file that bears the name now; other processes that write here take it too."""
        for _ in range(10):
            if self._descriptor < 0:
                self.open()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if self._is_in_place():
                break
            self.close()
        else:
            raise OSError(errno.ESTALE, "Renamed or removed again and again")
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            # Half a line, from a process that died: it may be all there is of a click, so it is not ours to remove.
            data = b"\n" + data
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            # These clicks will come again. Where not even this works, the next line begins on a new one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        _sync(self._descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
