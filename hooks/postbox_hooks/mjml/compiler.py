"""From MJML to HTML: what happens before and after the mjml library compiles a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import unescape
from typing import Final

from lxml import etree

from postbox_hooks.mjml.errors import MjmlError, Problem
from postbox_hooks.mjml.source import Kept
from postbox_hooks.mjml.template import Origin, load
from postbox_hooks.mjml.tracking import Tracking
from postbox_plugin.errors import MissingExtra

__all__ = ["compiled"]

# What may stand in a comment, and no more of it than a list of fonts takes.
_FONT_FAMILY: Final = re.compile(r"font-family:(?:(?!--)[\w ,.'\t\n-]){0,200}", re.IGNORECASE)
_EXTRA: Final = "mjml"


def compiled(text: str, origin: Origin) -> str:
    """The HTML that MJML stands for.

    :param text: the template.
    :param origin: where it comes from.
    :raises MjmlError: naming file, line and component of what is wrong.
    :raises MissingExtra: without the extra ``mjml``.
    """
    try:
        from mjml import mjml_to_html  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("a text/mjml part", "mjml", _EXTRA) from None
    kept = Kept()
    template = load(text, origin, kept)
    tracking = Tracking(template, kept.mark)
    inline = list(_inline_styles(template, kept))
    fonts = f"{kept.mark} {_fonts(kept.texts)}"
    _prepare(template, fonts)
    try:
        html: str = mjml_to_html(etree.tostring(template, encoding="unicode")).html
    except Exception as error:  # it asserts, and looks up, what it has not implemented
        reason = " ".join(filter(None, (type(error).__name__, str(error))))
        raise MjmlError([Problem(f"the mjml library cannot compile it ({reason})", origin.file)]) from error
    html = kept.put_back(tracking.written(html.replace(f"<!--{fonts}-->", "")))
    return _inlined(html, inline) if inline else html


def _prepare(template: etree._Element, fonts: str) -> None:
    """What the mjml library would trip over, or not see."""
    for comment in [one for carousel in template.iter("mj-carousel") for one in carousel.iterchildren(etree.Comment)]:
        _remove(comment)  # it takes them for images
    _merge_attributes(template)
    fonts_by_name = {font.get("name", ""): font for font in template.iterfind("mj-head/mj-font")}
    for font in list(template.iterfind("mj-head/mj-font")):
        name = font.get("name", "")
        if fonts_by_name[name] is not font:
            _remove(font)
        # It reads the name as a regular expression, and takes none that is one of its own.
        font.set("name", f"(?:{re.escape(name)})")
        # The address goes into a style sheet too, where "&amp;" means itself.
        font.set("href", font.get("href", "").replace("&amp;", "&"))
    for selector in template.iter("mj-selector"):
        selector.set("path", unescape(selector.get("path", "")))
    body = template.find("mj-body")
    assert body is not None  # load() saw to it
    # A font is only loaded where it is used, and what is kept aside may be where.
    body.append(etree.Comment(fonts))


def _merge_attributes(template: etree._Element) -> None:
    """Defaults that stand in several places, in one: the mjml library has not implemented the other."""
    seen: dict[tuple[str, str], etree._Element] = {}
    for element in list(template.iterfind("mj-head/mj-attributes/*")):
        first = seen.setdefault((str(element.tag), element.get("name", "")), element)
        if first is not element:
            first.attrib.update(element.attrib)
            _remove(element)


def _remove(node: etree._Element) -> None:
    parent = node.getparent()
    assert parent is not None
    parent.remove(node)


def _fonts(texts: Iterable[str]) -> str:
    found = dict.fromkeys(declaration for text in texts for declaration in _FONT_FAMILY.findall(text))
    return " ".join(f'"{declaration}"' for declaration in found)


def _inline_styles(template: etree._Element, kept: Kept) -> Iterator[str]:
    """The style sheets that are to be written into the elements, taken out of the template."""
    for style in list(template.iterfind("mj-head/mj-style[@inline='inline']")):
        yield kept.put_back(style.text or "")
        _remove(style)


def _inlined(html: str, styles: Iterable[str]) -> str:
    try:
        import css_inline  # noqa: PLC0415
    except ImportError:
        raise MissingExtra('mj-style inline="inline"', "css-inline", _EXTRA) from None
    inliner = css_inline.CSSInliner(
        extra_css="\n".join(styles),
        inline_style_tags=False,
        keep_link_tags=True,
        keep_style_tags=True,
        load_remote_stylesheets=False,
    )
    return inliner.inline(html)
