"""What a browser sees in HTML, and where it would go: the same links as we do, and the same place.

Chromium reads as mail clients do, without scripts. What only the tree decides is not among the made-up texts:
framesets, and the raw text elements and CDATA sections of inline SVG and MathML.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from conformance.corpus import DOMAIN, KEY, TRACKING_LINK, files, needs_corpus, rewritten, variants

from postbox_plugin import Settings
from postbox_plugin.links.references import decode_attribute
from postbox_plugin.links.rewrite import links_of
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.location import location
from postbox_plugin.tokens.keyring import KeyRing

Evaluate = Callable[[str, Any], Any]

AT_A_TIME = 1000
MADE_UP = 20_000

LINKS = [
    *("<a href=@>", "<a href='@'>", '<a href="@">', "<A HREF=@ >", "<a href=@/>", "<a\thref\n=\r'@'x=y>"),
    *('<a title=">" href="@">', "<a href=@ href=no>", "<a =href=@>", "<a/href=@>", "<a'href=@>", "<area href=@>"),
    *("</a href=@>", "</a>", "<aa href=@>", "<a:b href=@>", "<AREA/HREF=@/"),
]
PIECES = [
    *("<a", " href=@ ", "href='@'", "<a b", "<a b=", "<a b='c'", ">", "<", "</", "<p>", "</p>", "<b ", "<b>", "<br/>"),
    *("<!", "<?", "<!-- ", "-->", "--!>", "<!-->", "<!--->", "--", "<!doctype html>", "<!DOCTYPE x '>' >", "<![CDATA["),
    *("]]>", "<script>", "</script>", "<script", "</script ", "<!--<script>", "<style>", "</style>", "</style/>"),
    *("<textarea>", "</textarea>", "<title>", "</title>", "<xmp>", "</xmp>", "<iframe>", "</iframe>", "<noembed>"),
    *("</noembed>", "<noframes>", "</noframes>", "<noscript>", "</noscript>", "<plaintext>", "<template>"),
    *("</template>", "<div a='", "'>", '<div a="', '">', "<img src=x>", "x", '"', "'", "=", "/", " ", "\n", "\f", "\0"),
    *("&amp;", "&", "é", "\N{KELVIN SIGN}"),
]

SCHEMES = ["http://", "https://", "HTTP://", "hTTps:", "http:", "http:/", "http:\\\\", "http:///", "https:/\\/"]
HOSTS = [
    *("example.com", "EXAMPLE.com", "ex%41mple.com", "1.2.3.4", "0x7f.1", "256.256.256.256", "[::1]", "[1::2::3]"),
    *("xn--", "xn--bcher-kva.example", "bücher.example", "😀", "ß.example", "_x.example", "a.", "user@", "user:pa ss@"),
    *("", ":80", ":443", ":65536", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}.com", "\N{IDEOGRAPHIC FULL STOP}"),
]
REST = [
    *(" ", "\t", "\n", "\f", "\x1f", "\x7f", "\0", "&amp;", "&", "&copy=", "&copy;", "&copy", "&notit;", "&#x80;"),
    *("&#128;", "&#0;", "&#xd800;", "&#x110000;", "&Tab;", "&NewLine;", "&#13;", "&nbsp;", "&quot;", "&lt;", "/"),
    *("\\", "/../", "/./", "/%2e%2E/", "/a", "?", "?a=b", "#", "#f", "%", "%zz", "%20", "|", "^", "`", "<", ">", "{"),
    *("}", "[", "]", "'", ";", ",", "~", "@", "é", ":", "\ufdd0", "\N{LINE SEPARATOR}", "\N{ZERO WIDTH JOINER}"),
]

# A table keeps Chromium from its fast parser, which reads references in attributes otherwise than the standard says.
PARSED = """
const parsed = html => new DOMParser().parseFromString(html, "text/html");
const walk = (node, found) => {
    for (const child of node.childNodes) {
        found.push(child);
        if (child.localName == "template") walk(child.content, found);
        walk(child, found);
    }
    return found;
};
const target = url => { try { return new URL(url).href } catch { return null } };
"""
HREFS = f"""texts => {{ {PARSED}
    const isLink = node => ["a", "area"].includes(node.localName) && node.hasAttribute("href");
    return texts.map(text => walk(parsed(text), []).filter(isLink).map(node => node.getAttribute("href")));
}}"""
TARGETS = f"urls => {{ {PARSED} return urls.map(target) }}"
HREF_TARGETS = f"""values => {{ {PARSED}
    const read = value => parsed(`<table></table><a href="${{value}}">`).querySelector("a").getAttribute("href");
    return values.map(value => target(read(value)));
}}"""
NODES = f"""text => {{ {PARSED}
    const attributes = node => Object.fromEntries([...(node.attributes ?? [])].map(one => [one.name, one.value]));
    const text_of = node => node.nodeType == Node.COMMENT_NODE ? "" : node.nodeValue;
    return walk(parsed(text), []).map(node => [node.nodeName, text_of(node), attributes(node)]);
}}"""


@pytest.fixture
def evaluate(browsing: Callable[[], AbstractAsyncContextManager[Any]]) -> Iterator[Evaluate]:
    """Calls a function of JavaScript in an empty page."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        context = runner.run(stack.enter_async_context(browsing()))
        try:
            page = runner.run(context.new_page())
            yield lambda function, argument: runner.run(page.evaluate(function, argument))
        finally:
            runner.run(stack.aclose())


def made_up(seed: int, make: Callable[[random.Random], str]) -> Iterator[list[str]]:
    """Texts, some at a time; the same in each run."""
    chance = random.Random(seed)
    for _ in range(MADE_UP // AT_A_TIME):
        yield [make(chance) for _ in range(AT_A_TIME)]


def html_of(chance: random.Random) -> str:
    pieces = [chance.choice(PIECES if chance.random() < 0.5 else LINKS) for _ in range(chance.randint(3, 14))]
    return "".join(piece.replace("@", f"u{number}") for number, piece in enumerate(pieces))


def address_of(chance: random.Random) -> str:
    before = [chance.choice(REST + HOSTS) for _ in range(chance.randint(1, 2))] if chance.random() < 0.2 else [""]
    after = [chance.choice(REST + HOSTS) for _ in range(chance.randint(0, 6))]
    address = "".join([*before, chance.choice(SCHEMES), chance.choice(HOSTS), *after])
    return address.replace('"', "")


def links(html: str) -> set[str]:
    """The addresses of our links, as the attribute's value would be in a browser."""
    found = (decode_attribute(html[start:end]) for element, start, end in links_of(html) if ":" not in element.name)
    return {address.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd") for address in found}


def test_a_browser_sees_the_same_links(evaluate: Evaluate) -> None:
    """In texts made of all that can be one, look like one, or hide one. (A link may come twice to a browser's tree.)"""
    seen = 0
    for texts in made_up(1, html_of):
        for text, hrefs in zip(texts, evaluate(HREFS, texts), strict=True):
            assert links(text) == set(hrefs), text
            seen += len(hrefs)
    assert seen > MADE_UP


def test_a_browser_ends_where_the_link_would_have_led(evaluate: Evaluate) -> None:
    """Of addresses made of all that a URL parser stumbles over: what was tracked leads to the same place by the
    redirect as without it, and what is no address to us is none to a browser.
    """
    rules = AddressRules(Settings(domain=DOMAIN, keys=[KEY]), KeyRing([KEY]))
    tracked = 0
    for values in made_up(2, address_of):
        read = [rules.read(value) for value in values]
        kept = evaluate(TARGETS, [url for url, _ in read])
        landed = evaluate(TARGETS, [url if reason else location(url) for url, reason in read])
        for value, (_, reason), direct, *by_redirect in zip(
            values, read, evaluate(HREF_TARGETS, values), kept, landed, strict=True
        ):
            if reason == "no browser can open it":
                assert direct is None or lenient(direct), value
            elif not reason and direct is not None and direct.startswith("http"):
                assert by_redirect == [direct, direct], value
                tracked += 1
    assert tracked > MADE_UP / 4


def lenient(target: str) -> bool:
    """Whether this is one of the addresses that Chromium opens against the standard: with white space in the host, or
    with something that it leaves out beside an IPv6 address.
    """
    host = target.split("/")[2]
    return "%20" in host or host.startswith("[")


@needs_corpus
def test_a_browser_sees_the_same_tree_in_every_template(evaluate: Evaluate) -> None:
    """In a tracked template it sees what it sees in the original, but for the links, which open to the same place."""
    tracked = 0
    for html in (html for path in files("html") for html in variants(path)):
        postbox, sent = rewritten(html)
        before, after = evaluate(NODES, html), evaluate(NODES, sent)
        written: list[str] = []
        opened: list[str] = []
        assert len(before) == len(after)
        for (name, text, attributes), (new_name, new_text, new_attributes) in zip(before, after, strict=True):
            assert (name, text, attributes.keys()) == (new_name, new_text, new_attributes.keys())
            for key, value in attributes.items():
                if new_attributes[key] != value:
                    assert key == "href"
                    assert TRACKING_LINK.fullmatch(new_attributes[key])
                    written.append(value)
                    opened.append(postbox.open(new_attributes[key]).url)
        same = zip(evaluate(TARGETS, written), evaluate(TARGETS, opened), written, opened, strict=True)
        for direct, by_redirect, href, url in same:
            # What has no scheme is no address to a browser; it is tracked as one with http.
            assert by_redirect == direct or (direct is None and url in (f"http:{href}", f"http://{href}"))
        tracked += len(opened)
    assert tracked > 1100
