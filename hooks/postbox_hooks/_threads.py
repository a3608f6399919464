"""A thread of one's own, for calls that block."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

__all__ = ["Thread"]

Result = TypeVar("Result")


class Thread:
    """One thread, for calls one after the other. To be made where the loop runs that waits for them.

    Not an executor: those wait for their threads when Python exits, for ever if a disk or a server is stuck.

    :param name: its name.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Call a function in the thread; the future tells how it went."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((future, partial(function, *arguments)))
        return future

    def end(self) -> None:
        """Let the thread end after the calls that were given to it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            result, error = None, None
            try:
                result = function()
            except Exception as raised:
                error = raised
            # The loop may be gone when a stuck call comes back at last: then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            # While it waits for the next call, it holds nothing of this one.
            del call, future, function, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
