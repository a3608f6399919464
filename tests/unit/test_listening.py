"""The sockets of a worker, which others listen on too."""

from __future__ import annotations

import os
import socket

import pytest

from postbox_plugin.service.listening import inherited


def test_a_worker_takes_one_connection_at_a_time() -> None:
    """Then it looks after other things, and another worker may take the next; none is left waiting for ever."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        listening = inherited("http", "127.0.0.1", [os.dup(bound.fileno())])
        (shared,) = listening.sockets
        clients = [socket.create_connection(bound.getsockname()) for _ in range(3)]
        for client in clients:
            connection, address = shared.accept()
            assert address == client.getsockname()
            connection.close()
            with pytest.raises(BlockingIOError):
                shared.accept()
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                shared.accept()
        late = socket.create_connection(bound.getsockname())
        shared.accept()[0].close()
        for client in (*clients, late):
            client.close()
        listening.close()
