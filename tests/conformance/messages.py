"""What must hold between a raw message and the one that is sent instead of it."""

from __future__ import annotations

import email
import re
from email.message import Message

from conformance.corpus import TRACKING_LINK, restored

from postbox_plugin import Postbox

__all__ = ["check_sent", "html_text"]

_ADDED_HEADER = re.compile(rb"^X-Postbox-Message-Id: [A-Za-z0-9_-]{8,64}\r?\n(?=\r?\n)", re.MULTILINE)
_BROKEN_LINK = re.compile(rf"\r?\n({TRACKING_LINK.pattern})\r?\n")


def check_sent(original: bytes, sent: bytes, postbox: Postbox) -> int:
    """Assert that a message was rewritten without harm.

    Undone, the HTML bodies are what they were; with the original ones in their place, so is every byte of the message.

    :param original: the message, without headers meant for us.
    :param sent: what is sent instead.
    :returns: how many links are tracked in it.
    """
    if sent == original:
        return 0
    count = 0
    position = 0
    bare = _ADDED_HEADER.sub(b"", sent, count=1)
    assert len(bare) < len(sent)
    parts = list(email.message_from_bytes(original).walk())
    sent_parts = list(email.message_from_bytes(bare).walk())
    assert [part.get_content_type() for part in parts] == [part.get_content_type() for part in sent_parts]
    for old, new in zip(parts, sent_parts, strict=True):
        assert old.raw_items is not None
        assert list(old.raw_items()) == list(new.raw_items())
        before, after = _body(old), _body(new)
        if before == after:
            continue
        assert old.get_content_type() == "text/html"
        assert old.get_content_disposition() != "attachment"
        old_text, new_text = html_text(old), html_text(new)
        count += len(TRACKING_LINK.findall(new_text))
        if restored(new_text, old_text, postbox) != old_text:
            assert old.get("Content-Transfer-Encoding", "7bit").lower().strip() in ("7bit", "8bit", "binary")
            assert restored(_BROKEN_LINK.sub(r"\1", new_text), old_text, postbox) == old_text
        position = bare.index(after, position)
        bare = bare[:position] + before + bare[position + len(after) :]
        position += len(before)
    assert bare == original
    assert count
    return count


def html_text(part: Message) -> str:
    """The text of an HTML part: by its charset where its bytes allow that, otherwise one character a byte."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    try:
        return content.decode(part.get_content_charset("us-ascii"))
    except (LookupError, UnicodeError):
        return content.decode("latin-1")


def _body(part: Message) -> bytes:
    payload = part._payload  # type: ignore[attr-defined]  # get_payload() would decode what is 8bit
    return payload.encode("ascii", "surrogateescape") if isinstance(payload, str) else b""
