"""Clicks, counted as they come: in all, by link, by tag and by hour; those of machines apart.

Of each click only what is counted is read. What is kept grows with what there is to tell apart (links, tags, hours,
messages, clicks), and never with how often it is said: no address of a reader, no recipient, no user agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from postbox_plugin.mail import Tags, freeze_tags

__all__ = ["Aggregation", "Count", "HourCount", "LinkCount", "Statistics", "TagCount"]

_HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TAGS: Final = msgspec.Raw(b"{}")

_Place: TypeAlias = tuple[int | None, str]
"""The index of a link, and its address without query and fragment."""

_TagList: TypeAlias = tuple[tuple[str, str], ...]
_Key: TypeAlias = tuple[_Place, bytes, bytes]
"""What the clicks of a group have in common: the link, and the JSON of its tags and of the message's."""

_Thing = TypeVar("_Thing", bound=Hashable)


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
    # The same again and again: as bytes they are looked up instead of decoded.
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


class _Group(_Tally):
    """The clicks that differ in nothing but their time and message: of one link, with the same tags."""

    __slots__ = ("differs", "link_tags", "message_tags", "place", "url")

    def __init__(self, place: _Place, url: str, link_tags: _TagList, message_tags: _TagList) -> None:
        super().__init__()
        self.place = place
        self.url = url
        self.differs = False
        self.link_tags = link_tags
        self.message_tags = message_tags


class _Hour(_Tally):
    __slots__ = ("begin",)

    def __init__(self, number: int) -> None:
        super().__init__()
        try:
            self.begin = _EPOCH + number * _HOUR
        except OverflowError:
            raise ValueError("its time is in no year that a calendar has") from None


class Aggregation:
    """Counts clicks, one after the other.

    :param tags: message tags that a click must carry to be counted, each key with one value or several, any of which
        will do.
    """

    def __init__(self, tags: Mapping[str, str | Iterable[str]] | None = None) -> None:
        self._wanted: Final[Tags] = freeze_tags(tags)
        self._unwanted: Final[set[_Key]] = set()
        self._seen: Final[set[int]] = set()
        self._numbers: Final[dict[str, int]] = {}
        # A click goes into one group and one hour; what links and tags come to is added up when it is asked for.
        self._groups: Final[dict[_Key, _Group]] = {}
        self._hours: Final[dict[int, _Hour]] = {}
        self._reasons: Final = Counter[str]()
        self._repeated = self._clicks = 0

    def add(self, notification: bytes) -> None:
        """Count a click, unless it was counted before or does not carry the tags that are wanted.

        :param notification: its JSON, as notifiers receive it.
        :raises ValueError: if it is not a click notification.
        """
        click = _decode(notification)  # whose errors are ValueErrors
        mail, detail, tracking = click.mail, click.click, click.tracking
        url = detail.url
        place = tracking.link_index, url.partition("?")[0].partition("#")[0]
        key = place, bytes(detail.link_tags), bytes(mail.tags)
        group = self._groups.get(key)
        if group is None:
            if key in self._unwanted:
                return
            group = _Group(place, url, _listed(detail.link_tags), _listed(mail.tags))
            if not self._carries(group.message_tags):
                self._unwanted.add(key)
                return
            self._groups[key] = group
        elif group.url != url:
            group.differs = True
        number_of_hour = (detail.timestamp - _EPOCH) // _HOUR
        hour = self._hours.get(number_of_hour)
        if hour is None:
            hour = self._hours[number_of_hour] = _Hour(number_of_hour)
        # Of the id its hash, at half the memory: among a million there is one chance in 30 million that two agree.
        event = hash(click.event_id)
        if event in self._seen:
            self._repeated += 1
            return
        self._seen.add(event)

        if tracking.verdict == "machine":
            group.machines += 1
            hour.machines += 1
            self._reasons[tracking.reason] += 1
        else:
            number = self._numbers.setdefault(mail.message_id, len(self._numbers))
            self._clicks += 1
            group.clicks += 1
            group.messages.add(number)
            hour.clicks += 1
            hour.messages.add(number)

    def result(self) -> Statistics:
        """All that was counted so far."""
        groups = [group for group in self._groups.values() if group.clicks or group.machines]
        hours = sorted(item for item in self._hours.items() if item[1].clicks or item[1].machines)
        return Statistics(
            **self._count(self._groups.values(), len(self._numbers)),
            repeated=self._repeated,
            reasons=dict(self._reasons.most_common()),
            links=self._links((group.place, group) for group in groups),
            link_tags=self._tags((tag, group) for group in groups for tag in group.link_tags),
            message_tags=self._tags((tag, group) for group in groups for tag in group.message_tags),
            hours=tuple(HourCount(**self._count([hour]), hour=hour.begin) for _, hour in hours),
        )

    def by_index(self) -> dict[int, LinkCount]:
        """The clicks by place in the mail, whatever the address: those of a mail that went to many readers, where a
        link may lead each of them elsewhere. Of several addresses the most clicked is told.
        """
        groups = sorted(self._groups.values(), key=lambda group: -group.clicks)
        links = self._links(((group.place[0], ""), group) for group in groups)
        return {link.index: link for link in links if link.index is not None}

    def _links(self, pairs: Iterable[tuple[_Place, _Group]]) -> tuple[LinkCount, ...]:
        found = []
        for (index, _), groups in _gathered(pairs):
            first = groups[0]
            differs = any(group.differs or group.url != first.url for group in groups)
            address = first.place[1] if differs else first.url
            found.append(LinkCount(**self._count(groups), index=index, address=address, differs=differs))
        return tuple(sorted(found, key=lambda one: (*_most(one), one.index is None, one.index, one.address)))

    def _tags(self, pairs: Iterable[tuple[tuple[str, str], _Group]]) -> tuple[TagCount, ...]:
        found = [TagCount(**self._count(groups), key=key, value=value) for (key, value), groups in _gathered(pairs)]
        return tuple(sorted(found, key=lambda one: (*_most(one), one.key, one.value)))

    def _count(self, tallies: Collection[_Tally], unique: int | None = None) -> dict[str, Any]:
        """The fields of a :class:`Count`: the sum of some tallies.

        :param unique: how many different messages they have, where that is known.
        """
        clicks = sum(tally.clicks for tally in tallies)
        if unique is None:
            unique = len(set[int]().union(*(tally.messages for tally in tallies)))
        share = clicks / self._clicks if clicks else 0.0
        machines = sum(tally.machines for tally in tallies)
        return {"clicks": clicks, "share": share, "unique": unique, "machines": machines}

    def _carries(self, tags: _TagList) -> bool:
        return all(any((key, value) in tags for value in values) for key, values in self._wanted.items())


def _listed(json: msgspec.Raw) -> _TagList:
    """Each tag with each of its values, once."""
    return tuple((key, value) for key, values in _decode_tags(json).items() for value in dict.fromkeys(values))


def _gathered(pairs: Iterable[tuple[_Thing, _Group]]) -> Iterable[tuple[_Thing, list[_Group]]]:
    """The groups that belong to each thing."""
    found: dict[_Thing, list[_Group]] = {}
    for thing, group in pairs:
        found.setdefault(thing, []).append(group)
    return found.items()


def _most(count: Count) -> tuple[int, int]:
    """Sorts the most clicked first."""
    return -count.clicks, -count.machines
