"""How much of who clicked is kept, at each level."""

from __future__ import annotations

import itertools

import pytest

from postbox_plugin.privacy import blurred_address, blurred_user_agent, stricter

LEVELS = ("full", "truncated", "none")
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 Version/17.4 Safari/604.1"


def test_the_stricter_level_is_the_one_that_keeps_less() -> None:
    """Of two levels, in either order, the one further towards ``none``."""
    for one, other in itertools.product(LEVELS, LEVELS):
        assert stricter(one, other) == LEVELS[max(LEVELS.index(one), LEVELS.index(other))]


@pytest.mark.parametrize(
    ("address", "truncated"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:cafe:1:2:3:4:5", "2001:db8:cafe::"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("::1", "::"),
        ("not an address", ""),
        ("", ""),
    ],
)
def test_addresses(address: str, truncated: str) -> None:
    """In full as it is; truncated to the /24 or /48 it is in; or not at all. What cannot be truncated is not kept."""
    assert blurred_address(address, "full") == address
    assert blurred_address(address, "truncated") == truncated
    assert blurred_address(address, "none") == ""


@pytest.mark.parametrize(
    ("user_agent", "truncated"),
    [
        (IPHONE, "Mozilla/5 (iPhone; CPU iPhone OS 17 like Mac OS X) AppleWebKit/605 Version/17 Safari/604"),
        ("curl/8", "curl/8"),
        ("", ""),
        ("1.2.3.4 " * 3, "1 1 1 "),
    ],
)
def test_user_agents(user_agent: str, truncated: str) -> None:
    """In full as it is; truncated to the first number of each version; or not at all."""
    assert blurred_user_agent(user_agent, "full") == user_agent
    assert blurred_user_agent(user_agent, "truncated") == truncated
    assert blurred_user_agent(user_agent, "none") == ""


def test_long_user_agents_are_blurred_in_time() -> None:
    """A megabyte of versions takes no more than the time that a test has."""
    assert blurred_user_agent("1." * 500_000 + "1", "truncated") == "1"
    assert blurred_user_agent("1" * 1_000_000, "truncated") == "1" * 1_000_000
