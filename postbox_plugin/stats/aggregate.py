"""Clicks, counted as they come: in all, by link, by tag and by hour; those of machines apart.

Of each click only what is counted is read. What is kept grows with what there is to tell apart (links, tags, hours,
messages, clicks), and never with how often it is said: no address of a reader, no recipient, no user agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec

from postbox_plugin.mail import Tags, freeze_tags

__all__ = ["Aggregation", "Count", "HourCount", "LinkCount", "Statistics", "TagCount"]

_HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TAGS: Final = msgspec.Raw(b"{}")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was clicked.

    :ivar clicks: clicks by people.
    :ivar share: their part of all clicks by people, from 0 to 1.
    :ivar unique: how many different messages those clicks came from, told apart by message id. A tracked message has
        one reader, so this is how many readers clicked.
    :ivar machines: clicks by machines, which are in none of the above.
    """

    clicks: int
    share: float
    unique: int
    machines: int

    @property
    def percent(self) -> str:
        """The share as text: ``34%``. What is not nothing is not 0%, and what is not all is not 100%."""
        if 0 < self.share < 0.01:
            return "<1%"
        return f"{99 if 0.99 < self.share < 1 else round(self.share * 100)}%"


class LinkCount(Count, frozen=True, kw_only=True):
    """The clicks of one link: of one place in a mail, and one address but for its query and fragment, which often
    differ from reader to reader. Counts as for :class:`Count`.

    :ivar index: the link's place among the links of its mail, from 0; ``None`` in notifications that do not tell it.
    :ivar address: the original address; without query and fragment where these differed.
    :ivar differs: whether they did.
    """

    index: int | None
    address: str
    differs: bool


class TagCount(Count, frozen=True, kw_only=True):
    """The clicks with one tag, counted as for :class:`Count`.

    :ivar key: the tag's name.
    :ivar value: one of its values.
    """

    key: str
    value: str


class HourCount(Count, frozen=True, kw_only=True):
    """The clicks of one hour, counted as for :class:`Count`.

    :ivar hour: when it begins, in UTC.
    """

    hour: datetime


class Statistics(Count, frozen=True, kw_only=True):
    """All that was counted; in all, as for :class:`Count`.

    :ivar repeated: notifications that came again, with the same ``eventId``: delivery is at least once. Each click is
        counted once.
    :ivar reasons: clicks by machines, by what gave them away.
    :ivar links: the most clicked first, like the tags.
    :ivar link_tags: what ``postbox:tags`` said.
    :ivar message_tags: the tags of the messages.
    :ivar hours: in their order.
    """

    repeated: int
    reasons: dict[str, int]
    links: tuple[LinkCount, ...]
    link_tags: tuple[TagCount, ...]
    message_tags: tuple[TagCount, ...]
    hours: tuple[HourCount, ...]


class _Mail(msgspec.Struct, rename="camel", gc=False):
    message_id: str
    # Tags are the same again and again: as bytes, they are looked up instead of decoded.
    tags: msgspec.Raw = _NO_TAGS


class _Detail(msgspec.Struct, rename="camel", gc=False):
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    url: str
    link_tags: msgspec.Raw = _NO_TAGS


class _Tracking(msgspec.Struct, rename="camel", gc=False):
    link_index: int | None = None
    verdict: Literal["human", "machine"] = "human"
    reason: str = ""


class _Click(msgspec.Struct, rename="camel", gc=False):
    """What is read of a notification; see :class:`postbox_plugin.Click` for the whole."""

    event_type: Literal["Click"]
    event_id: str
    mail: _Mail
    click: _Detail
    tracking: _Tracking = msgspec.field(default_factory=_Tracking)


_decode: Final = msgspec.json.Decoder(_Click).decode
_decode_tags: Final = msgspec.json.Decoder(dict[str, tuple[str, ...]]).decode


class _Tally:
    """Counts of one thing. Messages are numbers, for a set of those is a third of one of texts."""

    __slots__ = ("clicks", "machines", "messages")

    def __init__(self) -> None:
        self.clicks = 0
        self.machines = 0
        self.messages: set[int] = set()


class _Link(_Tally):
    __slots__ = ("address", "differs")

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.differs = False


class _Hour(_Tally):
    __slots__ = ("begin",)

    def __init__(self, number: int) -> None:
        super().__init__()
        try:
            self.begin = _EPOCH + number * _HOUR
        except OverflowError:
            raise ValueError("its time is in no year that a calendar has") from None


class _TagTallies:
    """Tallies by tag, and by the JSON that tags were found in."""

    def __init__(self) -> None:
        self.by_tag: Final[dict[tuple[str, str], _Tally]] = {}
        self._by_json: Final[dict[bytes, tuple[_Tally, ...]]] = {}

    def of(self, json: msgspec.Raw) -> tuple[_Tally, ...]:
        found = self._by_json.get(bytes(json))
        if found is None:
            tags = ((key, value) for key, values in _decode_tags(json).items() for value in dict.fromkeys(values))
            found = tuple(self.by_tag.setdefault(tag, _Tally()) for tag in tags)
            self._by_json[bytes(json)] = found
        return found


class Aggregation:
    """Counts clicks, one after the other.

    :param tags: message tags that a click must carry to be counted, each key with one value or several, any of which
        will do.
    """

    def __init__(self, tags: Mapping[str, str | Iterable[str]] | None = None) -> None:
        self._wanted: Final[Tags] = freeze_tags(tags)
        self._is_wanted: Final[dict[bytes, bool]] = {}
        self._seen: Final[set[int]] = set()
        self._numbers: Final[dict[str, int]] = {}
        self._total: Final = _Tally()
        self._links: Final[dict[tuple[int | None, str], _Link]] = {}
        self._link_tags: Final = _TagTallies()
        self._message_tags: Final = _TagTallies()
        self._hours: Final[dict[int, _Hour]] = {}
        self._reasons: Final = Counter[str]()
        self._repeated = 0

    def add(self, notification: bytes) -> None:
        """Count a click, unless it was counted before or does not carry the tags that are wanted.

        :param notification: its JSON, as notifiers receive it.
        :raises ValueError: if it is not a click notification.
        """
        click = _decode(notification)  # whose errors are ValueErrors
        mail, detail, tracking = click.mail, click.click, click.tracking
        if self._wanted and not self._carries(mail.tags):
            return
        # Of the id its hash, at half the memory: among a million there is one chance in 30 million that two agree.
        event = hash(click.event_id)
        if event in self._seen:
            self._repeated += 1
            return
        self._seen.add(event)

        tags = (*self._link_tags.of(detail.link_tags), *self._message_tags.of(mail.tags))
        number_of_hour = (detail.timestamp - _EPOCH) // _HOUR
        hour = self._hours.get(number_of_hour)
        if hour is None:
            hour = self._hours[number_of_hour] = _Hour(number_of_hour)
        address = detail.url.partition("?")[0].partition("#")[0]
        link = self._links.get((tracking.link_index, address))
        if link is None:
            link = self._links[tracking.link_index, address] = _Link(detail.url)
        elif link.address != detail.url:
            link.differs = True
        tallies = (self._total, link, hour, *tags)
        if tracking.verdict == "machine":
            self._reasons[tracking.reason] += 1
            for tally in tallies:
                tally.machines += 1
        else:
            number = self._numbers.setdefault(mail.message_id, len(self._numbers))
            for tally in tallies:
                tally.clicks += 1
                tally.messages.add(number)

    def result(self) -> Statistics:
        """All that was counted so far."""
        return Statistics(
            **self._count(self._total),
            repeated=self._repeated,
            reasons=dict(self._reasons.most_common()),
            links=tuple(
                LinkCount(**self._count(link), index=index, address=_shown(link, address), differs=link.differs)
                for (index, address), link in sorted(self._links.items(), key=_most_clicked)
            ),
            link_tags=self._tags(self._link_tags),
            message_tags=self._tags(self._message_tags),
            hours=tuple(HourCount(**self._count(hour), hour=hour.begin) for _, hour in sorted(self._hours.items())),
        )

    def by_index(self) -> dict[int, LinkCount]:
        """The clicks by place in the mail, whatever the address: those of a mail that went to many readers, where a
        link may lead each of them elsewhere. Of several addresses the most clicked is told.
        """
        links: dict[int, list[tuple[str, _Link]]] = {}
        for (index, address), link in sorted(self._links.items(), key=_most_clicked):
            if index is not None:
                links.setdefault(index, []).append((_shown(link, address), link))
        return {
            index: LinkCount(
                **self._count(_sum([link for _, link in several])),
                index=index,
                address=several[0][0],
                differs=len(several) > 1 or several[0][1].differs,
            )
            for index, several in links.items()
        }

    def _count(self, tally: _Tally) -> dict[str, Any]:
        share = tally.clicks / self._total.clicks if tally.clicks else 0.0
        return {
            "clicks": tally.clicks,
            "share": share,
            "unique": len(tally.messages),
            "machines": tally.machines,
        }

    def _tags(self, tallies: _TagTallies) -> tuple[TagCount, ...]:
        return tuple(
            TagCount(**self._count(tally), key=key, value=value)
            for (key, value), tally in sorted(tallies.by_tag.items(), key=_most_clicked)
        )

    def _carries(self, json: msgspec.Raw) -> bool:
        found = self._is_wanted.get(bytes(json))
        if found is None:
            tags = _decode_tags(json)
            found = all(not set(values).isdisjoint(tags.get(key, ())) for key, values in self._wanted.items())
            self._is_wanted[bytes(json)] = found
        return found


def _most_clicked(item: tuple[tuple[Any, str], _Tally]) -> tuple[Any, ...]:
    """Sorts by clicks, and what was clicked as often by what it is."""
    (first, second), tally = item
    return -tally.clicks, -tally.machines, first is None, first, second


def _shown(link: _Link, address: str) -> str:
    return address if link.differs else link.address


def _sum(tallies: Sequence[_Tally]) -> _Tally:
    total = _Tally()
    for tally in tallies:
        total.clicks += tally.clicks
        total.machines += tally.machines
        total.messages |= tally.messages
    return total
