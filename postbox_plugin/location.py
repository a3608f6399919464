"""What ``Location`` says: the original address, so that a browser ends where the link itself would have led it."""

from __future__ import annotations

import re

import ada_url

__all__ = ["location"]

# An absolute address in characters that a header can hold and every browser reads alike.
_AS_IT_IS = re.compile(r"https?://[A-Za-z0-9\[][!#-;=?-\[\]^_a-z~]*", re.IGNORECASE)


def location(url: str) -> str:
    """The address as its author wrote it where that is plain ASCII that a browser takes as it is; else in the form
    in which a browser would request it (WHATWG URL, serialising).

    :param url: the original address.
    :raises ValueError: if it is not an http or https address. No such address is ever sealed.
    """
    if _AS_IT_IS.fullmatch(url):
        return url
    href = ada_url.normalize_url(url)
    if not href.startswith(("http://", "https://")):
        raise ValueError("not an http or https address")
    return href
