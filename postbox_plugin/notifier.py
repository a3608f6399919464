"""A plugin's click hook with its own concurrency, timeout and threads, so that no notifier can hold up another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from postbox_plugin.click import Click

__all__ = ["Notifier"]

Hook = Callable[[], Awaitable[None] | None]

MAX_THREADS: Final = 32


class Notifier:
    """One notifier: its hooks, and how they are called.

    A synchronous hook runs in threads of this notifier's own, at most ``concurrency`` and never more than 32. No
    thread can be stopped: a call that overran its timeout keeps its thread, and the next call waits until one is free.

    :param name: its name in the settings; its clicks wait in the outbox under this name.
    :param click: takes a click; returning means that it was taken, raising means "again later". Sync, async, or sync
        with an awaitable as its result.
    :param start: called before the first click; sync or async.
    :param stop: called after the last click; sync or async.
    :param concurrency: the most calls in flight at once.
    :param timeout: seconds after which a call is given up.
    :param retry_for: seconds after the first failure at which a click goes to the dead letters.
    """

    def __init__(
        self,
        name: str,
        *,
        click: Callable[[Click], Awaitable[None] | None],
        start: Hook | None = None,
        stop: Hook | None = None,
        concurrency: int = 64,
        timeout: float = 30.0,
        retry_for: float = 3 * 86400.0,
    ) -> None:
        self.name: Final = name
        self.concurrency: Final = concurrency
        self.timeout: Final = timeout
        self.retry_for: Final = retry_for
        self._click = click
        self._start = start
        self._stop = stop
        self._threads: _Threads | None = None

    async def start(self) -> None:
        """Call the start hook.

        :raises Exception: whatever the hook raises.
        :raises TimeoutError: if it takes longer than ``timeout``.
        """
        if self._start is not None:
            await self._call(self._start)

    async def stop(self) -> None:
        """Call the stop hook, and let idle threads go.

        :raises Exception: whatever the hook raises.
        :raises TimeoutError: if it takes longer than ``timeout``.
        """
        try:
            if self._stop is not None:
                # In a thread of its own: the others may all be stuck.
                self._let_go()
                await self._call(self._stop)
        finally:
            self._let_go()

    async def deliver(self, click: Click) -> None:
        """Call the click hook with one click.

        :raises Exception: whatever the hook raises.
        :raises TimeoutError: if it takes longer than ``timeout``.
        """
        await self._call(self._click, click)

    async def _call(self, hook: Callable[..., Any], *arguments: Any) -> None:
        try:
            if _is_async(hook):
                async with self._time_limit():
                    await hook(*arguments)
            else:
                await self._call_in_thread(hook, *arguments)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("something within the hook was cancelled") from None
        except SystemExit as error:
            # Let through, it would end the whole service.
            raise RuntimeError(f"the hook called sys.exit({error.code!r})") from None

    async def _call_in_thread(self, hook: Callable[..., Any], *arguments: Any) -> None:
        if self._threads is None:
            self._threads = _Threads(self.name, min(self.concurrency, MAX_THREADS))
        # The wait for a thread is not the hook's time.
        future = await self._threads.submit(hook, *arguments)
        async with self._time_limit():
            result = await future
            if inspect.isawaitable(result):
                await result

    @contextlib.asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[None]:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"no answer within {self.timeout:g} s") from None
            raise

    def _let_go(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.close()


def _is_async(hook: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None))  # noqa: B004


class _Threads:
    """Threads for one notifier, made when they are needed.

    Not a ThreadPoolExecutor: that one waits for its threads when Python exits, for ever if one of them hangs.

    :param name: whose threads they are.
    :param limit: the most threads.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(limit)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._made = 0
        self._busy = 0

    async def submit(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Wait for a free thread and run ``function`` in it; the result is its future."""
        await self._free.acquire()
        future: asyncio.Future[Any] = self._loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            result, error = None, None
            try:
                result = context.run(function, *arguments)
            except BaseException as raised:
                error = raised
            # The loop may be gone when a stuck call comes back at last: then nobody waits for it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._done, future, result, error)

        self._busy += 1
        self._work.put(work)
        if self._busy > self._made:
            self._made += 1
            threading.Thread(target=self._run, name=f"postbox-{self._name}-{self._made}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let every thread end after the call it is at."""
        for _ in range(self._made):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _done(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._busy -= 1
        self._free.release()
        if future.done():
            if inspect.iscoroutine(result):
                # It came too late to be awaited.
                result.close()
        elif isinstance(error, StopIteration | SystemExit | KeyboardInterrupt | asyncio.CancelledError):
            # A future cannot carry the first, and the others would be taken for ours.
            future.set_exception(RuntimeError(f"the hook raised {type(error).__name__}: {error}"))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
