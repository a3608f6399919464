"""Links into tracking links: what to replace where in an HTML text, and what becomes of every link."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from postbox_plugin.links.attributes import TagAttributes
from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.rules import AddressRules, parse_tags
from postbox_plugin.links.scanner import Attribute, Element, scan
from postbox_plugin.mail import Link, Tags

__all__ = ["Edit", "Rewritten", "apply", "links_of", "rewrite"]

MAX_LINK: Final = 2083
"""The longest address that every mail client and gateway still passes on: the old limit of Internet Explorer."""

_EQUALS_SIGN: Final = re.compile(r"[\t\n\f\r ]*=")


Edit = tuple[int, int, str]
"""Replace the characters from the first number to the second by this text."""


class Rewritten(NamedTuple):
    """What rewriting an HTML text comes to.

    :ivar edits: in order, without overlap. Outside of them nothing changes.
    :ivar links: every link of the text, tracked or not.
    """

    edits: list[Edit]
    links: list[Link]


def rewrite(
    html: str,
    rules: AddressRules,
    *,
    first_index: int,
    decide: Callable[[Link, Mapping[str, str]], Link] | None,
    seal: Callable[[str, int, Tags], str],
    faithful: bool = True,
    longest: int = MAX_LINK,
) -> Rewritten:
    """Find the links of an HTML text and seal those that are to be tracked.

    :param html: the text of an HTML part.
    :param rules: which addresses are tracked.
    :param first_index: the index of the first link: how many the parts before this one have.
    :param decide: the plugins' word on a link that would be tracked, of which they also see the tag's attributes;
        ``None`` where none has one.
    :param seal: makes the tracking link of an address, an index and tags.
    :param faithful: whether a character that is not ASCII is what its author wrote; not so where a text is read byte
        by byte.
    :param longest: the most characters a tracking link may have where the original address does not have more itself.
    """
    edits: list[Edit] = []
    links: list[Link] = []
    for element in scan(html):
        if element.href is None:
            continue
        start, end = element.href
        value = html[start:end]
        url, reason = rules.read(value)
        own = element.own
        tags = own.get("postbox:tags") if own else None
        opted_out = own.get("postbox:no-track") if own else None
        if opted_out:
            reason = "postbox:no-track"
            edits.append(_removal(html, opted_out))
        elif not (reason or faithful or value.isascii()):
            reason = "not readable in the charset of its part"
        index = first_index + len(links)
        link = Link(
            tag=element.name,
            url=url,
            index=index,
            start=start,
            end=end,
            tags=_tags(html, tags) if tags else {},
            track=not reason,
            reason=reason,
        )
        if decide is not None and not reason:
            link = decide(link, TagAttributes(html, element))
        if link.track:
            tracking = seal(url, index, link.tags)
            if len(tracking) > longest >= len(value):
                link = link.replace(track=False, reason=f"its tracking link would be over {longest} characters")
            elif tags:
                edits += sorted(((start, end, tracking), _removal(html, tags)))
            else:
                edits.append((start, end, tracking))
        links.append(link)
    return Rewritten(edits, links)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits made."""
    pieces: list[str] = []
    position = 0
    for start, end, new in edits:
        pieces += (text[position:start], new)
        position = end
    pieces.append(text[position:])
    return "".join(pieces)


def links_of(html: str) -> Iterator[tuple[Element, int, int]]:
    """The link elements that have an ``href``, with where its value begins and ends.

    :param html: the text of an HTML part.
    """
    for element in scan(html):
        if element.href:
            yield element, *element.href


def _tags(html: str, attribute: Attribute) -> dict[str, tuple[str, ...]]:
    return parse_tags(decode_attribute(html[attribute.value_start : attribute.value_end]))


def _removal(html: str, attribute: Attribute) -> Edit:
    """Removes an attribute, and the white space before it where what follows keeps its neighbours apart.

    A ``/`` does not: after ``href=x`` it would become the end of the unquoted value. Before an ``=``, which begins the
    next attribute's name, a ``/`` stays in its place, lest the one before it gets a value.
    """
    start = attribute.start
    if _EQUALS_SIGN.match(html, attribute.end):
        return start, attribute.end, "/"
    if html[attribute.end : attribute.end + 1] in ("\t", "\n", "\f", "\r", " ", ">"):
        while html[start - 1] in "\t\n\f\r ":
            start -= 1
    return start, attribute.end, ""
