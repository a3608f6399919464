"""The retry schedule and the circuit breaker, without a clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbox_plugin.outbox.retry import BREAK_AFTER, LONGEST_WAIT, Breaker, next_try

DAYS = 86400.0


def most() -> float:
    """The largest chance."""
    return 1.0


@pytest.mark.parametrize(("tries", "delay"), [(1, 1), (2, 2), (3, 4), (12, 2048), (13, 3600), (500, 3600)])
def test_the_longest_delay_doubles_up_to_an_hour(tries: int, delay: float) -> None:
    """Full jitter draws from nothing up to 1 s, 2 s, 4 s ... 1 h."""
    assert next_try(100.0, 100.0, tries, retry_for=3 * DAYS, chance=most) == 100.0 + delay
    assert next_try(100.0, 100.0, tries, retry_for=3 * DAYS, chance=lambda: 0.0) == 100.0


def test_retry_later_is_waited_for_at_least() -> None:
    """What a notifier asks for is a lower bound, not the schedule's replacement."""
    assert next_try(0.0, 0.0, 1, retry_for=DAYS, after=50.0, chance=most) == 50.0
    assert next_try(0.0, 0.0, 10, retry_for=DAYS, after=50.0, chance=most) == 512.0


@pytest.mark.parametrize(("after", "wait"), [(math.nan, 0.0), (-5.0, 0.0), (math.inf, LONGEST_WAIT)])
def test_an_absurd_wish_is_made_sane(after: float, wait: float) -> None:
    """NaN, negative and endless waits do not end in the schedule."""
    assert next_try(0.0, 0.0, 1, retry_for=30 * DAYS, after=after, chance=lambda: 0.0) == wait


def test_the_last_try_is_at_the_deadline_and_then_the_click_is_given_up() -> None:
    """A click is never put off beyond the end of its time, and not tried after it."""
    assert next_try(90.0, 0.0, 20, retry_for=100.0, chance=most) == 100.0
    assert next_try(100.0, 0.0, 21, retry_for=100.0, chance=most) is None


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(), st.floats(0, 3 * DAYS, exclude_max=True))
def test_a_retry_is_always_within_its_time(tries: int, chance: float, after: float, age: float) -> None:
    """Whatever the numbers, the next try is not in the past and not after the deadline."""
    due = next_try(age, 0.0, tries, retry_for=3 * DAYS, after=after, chance=lambda: chance)
    assert due is not None
    assert age <= due <= 3 * DAYS


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    """Ten failures without a success between stop the calls; after a pause one is let through, after a success all."""
    breaker = Breaker(most)
    for _ in range(BREAK_AFTER - 1):
        breaker.failed(0.0, breaker.opened)
    assert breaker.allowed(0.0, 64) == 64
    breaker.failed(0.0, breaker.opened)
    assert breaker.allowed(0.0, 64) == 0
    assert breaker.allowed(1.0, 64) == 1
    breaker.reset()
    assert breaker.allowed(1.0, 64) == 64


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    """A click that always fails among others that do not is that click's problem."""
    breaker = Breaker(most)
    for _ in range(10 * BREAK_AFTER):
        breaker.failed(0.0, breaker.opened)
        breaker.reset()
    assert breaker.allowed(0.0, 64) == 64


def test_calls_on_their_way_do_not_lengthen_the_pause() -> None:
    """Sixty-four calls that fail together are one outage; only a failed probe makes the next pause longer."""
    breaker = Breaker(most)
    for _ in range(64):
        breaker.failed(0.0, 0)
    assert breaker.until == 1.0
    breaker.failed(1.0, breaker.opened)
    assert breaker.until == 3.0


def test_the_pause_grows_to_a_minute_or_to_what_was_asked_for() -> None:
    """An outage of days is noticed to be over within a minute; a longer Retry-After is honoured."""
    breaker = Breaker(most)
    for _ in range(100):
        breaker.failed(0.0, breaker.opened)
    assert breaker.until == 60.0
    breaker.failed(0.0, breaker.opened, after=500.0)
    assert breaker.until == 500.0
