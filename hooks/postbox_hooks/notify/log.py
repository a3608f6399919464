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

import asyncio
import contextlib
import copy
import errno
import fcntl
import logging
import os
import queue
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

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
        self._waiting: dict[asyncio.Future[None], bytes] = {}
        self._thread: _Thread | None = None
        self._busy = False

    @hookimpl
    async def postbox_start(self) -> None:
        """Open the file.

        :raises OSError: if it cannot be opened for appending.
        """
        thread = _Thread()
        try:
            await thread.call(self._sink.open)
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        self._busy = False

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the file."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            closed = thread.call(self._sink.close)
            thread.end()
            await closed

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Write one click.

        :raises OSError: if its line could not be written and synced.
        """
        assert self._thread is not None, "postbox_start comes first"
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            # Not at once: what else comes in this turn of the loop shares the write.
            loop.call_soon(self._write)
        self._waiting[written] = click.to_json() + b"\n"
        try:
            await written
        finally:
            # Whoever gives up before the write will bring the click again.
            self._waiting.pop(written, None)

    def _write(self) -> None:
        if self._waiting and not self._busy and self._thread is not None:
            batch, self._waiting = self._waiting, {}
            self._busy = True
            done = self._thread.call(self._sink.append, batch.values())
            done.add_done_callback(partial(self._written, batch))

    def _written(self, batch: Collection[asyncio.Future[None]], done: asyncio.Future[None]) -> None:
        self._busy = False
        error = done.exception()
        for written in batch:
            if written.done():
                continue
            if error is None:
                written.set_result(None)
            else:
                # One each, for an exception gathers the traceback of everyone it is raised to.
                written.set_exception(copy.copy(error))
        self._write()


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


class _Thread:
    """One thread, for calls one after the other.

    Not an executor: those wait for their threads when Python exits, for ever if a disk is stuck.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[None], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="postbox-log", daemon=True).start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[None]:
        """Call a function in the thread; the future tells how it went."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._calls.put((future, partial(function, *arguments)))
        return future

    def end(self) -> None:
        """Let the thread end after the calls that were given to it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            error = None
            try:
                function()
            except Exception as raised:
                error = raised
            # The loop may be gone when a stuck disk comes back at last: then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, future, error)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
