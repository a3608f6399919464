"""Tokens, tried on made-up facts: each opens to what was sealed, and nothing that was altered opens at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from conformance.profiles import many, patient
from hypothesis import assume, given
from hypothesis import strategies as st

from postbox_plugin import InvalidToken, new_key
from postbox_plugin.tokens.keyring import KeyRing
from postbox_plugin.tokens.payload import MessageFacts
from postbox_plugin.tokens.seal import MessageSealer, open_token

pytestmark = patient

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
RING = KeyRing([new_key()])

words = st.text(max_size=40)
tags = st.dictionaries(words, st.lists(words, max_size=3).map(tuple), max_size=4)
message_ids = st.text(ALPHABET, min_size=8, max_size=64)
moments = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
addresses = st.lists(words | st.just("Shop <shop@example.com>"), max_size=3).map(tuple)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
dates = st.one_of(
    words,
    st.datetimes(timezones=offsets).map(format_datetime),
    st.datetimes().map(format_datetime),
    st.sampled_from(
        ("Fri, 31 Dec 9999 23:59:59 -1200", "1 Jan 0100 00:00 +2359", "Mon, 1 Jan 1 00:00:00 +1400", "-1 Jan 1 1:1")
    ),
)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Carried headers; one that a message does not have is not there."""
    found = {
        "from": draw(addresses),
        "to": draw(addresses),
        "subject": (draw(words),),
        "date": (draw(dates),),
        "message-id": (draw(words),),
    }
    return {name: values for name, values in found.items() if any(values)}


facts = st.builds(
    MessageFacts,
    message_id=message_ids,
    sent_at=moments,
    identity=words,
    tags=tags,
    headers=headers(),
    privacy=st.sampled_from(("full", "truncated", "none")),
)


@many
@given(facts, st.text(max_size=200), st.integers(0, 1 << 40), tags)
def test_a_token_opens_to_what_was_sealed(
    message: MessageFacts, url: str, index: int, link_tags: dict[str, tuple[str, ...]]
) -> None:
    """Every address, index, tag and header comes out as it went in; of the time, the whole seconds."""
    token = MessageSealer(RING.sealing, message).seal(url, index, link_tags)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    link = open_token(RING, token)
    assert (link.url, link.index, link.tags) == (url, index, link_tags)
    assert (link.message_id, link.message_tags, link.headers) == (message.message_id, message.tags, message.headers)
    assert link.sent_at == message.sent_at.replace(microsecond=0)
    assert (link.identity, link.privacy) == (message.identity, message.privacy)


def sealed(url: str = "https://example.com/a?b=c") -> str:
    message = MessageFacts(message_id="QA_JPkU2fkpIWdkx", sent_at=datetime(2026, 4, 25, tzinfo=UTC))
    return MessageSealer(RING.sealing, message).seal(url, 3, {"product": ("book",)})


@many
@given(st.data())
def test_an_altered_token_does_not_open(data: st.DataObject) -> None:
    """A token with any character changed, left out, doubled or added, or a part of another token in it, is invalid."""
    token = sealed()
    place = data.draw(st.integers(0, len(token) - 1))
    other = sealed("https://evil.example/")
    altered = data.draw(
        st.one_of(
            st.sampled_from(ALPHABET).map(lambda character: token[:place] + character + token[place + 1 :]),
            st.just(token[:place]),
            st.just(token[:place] + token[place + 1 :]),
            st.text(ALPHABET, min_size=1, max_size=8).map(lambda more: token + more),
            st.just(token[:place] + token[place] + token[place:]),
            st.just(token[:place] + other[place:]),
            st.just(token.swapcase()),
            st.text(max_size=5).map(lambda more: token[:place] + more + token[place:]),
        )
    )
    assume(altered not in (token, other))
    with pytest.raises(InvalidToken):
        open_token(RING, altered)


@many
@given(
    st.text(max_size=300)
    | st.text(ALPHABET, max_size=300)
    | st.text(ALPHABET, max_size=300).map(lambda text: RING.sealing.id + text)
)
def test_made_up_text_does_not_open(text: str) -> None:
    """No text that was not sealed opens, whatever it begins with."""
    with pytest.raises(InvalidToken):
        open_token(RING, text)
