"""Character references in attribute values, decoded as the HTML standard's tokenizer does (13.2.5.72 to 13.2.5.80).

``html.unescape`` is not that: it reads ``?a=1&copy=2`` as ``?a=1©=2``, where a browser leaves it alone.
"""

from __future__ import annotations

import re
from html.entities import html5
from typing import Final

__all__ = ["decode_attribute"]

_LONGEST_NAME: Final = max(map(len, html5)) - 2  # beside its first letter and its semicolon

_REFERENCE = re.compile(
    rf"&(?:#(?:[xX](?P<hex>[0-9A-Fa-f]+)|(?P<decimal>[0-9]+));?|(?P<name>[A-Za-z][A-Za-z0-9]{{,{_LONGEST_NAME}}};?))"
)

# The table of 13.2.5.80: references into the C1 controls mean what windows-1252 has there.
_WINDOWS_1252: Final = {
    code: bytes((code,)).decode("cp1252") for code in range(0x80, 0xA0) if code not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}
}

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def decode_attribute(value: str) -> str:
    """The value of an attribute as the tokenizer hands it on.

    :param value: what stands between the quotes, or unquoted.
    """
    if "\0" in value:
        value = value.replace("\0", _REPLACEMENT)
    if "\r" in value:  # newlines are normalised before anything is tokenized (13.2.3.5)
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    return _REFERENCE.sub(_decoded, value) if "&" in value else value


def _decoded(match: re.Match[str]) -> str:
    name = match["name"]
    if name is None:
        return _numeric(match["hex"], 16) if match["hex"] else _numeric(match["decimal"], 10)
    for length in range(len(name), 1, -1):
        text = html5.get(name[:length])
        if text is None:
            continue
        if name[length - 1] != ";":
            # "If the character reference was consumed as part of an attribute, and the last character matched is not a
            # semicolon, and the next input character is either an equals sign or an ASCII alphanumeric": left as it is.
            following = name[length:] or match.string[match.end() : match.end() + 1]
            if following and (following[0] == "=" or (following[0].isascii() and following[0].isalnum())):
                return match[0]
        return text + name[length:]
    return match[0]


def _numeric(digits: str, base: int) -> str:
    significant = digits.lstrip("0")
    if len(significant) > 7:  # beyond Unicode in either base; and int() of a long text takes quadratic time
        return _REPLACEMENT
    code = int(significant or "0", base)
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return _REPLACEMENT
    return _WINDOWS_1252.get(code) or chr(code)
