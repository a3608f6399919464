"""The table ``[relay]`` of ``postbox.toml``."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from postbox_plugin.commands import FilePath
from postbox_plugin.errors import SettingsError

__all__ = ["HostAndPort", "Network", "RelaySettings"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")


class HostAndPort(NamedTuple):
    """Where to listen, or to connect to.

    :ivar host: a name or an IP address, without brackets.
    :ivar port: 0 to 65535.
    """

    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """What ``postbox relay`` listens on, who may send, and where the mail goes.

    :param upstream: the mail server that everything goes to, ``host:port``.
    :param upstream_tls: ``starttls``, ``tls`` from the first byte, or ``none``.
    :param upstream_ca_file: a PEM file with the authorities to trust in place of the system's.
    :param upstream_user: who to log in as there; not at all if empty.
    :param upstream_password: the password for it.
    :param listen: where clients connect to, ``host:port``.
    :param listen_tls: how they encrypt: ``starttls``, which they may leave off where no password is asked for, or
        ``tls`` from the first byte (RFC 8314, 3.3; port 465).
    :param cert: the certificate chain for that, a PEM file; STARTTLS is not offered if empty.
    :param key: its private key, a PEM file.
    :param users: who may send, after AUTH: names and passwords.
    :param networks: who may send without. Without ``users`` and ``networks``, this machine.
    :param plaintext_auth: take and send passwords over connections that are not encrypted.
    :param split: send a mail to several recipients as one to each, so that each gets tracking links of their own.
    :param size_limit: the most bytes of a mail.
    :param connections: the most connections to the upstream server, which are the most mails in hand; further clients
        wait.
    :param idle_timeout: seconds that a connection to the upstream server is kept for the next mail.
    :param timeout: seconds to wait for an answer of the upstream server, and for the next command of a client.
    :param hostname: the name of this machine in EHLO and ``Received``; what the system says if empty.
    :raises SettingsError: naming the setting, what is wrong and what to write.
    """

    upstream: str
    upstream_tls: Literal["starttls", "tls", "none"] = "starttls"
    upstream_ca_file: FilePath = ""
    upstream_user: str = ""
    upstream_password: str = field(default="", repr=False)
    listen: str = "127.0.0.1:2525"
    listen_tls: Literal["starttls", "tls"] = "starttls"
    cert: FilePath = ""
    key: FilePath = ""
    users: dict[str, str] = field(default_factory=dict, repr=False)
    networks: Sequence[str] = ()
    plaintext_auth: bool = False
    split: bool = False
    size_limit: int = 32 * 1024 * 1024
    connections: int = 20
    idle_timeout: float = 30.0
    timeout: float = 300.0
    hostname: str = ""

    def __post_init__(self) -> None:
        if self.server.port == 0:
            raise SettingsError("upstream", "has no port", 'Write for example "mail.example.com:587"')
        if self.server == self.address:
            raise SettingsError("upstream", "is where the relay itself listens", "Name the mail server that is to send")
        for name in ("size_limit", "connections", "idle_timeout", "timeout"):
            if not getattr(self, name) > 0:
                raise SettingsError(name, f"{getattr(self, name)!r} is not above zero", "Write a number above zero")
        if bool(self.cert) != bool(self.key):
            missing = "key" if self.cert else "cert"
            raise SettingsError(missing, "is missing", f"TLS needs both: add {missing} = ...")
        if self.listen_tls == "tls" and not self.cert:
            raise SettingsError("cert", 'is missing, and listen_tls = "tls" needs it', "Add cert and key")
        if not self.hostname.isascii() or any(character.isspace() for character in self.hostname):
            raise SettingsError("hostname", f"{self.hostname!r} is not a host name", "Write it in ASCII")
        self._check_passwords()
        self._check_who_may_send()

    @property
    def server(self) -> HostAndPort:
        """The upstream server."""
        return _host_and_port("upstream", self.upstream)

    @property
    def address(self) -> HostAndPort:
        """Where to listen."""
        return _host_and_port("listen", self.listen)

    @property
    def trusted(self) -> tuple[Network, ...]:
        """The networks that may send without AUTH."""
        given = self.networks or (() if self.users else _LOOPBACK)
        return tuple(_network(place, network) for place, network in enumerate(given))

    def _check_passwords(self) -> None:
        if bool(self.upstream_user) != bool(self.upstream_password):
            missing = "upstream_password" if self.upstream_user else "upstream_user"
            raise SettingsError(missing, "is missing", f"To log in, add {missing} = ...")
        if self.plaintext_auth:
            return
        told = "or say plaintext_auth = true where nobody can listen in"
        if self.upstream_user and self.upstream_tls == "none":
            problem = '"none" would send the password for anybody to read'
            raise SettingsError("upstream_tls", problem, f'Write "starttls" or "tls", {told}')
        if self.users and not self.cert:
            raise SettingsError("cert", "is missing, and AUTH needs STARTTLS", f"Add cert and key, {told}")

    def _check_who_may_send(self) -> None:
        """An open relay sends everybody's mail, and is on every block list within a day."""
        for place, network in enumerate(self.trusted):
            if network.prefixlen == 0:
                raise SettingsError(
                    f"networks[{place}]", "would let everybody send", "Name your networks, or users, or both"
                )
        host = self.address.host
        if not (self.users or self.networks or _is_loopback(host)):
            problem = f"{self.listen} is open to other machines, and nobody there may send"
            remedy = 'Name who may, with networks = ["10.0.0.0/8"] or users = { name = "env:PASSWORD" }'
            raise SettingsError("listen", problem, f'{remedy}; or listen on "127.0.0.1:2525"')


def _host_and_port(key: str, text: str) -> HostAndPort:
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (host and colon and port.isdecimal() and int(port) <= 65535) or any(mark in host for mark in "[]/@ "):
        example = "mail.example.com:587" if key == "upstream" else "127.0.0.1:2525"
        raise SettingsError(key, f"{text!r} is not host:port", f'Write for example "{example}"')
    return HostAndPort(host, int(port))


def _network(place: int, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(f"networks[{place}]", str(error), 'Write for example "10.0.0.0/8"') from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
