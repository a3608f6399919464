"""Every sentence of Postbox's page on click tracking, in its order: section and number, what it says, that it holds.

A real mail goes through ``before_send``, a real client clicks, a real server redirects, a real target answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer as Target
from servers import get, hrefs, redirecting, settings

from postbox_plugin import Click, Postbox
from postbox_plugin.testing import RecordingNotifier, sample_message


@pytest.fixture
def target() -> Iterator[Target]:
    """A web site that the mails link to."""
    with Target(host="127.0.0.1") as server:
        server.expect_request("/book").respond_with_data("the book")
        server.expect_request("/broken").respond_with_data("sorry", status=500)
        yield server


def sent(postbox: Postbox, html: str, **changes: Any) -> str:
    """The HTML that arrives when a mail with this HTML is sent."""
    return html_of(postbox.before_send(sample_message(html), **changes))


def html_of(message: EmailMessage) -> str:
    body = message.get_body(("html",))
    assert body is not None
    return str(body.get_content()).rstrip("\n")


def test_introduction_1_and_2_clicks_are_tracked_and_notified_at_once(tmp_path: Path, target: Target) -> None:
    """Clicks in mails can be tracked; as soon as the recipient clicks a link, a notification comes."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            (link,) = hrefs(sent(postbox, f'<a href="{target.url_for("/book")}">Book</a>'))
            await get(link)
            (click,) = await recording.wait_for(1, timeout=2)
            assert click.url == target.url_for("/book")

    asyncio.run(run())


def test_how_it_works_1_and_2_all_links_of_the_html_part_lead_through_our_server(tmp_path: Path) -> None:
    """It works by redirection: all links of the HTML part become tracking links that lead through our server."""
    postbox = Postbox(settings(tmp_path))
    urls = [f"http://example.com/{number}" for number in range(50)]
    html = sent(postbox, "".join(f'<p><a class="x" href="{url}">link</a></p>' for url in urls))
    assert all(link.startswith("http://localhost/c/") for link in hrefs(html))
    assert [postbox.open(link).url for link in hrefs(html)] == urls


def test_how_it_works_3_and_4_our_server_records_and_notifies_then_redirects(tmp_path: Path, target: Target) -> None:
    """The browser's first request goes to our server, which records the click, notifies, and redirects."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            (link,) = hrefs(sent(postbox, f'<a href="{target.url_for("/book")}">Book</a>'))
            assert target.log == []
            response = await get(link)
            assert (response.code, response.headers["Location"]) == (302, target.url_for("/book"))
            assert target.log == []  # nothing is fetched on the reader's behalf
            assert (await get(response.headers["Location"])).body == b"the book"
            await recording.wait_for(1)

    asyncio.run(run())


def test_how_it_works_5_the_notification_has_the_documented_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notification's format is Postbox's: each documented field, under its name, of its type."""
    monkeypatch.setenv("POSTBOX_DISABLED_PLUGINS", "machines")  # this click comes sooner than any person's
    recording = RecordingNotifier()

    async def run() -> Click:
        async with redirecting(tmp_path, recording) as postbox:
            html = sent(postbox, '<a postbox:tags="product:book" href="http://example.com/">Book</a>')
            await get(hrefs(html)[0], headers={"User-Agent": "Mozilla/5.0"})
            return (await recording.wait_for(1))[0]

    click = asyncio.run(run())
    notification = json.loads(click.to_json())
    assert notification["eventType"] == "Click"
    assert notification["eventId"].endswith(":0")
    mail = notification["mail"]
    assert mail["commonHeaders"] == {
        "from": ["Shop <shop@example.com>"],
        "date": "Sat, 25 Apr 2026 18:08:03 +0000",
        "to": ["Reader <reader@example.com>"],
        "messageId": mail["messageId"],
        "originalMessageId": "",
        "subject": "Order shipped",
    }
    assert mail["identityId"] == "example.com"
    assert mail["tags"] == {}
    clicked = notification["click"]
    assert clicked["ipAddress"] == "127.0.0.1"
    assert clicked["userAgent"] == "Mozilla/5.0"
    assert clicked["url"] == "http://example.com/"
    assert clicked["linkTags"] == {"product": ["book"]}
    for moment in (mail["timestamp"], clicked["timestamp"]):
        assert len(moment) == len("2024-04-25T18:08:04.933666+03:00")
        assert moment.endswith("+00:00")
    assert notification["tracking"] == {"linkIndex": 0, "verdict": "human", "reason": ""}
    assert set(notification) == {"eventType", "mail", "click", "eventId", "tracking"}


def test_how_it_works_6_the_body_is_changed_by_replacing_links_only(tmp_path: Path) -> None:
    """The body is modified by replacing original links with tracking links, and in nothing else."""
    postbox = Postbox(settings(tmp_path))
    html = '<!DOCTYPE html><p  class=x>&nbsp;<a\thref = "http://example.com/?a&amp;b" >Книга</a><br></P>'
    changed = sent(postbox, html)
    (link,) = hrefs(changed.replace(" = ", "="))
    assert changed == html.replace("http://example.com/?a&amp;b", link)


@pytest.mark.parametrize("protocol", ["http", "https"])
def test_how_it_works_7_the_protocol_stays(tmp_path: Path, protocol: str) -> None:
    """The protocol of the tracking link is that of the original."""
    postbox = Postbox(settings(tmp_path, https_port=8443, http_port=8080))
    (link,) = hrefs(sent(postbox, f'<a href="{protocol.upper()}://example.com/">x</a>'))
    assert link.startswith("https://localhost:8443/c/" if protocol == "https" else "http://localhost:8080/c/")


def test_setup_1_notifications_come_to_who_is_configured_for_them(tmp_path: Path) -> None:
    """Click notifications are received once they are configured: here, one [[notify]] block."""
    clicks = tmp_path / "clicks.jsonl"
    block = {"use": "log", "path": str(clicks)}

    async def run() -> None:
        from postbox_plugin.settings import from_mapping

        configured = from_mapping({"domain": "localhost", "keys": settings(tmp_path).keys, "notify": [block]})
        async with redirecting(tmp_path, notify=configured.notify) as postbox:
            await get(hrefs(sent(postbox, '<a href="http://example.com/">x</a>'))[0])

    asyncio.run(run())
    (line,) = clicks.read_text().splitlines()
    assert Click.from_json(line).url == "http://example.com/"


def test_setup_2_only_mails_to_one_recipient_are_tracked(tmp_path: Path) -> None:
    """Tracking works for mails with one recipient only: To, Cc and Bcc count together, and so does the envelope."""
    postbox = Postbox(settings(tmp_path))
    message = sample_message()
    message["Cc"] = "other@example.com"
    assert postbox.before_send(message) is message
    assert postbox.explain(message).reason == "2 recipients"
    assert (
        postbox.before_send(sample_message(), recipients=["a@example.com", "b@example.com"])
        .as_bytes()
        .count(b"localhost/c/")
        == 0
    )
    assert "localhost/c/" in sent(postbox, '<a href="http://example.com/">x</a>', recipients=["reader@example.com"])


def test_setup_3_and_4_only_mails_with_an_html_part_are_tracked(tmp_path: Path) -> None:
    """Tracking links are added only to mails with an HTML part; a mail with text alone cannot be tracked."""
    postbox = Postbox(settings(tmp_path))
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", "Text"
    message.set_content("See http://example.com/")
    raw = message.as_bytes(policy=SMTP)
    assert postbox.before_send(raw) == raw
    assert postbox.explain(raw).reason == "no HTML part"
    both = postbox.before_send(sample_message())
    plain = both.get_body(("plain",))
    assert plain is not None
    assert plain.get_content() == "Hello\n"
    assert "localhost/c/" in html_of(both)


def test_multiple_clicks_1_and_2_each_click_is_notified(tmp_path: Path) -> None:
    """A notification is sent each time: as many clicks, as many notifications, each with an id of its own."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            (link,) = hrefs(sent(postbox, '<a href="http://example.com/">x</a>'))
            for _ in range(4):
                await get(link)
            await recording.wait_for(4)

    asyncio.run(run())
    assert len({click.event_id for click in recording.clicks}) == len(recording.clicks) == 4


@pytest.mark.parametrize("url", ["http://example.com/", "https://example.com/"])
def test_supported_protocols_1_http_and_https_are_tracked(tmp_path: Path, url: str) -> None:
    """Links by http:// and https:// are tracked."""
    postbox = Postbox(settings(tmp_path))
    (link,) = hrefs(sent(postbox, f'<a href="{url}">x</a>'))
    assert postbox.open(link).url == url


@pytest.mark.parametrize(
    "url", ["mailto:a@example.com", "tel:+15550100", "ftp://example.com/f", "sms:+15550100", "javascript:void(0)"]
)
def test_supported_protocols_2_other_protocols_stay_as_they_are(tmp_path: Path, url: str) -> None:
    """Links by other protocols are not tracked and not changed."""
    message = sample_message(f'<a href="{url}">x</a>')
    postbox = Postbox(settings(tmp_path))
    assert postbox.before_send(message) is message
    (link,) = postbox.explain(message).links
    assert link.reason == f"scheme {url.partition(':')[0]}"


def test_supported_protocols_3_links_without_a_protocol_get_http(tmp_path: Path) -> None:
    """A link without a protocol, like www.example.com, gets http://."""
    postbox = Postbox(settings(tmp_path))
    (link,) = hrefs(sent(postbox, '<a href="www.example.com">x</a>'))
    assert link.startswith("http://localhost/c/")
    assert postbox.open(link).url == "http://www.example.com"


@pytest.mark.parametrize("path", ["/broken", "refused"])
def test_error_handling_1_a_broken_target_is_notified_and_the_reader_sees_the_error(
    tmp_path: Path, target: Target, path: str
) -> None:
    """If the original answers an error or cannot be reached, the click is notified all the same; the browser, which is
    sent there, shows the error.
    """
    recording = RecordingNotifier()
    url = target.url_for(path) if path.startswith("/") else "http://127.0.0.1:9/"

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            response = await get(hrefs(sent(postbox, f'<a href="{url}">x</a>'))[0])
            assert (response.code, response.headers["Location"]) == (302, url)
            await recording.wait_for(1)

    asyncio.run(run())


EXAMPLE = (
    '<a postbox:tags="product:book;genre:fiction;subgenre:scifi;type:newrelease;"\n'
    '   href="http://www.example.com/…/">New science fiction releases</a>'
)


def test_link_tags_1_to_5_tags_are_notified(tmp_path: Path) -> None:
    """Tags in postbox:tags, as key:value separated by semicolons, as in the page's example, come with the click."""
    recording = RecordingNotifier()

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            await get(hrefs(sent(postbox, EXAMPLE))[0])
            (click,) = await recording.wait_for(1)
            assert json.loads(click.to_json())["click"]["linkTags"] == {
                "product": ["book"],
                "genre": ["fiction"],
                "subgenre": ["scifi"],
                "type": ["newrelease"],
            }

    asyncio.run(run())


def test_link_tags_6_tags_tell_the_same_link_in_different_places_apart(tmp_path: Path) -> None:
    """The same address, tagged differently in different parts of the mail, gives clicks that can be told apart."""
    recording = RecordingNotifier()
    html = "".join(f'<a postbox:tags="place:{place}" href="http://example.com/">x</a>' for place in ("top", "bottom"))

    async def run() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            for link in reversed(hrefs(sent(postbox, html))):
                await get(link)
            await recording.wait_for(2)

    asyncio.run(run())
    seen = {(click.url, click.link_tags["place"], click.tracking.link_index) for click in recording.clicks}
    assert seen == {("http://example.com/", ("top",), 0), ("http://example.com/", ("bottom",), 1)}


def test_link_tags_7_the_reader_never_sees_tags(tmp_path: Path) -> None:
    """Replacing a link removes its tags, so that they cannot be seen in the mail."""
    changed = sent(Postbox(settings(tmp_path)), EXAMPLE)
    assert "postbox:" not in changed
    assert "scifi" not in changed.replace("New science fiction releases", "")
    assert changed.startswith("<a\n   href=")
