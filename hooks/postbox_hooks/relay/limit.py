"""Time limits that begin anew with every command, of which there are thousands a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["TimeLimit"]


class TimeLimit:
    """Calls something when a time has passed in which the limit was neither started anew nor stopped.

    A timer of the event loop for each start would take a tenth of the relay's time. Here one timer, when it is due,
    looks whether it still is.

    :param expired: what is called.
    """

    __slots__ = ("_deadline", "_expired", "_loop", "_timer")

    def __init__(self, expired: Callable[[], object]) -> None:
        self._expired: Final = expired
        self._loop: Final = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Begin, or begin anew.

        :param seconds: the time; no shorter than the last one that is still running.
        """
        self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def stop(self) -> None:
        """Wait no more, until the next start."""
        self._deadline = None

    def cancel(self) -> None:
        """Wait no more at all."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._deadline = None
            self._expired()
