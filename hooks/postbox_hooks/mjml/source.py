"""MJML as its authors write it, and as an XML tree of its components.

MJML is no XML: ampersands stand alone, ``&nbsp;`` is known, attributes need no value, and what is inside of ``mj-text``
is HTML. So the text is read as what it is, and the components are handed to lxml as XML, which says what does not nest.

What is HTML, and what is in comments, is kept aside, with a mark in its place. The mjml library, which parses and
serialises what it is given, never sees it, so it arrives as it was written. Attribute values stand in the tree as they
stand in HTML between double quotes, for that is where the mjml library puts them, unescaped.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from postbox_hooks.mjml.errors import MjmlError, Problem

__all__ = ["NO_TRACK", "TAGS", "Kept", "parse"]

_NAMESPACE: Final = "postbox"
TAGS: Final = f"{{{_NAMESPACE}}}tags"
"""``postbox:tags``, as the tree has it."""
NO_TRACK: Final = f"{{{_NAMESPACE}}}no-track"
"""``postbox:no-track``, as the tree has it."""

# The components whose content is HTML or text, and no components.
_CONTENT: Final = frozenset(
    (
        "mj-accordion-text",
        "mj-accordion-title",
        "mj-button",
        "mj-html-attribute",
        "mj-navbar-link",
        "mj-preview",
        "mj-raw",
        "mj-social-element",
        "mj-style",
        "mj-table",
        "mj-text",
        "mj-title",
    )
)

_TOKEN: Final = re.compile(
    r"""<!--(?P<comment>.*?)-->
      | <(?!!--)[!?][^>]*+>
      | </(?P<end>[A-Za-z][^\s/>]*+)\s*+>
      | <(?P<start>[A-Za-z][^\s/>]*+)
        (?P<attributes>(?: \s++ | /(?!>) | [^\s/>=]++ (?: \s*+ = \s*+ (?: "[^"]*+" | '[^']*+' | [^\s"'>]++ ) )? )*+)
        (?P<empty>/)?+>
    """,
    re.VERBOSE | re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(
    r"""(?P<name>[^\s/>=]++)
        (?: \s*+ = \s*+ (?: "(?P<double>[^"]*+)" | '(?P<single>[^']*+)' | (?P<bare>[^\s"'>]++) ) )?""",
    re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?", re.ASCII)
# An ampersand that begins no character reference. Without its semicolon it begins none in an attribute that was meant
# to have one: `?a=1&copy=2`.
_BARE_AMPERSAND: Final = re.compile(r"&(?!#[0-9]+;|#[xX][0-9A-Fa-f]+;|[A-Za-z][A-Za-z0-9]*;)")
_MISMATCH: Final = re.compile(r"Opening and ending tag mismatch: (\S+) line (\d+) and (\S+), line")
# XML would make spaces of them.
_WHITE_SPACE: Final = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}


_log = logging.getLogger("postbox.send")


class Kept:
    """Texts that are kept aside while the template is compiled."""

    def __init__(self) -> None:
        self.mark: Final = f"mjml{secrets.token_hex(8)}"
        self.texts: Final[list[str]] = []

    def keep(self, text: str) -> str:
        """Keep a text.

        :returns: the mark to put in its place: letters and digits, which no parser changes.
        """
        self.texts.append(text)
        return f"{self.mark}k{len(self.texts) - 1}k"

    def put_back(self, text: str) -> str:
        """The text with what was kept in place of the marks."""
        return re.sub(f"{self.mark}k([0-9]+)k", lambda found: self.texts[int(found[1])], text)


def parse(text: str, file: str, kept: Kept) -> etree._Element:
    """The components of a template, or of a piece of one, as the children of one element. Their lines are those of
    the text.

    :param text: MJML.
    :param file: what errors name as its place.
    :param kept: where HTML and comments go.
    :raises MjmlError: if it is malformed.
    """
    xml = "".join((f'<template xmlns:postbox="{_NAMESPACE}">', *_Reader(text, file, kept).read(), "</template>"))
    try:
        return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        raise MjmlError([_explained(error, file)]) from None


def _explained(error: etree.XMLSyntaxError, file: str) -> Problem:
    found = _MISMATCH.match(error.msg)
    if not found:
        return Problem(error.msg, file, error.lineno or 0)
    opened, line, closed = found.groups()
    if opened == "template":
        return Problem(f"</{closed}> closes nothing", file, error.lineno or 0, closed)
    what = "is never closed" if closed == "template" else f"is not closed before </{closed}> in line {error.lineno}"
    return Problem(what, file, int(line), opened)


class _Reader:
    """Reads MJML and writes XML with as many lines."""

    def __init__(self, text: str, file: str, kept: Kept) -> None:
        self._text: Final = text.replace("\r\n", "\n").removeprefix("\ufeff")
        self._file: Final = file
        self._kept: Final = kept
        self._written: Final[list[str]] = []
        self._position = 0

    def read(self) -> list[str]:
        while (start := self._text.find("<", self._position)) >= 0:
            self._between(start)
            token = _TOKEN.match(self._text, start)
            if token is None:
                raise self._error(start, "this tag or comment does not end")
            self._position = token.end()
            if token["start"]:
                self._start(token)
            elif token["end"]:
                self._written.append(f"</{token['end']}>")
            elif token["comment"] is not None:
                self._written.append(f"<!--{self._kept.keep(token['comment'])}-->")
            self._lines(token[0])
        self._between(len(self._text))
        return self._written

    def _between(self, end: int) -> None:
        text = self._text[self._position : end]
        if text.strip():
            place = self._position + len(text) - len(text.lstrip())
            # MJML goes on without it, and so do templates that are in use.
            _log.warning("%s", self._problem(place, f"{text.strip()[:40]!r} is in no component, and left out"))
        self._lines(text)

    def _start(self, tag: re.Match[str]) -> None:
        name = tag["start"]
        self._written.extend((f"<{name}", *self._attributes(tag), "/>" if tag["empty"] else ">"))
        if name not in _CONTENT or tag["empty"]:
            return
        closing = re.compile(rf"</{re.escape(name)}\s*>").search(self._text, self._position)
        if closing is None:
            raise self._error(tag.start(), "is never closed", name)
        content = self._text[self._position : closing.start()]
        self._position = closing.end()
        if content.strip():
            # The one content that is put between quotes.
            content = _between_quotes(content) if name == "mj-html-attribute" else content
            self._written.append(self._kept.keep(content.strip()))
        self._written.append(f"</{name}>")
        self._lines(self._text[tag.end() : closing.end()])

    def _attributes(self, tag: re.Match[str]) -> list[str]:
        found: dict[str, str] = {}
        for attribute in _ATTRIBUTE.finditer(tag["attributes"]):
            name = attribute["name"]
            if not _NAME.fullmatch(name):
                raise self._error(tag.start(), f"{name!r} is no attribute's name: is a quote missing?", tag["start"])
            value = next(filter(None, attribute.group("double", "single", "bare")), "")
            # Of several with one name the first counts, as it does for MJML and in HTML.
            if name != "xmlns" and not name.startswith("xmlns:"):
                found.setdefault(name, f' {name}="{escape(_between_quotes(value), _WHITE_SPACE)}"')
        return list(found.values())

    def _lines(self, text: str) -> None:
        self._written.append("\n" * text.count("\n"))

    def _error(self, position: int, text: str, component: str = "") -> MjmlError:
        return MjmlError([self._problem(position, text, component)])

    def _problem(self, position: int, text: str, component: str = "") -> Problem:
        return Problem(text, self._file, self._text.count("\n", 0, position) + 1, component)


def _between_quotes(value: str) -> str:
    """A value as HTML has it between double quotes."""
    return _BARE_AMPERSAND.sub("&amp;", value).replace('"', "&quot;")
