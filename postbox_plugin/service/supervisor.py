"""Tells the supervisor that started the service how it is doing: systemd's protocol, ``sd_notify(3)``."""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["VARIABLE", "tell"]

VARIABLE = "NOTIFY_SOCKET"
"""The environment variable that names the socket; only the process that was started is to use it."""

_log = logging.getLogger("postbox.service")


def tell(state: str) -> None:
    """Send one state, ``READY=1`` or ``STOPPING=1``; does nothing where no supervisor asked for it.

    :param state: see ``sd_notify(3)``.
    """
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as supervisor:
            # "@" stands for the null byte that an address in Linux's abstract namespace begins with.
            supervisor.connect("\0" + address[1:] if address.startswith("@") else address)
            supervisor.sendall(state.encode())
    except OSError as error:
        _log.warning("the supervisor behind %s=%s does not listen: %s", VARIABLE, address, error)
