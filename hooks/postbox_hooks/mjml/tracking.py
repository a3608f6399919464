"""``postbox:tags`` and ``postbox:no-track`` of components, carried through to the links that these make.

The mjml library passes over attributes that it does not know. But wherever a component's ``href`` arrives, there is the
link: so a mark is put at its end, and what the component says of its link is written beside it where the mark is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from lxml import etree

from postbox_hooks.mjml.components import LINKS
from postbox_hooks.mjml.source import NO_TRACK, TAGS

__all__ = ["Tracking"]


class Tracking:
    """What the components of one template say of their links.

    :param template: the whole template. Marks are put into it, and what they stand for is taken out of it.
    :param mark: what occurs nowhere in the template.
    """

    def __init__(self, template: etree._Element, mark: str) -> None:
        self._mark: Final = f"{mark}t"
        self._written: Final[list[str]] = []
        inherited = _Inherited(template)
        for element in template.iter(*LINKS):
            parent = element.getparent()
            if parent is not None and parent.tag != "mj-attributes":
                self._take(element, inherited.attributes(element))
        etree.strip_attributes(template, TAGS, NO_TRACK)

    def _take(self, element: etree._Element, attributes: Mapping[str, str]) -> None:
        if NO_TRACK in attributes:
            written = " postbox:no-track"
        else:
            written = f' postbox:tags="{attributes[TAGS]}"' if TAGS in attributes else ""
        href = attributes.get("href")
        # An empty address makes no link, but after the base of a navigation bar.
        if written and (href or (href == "" and element.tag == "mj-navbar-link")):
            element.set("href", f"{href}{self._mark}{len(self._written)}t")
            self._written.append(written)

    def written(self, html: str) -> str:
        """The compiled template, with the attributes on its links and without the marks.

        :param html: what the mjml library made of the template.
        """
        # What follows the mark within the value is the rest of a social network's sharing address.
        link = re.compile(rf"""{self._mark}([0-9]+)t([^"'<>]*+["'])""")
        return link.sub(lambda found: found[2] + self._written[int(found[1])], html)


class _Inherited:
    """What components have of ``mj-attributes``, in the order in which the mjml library lets one outweigh another."""

    def __init__(self, template: etree._Element) -> None:
        self._defaults: Final[dict[str, dict[str, str]]] = {}
        self._classes: Final[dict[str, dict[str, str]]] = {}
        for element in template.iterfind("mj-head/mj-attributes/*"):
            name = str(element.tag)
            is_class = name == "mj-class"
            kept = self._classes if is_class else self._defaults
            kept.setdefault(element.get("name", "") if is_class else name, {}).update(_items(element))

    def attributes(self, element: etree._Element) -> dict[str, str]:
        found = {**self._defaults.get("mj-all", {}), **self._defaults.get(str(element.tag), {})}
        for name in element.get("mj-class", "").split():
            found |= self._classes.get(name, {})
        return found | dict(_items(element))


def _items(element: etree._Element) -> Iterator[tuple[str, str]]:
    return ((str(name), str(value)) for name, value in element.attrib.items())
