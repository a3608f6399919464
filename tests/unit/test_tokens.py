"""Tokens: what they hold, that what was ever sent out opens for ever, and that nobody can make or bend one."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postbox_plugin import InvalidToken, Postbox, Settings, new_key
from postbox_plugin.errors import SettingsError
from postbox_plugin.tokens.dictionary import DICTIONARY
from postbox_plugin.tokens.keyring import Key, KeyRing
from postbox_plugin.tokens.payload import MessageFacts
from postbox_plugin.tokens.seal import MessageSealer, open_token

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden_tokens.json").read_text("utf-8"))
CASES = [pytest.param(case, id=case["name"]) for case in GOLDEN["tokens"]]


def frozen(tags: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in tags.items()}


def facts_of(case: dict[str, Any]) -> MessageFacts:
    given = case["facts"]
    return MessageFacts(
        message_id=given["message_id"],
        sent_at=datetime.fromisoformat(given["sent_at"]),
        identity=given["identity"],
        tags=frozen(given["tags"]),
        headers=frozen(given["headers"]),
        privacy=given["privacy"],
    )


def facts(**changes: Any) -> MessageFacts:
    given: dict[str, Any] = {"message_id": "QA_JPkU2fkpIWdkx", "sent_at": datetime(2026, 4, 25, tzinfo=UTC)}
    return MessageFacts(**{**given, **changes})


def sealed(ring: KeyRing, url: str = "https://example.com/") -> str:
    return MessageSealer(ring.sealing, facts()).seal(url, 0, {})


@pytest.mark.parametrize("case", CASES)
def test_golden_tokens_open(case: dict[str, Any]) -> None:
    """A token of version 1 that was ever sent out opens to what was sealed in it."""
    link = open_token(KeyRing([GOLDEN["key"]]), case["token"])
    given = facts_of(case)
    assert (link.url, link.index, link.tags) == (case["url"], case["index"], frozen(case["tags"]))
    assert (link.message_id, link.sent_at) == (given.message_id, given.sent_at)
    assert (link.identity, link.message_tags) == (given.identity, given.tags)
    assert (link.headers, link.privacy) == (given.headers, given.privacy)


@pytest.mark.skipif(
    "ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng deflates to other bytes, which inflate all the same"
)
@pytest.mark.parametrize("case", CASES)
def test_the_same_facts_give_the_same_token(case: dict[str, Any]) -> None:
    """Sealing has no randomness: key, facts and address give exactly the golden token."""
    sealer = MessageSealer(KeyRing([GOLDEN["key"]]).sealing, facts_of(case))
    assert sealer.seal(case["url"], case["index"], frozen(case["tags"])) == case["token"]


def test_the_dictionary_is_frozen() -> None:
    """Not one byte of version 1's dictionary has changed."""
    digest = "3f8fe9d40657adbd4f52d7c3c21adb2a8eea0d0d6855716c3796fe7e270f1239"
    assert hashlib.sha256(DICTIONARY).hexdigest() == digest


def test_keys_rotate_without_a_dead_link() -> None:
    """The first key of the ring seals, and every key opens, wherever it stands."""
    old, new = new_key(), new_key()
    before = sealed(KeyRing([old]))
    both, swapped = KeyRing([old, new]), KeyRing([new, old])
    assert sealed(both)[:4] == Key(old).id
    assert sealed(swapped)[:4] == Key(new).id
    for token in (before, sealed(both), sealed(swapped)):
        assert open_token(swapped, token).url == "https://example.com/"


def test_a_key_that_is_gone_is_named() -> None:
    """A token of a key that is not in the ring is invalid, and the error names the key's id."""
    ring = KeyRing([new_key()])
    token = sealed(ring)
    with pytest.raises(InvalidToken) as caught:
        open_token(KeyRing([new_key()]), token)
    assert caught.value.key_id == ring.sealing.id
    assert ring.sealing.id in str(caught.value)


def test_spare_bits_of_the_last_character_make_no_second_token() -> None:
    """A token has one form: another last character that decodes to the same bytes does not open."""
    ring = KeyRing([new_key()])
    token = next(
        token for token in (sealed(ring, f"https://x.example/{'y' * n}") for n in range(9)) if len(token[4:]) % 4
    )
    body = token[4:] + "=" * (-len(token[4:]) % 4)
    twins = [
        token[:-1] + character
        for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if base64.urlsafe_b64decode(body.replace("=", "")[:-1] + character + "=" * body.count("="))
        == base64.urlsafe_b64decode(body)
    ]
    assert len(twins) > 1
    for twin in twins:
        if twin != token:
            with pytest.raises(InvalidToken, match="canonical"):
                open_token(ring, twin)


@pytest.mark.parametrize(
    "text", ["", "a", "abcd", "abcde", "====", "abcd====", "ab cd", "abcdé", "a" * 5000, "../../etc/passwd"]
)
def test_what_is_no_token_is_invalid(text: str) -> None:
    """Text of any other form is invalid, and nothing else happens."""
    with pytest.raises(InvalidToken):
        open_token(KeyRing([new_key()]), text)


def test_a_token_for_another_purpose_does_not_open() -> None:
    """What the key sealed for something else is no token: the purpose is authenticated."""
    ring = KeyRing([new_key()])
    other = ring.sealing.cipher.encrypt(b"anything", [b"another purpose"])
    with pytest.raises(InvalidToken, match="altered or made up"):
        open_token(ring, ring.sealing.id + base64.urlsafe_b64encode(other).rstrip(b"=").decode("ascii"))


def test_a_sealed_record_that_is_none_is_invalid() -> None:
    """A record of another version, even sealed with the right key and purpose, is an invalid token and not a crash."""
    ring = KeyRing([new_key()])
    purpose = [b"postbox click, token version 1"]
    for record in (
        b"\xff",
        b"\x00",
        b"\x0f" + b"x" * 40,
        b"\x00\x03abc\0\0\0\0\x80\x80",
        b"\x08" + bytes(17) + b"\x00\x93",
    ):
        text = base64.urlsafe_b64encode(ring.sealing.cipher.encrypt(record, purpose)).rstrip(b"=").decode("ascii")
        with pytest.raises(InvalidToken):
            open_token(ring, ring.sealing.id + text)


def test_nothing_of_a_link_can_be_read_in_its_token() -> None:
    """Neither the address nor the recipient stands in a token, in any of the usual disguises."""
    ring = KeyRing([new_key()])
    secret = facts(headers={"to": ("reader@example.org",)})
    token = MessageSealer(ring.sealing, secret).seal("https://example.com/private", 0, {})
    raw = base64.urlsafe_b64decode(token[4:] + "==")
    for text in (b"reader", b"example", b"private"):
        assert text not in raw
        assert text not in token.encode("ascii")


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -1200", "31 DEC 9999 23:55:0-5", "not a date", ""])
def test_a_date_that_no_calendar_has_is_kept_as_text(date: str) -> None:
    """An odd Date header is carried as it stands; it keeps no mail from being tracked."""
    ring = KeyRing([new_key()])
    given = {"date": (date,)} if date else {}
    token = MessageSealer(ring.sealing, facts(headers=given)).seal("https://example.com/", 0, {})
    assert open_token(ring, token).headers == given


@pytest.mark.parametrize("keys", [[], ["short"], ["A" * 42 + "!"], ["A" * 44], [GOLDEN["key"], GOLDEN["key"]]])
def test_a_ring_of_wrong_keys_is_refused_without_showing_them(keys: list[str]) -> None:
    """No key, a key of another size or alphabet, and a key that stands there twice are errors that show no key."""
    with pytest.raises(SettingsError) as caught:
        KeyRing(keys)
    assert not any(key in str(caught.value) for key in keys)


def test_a_whole_link_opens_as_its_token_does() -> None:
    """``open`` takes a link, with whatever a gateway appended to its query, or the token alone."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[GOLDEN["key"]]))
    case = GOLDEN["tokens"][1]
    for text in (case["token"], f"https://click.example.com/c/{case['token']}?utm_x=1#y"):
        assert postbox.open(text).url == case["url"]
    for text in (f"https://click.example.com/d/{case['token']}", f"https://click.example.com/c/{case['token']}/x", ""):
        with pytest.raises(InvalidToken):
            postbox.open(text)
