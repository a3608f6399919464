"""What stands in MAIL and RCPT commands: a path, handed on as it was written, and parameters."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["MAIL", "RCPT", "Addressed", "read"]

# RFC 5321, 4.1.2: quoted strings may hold nearly everything. Brackets are often forgotten, and white space put before
# them, where there is to be none.
_PATH: Final = r'(?:<((?:"(?:[^"\\]|\\.)*"|[^"<>\s])*)>|([^<>\s"]+))'
_COMMAND: Final = r"{0}:[ \t]*" + _PATH + r"(?:[ \t]+([^ \t].*))?[ \t]*"
MAIL: Final = re.compile(_COMMAND.format("FROM"), re.IGNORECASE)
RCPT: Final = re.compile(_COMMAND.format("TO"), re.IGNORECASE)

# RFC 5321, 4.1.2: esmtp-param
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^=\s]\S*))?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Addressed(NamedTuple):
    """A MAIL or RCPT command, read.

    :ivar path: what stands between the brackets; ``""`` for the empty reverse-path of a bounce.
    :ivar parameters: value by name in capitals; ``""`` for one that has none. Values are as they were written.
    """

    path: str
    parameters: dict[str, str]

    @property
    def mailbox(self) -> str:
        """The address alone, without the source route that may be before it (RFC 5321, appendix C)."""
        return self.path.rpartition(":")[2] if self.path.startswith("@") else self.path

    def words(self, verb: str, names: frozenset[str] | None = None) -> list[bytes]:
        """The command as it is sent.

        :param verb: ``MAIL FROM`` or ``RCPT TO``.
        :param names: the parameters to send; all if ``None``.
        """
        parameters = [
            f"{name}={value}" if value else name
            for name, value in self.parameters.items()
            if names is None or name in names
        ]
        return [text.encode("utf-8", "surrogateescape") for text in (f"{verb}:<{self.path}>", *parameters)]


def read(command: re.Pattern[str], argument: str) -> Addressed | None:
    """What follows the verb, read; ``None`` if it is not what the command takes.

    :param command: :data:`MAIL` or :data:`RCPT`.
    :param argument: as it came.
    """
    found = command.fullmatch(argument)
    if found is None or _CONTROL.search(argument):
        return None
    parameters: dict[str, str] = {}
    for text in (found[3] or "").split():
        parameter = _PARAMETER.fullmatch(text)
        if parameter is None or parameter[1].upper() in parameters:
            return None
        parameters[parameter[1].upper()] = parameter[2] or ""
    return Addressed(found[1] if found[1] is not None else found[2], parameters)
