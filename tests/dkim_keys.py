"""DKIM (RFC 6376) for tests: a key pair, and DNS that knows it."""

from __future__ import annotations

import email
from base64 import b64encode

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

__all__ = ["DOMAIN", "PRIVATE_KEY", "SELECTOR", "is_signed", "signed"]

DOMAIN = b"example.com"
SELECTOR = b"spring"

_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_public = _key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

PRIVATE_KEY = _key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def signed(raw: bytes) -> bytes:
    """The message with a DKIM signature over its body and all the headers that it has."""
    names = [name.encode() for name in email.message_from_bytes(raw)]
    return bytes(dkim.sign(raw, SELECTOR, DOMAIN, PRIVATE_KEY, include_headers=names)) + raw


def is_signed(raw: bytes) -> bool:
    """Whether the message has a signature, and it verifies."""
    return bool(dkim.verify(raw, dnsfunc=_records))


def _records(name: bytes, timeout: int = 5) -> bytes:
    return b"v=DKIM1; k=rsa; p=" + b64encode(_public) if name == SELECTOR + b"._domainkey." + DOMAIN + b"." else b""
