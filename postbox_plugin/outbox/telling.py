"""What the log is told of one notifier: enough to know what is wrong, and not a line for each click."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

__all__ = ["Teller", "clean", "describe"]

ERROR_CHARS: Final = 300
TELL_EVERY: Final = 10.0
"""Seconds between lines of the log about one notifier that fails now and then."""

_log = logging.getLogger("postbox.outbox")


class Teller:
    """Tells of one notifier.

    :param name: the notifier's.
    :param clock: a steady time, in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name: Final = name
        self._clock: Final = clock
        self._well_since = 0.0
        self.forget()

    def forget(self) -> None:
        """The next failure is told as if it were the first."""
        self._told_failing, self._told_at = False, -TELL_EVERY

    def fails(self, error: Exception, *, began: float, given_up: bool) -> None:
        """A call failed. Told at the first failure, since somebody may just be trying it out, but not for each of the
        calls that are on their way, nor at each failure of a notifier that fails now and then.

        :param error: what it failed with.
        :param began: when the call began: one that began in an outage says nothing of the time after it.
        :param given_up: whether calls have failed so often that no more are made for a while.
        """
        now = self._clock()
        if began < self._well_since:
            return
        if not self._told_failing and (given_up or now - self._told_at >= TELL_EVERY):
            self._told_failing, self._told_at = True, now
            _log.warning("notifier %s fails: %s. Its clicks are kept, and tried again", self._name, describe(error))

    def works(self) -> None:
        """A call succeeded."""
        if self._told_failing:
            self._told_failing, self._well_since = False, self._clock()
            _log.info("notifier %s takes clicks again", self._name)

    def does_not_start(self, error: Exception) -> None:
        """It could not be started."""
        _log.warning("notifier %s does not start: %s", self._name, describe(error))

    def does_not_stop(self, error: Exception) -> None:
        """It could not be stopped."""
        _log.warning("notifier %s did not stop as it should: %s", self._name, describe(error))

    def is_paused(self, error: Exception) -> None:
        """It asked to be left alone until a person has looked."""
        _log.warning(
            "notifier %s is paused: %s. Its clicks are kept; start it again with: postbox outbox resume %s",
            self._name,
            describe(error),
            self._name,
        )

    def gives_up(self, error: Exception) -> None:
        """A click became a dead letter."""
        _log.warning("notifier %s: a click is given up: %s", self._name, describe(error))

    def cannot_read(self, error: Exception) -> None:
        """Its clicks cannot be read."""
        _log.warning("notifier %s: clicks cannot be read: %s", self._name, error)

    def is_wrong(self, error: BaseException) -> None:
        """Our own code failed."""
        _log.error("the courier of notifier %s failed in a way that it should not", self._name, exc_info=error)


def describe(error: BaseException) -> str:
    """An exception in one short line of clean text."""
    text = " ".join(str(error).split())
    return clean(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def clean(text: str) -> str:
    """Text that the journal takes: a plugin's exception may carry lone surrogates."""
    return text[:ERROR_CHARS].encode(errors="backslashreplace").decode()
