"""Sealing and opening: ``TOKEN = key id + base64url(AES-SIV(record))``, without padding, in one canonical form."""

from __future__ import annotations

import binascii
import re
import string
from typing import Final

from cryptography.exceptions import InvalidTag

from postbox_plugin.errors import InvalidToken
from postbox_plugin.mail import OpenedLink, Tags
from postbox_plugin.tokens.keyring import KEY_ID_CHARS, Key, KeyRing
from postbox_plugin.tokens.payload import LinkPacker, MessageFacts, unpack

__all__ = ["MessageSealer", "open_token"]

_ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_PURPOSE: Final = [b"postbox click, token version 1"]
"""What AES-SIV authenticates beside the record (RFC 5297, associated data): a token for something else never opens
as a link.
"""

_LAST: Final = (_ALPHABET, "", _ALPHABET[::16], _ALPHABET[::4])
"""The characters that can be the last (RFC 4648, 3.5), by what the length leaves when divided by 4."""

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


class MessageSealer:
    """Seals the links of one message.

    :param key: the sealing key.
    :param facts: what all the links of the message carry.
    """

    __slots__ = ("_encrypt", "_key_id", "_pack")

    def __init__(self, key: Key, facts: MessageFacts) -> None:
        self._key_id: Final = key.id
        self._encrypt: Final = key.cipher.encrypt
        self._pack: Final = LinkPacker(facts).pack

    def seal(self, url: str, index: int, tags: Tags) -> str:
        """The token of one link.

        :param url: the original address.
        :param index: the link's place in its mail, from 0.
        :param tags: the link tags.
        """
        sealed = self._encrypt(self._pack(url, index, tags), _PURPOSE)
        return self._key_id + binascii.b2a_base64(sealed, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def open_token(ring: KeyRing, token: str) -> OpenedLink:
    """What a token holds.

    :param ring: the keys, any of which may have sealed it.
    :param token: the token.
    :raises InvalidToken: if it was not sealed with one of them, or was changed in any way.
    """
    if not _TOKEN.fullmatch(token):
        raise InvalidToken("not a token: it has characters that no token has")
    key_id, text = token[:KEY_ID_CHARS], token[KEY_ID_CHARS:]
    try:
        sealed = binascii.a2b_base64(text.encode("ascii").translate(_STANDARD) + b"==="[: -len(text) % 4])
    except ValueError:
        raise InvalidToken("not a token: it was cut") from None
    # The decoder passes over the spare bits of the last character: without this, one link has several tokens.
    if text[-1:] not in _LAST[len(text) % 4]:
        raise InvalidToken("not a token: it is not in its canonical form")
    key = ring.get(key_id)
    if key is None:
        raise InvalidToken(f"sealed with a key that is not in the ring (key id {key_id})", key_id)
    try:
        return unpack(key.cipher.decrypt(sealed, _PURPOSE))
    except (InvalidTag, ValueError):
        raise InvalidToken("not a token of ours: it was altered or made up") from None
