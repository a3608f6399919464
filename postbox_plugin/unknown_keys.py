"""Links that were sealed with a key which is not in the ring: told in the log, but not each of a million guesses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

__all__ = ["UnknownKeys"]

EVERY: Final = 60.0
"""Seconds for which a key that was told is only counted."""
MOST: Final = 100
"""The most keys that are told apart: a sender with a key of its own is one, somebody who guesses makes up millions."""
FORGET: Final = 3600.0
"""Seconds without a link after which a key makes room for others."""

_OTHERS: Final = ""

_log = logging.getLogger("postbox.redirect")


class _Seen(msgspec.Struct):
    told: float
    last: float
    untold: int = 0


class UnknownKeys:
    """Tells of each unknown key when it is first seen, and then once a minute at most; memory holds few of them.

    :param clock: seconds of a clock that is never put back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._seen: Final[dict[str, _Seen]] = {}

    def saw(self, key_id: str) -> None:
        """A link came that was sealed with a key which is not in the ring.

        :param key_id: as its token says: anybody can make one up.
        """
        now = self._clock()
        if key_id not in self._seen and len(self._seen) >= MOST:
            for old in [one for one, seen in self._seen.items() if seen.last < now - FORGET]:
                del self._seen[old]
            if len(self._seen) >= MOST:
                key_id = _OTHERS
        seen = self._seen.setdefault(key_id, _Seen(told=now - EVERY, last=now))
        seen.last = now
        seen.untold += 1
        if now - seen.told < EVERY:
            return
        links = "a link was" if seen.untold == 1 else f"{seen.untold} links were"
        keys = f"key {key_id}, which is" if key_id else "other keys, which are"
        _log.warning("%s sealed with %s not in the ring: do sender and service share their keys?", links, keys)
        seen.told, seen.untold = now, 0
