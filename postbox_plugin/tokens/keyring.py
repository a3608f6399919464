"""Keys, and the ring that holds them: the first seals, every one opens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from postbox_plugin.errors import SettingsError

__all__ = ["KEY_BYTES", "Key", "KeyRing", "new_key"]

KEY_BYTES: Final = 32
"""The size of a key: RFC 5297 uses one half for the S2V function and the other for counter mode."""

KEY_ID_CHARS: Final = 4

_ID_LABEL: Final = b"postbox key id, token version 1\0"


def new_key() -> str:
    """A new random key, 32 bytes as 43 characters of base64url. Keep it secret; keep it: without it no link it
    sealed opens.
    """
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).rstrip(b"=").decode("ascii")


class Key:
    """One key of the ring. Its text appears in no ``repr`` and no error.

    :param text: 32 bytes as base64url, as :func:`new_key` makes them.
    :raises ValueError: if the text is not that.
    :ivar id: four characters that name the key in the tokens it seals. Taken from a hash of the key, so it says
        nothing about the key, and is the same wherever the key stands in the ring.
    """

    __slots__ = ("cipher", "id")

    def __init__(self, text: str) -> None:
        try:
            secret = base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64url text") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"has {len(secret)} bytes instead of {KEY_BYTES}")
        digest = hashlib.sha256(_ID_LABEL + secret).digest()
        self.id: Final = base64.urlsafe_b64encode(digest)[:KEY_ID_CHARS].decode("ascii")
        self.cipher: Final = AESSIV(secret)

    def __repr__(self) -> str:
        return f"<Key {self.id}>"


class KeyRing:
    """The keys of one installation.

    :param texts: the keys, the sealing one first.
    :raises SettingsError: if there is none, one is not a key, or two are the same.
    """

    __slots__ = ("_by_id", "sealing")

    def __init__(self, texts: Sequence[str]) -> None:
        if not texts:
            raise SettingsError(
                "keys", "there is no key", "Make one with `postbox keys new` and put it into keys = [...]"
            )
        self._by_id: dict[str, Key] = {}
        keys = []
        for place, text in enumerate(texts):
            try:
                key = Key(text)
            except ValueError as error:
                remedy = "Write 32 bytes as base64url, as `postbox keys new` prints them"
                if text.startswith(("env:", "file:")):
                    remedy += "; env: and file: are for files of settings, and Postbox.from_mapping"
                raise SettingsError(f"keys[{place}]", f"the key {error}", remedy) from None
            if key.id in self._by_id:
                raise SettingsError(f"keys[{place}]", "the key stands in the ring twice", "Remove one of the two")
            self._by_id[key.id] = key
            keys.append(key)
        self.sealing: Final = keys[0]

    def get(self, key_id: str) -> Key | None:
        """The key with that id, or ``None``."""
        return self._by_id.get(key_id)

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._by_id

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._by_id)})"
