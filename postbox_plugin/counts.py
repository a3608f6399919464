"""What a process counts while it runs: plain numbers, read when somebody asks (``service/admin.py``)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

__all__ = ["Counts", "Distribution", "Snapshot"]

Outcome = Literal["delivered", "failed", "dead"]


class Distribution(msgspec.Struct):
    """How values are distributed.

    :ivar bounds: the upper bounds of the classes; one more class has what is beyond the last.
    :ivar counts: how many values each class has.
    :ivar total: the sum of all values.
    """

    bounds: Sequence[float]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def of(cls, *bounds: float) -> Distribution:
        """An empty one with these upper bounds."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one process; see :class:`Counts`. Keys are text, as JSON has them."""

    clicks: dict[str, int]
    responses: dict[str, int]
    unknown_keys: int
    lost: int
    deliveries: dict[str, dict[str, int]]
    commit_clicks: Distribution
    commit_seconds: Distribution


class Counts:
    """Counters of one process, from 0 at its start.

    :ivar clicks: clicks by verdict.
    :ivar responses: responses by HTTP status.
    :ivar unknown_keys: requests with a token that was sealed with a key which is not in the ring.
    :ivar lost: clicks that went to the logger ``postbox.lost``.
    :ivar deliveries: calls of notifiers, by name and outcome: ``delivered``, ``failed`` (again later), ``dead``.
    :ivar commit_clicks: how many clicks one commit of the journal wrote.
    :ivar commit_seconds: how long it took.
    """

    def __init__(self) -> None:
        self.clicks: Final = Counter[str]()
        self.responses: Final = Counter[int]()
        self.unknown_keys = 0
        self.lost = 0
        self.deliveries: Final = Counter[tuple[str, Outcome]]()
        self.commit_clicks: Final = Distribution.of(1, 3, 10, 30, 100, 300)
        self.commit_seconds: Final = Distribution.of(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)

    def snapshot(self) -> Snapshot:
        """The counts as they are now."""
        deliveries: dict[str, dict[str, int]] = {}
        for (name, outcome), count in self.deliveries.items():
            deliveries.setdefault(name, {})[outcome] = count
        return Snapshot(
            clicks=dict(self.clicks),
            responses={str(status): count for status, count in self.responses.items()},
            unknown_keys=self.unknown_keys,
            lost=self.lost,
            deliveries=deliveries,
            commit_clicks=self.commit_clicks,
            commit_seconds=self.commit_seconds,
        )
