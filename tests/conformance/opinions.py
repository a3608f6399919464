"""Second opinions: what html5lib and lxml see in an HTML text, for comparison with what we see in it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import html5lib  # type: ignore[import-untyped]
import lxml.html
from html5lib._tokenizer import HTMLTokenizer  # type: ignore[import-untyped]
from html5lib.constants import tokenTypes  # type: ignore[import-untyped]

from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.scanner import scan

__all__ = ["Node", "Tag", "html5lib_nodes", "links", "lxml_nodes", "our_tags", "reference_tags", "reference_value"]

_STATE_AFTER = {
    **dict.fromkeys(("style", "xmp", "iframe", "noembed", "noframes"), "rawtextState"),
    **dict.fromkeys(("textarea", "title"), "rcdataState"),
    "script": "scriptDataState",
    "plaintext": "plaintextState",
}
_VML = frozenset(
    f"v:{shape}"
    for shape in ("roundrect", "rect", "shape", "oval", "line", "polyline", "curve", "arc", "image", "group")
)
# Never matches a bogus comment like <![if !mso]>, which ends before the first ">".
_CONDITION = re.compile(r"\[if(?!\w)[^\]]*\]>", re.IGNORECASE)


class Tag(NamedTuple):
    """The start tag of a link element: its name, and its attributes by name with their decoded values."""

    name: str
    attributes: dict[str, str]


class Node(NamedTuple):
    """A node of a tree: its element's name (``""`` for comments and the like), attributes, text and tail."""

    name: str
    attributes: dict[str, str]
    text: str
    tail: str


class _Tokenizer(HTMLTokenizer):  # type: ignore[misc]
    """html5lib's tokenizer without its one defect that matters here."""

    def commentStartState(self) -> bool:
        """The standard goes on to the comment state at a NUL (13.2.5.43 and 13.2.5.44, "anything else"); html5lib 1.1
        stays, and takes a ``>`` right after it for the comment's end.
        """
        return self._moving_on(super().commentStartState, self.commentStartState)

    def commentStartDashState(self) -> bool:
        """Likewise."""
        return self._moving_on(super().commentStartDashState, self.commentStartDashState)

    def _moving_on(self, step: Callable[[], bool], state: Callable[[], bool]) -> bool:
        going_on = step()
        if self.state == state and self.currentToken["data"]:  # type: ignore[has-type]
            self.state = self.commentState
        return going_on


def reference_tags(html: str, *, conditional: bool = False) -> Iterator[Tag]:
    """The link elements that html5lib's tokenizer sees, switched at raw text elements as its tree builder does (with
    scripting off), and set upon the inside of conditional comments, which no HTML parser opens.
    """
    tokenizer = _Tokenizer(html)
    wanted = {"a", "area"} | (_VML if conditional else set())
    for token in tokenizer:
        if token["type"] == tokenTypes["Comment"]:
            condition = _CONDITION.match(token["data"])
            if condition:
                yield from reference_tags(token["data"][condition.end() :], conditional=True)
        elif token["type"] == tokenTypes["StartTag"]:
            if token["name"] in _STATE_AFTER:
                tokenizer.state = getattr(tokenizer, _STATE_AFTER[token["name"]])
            elif token["name"] in wanted:
                yield Tag(token["name"], dict(token["data"]))


def reference_value(written: str) -> str:
    """What html5lib makes of an attribute value that is written so between double quotes."""
    (tag,) = reference_tags(f'<a href="{written}">')
    return tag.attributes["href"]


def our_tags(html: str) -> list[Tag]:
    """The link elements that our scanner sees."""
    return [
        Tag(
            element.name,
            {
                name.replace("\0", "\N{REPLACEMENT CHARACTER}"): decode_attribute(
                    html[span.value_start : span.value_end]
                )
                for name, span in element.attributes.items()
            },
        )
        for element in scan(html)
    ]


def links(tags: Iterable[Tag]) -> list[Tag]:
    """Those of the tags that link: in conditional comments our scanner looks at no others."""
    return [tag for tag in tags if "href" in tag.attributes]


def html5lib_nodes(html: str) -> list[Node]:
    """The tree that html5lib builds, node by node in document order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that no XML could hold
        return _nodes(html5lib.parse(html, treebuilder="etree", namespaceHTMLElements=False).iter())


def lxml_nodes(html: str) -> list[Node]:
    """The tree that libxml2 builds, node by node in document order; none where it sees no document."""
    if not html.strip():
        return []
    # As bytes that say their charset: of text that declares another one, lxml wants no part.
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    tree = lxml.html.document_fromstring(html.encode("utf-8"), parser=parser)
    return _nodes(tree.getroottree().iter())


def _nodes(elements: Iterable[Any]) -> list[Node]:
    return [
        Node(
            element.tag if isinstance(element.tag, str) else "",
            {str(name): value for name, value in element.attrib.items()},
            element.text or "",
            element.tail or "",
        )
        for element in elements
    ]
