"""Addresses that would harm whoever is redirected to them: they are not sealed, and had somebody sealed them with the
key by other means, they would not be redirected to.
"""

from __future__ import annotations

import asyncio
import html
import re
from datetime import UTC, datetime
from pathlib import Path

import ada_url
import pytest
from servers import redirecting, settings

from postbox_plugin import Mail, Postbox
from postbox_plugin.testing import RecordingNotifier
from postbox_plugin.tokens.keyring import KeyRing
from postbox_plugin.tokens.payload import MessageFacts
from postbox_plugin.tokens.seal import MessageSealer

PATHS = re.compile('/c/[^"]+')
MAIL = Mail(sender="shop@example.com", recipient="reader@example.com")

SCHEMES = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    " javascript:alert(1)",
    "javascript://example.com/%0aalert(1)",
    "javascript://http://example.com/",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "ftp://example.com/",
    "blob:https://example.com/1",
    "view-source:http://example.com/",
    "intent://example.com/#Intent;scheme=http;end",
    "mailto:reader@example.com",
    "http",
    "http:",
    "https://",
    "/path",
    "\\\\evil.example\\share",
    "?query",
    "",
)
"""None of them is an http or https address, whatever a browser makes of it."""

UNOPENABLE = ("http://exa mple.com/", "http://[::1", "http://example.com:99999/", "http://example.com%00.evil.example/")
"""No browser can open them, and sees so itself."""

BREAKING = (
    "http://example.com/\r\nSet-Cookie: a=b",
    "http://example.com/\r\n\r\n<script>alert(1)</script>",
    "http://example.com/\nLocation: http://evil.example/",
    "http://example.com/\rX: y",
    "http://example.com/\x00x",
    "http://example.com/\x7f\x1b[31m",
    "http://example.com/\u010d\u010aSet-Cookie: a=b",  # č and Ċ are CR and LF where characters are cut to bytes
    "http://example.com/\u2028\u2029\x85",
    "http://exam\r\nple.com/",
    "ht\ntp://example.com/",
    "http://example.com\\@evil.example/",
    "//evil.example/",
    "http:evil.example",
    "https:///evil.example/",
    "http:/\\evil.example/",
)
"""What a browser takes for an http or https address, or may: but as it stands it would break the answer, or lead
elsewhere than it says.
"""


def sealed(postbox: Postbox, url: str) -> str:
    """The path of a link to any address whatever, sealed with the first key and without a look at it."""
    facts = MessageFacts(message_id="torture", sent_at=datetime.now(UTC))
    key = KeyRing(postbox.settings.keys).sealing
    return postbox.settings.path + MessageSealer(key, facts).seal(url, 0, {})


async def answer(port: int, path: str) -> tuple[str, dict[str, str], bytes]:
    """Status line, header fields and body as they came, by nobody's parser but this: what is odd must not be mended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        raw = await reader.read()
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert not any(byte > 126 or (byte < 32 and byte not in b"\r\n") for byte in head), head
    status, *lines = head.decode("ascii").split("\r\n")
    assert not any("\r" in line or "\n" in line for line in (status, *lines)), lines
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return status, fields, body


def track(postbox: Postbox, url: str) -> str:
    return postbox.track_html(f'<a href="{html.escape(url)}">x</a>', MAIL)


@pytest.mark.parametrize("url", [*SCHEMES, *UNOPENABLE])
def test_what_is_no_web_address_is_not_sealed(tmp_path: Path, url: str) -> None:
    """It stays in the mail as it was."""
    postbox = Postbox(settings(tmp_path))
    assert track(postbox, url) == f'<a href="{html.escape(url)}">x</a>'


def test_what_is_no_web_address_is_not_redirected_to(tmp_path: Path) -> None:
    """Though it opens: 404, without a Location, and without a click."""
    recording = RecordingNotifier()

    async def main() -> None:
        async with redirecting(tmp_path, recording) as postbox:
            for url in SCHEMES:
                assert postbox.open(sealed(postbox, url)).url == url
                status, fields, body = await answer(postbox.settings.http_port, sealed(postbox, url))
                assert status == "HTTP/1.1 404 Not Found", url
                assert "Location" not in fields
                assert b"alert" not in body
            await answer(postbox.settings.http_port, sealed(postbox, "http://example.com/last"))
            (click,) = await recording.wait_for(1)
            assert click.url == "http://example.com/last"

    asyncio.run(main())


def test_no_address_breaks_the_answer_or_leads_elsewhere(tmp_path: Path) -> None:
    """Sealed as it stands or from a mail, it leads where a browser would have gone with it, or nowhere at all."""

    async def main() -> None:
        async with redirecting(tmp_path) as postbox:
            redirected = 0
            for url in BREAKING:
                # HTML reads a null character as U+FFFD.
                written = [(url.replace("\0", "\ufffd"), path) for path in PATHS.findall(track(postbox, url))]
                for meant, path in [(url, sealed(postbox, url)), *written]:
                    status, fields, _ = await answer(postbox.settings.http_port, path)
                    assert not fields.keys() & {"Set-Cookie", "X"}
                    if status == "HTTP/1.1 404 Not Found":
                        assert "Location" not in fields
                        continue
                    assert status == "HTTP/1.1 302 Found"
                    assert re.fullmatch("https?://[!-~]+", fields["Location"]), url
                    by_browser = ada_url.URL(f"http:{meant}" if meant.startswith("//") else meant)
                    assert ada_url.URL(fields["Location"]).href == by_browser.href
                    redirected += 1
            assert redirected > len(BREAKING)

    asyncio.run(main())
