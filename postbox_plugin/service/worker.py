"""One worker of ``postbox serve``: a process that serves on sockets which its parent bound.

It is started by ``workers.py``, as ``python -m postbox_plugin.service.worker ORDERS``, and ends with its parent: it
holds the reading end of a pipe whose other end closes when the parent is gone, however it went.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import msgspec

from postbox_plugin.errors import PostboxError
from postbox_plugin.postbox import Postbox
from postbox_plugin.service.listening import inherited
from postbox_plugin.service.logs import log_to_stderr
from postbox_plugin.service.serve import serve
from postbox_plugin.service.workers import Orders


async def _work(orders: Orders) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def parent_is_gone() -> None:
        loop.remove_reader(orders.life)
        stopping.set()

    loop.add_reader(orders.life, parent_is_gone)
    postbox = Postbox.from_file(Path(orders.config)) if orders.config else Postbox.from_env()
    await serve(
        postbox,
        listening=[inherited(*one) for one in orders.listening],
        stopping=stopping,
        ready=lambda _: os.close(orders.ready) if os.write(orders.ready, b"1") else None,
    )


def _main() -> int:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    for descriptor in (orders.life, orders.ready):
        os.set_inheritable(descriptor, False)
    log_to_stderr(f"worker {orders.number} ")
    try:
        asyncio.run(_work(orders))
    except PostboxError as error:
        logging.getLogger("postbox.service").error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
