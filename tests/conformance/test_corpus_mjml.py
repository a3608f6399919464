"""MJML's own templates, compiled: as the mjml library alone compiles them, with every tag on its links."""

from __future__ import annotations

import re
from email.mime.text import MIMEText
from pathlib import Path

import html5lib  # type: ignore[import-untyped]
import pytest
from conformance.corpus import files, installation, needs_corpus
from conformance.opinions import Node, html5lib_nodes

from postbox_hooks.mjml import to_html
from postbox_plugin import Report

pytestmark = [needs_corpus, pytest.mark.extra("mjml")]

TEMPLATES = [pytest.param(path, id=path.name.removeprefix("templates__")) for path in files("mjml")]

# Why the library alone does not compile them. Ours does, all of them.
ALONE_IT_FAILS = {
    "card": "Not yet implemented",  # a font named as one of its own
    "real-estate": "Not yet implemented",
    "recast": "Not yet implemented",
    "ugg-royale": "Not yet implemented",
}
# It has an attribute twice, of which the first counts for MJML and for HTML, and the last for the library.
AN_ATTRIBUTE_TWICE = "loyalty-client"

# A link-making component or an "a", but none in a comment.
LINK_TAG = re.compile(
    r"""<!--.*?-->
      | (?P<tag><(?P<name>mj-button|mj-image|mj-navbar-link|mj-social-element|mj-carousel-image|a)(?=\s)
        (?P<rest>(?:[^>"']|"[^"]*"|'[^']*')*)>)
    """,
    re.VERBOSE | re.DOTALL,
)


def name_of(path: Path) -> str:
    return path.stem.removeprefix("templates__")


def source_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEMPLATES)
def test_a_template_is_compiled_as_the_library_compiles_it(path: Path) -> None:
    """html5lib sees the same elements, attributes and texts in what we make of it, but for the names of a carousel."""
    from mjml import mjml_to_html  # type: ignore[import-untyped]

    ours = to_html(source_of(path), file=str(path))
    name = name_of(path)
    if name in ALONE_IT_FAILS:
        with pytest.raises(AssertionError, match=ALONE_IT_FAILS[name]):
            mjml_to_html(source_of(path))
        return
    alone = mjml_to_html(source_of(path)).html
    differ = [(one, other) for one, other in zip(nodes(alone), nodes(ours), strict=True) if one != other]
    if name == AN_ATTRIBUTE_TWICE:
        assert all(
            re.sub(r"font-size:\d+px", "", str(one)) == re.sub(r"font-size:\d+px", "", str(o)) for one, o in differ
        )
    else:
        assert differ == []


def nodes(html: str) -> list[Node]:
    """The nodes of a text, without what is random or only sets the source out."""
    found = html5lib_nodes(re.sub(r"\b[0-9a-f]{16}\b", "", html))
    return [one._replace(text=" ".join(one.text.split()), tail=" ".join(one.tail.split())) for one in found]


def without_size(node: Node) -> str:
    return re.sub(r"font-size:\d+px", "", str(node))


def attributes_of(rest: str) -> dict[str, str]:
    """The attributes of a tag, decoded.

    :param rest: what stands between its name and its end.
    """
    (element,) = html5lib.parseFragment(f"<a{rest.rstrip('/')}>", namespaceHTMLElements=False).findall("a")
    return dict(element.attrib)


@pytest.mark.parametrize("path", TEMPLATES)
def test_every_tag_arrives(path: Path) -> None:
    """With a tag of its own on every component that makes a link and on every ``a``, each link of the mail has the tag
    of its component, with that component's address; and no link goes without.
    """
    written: list[tuple[str, dict[str, str]]] = []
    classes = [attributes_of(rest) for rest in re.findall(r"<mj-class(\s[^>]*)>", source_of(path))]
    by_class = {one["name"]: one["href"] for one in classes if "href" in one}

    def tagged(found: re.Match[str]) -> str:
        if not found["tag"]:
            return found[0]
        attributes = attributes_of(found["rest"])
        for name in attributes.get("mj-class", "").split():
            if name in by_class:
                attributes.setdefault("href", by_class[name])
        written.append((found["name"], attributes))
        return f'<{found["name"]} postbox:tags="number:{len(written) - 1};"{found["rest"]}>'

    report = explained(LINK_TAG.sub(tagged, source_of(path)))
    # Without an address a component makes no link, and an "a" is one with an empty address, too.
    made = {
        number
        for number, (name, attributes) in enumerate(written)
        if attributes.get("href") or (name == "a" and "href" in attributes)
    }
    from mjml.elements.mj_social_element import defaultSocialNetworks  # type: ignore[import-untyped]

    arrived: set[int] = set()
    for link in report.links:
        if link.url.startswith("#") and not link.tags:
            continue  # a thumbnail of a carousel
        number = int(link.tags["number"][0])
        component, attributes = written[number]
        address = attributes["href"].strip()
        if component == "mj-social-element":
            network = defaultSocialNetworks.get(attributes.get("name"), {})
            address = network.get("share-url", "[[URL]]").replace("[[URL]]", address)
        if component == "mj-navbar-link":  # after the base-url of its mj-navbar
            assert link.url.endswith(address)
        else:
            assert link.url in (address, f"http://{address}")
        arrived.add(number)
    assert arrived == made


@pytest.mark.parametrize("path", TEMPLATES)
def test_every_opt_out_arrives(path: Path) -> None:
    """With an opt-out on every component that makes a link and on every ``a``, no link of the mail is tracked."""
    text = LINK_TAG.sub(
        lambda found: f"<{found['name']} postbox:no-track{found['rest']}>" if found["tag"] else found[0],
        source_of(path),
    )
    assert explained(text).tracked == ()


def explained(text: str) -> Report:
    message = MIMEText(text, "mjml", "utf-8")
    message["From"], message["To"] = "shop@example.com", "reader@example.org"
    return installation().explain(message)


def test_there_is_something_to_tag() -> None:
    """What the tests above say is said of hundreds of links."""
    assert sum(len(LINK_TAG.findall(source_of(path))) for path in files("mjml")) > 300
