"""The sockets that the service listens on, and the certificate it shows."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

from tornado.netutil import bind_sockets

from postbox_plugin.errors import SettingsError
from postbox_plugin.settings import ServeSettings

__all__ = ["Listening", "bind", "certificate", "inherited", "listen"]


class Listening(NamedTuple):
    """One address that is listened on.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: the host as it was set.
    :ivar sockets: what is bound to it: one for each address that the host has.
    """

    scheme: str
    host: str
    sockets: Sequence[socket.socket]

    @property
    def address(self) -> str:
        """The address with the port that was bound, which may have been chosen by the system."""
        return f"{self.scheme}://{self.host}:{self.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Close the sockets."""
        for one in self.sockets:
            one.close()


def listen(settings: ServeSettings) -> list[Listening]:
    """Bind the sockets that the settings name.

    :raises SettingsError: if an address cannot be listened on.
    """
    bound: list[Listening] = []
    for scheme, where in (("http", settings.http), ("https", settings.https)):
        if where:
            try:
                bound.append(bind(scheme, where, scheme))
            except SettingsError:
                for one in bound:
                    one.close()
                raise
    return bound


def bind(scheme: str, where: str, setting: str) -> Listening:
    """Bind the sockets of one address.

    :param where: ``host:port``.
    :param setting: the setting in ``[serve]`` that says so.
    :raises SettingsError: if it cannot be listened on.
    """
    host, _, port = where.rpartition(":")
    try:
        return Listening(scheme, host, bind_sockets(int(port), host.strip("[]")))
    except OSError as error:
        problem = f"cannot listen on {where} ({error.strerror or error})"
        fix = "Choose an address of this machine and a free port"
        raise SettingsError(f"serve.{setting}", problem, fix) from error


class _Shared(socket.socket):
    """A socket that other processes listen on too: it takes one connection each time that the loop looks.

    Tornado would take a hundred at once, and leave none to the others.
    """

    _took = False

    def accept(self) -> tuple[socket.socket, Any]:
        self._took = not self._took
        if not self._took:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError:
            self._took = False
            raise


def inherited(scheme: str, host: str, descriptors: Sequence[int]) -> Listening:
    """Sockets that the parent process bound.

    :param descriptors: their file descriptors.
    """
    sockets: list[socket.socket] = [_Shared(fileno=descriptor) for descriptor in descriptors]
    for one in sockets:
        one.set_inheritable(False)
    return Listening(scheme, host, sockets)


def certificate(settings: ServeSettings) -> ssl.SSLContext:
    """What https is served with.

    :raises SettingsError: if the certificate or its key cannot be read.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.cert, settings.key)
    except (OSError, ssl.SSLError) as error:
        problem = f"cannot use the certificate {settings.cert} with the key {settings.key} ({error.strerror or error})"
        raise SettingsError("serve.cert", problem, "Name a certificate chain and its key, both PEM files") from error
    return context
