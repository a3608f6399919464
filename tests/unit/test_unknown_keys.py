"""What the log says of links that were sealed with keys of others."""

from __future__ import annotations

import random

import pytest

from postbox_plugin.unknown_keys import EVERY, FORGET, MOST, UnknownKeys


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """How each line begins; they are taken out."""
    lines = [record.getMessage().partition(" not in the ring")[0] for record in caplog.records]
    caplog.clear()
    return lines


def test_a_key_is_told_once_and_then_once_a_minute_with_a_count(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Each key by itself."""
    keys = UnknownKeys(clock)
    for _ in range(500):
        keys.saw("AAAA")
    keys.saw("BBBB")
    assert said(caplog) == ["a link was sealed with key AAAA, which is", "a link was sealed with key BBBB, which is"]
    clock.now += EVERY
    keys.saw("AAAA")
    assert said(caplog) == ["500 links were sealed with key AAAA, which is"]
    clock.now += EVERY
    keys.saw("AAAA")
    assert said(caplog) == ["a link was sealed with key AAAA, which is"]


def test_a_million_guesses_cost_a_few_lines_and_little_memory(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """And a key that was told of before them is told of as before."""
    keys = UnknownKeys(clock)
    chance = random.Random(5)
    keys.saw("REAL")
    for _ in range(10_000):
        keys.saw("".join(chance.choices("abcdefghij", k=4)))
    assert len(said(caplog)) == MOST + 1
    clock.now += EVERY
    keys.saw("REAL")
    keys.saw("GUES")
    lines = said(caplog)
    assert lines[0] == "a link was sealed with key REAL, which is"
    assert lines[1].endswith(" links were sealed with other keys, which are")
    assert len(lines) == 2
    # What is not seen any more makes room for what is.
    clock.now += FORGET + 1
    keys.saw("NEWS")
    assert said(caplog) == ["a link was sealed with key NEWS, which is"]
