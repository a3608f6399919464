"""A mail as it looks, for a page that shows clicks on it: its HTML, with each link marked by its index.

Links are counted as they are when a message is rewritten, so that the indexes are those of the clicks, whether the
message is the one that was written or the one that was sent.
"""

from __future__ import annotations

import base64
import email
import re
from collections.abc import Iterator, Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from postbox_plugin.errors import PostboxError
from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.rewrite import Edit, apply, links_of
from postbox_plugin.message.charsets import Unreadable
from postbox_plugin.message.headers import unfold
from postbox_plugin.message.objects import body_of
from postbox_plugin.message.structure import AnyMessage, header_of, is_inline, walk

__all__ = ["MARK", "Layout", "MarkedLink", "layout_of"]

MARK: Final = "data-postbox-link"
"""The attribute that holds the index of a link."""

_CONTENT_ID: Final = re.compile(r"""\bcid:([^\s"'<>()]+)""", re.IGNORECASE)  # RFC 2392
# What is never tracked, whoever wrote it: another scheme than http and https, or a place in the mail itself. A dot
# before the colon is that of a host with a port.
_OTHER: Final = re.compile(r"\s*(?!https?:)[a-z][a-z0-9+-]*:|\s*#", re.IGNORECASE)
_REMOTE: Final = re.compile(r"\s*(?:https?:|//)", re.IGNORECASE)


class MarkedLink(msgspec.Struct, frozen=True, kw_only=True):
    """One link of the mail.

    :ivar index: its place among the links of the mail, from 0.
    :ivar address: where it leads, as the mail says: a tracking link, in a mail as it was sent.
    :ivar text: what a reader sees of it: its text, or that of its picture; ``""`` where it has neither.
    :ivar hidden: whether only Outlook shows it: it stands in a conditional comment.
    :ivar trackable: whether it can have clicks at all.
    """

    index: int
    address: str
    text: str
    hidden: bool
    trackable: bool


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail looks like.

    :ivar subject: its subject, decoded, or the title of HTML that is no message; ``""`` without one.
    :ivar sender: its From, decoded.
    :ivar parts: the HTML of each of its HTML parts: links marked, pictures that are inside the message put in.
    :ivar links: its links, in order.
    :ivar remote_images: how many pictures it would load from elsewhere.
    """

    subject: str
    sender: str
    parts: tuple[str, ...]
    links: tuple[MarkedLink, ...]
    remote_images: int


def layout_of(message: Message[Any, Any] | bytes | str, *, working_links: bool = False) -> Layout:
    """The layout of a mail.

    :param message: the message, as it was written or as it was sent; or its HTML alone, as text.
    :param working_links: leave the links as they are, to open in new tabs. Otherwise they lead nowhere: those of a mail
        as it was sent are one reader's, and opening one is a click of that reader's.
    :raises PostboxError: if it has no HTML that can be read.
    """
    if isinstance(message, str):
        subject = sender = ""
        texts, images = [message], {}
    else:
        parsed: AnyMessage = email.message_from_bytes(message) if isinstance(message, bytes) else message
        subject, sender = _header(parsed, "subject"), _header(parsed, "from")
        texts, images = _bodies(parsed), _images(parsed)
    parts: list[str] = []
    links: list[MarkedLink] = []
    remote = 0
    for text in texts:
        html = _marked(text, len(links), working=working_links)
        seen, title, pictures = _visible(html)
        links += _links(text, len(links), seen)
        subject = subject or title
        remote += pictures
        parts.append(_CONTENT_ID.sub(lambda found: images.get(unquote(found[1]), found[0]), html))
    return Layout(subject=subject, sender=sender, parts=tuple(parts), links=tuple(links), remote_images=remote)


def _bodies(message: AnyMessage) -> list[str]:
    """The HTML of those parts whose links are counted when a message is rewritten."""
    texts: list[str] = []
    problem = "the message has no HTML part"
    for part, content_type, _ in walk(message):
        if content_type != "text/html" or part.is_multipart() or not is_inline(part):
            continue
        try:
            texts.append(_text(part))
        except Unreadable as error:
            problem = str(error)
    if not texts:
        raise PostboxError(f"there is no mail to show clicks on: {problem}")
    return texts


def _text(part: AnyMessage) -> str:
    body = body_of(part)
    if body.faithful:
        return body.html
    # Its charset is not what it says it is, and here it is only looked at: a guess will do. The links are the same.
    data = body.html.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _images(message: AnyMessage) -> dict[str, str]:
    """The pictures inside the message, by Content-ID, each as an address that holds it (RFC 2397)."""
    found: dict[str, str] = {}
    for part, content_type, _ in walk(message):
        content_id = (header_of(part, "content-id") or "").strip()
        if content_id and content_type.startswith("image/"):
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes), "an image has no parts"
            encoded = base64.b64encode(data).decode("ascii")
            found[content_id.removeprefix("<").removesuffix(">")] = f"data:{content_type};base64,{encoded}"
    return found


def _header(message: AnyMessage, name: str) -> str:
    text = unfold(header_of(message, name) or "")
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):  # as it stands, then
        return text


def _marked(html: str, first: int, *, working: bool) -> str:
    edits: list[Edit] = []
    for index, (element, start, end) in enumerate(links_of(html), first):
        # Before all attributes of that name that the mail may have: the first counts (13.2.5.33).
        away = 'target="_blank"' if working else 'tabindex="-1"'
        edits.append((element.start, element.start, f' {MARK}="{index}" {away}'))
        if not working and start < end:
            edits.append((start, end, "#"))
    return apply(html, edits)


def _links(html: str, first: int, texts: Mapping[str, str]) -> Iterator[MarkedLink]:
    for index, (element, start, end) in enumerate(links_of(html), first):
        address = decode_attribute(html[start:end]).strip()
        text = texts.get(str(index))
        yield MarkedLink(
            index=index,
            address=address,
            text=text or "",
            hidden=text is None,
            trackable=bool(address) and not _OTHER.match(address) and "postbox:no-track" not in element.own,
        )


def _visible(html: str) -> tuple[dict[str, str], str, int]:
    """The text of each marked link outside of comments, by its mark; the title; how many pictures are elsewhere."""
    from postbox_plugin.visible import parsed, visible_links, words  # noqa: PLC0415 - every command imports this module, and few need lxml

    document = parsed(html)
    if document is None:
        return {}, "", 0
    texts = {
        mark: link.text or link.alternative
        for link in visible_links(document)
        if (mark := link.element.get(MARK)) is not None
    }
    remote = sum(bool(_REMOTE.match(image.get("src") or "")) for image in document.iter("img"))
    return texts, words(document.findtext(".//title") or ""), remote
