"""Header values as they stand: unfolding, splitting addresses, the tags of ``X-Postbox-Tags``."""

from __future__ import annotations

import re
from typing import Final

from postbox_plugin.mail import Headers

__all__ = ["MESSAGE_ID", "OWN_HEADERS", "TRACK", "read_message_tags", "split_addresses", "unfold"]

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
    line = (_FOLD.sub("", value) if "\n" in value else value).strip("\r\n")
    if line.isascii():
        return line.strip(" \t")
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \t")


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


def read_message_tags(headers: Headers) -> dict[str, tuple[str, ...]]:
    """The message tags that the headers name: ``X-Postbox-Tags: campaign=spring, cohort=b``; SES's header reads the
    same.

    :param headers: the message's headers.
    """
    tags: dict[str, tuple[str, ...]] = {}
    for value in (*headers.all(SES_TAGS), *headers.all(TAGS)):
        for pair in value.split(","):
            key, _, text = pair.partition("=")
            if key := key.strip():
                tags[key] = (text.strip(),)
    return tags
