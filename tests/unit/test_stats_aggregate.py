"""Clicks, counted: by link, by tag, by hour; people and machines apart; each once."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from clicks import click

from postbox_plugin import Click
from postbox_plugin.stats import Aggregation, Count


def counted(*clicks: Click, **wanted: Any) -> Aggregation:
    """An aggregation of these clicks."""
    aggregation = Aggregation(**wanted)
    for one in clicks:
        aggregation.add(one.to_json())
    return aggregation


def numbers(count: Count) -> tuple[int, int, int]:
    return count.clicks, count.unique, count.machines


def test_nothing_is_nothing() -> None:
    """Without a click, all is zero."""
    found = Aggregation().result()
    assert numbers(found) == (0, 0, 0)
    assert (found.share, found.links, found.link_tags, found.message_tags, found.hours) == (0.0, (), (), (), ())


def test_people_and_machines_are_apart() -> None:
    """A machine's click is in neither clicks nor unique nor share, and is told with its reason."""
    found = counted(
        click(0, message="a"),
        click(0, message="a"),
        click(0, message="b"),
        click(0, message="c", machine="prefetch"),
        click(1, message="c", machine="crawler"),
        click(1, message="c", machine="crawler"),
    ).result()
    assert numbers(found) == (3, 2, 3)
    assert found.share == 1.0
    assert [(one.index, *numbers(one), one.share) for one in found.links] == [(0, 3, 2, 1, 1.0), (1, 0, 0, 2, 0.0)]
    assert list(found.reasons.items()) == [("crawler", 2), ("prefetch", 1)]


def test_unique_are_the_messages() -> None:
    """A message that was clicked in twice is one; in two links it is one for each, and one in all."""
    found = counted(click(0, message="a"), click(0, message="a"), click(1, message="a"), click(1, message="b")).result()
    assert found.unique == 2
    assert {one.index: one.unique for one in found.links} == {0: 1, 1: 2}


def test_a_repetition_counts_once() -> None:
    """Delivery is at least once: what comes again with the same eventId is the same click."""
    again = click(2, event="the-same:0")
    aggregation = counted(again, click(2), again, again)
    found = aggregation.result()
    assert (found.clicks, found.repeated) == (2, 2)


def test_the_same_address_twice_is_two_links() -> None:
    """Links are told apart by their place in the mail, though they lead to one address."""
    found = counted(click(3), click(3), click(7)).result()
    assert [(one.index, one.address, one.clicks) for one in found.links] == [
        (3, "https://example.com/", 2),
        (7, "https://example.com/", 1),
    ]


def test_an_address_that_differs_by_reader_is_one_link() -> None:
    """Query and fragment are told where they are always the same, and left out where they are not."""
    found = counted(
        *(click(0, f"https://example.com/a?reader={number}#top") for number in range(5)),
        *(click(1, "https://example.com/b?page=2#end") for _ in range(3)),
        click(2, "https://example.com/c#one"),
        click(2, "https://example.com/c#two"),
    ).result()
    assert [(one.address, one.differs, one.clicks) for one in found.links] == [
        ("https://example.com/a", True, 5),
        ("https://example.com/b?page=2#end", False, 3),
        ("https://example.com/c", True, 2),
    ]


def test_by_index_adds_up_what_leads_elsewhere() -> None:
    """A place in the mail has the clicks of all its addresses, its unique messages once, and its usual address."""
    aggregation = counted(
        click(0, "https://example.com/a", message="a"),
        click(0, "https://example.com/b", message="a"),
        click(0, "https://example.com/b", message="b"),
        click(0, "https://example.com/c", machine="prefetch"),
        click(5, "https://example.com/d?x=1"),
    )
    places = aggregation.by_index()
    assert {index: numbers(one) for index, one in places.items()} == {0: (3, 2, 1), 5: (1, 1, 0)}
    assert (places[0].address, places[0].differs) == ("https://example.com/b", True)
    assert (places[5].address, places[5].differs) == ("https://example.com/d?x=1", False)


def test_tags_of_links_and_of_messages() -> None:
    """Each value of each tag is counted, once a click, and the tags of links and messages are apart."""
    found = counted(
        click(link_tags={"genre": ("tea", "home", "tea")}, tags={"campaign": ("spring",)}),
        click(link_tags={"genre": ("tea",), "place": ("hero",)}, tags={"campaign": ("spring", "sale")}),
        click(link_tags={"place": ("hero",)}, machine="prefetch"),
    ).result()
    assert [(one.key, one.value, *numbers(one)) for one in found.link_tags] == [
        ("genre", "tea", 2, 1, 0),
        ("place", "hero", 1, 1, 1),
        ("genre", "home", 1, 1, 0),
    ]
    assert [(one.key, one.value, one.clicks) for one in found.message_tags] == [
        ("campaign", "spring", 2),
        ("campaign", "sale", 1),
    ]


def test_hours_are_those_of_utc() -> None:
    """Whatever offset a time has; and they come in their order."""
    found = counted(
        click(at="2026-04-25T23:59:59.999999+00:00"),
        click(at="2026-04-25T18:30:00+03:00"),
        click(at="2026-04-25T20:50:00+05:30"),
        click(at="2026-04-26T00:00:00Z"),
    ).result()
    assert [(f"{one.hour:%d %H:%M %Z}", one.clicks) for one in found.hours] == [
        ("25 15:00 UTC", 2),
        ("25 23:00 UTC", 1),
        ("26 00:00 UTC", 1),
    ]


@pytest.mark.parametrize(
    ("wanted", "clicks"),
    [
        ({"campaign": "spring"}, 2),
        ({"campaign": ["spring", "autumn"]}, 3),
        ({"campaign": "spring", "cohort": "b"}, 1),
        ({"campaign": "winter"}, 0),
        ({"nothing": ""}, 0),
    ],
)
def test_only_the_messages_that_are_wanted(wanted: dict[str, Any], clicks: int) -> None:
    """Clicks of messages without the tags leave no trace: no row of zeros, no repetition."""
    found = counted(
        click(0, tags={"campaign": ("spring",), "cohort": ("a",)}),
        click(1, tags={"campaign": ("spring", "sale"), "cohort": ("b",)}),
        click(2, tags={"campaign": ("autumn",)}),
        click(3),
        tags=wanted,
    ).result()
    assert found.clicks == clicks
    for rows in (found.links, found.hours, found.message_tags):
        assert all(one.clicks for one in rows)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (0.001, "<1%"), (0.01, "1%"), (0.345, "34%"), (0.5, "50%"), (0.999, "99%"), (1.0, "100%")],
)
def test_a_share_as_text(share: float, text: str) -> None:
    """What is not nothing is not 0%, and what is not all is not 100%."""
    assert Count(clicks=1, share=share, unique=1, machines=0).percent == text


def without(*path: str) -> bytes:
    """A notification that lacks one field."""
    notification = json.loads(click().to_json())
    inner = notification
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(notification).encode()


def with_time(text: str) -> bytes:
    return click(at=text).to_json()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b'{"eventType":"Click","mail":{"timest',
        b"[]",
        b"17",
        b"\xff\xfe",
        click().to_json().replace(b'"Click"', b'"Open"'),
        click().to_json().replace(b'"human"', b'"dog"'),
        click().to_json().replace(b'"linkTags":{}', b'"linkTags":["a"]'),
        click().to_json().replace(b'"tags":{}', b'"tags":{"a":1}'),
        without("eventId"),
        without("mail", "messageId"),
        without("click", "url"),
        with_time("yesterday"),
        with_time("2026-04-25T18:09:10"),
        with_time("0001-01-01T00:00:00+14:00"),
    ],
)
def test_what_is_no_click_is_an_error_and_counts_nothing(broken: bytes) -> None:
    """A line that is cut off, of another event, or without what is counted."""
    aggregation = counted(click(0))
    with pytest.raises(ValueError, match=r"\S"):
        aggregation.add(broken)
    found = aggregation.result()
    assert numbers(found) == (1, 1, 0)
    assert (len(found.links), len(found.hours), found.message_tags, found.link_tags) == (1, 1, (), ())


def test_notifications_of_the_real_postbox_count_too() -> None:
    """They have no ``tracking``: the link is known by its address alone, and everyone is taken for a person."""
    notification = json.loads(click(4).to_json())
    del notification["tracking"]
    aggregation = Aggregation()
    aggregation.add(json.dumps(notification).encode())
    (link,) = aggregation.result().links
    assert (link.index, link.address, link.clicks) == (None, "https://example.com/", 1)
    assert aggregation.by_index() == {}


def test_the_order_of_clicks_does_not_matter_and_nothing_is_counted_twice() -> None:
    """A thousand clicks at random, some of them again, against a count that is made the simple way."""
    chance = random.Random(7)
    clicks = [
        click(chance.randrange(5), message=f"m{chance.randrange(40)}", machine=chance.choice(["", "", "crawler"]))
        for _ in range(1000)
    ]
    shuffled = [*clicks, *chance.sample(clicks, 100)]
    chance.shuffle(shuffled)
    found = counted(*shuffled).result()
    people = [one for one in clicks if not one.is_machine]
    assert found.repeated == 100
    assert numbers(found) == (len(people), len({one.message_id for one in people}), len(clicks) - len(people))
    by_link = Counter(one.tracking.link_index for one in people)
    assert [(one.index, one.clicks) for one in found.links] == by_link.most_common()
    for link in found.links:
        readers = {one.message_id for one in people if one.tracking.link_index == link.index}
        assert link.unique == len(readers)
        assert link.share == pytest.approx(by_link[link.index or 0] / len(people))
