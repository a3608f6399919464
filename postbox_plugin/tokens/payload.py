"""What a token says, as bytes: version 1 of the record that is sealed.

=========  =====================================================================================================
bytes      meaning
=========  =====================================================================================================
1          bits 0 and 1: privacy level; bit 2: the link has tags; bit 3: the message id is 12 packed bytes
12, or     the message id: packed, if it is 16 characters of canonical base64url; otherwise its length and its
1 + n      characters
4          when the message was rewritten: seconds since 1970, big-endian
1 to 5     the link's index, as a varint (LEB128: seven bits a byte, the lowest first)
the rest   two deflate streams (RFC 1951, preset dictionary): what all links of the message carry, as MessagePack;
           then the link's address, as UTF-8, or, if it has tags, ``[tags, address]`` as MessagePack
=========  =====================================================================================================

The version is not in the record: it is part of the key id and of what AES-SIV authenticates.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

import msgspec

from postbox_plugin.mail import OpenedLink, Tags, domain_of
from postbox_plugin.tokens.dictionary import DICTIONARY

__all__ = ["LinkPacker", "MessageFacts", "unpack"]

_PRIVACY: Final = ("full", "truncated", "none")
_TAGS: Final = 0b0100
_PACKED_ID: Final = 0b1000
_PACKABLE_ID: Final = re.compile(r"[A-Za-z0-9_-]{16}")
# A window of 4 KiB is as good as one of 32 for records this short, and fifteen times quicker to set up.
_WINDOW: Final = -12
_MEMORY: Final = 4

_FRESH: Final = zlib.compressobj(9, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=DICTIONARY)

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

REMEMBERED: Final = 1024
"""How many links are remembered deflated."""
REMEMBERED_LENGTH: Final = 512
"""The longest of them, in characters, or in bytes where there are tags."""


_LinkTags = dict[str, tuple[str, ...]]


class MessageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What all the links of one message carry.

    :ivar message_id: our id of the message.
    :ivar sent_at: aware; whole seconds are kept.
    :ivar identity: the sender identity.
    :ivar tags: the message tags.
    :ivar headers: the carried headers, by name in lower case, each with one text an address or value.
    :ivar privacy: ``full``, ``truncated`` or ``none``.
    """

    message_id: str
    sent_at: datetime
    identity: str = ""
    tags: Tags = {}
    headers: Mapping[str, tuple[str, ...]] = {}
    privacy: str = "full"


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """The message's share of the body. ``date`` is ``[seconds after sent_at, minutes east of UTC or nil for -0000]``
    where that gives the very text of the header back. A nil identity is the domain of ``from_``."""

    identity: str | None
    tags: dict[str, tuple[str, ...]]
    from_: tuple[str, ...]
    to: tuple[str, ...]
    subject: str
    date: str | tuple[int, int | None]
    original_id: str


class LinkPacker:
    """Packs the links of one message; what they have in common is packed once."""

    __slots__ = ("_shared", "_start", "_start_with_tags")

    def __init__(self, facts: MessageFacts) -> None:
        packed_id = _packed_id(facts.message_id)
        text = facts.message_id.encode("ascii")
        seconds = int(facts.sent_at.timestamp())
        head = _PRIVACY.index(facts.privacy) | (_PACKED_ID if packed_id else 0)
        id_and_time = (packed_id or bytes((len(text),)) + text) + seconds.to_bytes(4, "big")
        self._start, self._start_with_tags = (bytes((bits,)) + id_and_time for bits in (head, head | _TAGS))
        headers = facts.headers
        message = _Message(
            None if facts.identity == domain_of(headers.get("from", ())) else facts.identity,
            dict(facts.tags),
            headers.get("from", ()),
            headers.get("to", ()),
            _only(headers, "subject"),
            _packed_date(_only(headers, "date"), seconds),
            _only(headers, "message-id"),
        )
        self._shared = _deflated(msgspec.msgpack.encode(message))

    def pack(self, url: str, index: int, tags: Tags) -> bytes:
        """The record of one link.

        :param url: the original address.
        :param index: the link's place in its mail, from 0.
        :param tags: the link tags.
        """
        start = self._start_with_tags if tags else self._start
        own = msgspec.msgpack.encode((tags, url)) if tags else url
        deflated = _remembered_deflated(own) if len(own) <= REMEMBERED_LENGTH else _deflated(own)
        return start + (_SHORT_VARINTS[index] if index <= 0x7F else _varint(index)) + self._shared + deflated


def unpack(record: bytes) -> OpenedLink:
    """Read a record.

    :raises ValueError: if it is not one. That cannot happen to a record that was sealed with one of our keys.
    """
    try:
        head = record[0]
        if head & _PACKED_ID:
            message_id = base64.urlsafe_b64encode(record[1:13]).decode("ascii")
            position = 13
        else:
            position = 2 + record[1]
            message_id = record[2:position].decode("ascii")
        seconds = int.from_bytes(record[position : position + 4], "big")
        index, position = _read_varint(record, position + 4)
        shared, rest = _inflated(record[position:])
        own, _ = _inflated(rest)
        message = msgspec.msgpack.decode(shared, type=_Message)
        tags, url = msgspec.msgpack.decode(own, type=tuple[_LinkTags, str]) if head & _TAGS else ({}, own.decode())
        privacy = _PRIVACY[head & 0b11]
    except (IndexError, UnicodeDecodeError, zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"not a version 1 record: {error}") from error
    return OpenedLink(
        url=url,
        index=index,
        tags=tags,
        message_id=message_id,
        sent_at=datetime.fromtimestamp(seconds, UTC),
        message_tags=message.tags,
        identity=domain_of(message.from_) if message.identity is None else message.identity,
        headers=_headers(message, seconds),
        privacy=privacy,
    )


def _deflated(data: str | bytes) -> bytes:
    """A whole stream. It ends on a full byte, so that another can follow it."""
    deflating = _FRESH.copy()
    return deflating.compress(data.encode() if isinstance(data, str) else data) + deflating.flush()


# A newsletter goes to many readers with much the same links. Text knows its own hash from the time before.
_remembered_deflated: Final = lru_cache(REMEMBERED)(_deflated)


def _inflated(data: bytes) -> tuple[bytes, bytes]:
    """What the first stream holds, and what follows it."""
    inflating = zlib.decompressobj(_WINDOW, zdict=DICTIONARY)
    inflated = inflating.decompress(data)
    if not inflating.eof:
        raise ValueError("not a version 1 record: it was cut")
    return inflated, inflating.unused_data


def _headers(message: _Message, seconds: int) -> dict[str, tuple[str, ...]]:
    date = message.date if isinstance(message.date, str) else _date_text(*message.date, seconds)
    found = {
        "from": message.from_,
        "to": message.to,
        "subject": (message.subject,) if message.subject else (),
        "date": (date,) if date else (),
        "message-id": (message.original_id,) if message.original_id else (),
    }
    return {name: values for name, values in found.items() if values}


def _only(headers: Mapping[str, tuple[str, ...]], name: str) -> str:
    return next(iter(headers.get(name, ())), "")


def _packed_id(message_id: str) -> bytes:
    return base64.urlsafe_b64decode(message_id) if _PACKABLE_ID.fullmatch(message_id) else b""


@lru_cache(16)  # and to several of them within a second
def _packed_date(text: str, seconds: int) -> str | tuple[int, int | None]:
    """The Date header as two small numbers, if its text is exactly what they are written as (RFC 5322, 3.3)."""
    try:
        moment = parsedate_to_datetime(text)
        offset = moment.utcoffset()
        minutes = None if offset is None else int(offset.total_seconds()) // 60
        after = int((moment.replace(tzinfo=UTC) if offset is None else moment).timestamp()) - seconds
        return (after, minutes) if _date_text(after, minutes, seconds) == text else text
    except (TypeError, ValueError, OverflowError):  # no date, or one beyond the years 1 to 9999
        return text


def _date_text(after: int, minutes: int | None, seconds: int) -> str:
    """As ``email.utils.format_datetime`` writes a date, in a fifth of its time: every click waits for it."""
    offset = minutes or 0
    moment = datetime.fromtimestamp(seconds + after + 60 * offset, UTC)
    zone = "-0000" if minutes is None else f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{abs(offset) % 60:02}"
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} {zone}"
    )


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SHORT_VARINTS: Final = tuple(map(_varint, range(0x80)))


def _read_varint(record: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = record[position]
        number |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return number, position
