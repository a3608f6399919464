"""The samples that nobody on this project wrote: where they are, and what is needed to compare them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from postbox_plugin import Mail, Postbox, Settings
from postbox_plugin.links.scanner import scan

__all__ = [
    "DOMAIN",
    "FOLDER",
    "KEY",
    "TRACKING_LINK",
    "files",
    "installation",
    "load",
    "needs_corpus",
    "restored",
    "rewritten",
    "text_of",
    "variants",
]

FOLDER = Path(os.environ.get("POSTBOX_CORPUS", "")).absolute() if os.environ.get("POSTBOX_CORPUS") else None

needs_corpus = pytest.mark.skipif(FOLDER is None, reason="POSTBOX_CORPUS does not say where the samples are")

DOMAIN = "click.example.com"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
PLACEHOLDER = re.compile(r"\{\{[^{}<>]*\}\}|\*\|[^|<>]*\|\*")
TRACKING_LINK = re.compile(rf"https?://{re.escape(DOMAIN)}/c/[A-Za-z0-9_-]+")


def installation(**changes: Any) -> Postbox:
    """A Postbox that swallows no exception."""
    given: dict[str, Any] = {"domain": DOMAIN, "keys": [KEY], "strict": True}
    return Postbox(Settings(**{**given, **changes}))


def files(folder: str) -> list[Path]:
    """All files of one of the corpus's folders, in a stable order; none without a corpus."""
    return sorted(path for path in (FOLDER / folder).rglob("*") if path.is_file()) if FOLDER else []


def load(path: str) -> Any:
    """A JSON file of the corpus, lone surrogates and all."""
    assert FOLDER is not None
    return json.loads((FOLDER / path).read_text("utf-8"))


def restored(tracked: str, original: str, postbox: Postbox) -> str:
    """The tracked HTML with each tracking link replaced by what stood in its place, as its own index says."""
    written = [
        original[href.value_start : href.value_end]
        for href in (element.attributes.get("href") for element in scan(original))
        if href
    ]
    return TRACKING_LINK.sub(lambda match: written[postbox.open(match[0]).index], tracked)


def text_of(path: Path) -> str:
    """A file's text, its line endings as they are."""
    return path.read_bytes().decode("utf-8")


def variants(path: Path) -> list[str]:
    """A template as it ships and, where that has placeholders, once more with an address in the place of each."""
    shipped = text_of(path)
    filled = PLACEHOLDER.sub("https://filled.example/in?a=1&amp;b=2", shipped)
    return [shipped] if filled == shipped else [shipped, filled]


def rewritten(html: str) -> tuple[Postbox, str]:
    """An installation, and what it makes of an HTML text."""
    postbox = installation()
    return postbox, postbox.track_html(html, Mail(sender="shop@example.com", recipient="reader@example.com"))
