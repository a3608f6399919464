"""Signatures (DKIM, RFC 6376): over what was rewritten they verify, and what was signed before is not rewritten."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest
from dkim_keys import is_signed, signed
from sinks import Sink, running_sink

from postbox_hooks.mail import smtplib as tracked
from postbox_plugin import Postbox, Settings, new_key

from .mail_cases import ADDRESSES, DOMAIN, SHAPES, mime, tracking_links


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_signed_after_the_rewriting_verifies_where_it_arrives(shape: str, sink: Sink, postbox: Postbox) -> None:
    """Of raw bytes as of a message object; and a changed link would be noticed."""
    message = mime(SHAPES[shape])
    for rewritten in (postbox.before_send(message).as_bytes(), postbox.before_send(message.as_bytes())):
        with smtplib.SMTP("127.0.0.1", sink.port, local_hostname="localhost") as smtp:
            smtp.sendmail("shop@example.com", "reader@example.com", signed(rewritten))
        arrived = sink.mails.pop()
        assert len(tracking_links(arrived)) == len(ADDRESSES)
        assert is_signed(arrived.raw)
        assert not is_signed(arrived.raw.replace(b"X-Postbox-Message-Id: ", b"X-Postbox-Message-Id: x"))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_signed_before_arrives_as_it_was_and_verifies(shape: str, sink: Sink, postbox: Postbox) -> None:
    """Byte by byte, whatever headers meant for us it has: the signature may cover them."""
    raw = signed(mime(SHAPES[shape].with_headers(X_Postbox_Tags="campaign=spring")).as_bytes())
    with tracked.SMTP("127.0.0.1", sink.port, local_hostname="localhost", postbox=postbox) as smtp:
        smtp.sendmail("shop@example.com", "reader@example.com", raw)
    (arrived,) = sink.mails
    assert arrived.raw == raw
    assert is_signed(arrived.raw)
