"""The click map: a page that shows a mail with the clicks of each link on it, and the same in tables.

One file, whole in itself: its style and its script stand in it, and its policy lets nothing else in. The mail is in a
frame of its own, so that neither one's style touches the other, in which no script runs. The script reads the table of
links and draws over the frame what it says: without script, the table is all there is, and it is all there is to know.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, Final

from postbox_plugin.stats.aggregate import Aggregation, Count, LinkCount, Statistics, TagCount
from postbox_plugin.stats.layout import Layout, MarkedLink, layout_of

__all__ = ["click_map"]

LEVELS: Final = 5
"""How many strengths of colour there are."""

_HERE: Final = Path(__file__).parent
_STYLE: Final = (_HERE / "map.css").read_text(encoding="utf-8")
_SCRIPT: Final = (_HERE / "map.js").read_text(encoding="utf-8")
_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
# What a page cannot show, or would be misled by: C0, DEL, C1, surrogates, and the marks that reorder text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TOKEN: Final = re.compile(r"[\w-]{60,}")
_SCHEME: Final = re.compile(r"https?://(?=.)", re.IGNORECASE)
_UNCLICKED: Final = LinkCount(clicks=0, share=0.0, unique=0, machines=0, index=0, address="", differs=False)


def click_map(
    message: Message[Any, Any] | bytes | str,
    clicks: Aggregation,
    *,
    remote_images: bool = False,
    working_links: bool = False,
) -> str:
    """A page of HTML that shows a mail with the clicks of each link on it.

    :param message: the mail, as it was written or as it was sent; or its HTML alone, as text. Of a mail that went to
        many readers any one will do: links are told apart by their index, whatever message they were clicked in.
    :param clicks: the clicks.
    :param remote_images: let the page load pictures from elsewhere, as the mail has them: their hosts will see it.
        Otherwise only those inside the message are shown.
    :param working_links: let the links of the mail open in new tabs: each is a click like any other.
    :raises PostboxError: if the message has no HTML that can be read.
    """
    layout = layout_of(message, working_links=working_links)
    return _page(layout, clicks.result(), clicks.by_index(), remote_images=remote_images, working=working_links)


def _page(
    layout: Layout, found: Statistics, by_index: Mapping[int, LinkCount], *, remote_images: bool, working: bool
) -> str:
    images = "data: http: https:" if remote_images else "data:"
    policy = (
        f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src {images}; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )
    sandbox = "allow-same-origin" + (" allow-popups allow-popups-to-escape-sandbox" if working else "")
    title = _text(layout.subject) or "A mail without a subject"
    frames = "\n".join(
        f'<div class="sheet"><iframe title="{_numbered("The mail", number, layout.parts)}" sandbox="{sandbox}" '
        f'srcdoc="{html.escape(part)}"></iframe><div class="marks"></div></div>'
        for number, part in enumerate(layout.parts)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>Click map: {title}</title>
<style>
{_STYLE}</style>
</head>
<body{' class="working"' if working else ""}>
<a class="skip" href="#links">Skip the mail</a>
<header>
<p class="kind">Click map</p>
<h1>{title}</h1>
<p class="sender">{_text(layout.sender)}</p>
<div id="totals" data-live>{_totals(layout, found, by_index)}</div>
</header>
<main>
<section class="mail" aria-labelledby="mail-title">
<h2 id="mail-title">The mail</h2>
{_legend(layout, remote_images=remote_images)}
<div class="stage" role="region" aria-labelledby="mail-title" tabindex="0">
{frames}
</div>
</section>
<div class="tables">
<section id="links" aria-labelledby="links-title" data-live>{_links(layout, found, by_index)}</section>
<section id="tags" aria-labelledby="tags-title" data-live>{_tags(found)}</section>
<section id="machines" aria-labelledby="machines-title" data-live>{_machines(found)}</section>
</div>
</main>
<footer>
<p><b>Clicks</b> are those of people, each counted once. <b>Unique</b> are the different messages that they came from,
told apart by message id: a tracked message has one reader. <b>Share</b> is the part of all clicks by people.
<b>Machines</b> (prefetches, crawlers, scanners) are in none of these.</p>
</footer>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _totals(layout: Layout, found: Statistics, by_index: Mapping[int, LinkCount]) -> str:
    clicked = sum(bool(by_index[link.index].clicks) for link in layout.links if link.index in by_index)
    trackable = sum(link.trackable or link.index in by_index for link in layout.links)
    totals = (
        ("Clicks", f"{found.clicks:,}"),
        ("Unique: messages", f"{found.unique:,}"),
        ("Links clicked", f"{clicked} of {trackable}"),
        ("By machines", f"{found.machines:,}"),
    )
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in totals)
    return f"<dl>{pairs}</dl>{_warnings(layout, found, by_index)}"


def _warnings(layout: Layout, found: Statistics, by_index: Mapping[int, LinkCount]) -> str:
    warnings: list[str] = []
    known = {link.index for link in layout.links}
    strangers = [count for index, count in by_index.items() if index not in known]
    if strangers:
        clicks = sum(one.clicks + one.machines for one in strangers)
        warnings.append(
            f"{clicks:,} clicks are on links that this mail does not have. Are they clicks of another mail?"
        )
    placeless = sum(one.clicks + one.machines for one in found.links if one.index is None)
    if placeless:
        warnings.append(f"{placeless:,} clicks do not tell which link of the mail they were on.")
    return "".join(f'<p class="warning">{text}</p>' for text in warnings)


def _legend(layout: Layout, *, remote_images: bool) -> str:
    steps = "".join(f'<span class="badge level-{level}"></span>' for level in range(LEVELS + 1))
    legend = f'<p class="legend">Each label: clicks, and share of all clicks. Never clicked {steps} most clicked</p>'
    if layout.remote_images and not remote_images:
        pictures = f"{layout.remote_images} pictures are" if layout.remote_images > 1 else "A picture is"
        legend += (
            f'<p class="note">{pictures} elsewhere, and not loaded: their hosts would count a reader. '
            "<code>postbox map --remote-images</code> makes a page that loads them.</p>"
        )
    return legend + '<p class="note scriptless">The labels need JavaScript; the tables have all that they say.</p>'


def _links(layout: Layout, found: Statistics, by_index: Mapping[int, LinkCount]) -> str:
    most = max((count.clicks for count in by_index.values()), default=0)
    rows = "".join(_link(link, by_index.get(link.index, _UNCLICKED), most) for link in layout.links)
    return _table("links", "Links", ("No.", "Link", *_COUNTS), rows, "This mail has no links.")


def _link(link: MarkedLink, count: LinkCount, most: int) -> str:
    # By the square root, for what is clicked a tenth as often as the first link is not nothing.
    level = math.ceil(LEVELS * math.sqrt(count.clicks / most)) if count.clicks else 0
    address = count.address or link.address
    whole = _text(_short(address))
    untracked = not (link.trackable or count.clicks or count.machines)
    notes = ["not tracked"] if untracked else []
    if link.hidden:
        notes.append("for Outlook only")
    if count.differs:
        notes.append("several addresses")
    name = f'<span class="name">{_text(link.text)}</span> ' if link.text else ""
    data = f'data-link="{link.index}" data-level="{level}" data-clicks="{count.clicks:,}"'
    data += f' data-share="{_text(count.percent)}" data-name="{_text(link.text or address)}"'
    data += " data-untracked" if untracked else ""
    return (
        f'<tr id="link-{link.index}" {data}><td class="lead" data-label="No.">{link.index}</td>'
        f'<th scope="row">{name}<code title="{whole}">{_SCHEME.sub("", whole, count=1)}</code>'
        + "".join(f' <span class="aside">{note}</span>' for note in notes)
        + f"</th>{_cells(count)}</tr>"
    )


_COUNTS: Final = ("Clicks", "Share", "Unique", "Machines")


def _cells(count: Count) -> str:
    bar = (
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{count.share * 100:.2f}" height="1"/></svg>'
    )
    values = (f"{count.clicks:,}", f"{_text(count.percent)}{bar}", f"{count.unique:,}", f"{count.machines:,}")
    return "".join(f'<td data-label="{name}">{value}</td>' for name, value in zip(_COUNTS, values, strict=True))


def _tags(found: Statistics) -> str:
    rows = "".join(_tag(kind, tag) for kind, tags in _kinds(found) for tag in tags)
    return _table("tags", "Tags", ("Of the", "Tag", *_COUNTS), rows, "No click had a tag.")


def _kinds(found: Statistics) -> Iterable[tuple[str, Sequence[TagCount]]]:
    return ("link", found.link_tags), ("message", found.message_tags)


def _tag(kind: str, tag: TagCount) -> str:
    name = f'<span class="tag">{_text(tag.key)}: {_text(tag.value)}</span>'
    return f'<tr><td class="lead" data-label="Of the">{kind}</td><th scope="row">{name}</th>{_cells(tag)}</tr>'


def _machines(found: Statistics) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(reason) or "no reason given"}</th><td>{clicks:,}</td></tr>'
        for reason, clicks in found.reasons.items()
    )
    return _table("machines", "Machines", ("What gave them away", "Clicks"), rows, "No machine clicked.")


def _table(name: str, title: str, columns: Sequence[str], rows: str, empty: str) -> str:
    heading = f'<h2 id="{name}-title">{title}</h2>'
    if not rows:
        return f"{heading}<p>{empty}</p>"
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return f'{heading}<table aria-labelledby="{name}-title"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _short(address: str) -> str:
    """An address with no more than the beginning of each token in it: whoever has all of a token can click."""
    return _TOKEN.sub(lambda token: token[0][:8] + "…", address)


def _numbered(title: str, number: int, parts: Sequence[str]) -> str:
    return title if len(parts) == 1 else f"{title}, part {number + 1}"


def _text(text: str) -> str:
    """Text that strangers wrote, as HTML."""
    return html.escape(_CONTROL.sub(" ", text))
