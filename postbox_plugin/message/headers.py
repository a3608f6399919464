"""Header values as they stand: unfolding, splitting addresses, the tags of ``X-Postbox-Tags``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["MESSAGE_ID", "OWN_HEADERS", "TRACK", "find", "read_message_tags", "split_addresses", "unfold"]

MESSAGE_ID: Final = "X-Postbox-Message-Id"
TAGS: Final = "X-Postbox-Tags"
TRACK: Final = "X-Postbox-Track"
SES_TAGS: Final = "X-SES-MESSAGE-TAGS"

OWN_HEADERS: Final = (TAGS, TRACK)
"""What senders tell us with, and nobody else is to see."""

_FOLD = re.compile(r"\r?\n(?=[ \t])")
# What separates addresses is a comma outside of quoted strings, comments and angle brackets (RFC 5322, 3.4).
_ADDRESS_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|\((?:[^()\\]|\\.)*+\)|<[^<>]*+>|[^",()<>]++', re.DOTALL)


def unfold(value: str) -> str:
    """A header's value on one line (RFC 5322, 2.2.3), with what is not text replaced by U+FFFD."""
    line = _FOLD.sub("", value).strip("\r\n")
    if line.isascii():
        return line.strip(" \t")
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \t")


def find(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    """The values of all headers of that name, without regard to case."""
    wanted = name.lower()
    return [value for given, value in headers if given.lower() == wanted]


def split_addresses(value: str) -> tuple[str, ...]:
    """An address header's value as one text an address, each as it stands; one text, the whole, if it cannot be split.

    :param value: the unfolded value.
    """
    addresses: list[str] = []
    current: list[str] = []
    position = 0
    while position < len(value):
        if value[position] == ",":
            addresses.append("".join(current))
            current = []
            position += 1
            continue
        token = _ADDRESS_TOKEN.match(value, position)
        if token is None:
            return (value,)
        current.append(token[0])
        position = token.end()
    addresses.append("".join(current))
    return tuple(address.strip() for address in addresses if address.strip())


def read_message_tags(headers: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The message tags that the headers name: ``X-Postbox-Tags: campaign=spring, cohort=b``; SES's header reads the
    same.

    :param headers: names and unfolded values.
    """
    tags: dict[str, tuple[str, ...]] = {}
    given = tuple(headers)
    for value in (*find(given, SES_TAGS), *find(given, TAGS)):
        for pair in value.split(","):
            key, _, text = pair.partition("=")
            if key := key.strip():
                tags[key] = (text.strip(),)
    return tags
