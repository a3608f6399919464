"""Which addresses are tracked: an attribute's value in, the address to track or the reason not to out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import ada_url
import tld

from postbox_plugin.links.references import decode_attribute
from postbox_plugin.settings import Settings
from postbox_plugin.tokens.keyring import KEY_ID_CHARS, KeyRing

__all__ = ["Address", "AddressRules", "parse_tags"]

REMEMBERED: Final = 1024
"""How many values of link attributes are remembered with what they mean."""
REMEMBERED_LENGTH: Final = 512
"""The longest of them, in characters."""

_STRIPPED: Final = "".join(map(chr, range(0x21)))  # C0 controls and space, WHATWG URL 4.4, step 1 of the parser
_DROPPED: Final = {ord(character): None for character in "\t\n\r"}  # likewise step 3

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PLACEHOLDERS: Final = (("{{", "}}"), ("{%", "%}"), ("*|", "|*"), ("<%", "%>"))
_PERCENT_PLACEHOLDER = re.compile(r"%%[^%]+%%")
# A host without a scheme: dotted, with a last label that says where the name is registered; a port may follow.
_HOST = re.compile(r"(?P<host>[^\s:/?#\\@]+\.(?P<last>[^\s.:/?#\\@]+)\.?)(?::\d{1,5})?(?=[/?#\\]|\Z)")


# What most addresses are: absolute, with a host of letters, digits and hyphens, and nothing that any rule is about.
_PLAIN = re.compile(
    r"https?://(?![^/?#]*[xX][nN]--)((?:[A-Za-z0-9-]++\.)++[A-Za-z]{2,}+)(?:[/?#](?:[!#$'-;=?-Z_a-z~]|%[0-9A-Fa-f]{2}|&amp;)*+)?+"
)


class Address(NamedTuple):
    """What an attribute's value means.

    :ivar url: the address, decoded and stripped, with ``http://`` before one that had no scheme.
    :ivar reason: why it is not tracked; ``""`` if it is.
    """

    url: str
    reason: str


class AddressRules:
    """The rules for one installation: its own links are known by its domain, ports, path and key ring."""

    __slots__ = ("_domain", "_own", "_remembered", "_ring")

    def __init__(self, settings: Settings, ring: KeyRing) -> None:
        self._own: Final = tuple(
            ada_url.normalize_url(settings.origin(scheme) + settings.path) for scheme in ("https", "http")
        )
        self._ring: Final = ring
        self._domain: Final = settings.domain.lower()
        # A newsletter goes to many readers with much the same links.
        self._remembered: Final = lru_cache(REMEMBERED)(self._read)

    def read(self, value: str) -> Address:
        """What the value of a link attribute means to a browser, and whether that is tracked.

        :param value: the value as it stands in the HTML.
        """
        return self._remembered(value) if len(value) <= REMEMBERED_LENGTH else self._read(value)

    def _read(self, value: str) -> Address:
        plain = _PLAIN.fullmatch(value)
        if plain and plain[1].lower() != self._domain:
            return Address(value.replace("&amp;", "&"), "")
        url = decode_attribute(value).strip(_STRIPPED).translate(_DROPPED)
        if not url:
            return Address(url, "empty")
        if _has_placeholder(url):
            return Address(url, "a placeholder of the template was not filled in")
        if url[0] in "#?/\\" and not url.startswith("//"):
            return Address(url, "a fragment of the mail itself" if url[0] == "#" else "relative")
        absolute = self._absolute(url)
        if absolute is None:
            scheme = _SCHEME.match(url)
            return Address(url, f"scheme {scheme[1].lower()}" if scheme else "relative")
        try:
            normalized = ada_url.normalize_url(absolute)
        except ValueError:
            return Address(absolute, "no browser can open it")
        return Address(absolute, "already a tracking link" if self._is_own(normalized) else "")

    @staticmethod
    def _absolute(url: str) -> str | None:
        """The address with a scheme, if http or https can be meant by it."""
        if url.startswith("//"):
            return f"http:{url}"
        scheme = _SCHEME.match(url)
        if scheme and scheme[1].lower() in ("http", "https"):
            return url
        host = _HOST.match(url)  # before any other scheme, for `www.example.com:8080` has the form of one
        if host and (url[:4].lower() == "www." or tld.is_tld(_ascii_label(host["last"]))):
            return f"http://{url}"
        return None

    def _is_own(self, normalized: str) -> bool:
        for prefix in self._own:
            if normalized.startswith(prefix):
                return normalized[len(prefix) :][:KEY_ID_CHARS] in self._ring
        return False


def parse_tags(text: str) -> dict[str, tuple[str, ...]]:
    """The value of ``postbox:tags``: ``key:value;key:value;``, split at the first colon of each, trimmed.

    A key that comes again collects its values; a key without a colon has the value ``""``.

    :param text: the decoded attribute value.
    """
    tags: dict[str, list[str]] = {}
    for pair in text.split(";"):
        key, _, value = pair.partition(":")
        if key := key.strip():
            tags.setdefault(key, []).append(value.strip())
    return {key: tuple(values) for key, values in tags.items()}


def _has_placeholder(url: str) -> bool:
    # Not one expression: looking for the end of each of a million openings takes quadratic time.
    for opening, closing in _PLACEHOLDERS:
        start = url.find(opening)
        if start >= 0 and url.find(closing, start + len(opening)) >= 0:
            return True
    return _PERCENT_PLACEHOLDER.search(url) is not None


def _ascii_label(label: str) -> str:
    return label.lower().rstrip(".")
