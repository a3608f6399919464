"""The attributes of a link's tag as plugins see them: decoded, and only if one looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.scanner import Attribute, Element

__all__ = ["TagAttributes"]


class TagAttributes(Mapping[str, str]):
    """The attributes of a tag, by name in lower case, with their decoded values. Read when first looked at.

    :param html: the text that the tag stands in.
    :param element: the tag.
    """

    __slots__ = ("_element", "_found", "_html")

    def __init__(self, html: str, element: Element) -> None:
        self._html: Final = html
        self._element: Final = element
        self._found: dict[str, Attribute] | None = None

    @property
    def _attributes(self) -> dict[str, Attribute]:
        if self._found is None:
            self._found = self._element.attributes
        return self._found

    def __getitem__(self, name: str) -> str:
        attribute = self._attributes[name]
        return decode_attribute(self._html[attribute.value_start : attribute.value_end])

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)
