"""The URL standard's test data: what is tracked, and that through the redirect each link ends where it would have."""

from __future__ import annotations

import html
import re
from typing import Any

import ada_url
import pytest
from conformance.corpus import DOMAIN, KEY, TRACKING_LINK, installation, load, needs_corpus

from postbox_plugin import Mail, Settings
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.location import location
from postbox_plugin.tokens.keyring import KeyRing

pytestmark = needs_corpus

FILES = ["urltestdata", "urltestdata-javascript-only", "ada_extra_urltestdata", "ada_long_urltestdata"]
ABSOLUTE = re.compile(
    r"[\0-\x20]*(h[\t\n\r]*t[\t\n\r]*t[\t\n\r]*p[\t\n\r]*s?)[\t\n\r]*:(.*)", re.IGNORECASE | re.DOTALL
)


def cases(file: str) -> list[dict[str, Any]]:
    """The cases of a file whose input says http or https itself; not the ones that no HTML can hold.

    Left out: what has NULs or lone surrogates, for an HTML tokenizer puts U+FFFD in their place before any address is
    read; ``http:foo`` with an http base, which is a relative address, for a mail has no base; and cases that fail only
    because their base is none.
    """
    found = []
    for case in load(f"standards/whatwg-url/tests__wpt__{file}.json"):
        absolute = ABSOLUTE.match(case["input"]) if isinstance(case, dict) else None
        if absolute is None or re.search("[\0\ud800-\udfff]", case["input"]):
            continue
        scheme = re.sub(r"[\t\n\r]", "", absolute[1]).lower()
        rest = re.sub(r"[\t\n\r]", "", absolute[2])
        if (case.get("base") or "").startswith(f"{scheme}:") and not re.match(r"[/\\]{2}", rest):
            continue
        if case.get("base") and not ada_url.check_url(case["base"]):
            continue
        found.append(case)
    return found


def hosts(file: str) -> list[dict[str, Any]]:
    """The cases of a file about international host names that HTML can hold."""
    return [
        case
        for case in load(f"standards/whatwg-url/tests__wpt__{file}.json")
        if isinstance(case, dict) and not re.search("[\0\ud800-\udfff]", case["input"])
    ]


def written(url: str) -> str:
    """The address as an attribute value; carriage returns as references, for others are normalised."""
    return html.escape(url).replace("\r", "&#13;")


def rules() -> AddressRules:
    return AddressRules(Settings(domain=DOMAIN, keys=[KEY]), KeyRing([KEY]))


@pytest.mark.parametrize("file", FILES)
def test_what_a_browser_can_open_is_tracked_and_nothing_else(file: str) -> None:
    """An http or https address is tracked if, and only if, the URL standard can parse it."""
    reading = rules()
    for case in cases(file):
        address = reading.read(written(case["input"]))
        assert (not address.reason) == (not case.get("failure", False)), (case, address)


@pytest.mark.parametrize("file", FILES)
def test_the_redirect_ends_where_the_link_itself_would_have_led(file: str) -> None:
    """From the HTML through the tracking link and ``Location``, each address comes to its ``href`` of the test data."""
    postbox = installation()
    mail = Mail(sender="shop@example.com", recipient="reader@example.com")
    for case in cases(file):
        if case.get("failure"):
            continue
        tracked = postbox.track_html(f'<a href="{written(case["input"])}">x</a>', mail)
        link = TRACKING_LINK.search(tracked)
        if link is None:  # the one reason that is left: no such link is to be sent
            assert len(case["input"]) > 1000, case
            continue
        header = location(postbox.open(link[0]).url)
        assert re.fullmatch(r"[!-~]+", header), case
        assert ada_url.URL(header).href == case["href"], case


@pytest.mark.parametrize("file", ["IdnaTestV2", "IdnaTestV2-removed", "toascii"])
def test_international_hosts_lead_where_the_standard_says(file: str) -> None:
    """A host is tracked if, and only if, it has an ASCII form, and that is where ``Location`` leads."""
    reading = rules()
    for case in hosts(file):
        if not case["input"] or re.search(r"[/?#\\@:]", case["input"]):  # less than a host, or more
            continue
        address = reading.read(written(f"https://{case['input']}/x"))
        assert (not address.reason) == (case["output"] is not None), (case, address)
        if case["output"] is not None:
            assert ada_url.URL(location(address.url)).href == f"https://{case['output']}/x", case


def test_the_test_data_is_all_there() -> None:
    """Hundreds of cases are left after what no HTML can hold is left out."""
    assert sum(len(cases(file)) for file in FILES) > 380
    assert len(hosts("IdnaTestV2")) > 2000
