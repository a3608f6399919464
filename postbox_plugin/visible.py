"""What a reader sees of the links of a mail: its HTML as lxml reads it, outside of comments.

Importing it loads lxml, which sending does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import lxml.etree
import lxml.html

__all__ = ["VisibleLink", "parsed", "visible_links", "words"]

_LINKS: Final = ("a", "area")
_ALTERNATIVES: Final = ("area", "img")


class VisibleLink(NamedTuple):
    """One link, with or without an address.

    :ivar element: the element.
    :ivar text: its text, white space collapsed.
    :ivar alternative: what stands for its pictures where they cannot be seen: their ``alt``, or its own.
    """

    element: lxml.html.HtmlElement
    text: str
    alternative: str


def parsed(html: str) -> lxml.html.HtmlElement | None:
    """The document; ``None`` if it holds nothing but comments."""
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        return lxml.html.document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except lxml.etree.ParserError:
        return None


def visible_links(document: lxml.html.HtmlElement) -> Iterator[VisibleLink]:
    """The links of a document, in their order.

    Text within links within links is the innermost one's, as in a browser, where links do not nest (HTML standard,
    13.2.6.4.7).
    """
    links: list[tuple[lxml.html.HtmlElement, list[str], list[str]]] = []
    # Text and alternatives of the links that are open; the first are those of no link.
    open_links: list[tuple[list[str], list[str]]] = [([], [])]
    for event, element in lxml.etree.iterwalk(document, events=("start", "end", "comment", "pi")):
        is_link = event in ("start", "end") and element.tag in _LINKS
        if event == "start":
            if is_link:
                open_links.append(([], []))
                links.append((element, *open_links[-1]))
            text, alternative = open_links[-1]
            text.append(element.text or "")
            if element.tag in _ALTERNATIVES:
                alternative.append(element.get("alt") or "")
            continue
        if is_link:
            open_links.pop()
        open_links[-1][0].append(element.tail or "")
    for element, text, alternative in links:
        yield VisibleLink(element, words("".join(text)), words(" ".join(alternative)))


def words(text: str) -> str:
    """A text with its white space collapsed, as a browser shows it."""
    return " ".join(text.split())
