"""What can go wrong, as exceptions that a caller can tell apart.

Every exception that this project raises on purpose is a :class:`PostboxError`. None of them ever reaches the reader
of a mail, and none stops a mail: see the promises in README.md.
"""

from __future__ import annotations

__all__ = [
    "InvalidToken",
    "MissingExtra",
    "OutboxError",
    "PauseNotifier",
    "PluginError",
    "PostboxError",
    "RetryLater",
    "SettingsError",
]


class PostboxError(Exception):
    """The base of all errors of this project."""


class SettingsError(PostboxError, ValueError):
    """A setting is missing, unknown, of the wrong type or out of range.

    :param key: the setting, as the user writes it (``serve.http``, ``notify[1].url``).
    :param problem: what is wrong with it.
    :param remedy: what to write instead.
    :param where: the file, environment variable or call that the setting came from.
    """

    def __init__(self, key: str, problem: str, remedy: str, where: str = "Settings") -> None:
        super().__init__(key, problem, remedy, where)
        self.key = key
        self.problem = problem
        self.remedy = remedy
        self.where = where

    def at(self, where: str, prefix: str = "") -> SettingsError:
        """The same error, of another place.

        :param where: the file, environment variable or call that the setting came from.
        :param prefix: what goes before its key: ``serve.``.
        """
        return SettingsError(prefix + self.key, self.problem, self.remedy, where)

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.problem}. {self.remedy}"


class PluginError(PostboxError):
    """A plugin cannot be used: it says which one, why, and what to write instead."""


class MissingExtra(PluginError, ImportError):
    """A plugin needs a library that is not installed.

    :param user: what needs it, for example ``the demo``.
    :param library: the library that could not be imported.
    :param extra: the extra of this distribution that brings it.
    """

    def __init__(self, user: str, library: str, extra: str) -> None:
        super().__init__(f'{user} needs {library}, which is not installed: run  pip install "postbox-plugin[{extra}]"')


class InvalidToken(PostboxError):
    """A tracking link does not open: forged, cut, altered, or sealed with a key that is not in the ring.

    :param message: what is wrong with it.
    :param key_id: the id of the missing key, where the token is well-formed and no key of the ring has that id; else
        ``""``.
    """

    def __init__(self, message: str, key_id: str = "") -> None:
        super().__init__(message)
        self.key_id = key_id


class OutboxError(PostboxError):
    """The outbox cannot be opened, read or written."""


class RetryLater(PostboxError):
    """Raised by a notifier that could not take a click now and knows when to try again.

    :param after: seconds to wait before the next try. The notifier's own retry schedule still applies where it waits
        longer.
    :param reason: what to show in ``postbox outbox status``.
    """

    def __init__(self, after: float, reason: str = "") -> None:
        super().__init__(reason or f"asked to try again after {after:g} s")
        self.after = after


class PauseNotifier(PostboxError):
    """Raised by a notifier that no click can reach until a person has looked (a webhook that answers 410 Gone).

    Its clicks are kept. ``postbox outbox resume NAME`` starts it again.
    """
