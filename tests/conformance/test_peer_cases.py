"""Cases from other click trackers' tests and issues: the same outcome, or our own rule's in a matter of policy.

What this project decides otherwise than a peer is written down here, case by case.
"""

from __future__ import annotations

import asyncio
import base64
import email
import html
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from conformance.corpus import DOMAIN, TRACKING_LINK, files, installation, load, needs_corpus, restored
from conformance.opinions import links, reference_tags
from servers import get, hrefs, redirecting

from postbox_plugin import Mail, Postbox
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.testing import RecordingNotifier
from postbox_plugin.tokens.keyring import KeyRing

pytestmark = needs_corpus

CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in load("peer_cases.json")} if files("") else {}

# Matters of policy in which our rule is not the peer's: what is tracked here, in order, and what is not.
DECIDED: dict[str, tuple[list[str], list[str]]] = {
    # Only postbox:no-track opts out. Other trackers' attributes are theirs to obey, and to remove.
    "063": (["https://example.com/page1", "https://example.com/page2"], []),
    "179": (["https://sendgrid.com/x"], []),
    "189": (["https://example.com/deeplink"], []),
    # A button that only Outlook shows is a link too.
    "083": (["http://example.com/buy", "http://example.com/buy"], []),
    # A quoted reply is a part of the mail, and the reader can click what is in it.
    "107": (["http://untouched.com"], []),
    # An address is not judged by its words.
    "193": (["https://example.com/unsubscribe?token=abc"], []),
    # What nobody filled in leads nowhere: the sender is told, and the link is left as it is.
    "175": ([], ["http://yoursite.com/{{ birthday_url }}"]),
}


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in CASES.values() if case["kind"] == kind]


def mail() -> Mail:
    return Mail(sender="sender@example.com", recipient="recipient@example.com")


def seen(tracked: str, postbox: Postbox) -> tuple[list[str], list[str]]:
    """The original addresses of the tracking links, and the addresses of the other links."""
    found = [tag.attributes["href"] for tag in links(reference_tags(tracked))]
    return (
        [postbox.open(href).url for href in found if TRACKING_LINK.fullmatch(href)],
        [href for href in found if not TRACKING_LINK.fullmatch(href)],
    )


@pytest.mark.parametrize("case", of_kind("html"))
def test_html(case: dict[str, Any]) -> None:
    """The links that are to be tracked are, in order; the others, and everything else, stay as they are."""
    postbox = installation()
    (own,) = hrefs(postbox.track_html('<a href="https://example.com/">', mail()))

    def with_own_link(text: str) -> str:
        return text.replace("{ALREADY_TRACKED}", own).replace("{OWN_TRACKING_ORIGIN}/redirect?data=", f"{own}?")

    text = with_own_link(case["input"])
    tracked = postbox.track_html(text, mail())
    if case["policy"] == "already-tracked":
        (kept,) = case["expect"]["untouched"]
        assert with_own_link(kept) in tracked
        assert seen(tracked.replace(own, "#own"), postbox)[0] == case["expect"]["tracked"]
        return
    untouched = [html.unescape(url) for url in case["expect"]["untouched"]]
    expected = DECIDED.get(case["id"], (case["expect"]["tracked"], untouched))
    assert seen(tracked, postbox) == expected
    assert restored(tracked, text, postbox) == text
    if case["expect"].get("unchanged") and case["id"] not in DECIDED:
        assert tracked == text


@pytest.mark.parametrize("case", of_kind("url"))
def test_url(case: dict[str, Any]) -> None:
    """An address is tracked or not, and leads where the case says."""
    postbox = installation()
    rules = AddressRules(postbox.settings, KeyRing(postbox.settings.keys))
    address = rules.read(html.escape(case["input"]))
    assert (not address.reason) == case["expect"]["track"]
    if case["expect"]["target"]:
        assert address.url == case["expect"]["target"]


@pytest.mark.parametrize("case", of_kind("mime"))
def test_message(case: dict[str, Any]) -> None:
    """A raw message has its links tracked in its own charset and transfer encoding, and its text part as it was."""
    postbox = installation()
    raw = case["input"].encode("utf-8")
    sent = email.message_from_bytes(postbox.before_send(raw, recipients=["one@example.com"]), policy=default)
    assert isinstance(sent, EmailMessage)
    body = sent.get_body(("html",))
    assert body is not None
    content = body.get_content()
    assert seen(content, postbox)[0] == case["expect"]["html_tracked"]
    for expected in (case["expect"].get("html_contains"), case["expect"].get("text_contains")):
        assert not expected or expected in content
    if "text_part" in case["expect"]:
        plain = sent.get_body(("plain",))
        assert plain is not None
        assert plain.get_content().rstrip("\r\n") == case["expect"]["text_part"]


def token_of(link: str) -> str:
    return link.rsplit("/", 1)[-1]


def mixed(one: str, other: str) -> str:
    """A token with the key id and the authentication tag of one, and the encrypted record of the other."""
    first, second = (base64.urlsafe_b64decode(token_of(link)[4:] + "===") for link in (one, other))
    return token_of(one)[:4] + base64.urlsafe_b64encode(first[:16] + second[16:]).rstrip(b"=").decode("ascii")


def test_redirects(tmp_path: Path) -> None:
    """Each redirect case through a real server: tokens that we sealed lead to the address as it was written, also after
    a rotation of keys and with tracking switched off; all others lead nowhere and record nothing.
    """
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            origin = f"http://localhost:{postbox.settings.http_port}/c/"

            def link_to(url: str, *before: str) -> str:
                page = "".join(f'<a href="{html.escape(one)}">' for one in (*before, url))
                return hrefs(postbox.track_html(page, mail()))[-1]

            expected_clicks = 0
            for case in (param.values[0] for param in of_kind("redirect")):
                given, expect = case["input"], case["expect"]
                target = given.get("target", "https://example.com/")
                token = token_of(link_to(target))
                if "token" in given:
                    token = given["token"].replace(" ", "%20")
                elif "link id" in given.get("tamper", ""):
                    token = mixed(link_to(target), link_to(target, "https://example.com/first"))
                elif "url parameter" in given.get("tamper", ""):
                    token = mixed(link_to(target), link_to("http://bar.com2?foo=baz"))
                elif "append" in given.get("tamper", ""):
                    token += "bbb"
                elif "signature" in given.get("tamper", ""):
                    token = token[:-3] + "bad"
                response = await get(origin + token, headers={"User-Agent": given.get("user_agent", "Mozilla/5.0")})
                if expect["status"] == "302":
                    expected_clicks += 1
                    assert response.code == 302, case
                    assert response.headers["Location"] == expect["location"], case
                    # Case 065: a preview agent's request is a click with a verdict, not none. Case 201: our headers.
                    assert response.headers["Cache-Control"] == "no-store"
                    assert response.headers["X-Robots-Tag"] == "noindex"
                else:
                    assert response.code == 404, case
                    assert "Location" not in response.headers, case
            assert len(await recording.wait_for(expected_clicks)) == expected_clicks

    asyncio.run(run())


def test_a_link_sealed_with_the_older_of_two_keys_opens() -> None:
    """Case 013: after a rotation, what the old key sealed leads where it led."""
    old, new = "A" * 42 + "E", "B" * 42 + "E"
    before = installation(keys=[old])
    link = hrefs(before.track_html('<a href="https://example.org">', mail()))[0]
    assert installation(keys=[new, old]).open(link).url == CASES["013"]["input"]["target"]
    assert link.startswith(f"https://{DOMAIN}/c/")


def test_every_case_is_of_a_kind_that_is_tested() -> None:
    """No case is passed over, and every decision is about a case of policy."""
    assert {case["kind"] for case in CASES.values()} == {"html", "url", "mime", "redirect"}
    assert all(CASES[number]["policy"] for number in DECIDED)
