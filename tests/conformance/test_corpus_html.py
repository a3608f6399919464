"""Every HTML template of the corpus, rewritten: only links changed, and html5lib and lxml see the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conformance.corpus import TRACKING_LINK, files, needs_corpus, restored, rewritten, text_of, variants
from conformance.opinions import Node, html5lib_nodes, links, lxml_nodes, our_tags, reference_tags

pytestmark = needs_corpus

TEMPLATES = [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in files("html")]
MJML = [pytest.param(path, id=path.name) for path in files("mjml")]
BROWSERS_DROP = {ord(character): None for character in "\t\n\r"}  # WHATWG URL, 4.4


@pytest.mark.parametrize("path", TEMPLATES)
def test_our_scanner_sees_the_links_that_html5lib_sees(path: Path) -> None:
    """The links of a template, with all their attributes, are those that html5lib's tokenizer finds."""
    for html in variants(path):
        assert links(our_tags(html)) == links(reference_tags(html))


@pytest.mark.parametrize("path", TEMPLATES)
def test_nothing_but_link_values_changes(path: Path) -> None:
    """With the original values put back in, a tracked template is the template, to the character."""
    for html in variants(path):
        postbox, tracked = rewritten(html)
        assert restored(tracked, html, postbox) == html


@pytest.mark.parametrize("parsed", [html5lib_nodes, lxml_nodes], ids=["html5lib", "lxml"])
@pytest.mark.parametrize("path", TEMPLATES)
def test_parsers_see_the_same_tree_with_the_same_links(path: Path, parsed: Callable[[str], list[Node]]) -> None:
    """A parser sees in a tracked template the elements, attributes and texts of the original, and where that has a
    link to track, one that opens to it.
    """
    for html in variants(path):
        check_trees(html, parsed)


def check_trees(html: str, parsed: Callable[[str], list[Node]]) -> None:
    postbox, tracked = rewritten(html)
    written = {tag.attributes["href"] for tag in links(reference_tags(html))}
    before, after = parsed(html), parsed(tracked)
    assert len(before) == len(after)
    for old, now in zip(before, after, strict=True):
        new = now
        link = new.attributes.get("href", "")
        if TRACKING_LINK.fullmatch(link):
            href = old.attributes["href"]
            # libxml2 decodes some references that have no semicolon: html5lib decides.
            assert postbox.open(link).url in meanings(href) or (parsed is lxml_nodes and href not in written)
            new = new._replace(attributes={**new.attributes, "href": href})
        if not new.name:
            new = new._replace(text=restored(new.text, html, postbox))
        assert new == old


def test_the_corpus_has_links_to_track() -> None:
    """What the tests above say is said of hundreds of links."""
    tracked = [TRACKING_LINK.findall(rewritten(html)[1]) for path in files("html") for html in variants(path)]
    assert sum(map(len, tracked)) > 1100
    assert sum(map(bool, tracked)) > 200


@pytest.mark.parametrize("path", MJML)
def test_mjml_sources_are_left_alone(path: Path) -> None:
    """In MJML that nobody compiled, only ``a`` elements are links: what is within mj-text, never an mj-button."""
    source = text_of(path)
    assert links(our_tags(source)) == links(reference_tags(source))
    postbox, tracked = rewritten(source)
    assert restored(tracked, source, postbox) == source


def meanings(href: str) -> tuple[str, ...]:
    """What an attribute's value, decoded, may be tracked as: it itself, or with the scheme that it leaves out."""
    url = href.strip("".join(map(chr, range(0x21)))).translate(BROWSERS_DROP)
    return url, f"http:{url}", f"http://{url}"
