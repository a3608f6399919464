"""The spool folder, and who owns which outbox file in it.

``outbox-0.db``, ``outbox-1.db`` ... are one for each process. A process takes the first that nobody holds, so that
what a dead one left behind is adopted. A lock is an ``flock`` on the ``.lock`` file beside it: the kernel takes it
back from the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from postbox_plugin.errors import OutboxError

__all__ = ["Slot", "door", "slots", "take_slot"]

log = logging.getLogger("postbox.outbox")

DOOR_WAIT: Final = 10.0
POLL: Final = 0.02


class Slot:
    """One outbox file, its lock and its socket.

    :param spool: the folder.
    :param number: which of its files, from 0.
    """

    def __init__(self, spool: Path, number: int) -> None:
        self.number: Final = number
        self.file: Final = spool / f"outbox-{number}.db"
        self.socket: Final = spool / f"outbox-{number}.sock"
        self._lock = spool / f"outbox-{number}.lock"
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Become its owner; whether that was possible."""
        self._descriptor = _flock(self._lock)
        return self._descriptor is not None

    def release(self) -> None:
        """Let others have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def slots(spool: Path) -> list[Slot]:
    """All outbox files of a spool, in the order of their numbers."""
    numbers = (path.stem.removeprefix("outbox-") for path in spool.glob("outbox-*.db"))
    return [Slot(spool, number) for number in sorted(int(text) for text in numbers if text.isdecimal())]


def take_slot(spool: Path) -> Slot:
    """Make the spool where it is missing, and become the owner of the first free outbox file in it.

    :raises OutboxError: if the folder cannot be made or written to.
    """
    try:
        _make(spool)
        with door(spool):
            number = 0
            while not (slot := Slot(spool, number)).take():
                number += 1
            return slot
    except OSError as error:
        raise OutboxError(f"the spool {spool} cannot be used: {error}") from error


@contextlib.contextmanager
def door(spool: Path, wait: float = DOOR_WAIT) -> Iterator[None]:
    """Hold the spool's door: nobody else takes an outbox file meanwhile.

    A service holds it for the moment in which it looks for a free file; a command holds it all the time that it works
    on a file, for otherwise a service that starts in that time would pass over this file and its clicks.

    :raises OutboxError: if somebody else holds it for longer than ``wait`` seconds.
    :raises OSError: if the folder cannot be written to.
    """
    deadline = time.monotonic() + wait
    while (descriptor := _flock(spool / "outbox.lock")) is None:
        if time.monotonic() > deadline:
            raise OutboxError(f"another `postbox outbox` command is at work in {spool}: try again when it is done")
        time.sleep(POLL)
    try:
        yield
    finally:
        os.close(descriptor)


def _make(spool: Path) -> None:
    spool.parent.mkdir(parents=True, exist_ok=True)
    try:
        spool.mkdir(mode=0o700)
    except FileExistsError:
        # Whoever made it may have had reasons, so its mode is left alone. The files in it are private in any case.
        if spool.stat().st_mode & 0o077:
            log.warning("the spool %s is open to other users: chmod 700 %s", spool, spool)


def _flock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
