"""Which components and attributes there are, by the word of the mjml library."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from lxml import etree

from postbox_hooks.mjml.errors import Problem
from postbox_hooks.mjml.source import NO_TRACK, TAGS

__all__ = ["LINKS", "problems"]

LINKS: Final = ("mj-button", "mj-image", "mj-navbar-link", "mj-social-element", "mj-carousel-image")
"""The components that make links."""

_TRACKING: Final = frozenset((TAGS, NO_TRACK))
# What is no component of the mjml library, for it reads them with those around them.
_OTHERS: Final = {
    "mjml": frozenset(("lang", "dir", "owa", "version")),
    "mj-html-attribute": frozenset(("name",)),
    "mj-include": frozenset(("path", "type", "css-inline")),
    "mj-selector": frozenset(("path",)),
}
_IN_ATTRIBUTES: Final = ("mj-all", "mj-class")


def problems(tree: etree._Element, file: str) -> Iterator[Problem]:
    """What is in a tree that there is not.

    :param tree: a template, or a piece of one.
    :param file: where it comes from.
    """
    known = _known()
    for element in tree.iterdescendants("*"):
        name = str(element.tag)
        parent = element.getparent()
        line = element.sourceline or 0
        in_attributes = parent is not None and parent.tag == "mj-attributes"
        if name not in known or (name in _IN_ATTRIBUTES and not in_attributes):
            yield Problem(f"there is no such component{_nearest(name, known)}", file, line, name)
            continue
        for attribute in map(str, element.attrib):
            if attribute not in known[name]:
                shown = _shown(attribute)
                if attribute in _TRACKING:
                    yield Problem(f"{shown} is for components that make links: {', '.join(LINKS)}", file, line, name)
                else:
                    nearest = _nearest(shown, map(_shown, known[name]))
                    yield Problem(f"it has no attribute {shown}{nearest}", file, line, name)


@lru_cache(maxsize=1)
def _known() -> dict[str, frozenset[str]]:
    """The attributes of each component."""
    from mjml.core.registry import components, register_core_components  # type: ignore[import-untyped]  # noqa: PLC0415

    register_core_components()
    known = {name: _attributes(name, component) for name, component in components.items()} | _OTHERS
    everything = frozenset().union(*known.values()) | {"name"}
    return known | dict.fromkeys(_IN_ATTRIBUTES, everything)


def _attributes(name: str, component: Any) -> frozenset[str]:
    own = {*component.allowed_attrs(), *component.default_attrs(), "css-class", "mj-class"}
    return frozenset(own | _TRACKING if name in LINKS else own)


def _shown(attribute: str) -> str:
    return attribute.replace("{postbox}", "postbox:")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [one for one in known if one != name], n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""
