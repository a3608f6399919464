"""A whole template: checked, with what it includes in place."""

from __future__ import annotations

from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Final

import msgspec
from lxml import etree

from postbox_hooks.mjml.components import problems
from postbox_hooks.mjml.errors import MjmlError, Problem
from postbox_hooks.mjml.source import Kept, parse

__all__ = ["Origin", "load"]


class Origin(msgspec.Struct, frozen=True):
    """Where a template comes from.

    :ivar file: its file; ``""`` where it is in none.
    :ivar folder: the folder that paths of ``mj-include`` start at; ``None`` where nothing is to be included.
    :ivar limit: the folder that no include may lead out of; ``None`` where it may lead anywhere.
    """

    file: str = ""
    folder: Path | None = None
    limit: Path | None = None

    def of(self, path: str) -> Origin:
        """Where what it includes comes from.

        :param path: as ``mj-include`` has it.
        :raises ValueError: if nothing may be included from there; it says why.
        """
        if self.folder is None:
            raise ValueError("this template comes from no folder: give the plugin one, folder=...")
        found = self.folder / path
        if self.limit is not None and not found.resolve().is_relative_to(self.limit.resolve()):
            raise ValueError(f"{path} is outside of {self.limit}, where nothing is included from")
        return Origin(str(found), found.parent, self.limit)


def load(text: str, origin: Origin, kept: Kept) -> etree._Element:
    """The ``mjml`` element of a template, with what it includes in place.

    :param text: MJML.
    :param origin: where it comes from.
    :param kept: where HTML and comments go.
    :raises MjmlError: if it is malformed, has unknown components or attributes, or what it includes cannot be read.
    """
    loader = _Loader(kept)
    root = loader.checked(text, origin)
    template = root.find("mjml")
    if template is None or template.find("mj-body") is None:
        loader.found.append(Problem(f"it has no {'mjml' if template is None else 'mj-body'}", origin.file))
    else:
        if template.find("mj-head") is None:
            template.insert(0, etree.Element("mj-head"))
        loader.include(template, template, origin, (_identity(origin),))
    if loader.found:
        raise MjmlError(loader.found)
    assert template is not None
    return template


class _Loader:
    def __init__(self, kept: Kept) -> None:
        self._kept: Final = kept
        self.found: Final[list[Problem]] = []

    def checked(self, text: str, origin: Origin) -> etree._Element:
        root = parse(text, origin.file, self._kept)
        self.found.extend(problems(root, origin.file))
        return root

    def include(self, template: etree._Element, tree: etree._Element, origin: Origin, within: Sequence[Path]) -> None:
        """Put what it includes in the place of every ``mj-include`` of a tree.

        :param template: the whole template, whose head takes what stands in the head of an included one.
        :param within: the files that are being included, to see a circle.
        """
        for element in list(tree.iter("mj-include")):
            try:
                inside = origin.of(unescape(element.get("path", "")))
                if _identity(inside) in within:
                    raise ValueError(f"{inside.file} includes itself")
                text = Path(inside.file).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
                self.found.append(Problem(reason, origin.file, element.sourceline or 0, "mj-include"))
                continue
            _replace(element, self._pieces(template, element, text, inside, within))

    def _pieces(
        self, template: etree._Element, element: etree._Element, text: str, origin: Origin, within: Sequence[Path]
    ) -> list[etree._Element]:
        kind = element.get("type", "mjml")
        if kind in ("css", "html"):
            piece = etree.Element("mj-style" if kind == "css" else "mj-raw")
            if kind == "css" and element.get("css-inline") == "inline":
                piece.set("inline", "inline")
            piece.text = self._kept.keep(text)
            if kind == "html":
                return [piece]
            _head(template).append(piece)
            return []
        root = self.checked(text, origin)
        self.include(template, root, origin, (*within, _identity(origin)))
        whole = root.find("mjml")
        if whole is None:
            return list(root)
        head, body = whole.find("mj-head"), whole.find("mj-body")
        if head is not None:
            _head(template).extend(list(head))
        return [] if body is None else list(body)


def _identity(origin: Origin) -> Path:
    return Path(origin.file).resolve()


def _head(template: etree._Element) -> etree._Element:
    head = template.find("mj-head")
    assert head is not None  # load() made one
    return head


def _replace(element: etree._Element, pieces: Sequence[etree._Element]) -> None:
    parent = element.getparent()
    assert parent is not None  # there is the root around everything
    place = parent.index(element)
    parent[place : place + 1] = pieces
