"""What ``explain`` adds to a report: sizes, where links stand, and what to know before the message is sent."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import tld

from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.report import Notice, Place, Report
from postbox_plugin.links.rewrite import links_of
from postbox_plugin.mail import Link
from postbox_plugin.message.objects import MessageObject
from postbox_plugin.message.raw import RawMessage
from postbox_plugin.outgoing import Outcome
from postbox_plugin.visible import parsed, visible_links

__all__ = ["explained"]

CLIPPED_OVER: Final = 102 * 1024
"""Gmail shows about the first 102 KB of a message's HTML and hides the rest behind a link. It publishes no exact
figure; what counts is the HTML as a browser gets it, not its transfer encoding.
"""

_PLACEHOLDER = re.compile(
    r"\{\{[^{}]{1,200}\}\}|\{%[^{}%]{1,200}%\}|\*\|[^|]{1,200}\|\*|<%[^<>%]{1,200}%>|%%[\w.]{1,200}%%"
)
# A text that is nothing but an address: with a protocol, or a host with or without what comes after it.
_ADDRESS = re.compile(
    r"(?P<scheme>https?://)?(?P<host>(?:[\w-]+\.)+(?P<last>[\w-]{2,}))(?::\d+)?(?:[/?#]\S*)?", re.IGNORECASE
)
_HOST = re.compile(r"https?:[/\\]*(?:[^/?#\\@]*@)?([^/?#\\:]+)", re.IGNORECASE)


def explained(
    outcome: Outcome[object], came: MessageObject | RawMessage, sent: MessageObject | RawMessage, domain: str
) -> Report:
    """The report with all that takes longer than sending should.

    :param outcome: what rewriting the message came to.
    :param came: the message as it came.
    :param sent: the message as it would go out.
    :param domain: the host name of tracking links.
    """
    before, after = ([body.html for body in message.bodies] for message in (came, sent))
    report = outcome.report
    places = tuple(_places(outcome.html)) if report.links else ()
    notices = (
        *_clipped(before, after),
        *(_shown_addresses(report.links, places, after, domain) if report.links else ()),
        *_placeholders(outcome.html),
    )
    return msgspec.structs.replace(report, size_before=came.size, size_after=sent.size, places=places, notices=notices)


def _places(parts: Sequence[str]) -> Iterator[Place]:
    for number, html in enumerate(parts):
        line, position, line_start = 1, 0, 0
        for _, start, _ in links_of(html):
            line += html.count("\n", position, start)
            line_start = max(line_start, html.rfind("\n", position, start) + 1)
            position = start
            yield Place(part=number, line=line, column=position - line_start + 1)


def _clipped(before: Sequence[str], after: Sequence[str]) -> Iterator[Notice]:
    old, new = (sum(len(html.encode("utf-8", "replace")) for html in parts) for parts in (before, after))
    if new <= CLIPPED_OVER:
        return
    if old <= CLIPPED_OVER:
        text = f"Gmail will clip it: tracking takes its HTML from {_kilobytes(old)} to {_kilobytes(new)}, over 102 KB"
    else:
        text = f"Gmail will clip it, tracked or not: its HTML has {_kilobytes(old)}, over 102 KB"
    yield Notice(kind="clipped", text=text)


def _kilobytes(size: int) -> str:
    return f"{size / 1024:.1f} KB"


def _shown_addresses(
    links: Sequence[Link], places: Sequence[Place], sent: Sequence[str], domain: str
) -> Iterator[Notice]:
    """Links whose visible text is an address of another domain than the one that they lead to: what Thunderbird and
    the scanners of mail servers take for phishing.
    """
    texts = [text for html in sent for text in _texts(html)]
    if len(texts) != len(links):  # a plugin changed the links between
        return
    for link, place, text in zip(links, places, texts, strict=True):
        shown = _domain_shown(text) if text else ""
        if not shown:
            continue
        leads_to = _HOST.match(link.url)
        original = _registered(leads_to[1]) if leads_to else ""
        if original and shown != original:
            words = f"shows {text!r}, but leads to {original}"
            yield Notice(kind="text differs", text=words, link=link.index, line=place.line)
        elif link.track and shown != _registered(domain):
            words = f"shows {text!r}, but will lead to {domain} first: words are a better text than an address"
            yield Notice(kind="text is an address", text=words, link=link.index, line=place.line)


def _texts(html: str) -> Iterator[str]:
    """The visible text of each link of an HTML text; ``""`` where it cannot be told.

    lxml does not see into conditional comments and tells no positions, so its elements are found by their address. Of
    an address that it sees more or less often than the scanner does, no text is told: better no warning than a wrong
    one.
    """
    seen: defaultdict[str, list[str]] = defaultdict(list)
    document = parsed(html)
    for link in visible_links(document) if document is not None else ():
        address = link.element.get("href")
        if address is not None:
            seen[address].append(link.text)
    found = [decode_attribute(html[start:end]) for _, start, end in links_of(html)]
    often = Counter(found)
    texts = {address: iter(same) for address, same in seen.items() if len(same) == often[address]}
    for address in found:
        yield next(texts.get(address, iter(())), "")


def _domain_shown(text: str) -> str:
    """The registered domain of the address that a text is; ``""`` if it is none."""
    address = _ADDRESS.fullmatch(text.rstrip(".,;:!"))
    if not address:
        return ""
    named = address["scheme"] or address["host"][:4].lower() == "www." or tld.is_tld(address["last"].lower())
    return _registered(address["host"]) if named else ""


def _registered(host: str) -> str:
    """``example.co.uk`` of ``www.shop.example.co.uk``; the host itself where no public suffix is known."""
    name = host.lower().rstrip(".")
    return tld.get_fld(f"http://{name}", fail_silently=True) or name


def _placeholders(parts: Sequence[str]) -> Iterator[Notice]:
    for html in parts:
        line, position = 1, 0
        for found in _PLACEHOLDER.finditer(html):
            line += html.count("\n", position, found.start())
            position = found.start()
            yield Notice(kind="placeholder", text=f"the template left {found[0]} as it is", line=line)
