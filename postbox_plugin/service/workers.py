"""Several workers: a parent that binds the sockets, starts processes that inherit them, and starts again what dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from postbox_plugin.errors import PostboxError
from postbox_plugin.service.admin import Admin
from postbox_plugin.service.listening import Listening, certificate, listen
from postbox_plugin.service.supervisor import VARIABLE, tell
from postbox_plugin.settings import Settings

__all__ = ["Orders", "serve_with_workers"]

FIRST_PAUSE: Final = 0.5
"""Seconds before a worker that died is started again; twice as many each time it dies soon again."""
LONGEST_PAUSE: Final = 60.0
HEALTHY: Final = 60.0
"""Seconds of life after which a death is not one of a series."""
KILL_AFTER: Final = 5.0
"""Seconds beyond ``stop_limit`` and ``journal_deadline`` that workers get to end."""

_log = logging.getLogger("postbox.service")


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told.

    :ivar number: which of the workers it is, from 0.
    :ivar config: the settings file; ``""`` for the environment alone.
    :ivar listening: scheme, host and file descriptors of what to listen on.
    :ivar life: the descriptor that ends with the parent.
    :ivar ready: the descriptor to write to when it serves.
    """

    number: int
    config: str
    listening: list[tuple[str, str, list[int]]]
    life: int
    ready: int


async def serve_with_workers(
    settings: Settings,
    config: str,
    *,
    ready: Callable[[list[str]], None] | None = None,
    draining: Callable[[int], None] | None = None,
) -> None:
    """Run ``[serve] workers`` processes until SIGTERM or SIGINT; then let them end, and at a second signal, kill them.

    :param settings: the settings, which the workers read once more.
    :param config: the file that they are in; ``""`` for the environment alone.
    :param ready: called with the addresses that are listened on, once every worker serves.
    :param draining: told, when it stops, how many workers have not ended yet.
    :raises SettingsError: if an address cannot be listened on, or the certificate cannot be read.
    :raises PostboxError: if a worker does not start the first time.
    """
    if settings.serve.https:
        certificate(settings.serve)  # better one error here than one from each worker
    listening = listen(settings.serve)
    loop = asyncio.get_running_loop()
    admin = None
    try:
        admin = Admin(settings)
        supervisor = _Supervisor(settings, config, listening)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        admin.start()
        await supervisor.run(ready, draining)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if admin is not None:
            await admin.stop()
        for one in listening:
            one.close()


class _Supervisor:
    def __init__(self, settings: Settings, config: str, listening: Sequence[Listening]) -> None:
        self._count: Final = settings.serve.workers
        self._limit: Final = settings.stop_limit + settings.journal_deadline + KILL_AFTER
        self._config: Final = config
        self._listening: Final = listening
        self._processes: Final[set[Process]] = set()
        self._stopping: Final = asyncio.Event()
        # Its writing end is open in this process alone.
        self._life, self._life_of_ours = os.pipe()

    def stop(self) -> None:
        """Let the workers end; the second time, end them."""
        number = signal.SIGKILL if self._stopping.is_set() else signal.SIGTERM
        self._stopping.set()
        self._signal(number)

    async def run(self, ready: Callable[[list[str]], None] | None, draining: Callable[[int], None] | None) -> None:
        serving = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        keeping = [asyncio.create_task(self._keep(number, serves)) for number, serves in enumerate(serving)]
        try:
            await asyncio.gather(*serving)
            addresses = [one.address for one in self._listening]
            _log.info("%d workers serve %s", self._count, ", ".join(addresses))
            tell("READY=1")
            if ready is not None and not self._stopping.is_set():
                ready(addresses)
            await self._stopping.wait()
        finally:
            tell("STOPPING=1")
            if not self._stopping.is_set():
                self.stop()
            telling = asyncio.create_task(_tell(keeping, draining)) if draining is not None else None
            _, late = await asyncio.wait(keeping, timeout=self._limit)
            if telling is not None:
                telling.cancel()
            if late:
                _log.error("%d workers did not end within %g s: they are killed", len(self._processes), self._limit)
                self._signal(signal.SIGKILL)
                await asyncio.wait(late)
            for descriptor in (self._life, self._life_of_ours):
                os.close(descriptor)

    async def _keep(self, number: int, serves: asyncio.Future[None]) -> None:
        """One worker, again and again."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._one_life(number, serves)
            if self._stopping.is_set():
                break
            if not serves.done():
                serves.set_exception(PostboxError(f"worker {number} did not start: its log says why"))
                return
            pause = FIRST_PAUSE if loop.time() - started > HEALTHY else pause
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            _log.error("worker %d ended with %s; it is started again in %g s", number, how, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if not serves.done():
            serves.set_result(None)

    async def _one_life(self, number: int, serves: asyncio.Future[None]) -> int:
        is_ready, ready = os.pipe()
        listening = [(one.scheme, one.host, [sock.fileno() for sock in one.sockets]) for one in self._listening]
        orders = Orders(number=number, config=self._config, listening=listening, life=self._life, ready=ready)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "postbox_plugin.service.worker", msgspec.json.encode(orders).decode()),
                pass_fds=(self._life, ready, *(one for _, _, several in listening for one in several)),
                # The supervisor is the parent's to talk to.
                env={name: value for name, value in os.environ.items() if name != VARIABLE},
                # What a terminal sends is for the parent, which tells the workers.
                start_new_session=True,
            )
        finally:
            os.close(ready)
        self._processes.add(process)
        watching = asyncio.create_task(_one_byte(is_ready))
        try:
            if self._stopping.is_set():  # since it was started
                process.terminate()
            if await watching and not serves.done():
                serves.set_result(None)
            return await process.wait()
        finally:
            self._processes.discard(process)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


async def _tell(keeping: Sequence[asyncio.Task[None]], draining: Callable[[int], None]) -> None:
    left = list(keeping)
    while True:
        draining(len(left))
        _, running = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        left = list(running)
        if not left:
            draining(0)
            return


async def _one_byte(descriptor: int) -> bool:
    """Whether somebody writes to a pipe before its last writer is gone."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(descriptor, readable.set_result, None)
    try:
        await readable
        return bool(os.read(descriptor, 1))
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
