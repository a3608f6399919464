"""Clicks of machines: prefetches, crawlers and the scanners of mail gateways. On once installed; switch it off with
``POSTBOX_DISABLED_PLUGINS=machines``.

A machine's click is redirected, kept and notified like any other; its ``tracking.verdict`` is ``machine``, and its
``tracking.reason`` one of:

================================  ==========================================================================
``prefetch``                      the request says so: ``Sec-Purpose``, ``Purpose``, ``X-Purpose``, ``X-Moz``
``no user agent``                 every browser has one
``crawler``                       its user agent is in the list of the package crawler-user-agents
``moments after sending``         sooner than a person can have read the mail
``several links at once``         more links of one message in a moment than a person can press
================================  ==========================================================================
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from postbox_plugin import Click, Verdict, hookimpl

__all__ = ["MachineClassifier"]

MESSAGES: Final = 10_000
"""The most messages whose latest clicks are remembered."""

# Sec-Purpose is a structured field (Fetch standard, "prefetch" and "prefetch;prerender"); the others are its
# predecessors in Safari, Chrome and Firefox.
_PURPOSE: Final = frozenset(("sec-purpose", "purpose", "x-purpose", "x-moz"))
_PREFETCH: Final = frozenset(("prefetch", "prerender", "preview"))


class MachineClassifier:
    """Tells machines from people by what is known at the moment of a click.

    :param moments: seconds after sending in which no person clicks; 0 for no such rule.
    :param links: so many different links of one message are too many, if they are clicked ...
    :param within: ... within so many seconds. The first of them still count as a person's, for they are classified
        before the others are known. Only what this process saw counts.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        moments: float = 2.0,
        links: int = 3,
        within: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if links < 2:
            raise ValueError(f"links must be 2 or more, not {links}: a person clicks one")
        self._moments: Final = moments
        self._links: Final = links
        self._within: Final = within
        self._clock: Final = clock
        self._latest: Final[OrderedDict[str, deque[tuple[float, int]]]] = OrderedDict()

    @hookimpl
    def postbox_classify(self, click: Click, request_headers: Mapping[str, str]) -> Verdict | None:
        """See :func:`postbox_plugin.hookspecs.postbox_classify`."""
        several = self._several_at_once(click)
        if _is_prefetch(request_headers):
            return Verdict("machine", "prefetch")
        if not click.click.user_agent:
            return Verdict("machine", "no user agent")
        if _is_crawler(click.click.user_agent):
            return Verdict("machine", "crawler")
        if self._is_moments_after_sending(click):
            return Verdict("machine", "moments after sending")
        if several:
            return Verdict("machine", "several links at once")
        return None

    def _is_moments_after_sending(self, click: Click) -> bool:
        sent = datetime.fromisoformat(click.mail.timestamp)
        clicked = datetime.fromisoformat(click.click.timestamp)
        return 0 <= (clicked - sent).total_seconds() < self._moments

    def _several_at_once(self, click: Click) -> bool:
        now = self._clock()
        latest = self._latest.pop(click.message_id, None) or deque(maxlen=self._links)
        self._latest[click.message_id] = latest
        if len(self._latest) > MESSAGES:
            self._latest.popitem(last=False)
        index = click.tracking.link_index
        # Whoever presses one link twice is impatient, and a person.
        if not latest or latest[-1][1] != index:
            latest.append((now, index))
        return now - latest[0][0] <= self._within and len({one for _, one in latest}) == self._links


def _is_prefetch(headers: Mapping[str, str]) -> bool:
    for name in headers:  # to ask for each of four that are hardly ever there would take longer
        if name.lower() in _PURPOSE:
            first = headers[name].replace(",", ";").partition(";")[0]
            if first.strip().lower() in _PREFETCH:
                return True
    return False


@lru_cache(4096)
def _is_crawler(user_agent: str) -> bool:
    # Its list is long, and only who redirects needs it.
    from crawleruseragents import is_crawler  # type: ignore[import-untyped]  # noqa: PLC0415

    return bool(is_crawler(user_agent))
