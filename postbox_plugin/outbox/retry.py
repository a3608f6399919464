"""When to try again: one click's schedule, one notifier's circuit breaker. Pure: time and chance are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["BREAK_AFTER", "LONGEST_WAIT", "Breaker", "next_try"]

BASE: Final = 1.0
CAP: Final = 3600.0
PROBE_CAP: Final = 60.0
LONGEST_WAIT: Final = 86400.0
"""No wait is longer, whatever a notifier asks for, in seconds."""
BREAK_AFTER: Final = 10
"""So many failures in a row, without a success between, mean that it is the notifier and not the click."""


def next_try(
    now: float, first: float, tries: int, *, retry_for: float, after: float = 0.0, chance: Callable[[], float]
) -> float | None:
    """When a click that just failed is due again; ``None`` when it is to be given up.

    Exponential with full jitter: anywhere between nothing and 1 s, 2 s, 4 s ... 1 h, so that a thousand clicks that
    failed together do not come back together. The last try is when ``retry_for`` is over.

    :param now: the time, in seconds.
    :param first: when the click first failed.
    :param tries: how often it has failed, this time included.
    :param retry_for: seconds after the first failure at which the click is given up.
    :param after: seconds that the notifier asked for (:class:`postbox_plugin.errors.RetryLater`); waited at least.
    :param chance: a number from 0 to 1.
    """
    deadline = first + retry_for
    if now >= deadline:
        return None
    delay = chance() * min(CAP, BASE * 2.0 ** min(tries - 1, 32))
    return min(now + max(delay, sane(after)), deadline)


def sane(after: float) -> float:
    """What a notifier asked for, as a wait that one can keep: not negative, not NaN, not longer than a day."""
    return min(after, LONGEST_WAIT) if after > 0 else 0.0


class Breaker:
    """Keeps a notifier that takes nothing from being offered everything.

    Closed, it lets all calls through. After :data:`BREAK_AFTER` failures in a row it opens: no call for a while, then
    one as a probe. A success closes it; a failed probe opens it for longer, up to a minute (or what the notifier asked
    for).

    :param chance: a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.reset()

    def reset(self) -> None:
        """Close it, and forget all failures."""
        self._failures = 0
        self._opened = 0
        self.until = 0.0

    @property
    def opened(self) -> int:
        """How often it opened since it was last closed; a call remembers it from its start to its failure."""
        return self._opened

    def allowed(self, now: float, concurrency: int) -> int:
        """How many calls may be in flight now."""
        if not self._opened:
            return concurrency
        return 1 if now >= self.until else 0

    def failed(self, now: float, opened: int, after: float = 0.0) -> None:
        """A call failed that began when :attr:`opened` was ``opened``.

        Calls that were already on their way when the breaker opened say nothing new.
        """
        self._failures += 1
        if opened == self._opened and (self._opened or self._failures >= BREAK_AFTER):
            self._opened += 1
            longest = min(PROBE_CAP, BASE * 2.0 ** min(self._opened - 1, 32))
            # Half of it for certain: a probe right after the failure would tell nothing.
            self.until = now + max(longest * (0.5 + 0.5 * self._chance()), sane(after))
