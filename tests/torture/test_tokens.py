"""Tokens that nobody sealed: none opens. Twenty thousand in an ordinary run, a million in ``tox -e torture``."""

from __future__ import annotations

import os
import random

import pytest

from postbox_plugin import InvalidToken, Mail, Postbox, Settings, new_key

COUNT = 1_000_000 if int(os.environ.get("POSTBOX_TORTURE", "10")) > 10 else 20_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

pytestmark = pytest.mark.timeout(1800)


def test_no_token_opens_that_was_not_sealed() -> None:
    """Real tokens with characters changed, put in, taken out or in another order, pieces of two, and random ones with
    the right key id.
    """
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key(), new_key()]))
    html = "".join(f'<a href="https://example.com/{"x" * number}">' for number in range(60))
    tracked = postbox.track_html(html, Mail(sender="shop@example.com", recipient="reader@example.com"))
    tokens = [piece.split('"')[0] for piece in tracked.split("/c/")[1:]]
    sealed = set(tokens)
    chance = random.Random(20261124)
    opened = []
    tried = 0
    while tried < COUNT:
        token = altered(chance.choice(tokens), chance.choice(tokens), chance)
        if token in sealed:
            continue
        tried += 1
        try:
            postbox.open(f"https://click.example.com/c/{token}")
        except InvalidToken:
            continue
        opened.append(token)
    assert opened == []


def altered(token: str, other: str, chance: random.Random) -> str:
    """A token that is almost one, or looks like one."""
    place = chance.randrange(len(token))
    match chance.randrange(6):
        case 0:
            return token[:place] + chance.choice(ALPHABET) + token[place + 1 :]
        case 1:
            return token[:place] + chance.choice(ALPHABET) + token[place:]
        case 2:
            return token[:place] + token[place + chance.randrange(1, 5) :]
        case 3:
            return token[:place] + other[place:]
        case 4:
            return token[:place] + token[place + 1 : place + 2] + token[place : place + 1] + token[place + 2 :]
        case _:
            return token[:4] + "".join(chance.choices(ALPHABET, k=chance.randrange(200)))
