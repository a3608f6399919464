"""The relay and a real Postfix: as the mail server behind the relay, and as the relay's client."""

from __future__ import annotations

import re
import smtplib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import trustme
from postfix import Postfix, running_postfix
from relays import CLOSE, Server, running_relay, running_server, settings
from sinks import Sink, running_sink

from postbox_plugin import Postbox, Settings, new_key

from .mail_cases import ADDRESSES, CYRILLIC, DOMAIN, FULL, PLAIN, contents, mime, tracking_links

# What comes before the mail itself: the headers of Postfix and of the relay, in either order.
TRACES = re.compile(rb"(?:Received: .*\r\n(?:[ \t].*\r\n)*)+")
TO_THREE = ("one@example.com", "two@example.com", "three@example.com")

pytestmark = pytest.mark.xdist_group("postfix")  # an instance takes seconds to start: one process tests with each


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """Where everything ends up."""
    with running_sink() as sink:
        yield sink


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of 127.0.0.1, and of whoever signed it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "chain.pem")
    return {"ca": str(folder / "ca.pem"), "chain": str(folder / "chain.pem")}


@pytest.fixture(scope="module")
def receiving(sink: Sink, certificate: dict[str, str]) -> Iterator[Postfix]:
    """A Postfix that sends to the sink, and takes nothing that is not encrypted."""
    with running_postfix(
        sink.port,
        smtpd_tls_security_level="encrypt",
        smtpd_tls_chain_files=certificate["chain"],
        message_size_limit="100000",
        smtpd_recipient_restrictions=(
            "check_recipient_access inline:{{ gone@example.com = 550 5.1.6 Has moved }},"
            "check_recipient_access inline:{{ full@example.com = 452 4.2.2 Mailbox is full }},"
            "permit_mynetworks, reject"
        ),
        header_checks="regexp:{ { /^Subject: Buy/ REJECT 5.7.1 We do not buy } }",
    ) as postfix:
        yield postfix


@pytest.fixture(scope="module")
def sending() -> Iterator[tuple[Postfix, int]]:
    """A Postfix whose ``relayhost`` is a relay on this port, which each test starts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_postfix(port, smtp_tls_security_level="may") as postfix:
        yield postfix, port


def through(receiving: Postfix, certificate: dict[str, str], **changes: Any) -> Any:
    """Settings of a relay in front of Postfix."""
    return settings(receiving.port, upstream_tls="starttls", upstream_ca_file=certificate["ca"], **changes)


def connect(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30)


def queue_id(text: bytes) -> str:
    """Of the mail that Postfix says it has taken."""
    return text.rpartition(b" ")[2].decode()


def new(sink: Sink, before: int, count: int) -> list[Any]:
    """The mails that came since then, once they are so many."""
    until = time.monotonic() + 30
    while len(sink.mails) < before + count:
        assert time.monotonic() < until, "mails are missing"
        time.sleep(0.02)
    return sink.mails[before:]


@pytest.mark.parametrize("letter", [PLAIN, CYRILLIC, FULL], ids=["plain", "cyrillic", "full"])
def test_postfix_behind_the_relay(
    letter: Any, receiving: Postfix, sink: Sink, certificate: dict[str, str], postbox: Postbox
) -> None:
    """What arrives differs in links, our id and trace headers, and in nothing else; the queue id is handed back."""
    before = len(sink.mails)
    message = mime(letter)
    with running_relay(through(receiving, certificate), postbox) as port, connect(port) as client:
        client.ehlo()
        assert {"8bitmime", "smtputf8", "dsn", "enhancedstatuscodes"} <= client.esmtp_features.keys()
        assert client.esmtp_features["size"] == "100000"
        client.mail("shop@example.com", ["BODY=8BITMIME"])
        client.rcpt("reader@example.com")
        code, text = client.data(message.as_bytes())
    assert code == 250
    assert re.fullmatch(rb"2\.0\.0 Ok: queued as \w+", text)
    assert queue_id(text) in receiving.log
    (arrived,) = new(sink, before, 1)
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    assert contents(TRACES.sub(b"", arrived.raw, count=1), postbox) == contents(message.as_bytes())


def test_postfix_notifies_as_the_client_asked(
    receiving: Postfix, sink: Sink, certificate: dict[str, str], postbox: Postbox
) -> None:
    """RFC 3461: what the client says about notifications is what Postfix knows about them."""
    before = len(sink.mails)
    with running_relay(through(receiving, certificate), postbox) as port, connect(port) as client:
        client.ehlo()
        client.mail("shop@example.com", ["RET=HDRS", "ENVID=Order-1"])
        client.rcpt("reader@example.com", ["NOTIFY=SUCCESS", "ORCPT=rfc822;Reader@example.com"])
        assert client.data(mime(PLAIN).as_bytes())[0] == 250
    _, notification = sorted(new(sink, before, 2), key=lambda mail: mail.recipients)
    assert notification.recipients == ["shop@example.com"]
    for line in (
        b"Original-Envelope-Id: Order-1",
        b"Original-Recipient: rfc822;Reader@example.com",
        b"Action: relayed",
    ):
        assert line in notification.raw


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"to": "gone@example.com"}, (550, b"5.1.6 <gone@example.com>: Recipient address rejected: Has moved")),
        ({"to": "full@example.com"}, (452, b"4.2.2 <full@example.com>: Recipient address rejected: Mailbox is full")),
        ({"subject": "Buy books"}, (550, b"5.7.1 We do not buy")),
        ({"size": 200_000}, (552, b"5.3.4 Message size exceeds fixed limit")),
        ({"padding": 200_000}, (552, b"5.3.4 Error: message file too big")),
    ],
    ids=["recipient", "later", "content", "size", "too large"],
)
def test_what_postfix_refuses_the_client_hears(
    changes: dict[str, Any], refused: tuple[int, bytes], receiving: Postfix, sink: Sink, certificate: dict[str, str]
) -> None:
    """As if it had spoken to Postfix itself."""
    before = len(sink.mails)
    letter = replace(PLAIN, subject=changes.get("subject", PLAIN.subject))
    content = mime(letter).as_bytes() + b"x" * changes.get("padding", 0)
    heard = []
    with running_relay(through(receiving, certificate), None) as port:
        for where in (port, receiving.port):
            with connect(where) as client:
                client.ehlo()
                if where == receiving.port:
                    client.starttls()
                    client.ehlo()
                said = client.mail("shop@example.com", [f"SIZE={changes.get('size', 100)}"])
                if said[0] == 250:
                    said = client.rcpt(changes.get("to", "reader@example.com"))
                if said[0] == 250:
                    said = client.data(content)
                heard.append(said)
    assert heard == [refused, refused]
    assert len(sink.mails) == before


def test_postfix_as_the_client(sending: tuple[Postfix, int], sink: Sink, postbox: Postbox) -> None:
    """``relayhost`` is all that is set: what Postfix takes from anybody goes out with tracking links."""
    postfix, relay_port = sending
    before = len(sink.mails)
    message = mime(CYRILLIC)
    with running_relay(settings(sink.port, listen=f"127.0.0.1:{relay_port}"), postbox):
        with connect(postfix.port) as client:
            client.sendmail("shop@example.com", "reader@example.com", message.as_bytes())
        (arrived,) = new(sink, before, 1)
    assert [postbox.open(link.decode()).url for link in tracking_links(arrived)] == ADDRESSES
    assert contents(TRACES.sub(b"", arrived.raw, count=1), postbox) == contents(message.as_bytes())


def test_postfix_encrypts_to_the_relay(
    sending: tuple[Postfix, int], sink: Sink, certificate: dict[str, str], postbox: Postbox
) -> None:
    """As soon as the relay has a certificate."""
    postfix, relay_port = sending
    before = len(sink.mails)
    given = settings(sink.port, listen=f"127.0.0.1:{relay_port}", cert=certificate["chain"], key=certificate["chain"])
    with running_relay(given, postbox):
        with connect(postfix.port) as client:
            client.sendmail("shop@example.com", "reader@example.com", mime(PLAIN).as_bytes())
        (arrived,) = new(sink, before, 1)
    assert b"with ESMTPS;" in arrived.raw


def test_postfix_hears_each_refusal_and_bounces(sending: tuple[Postfix, int], sink: Sink, postbox: Postbox) -> None:
    """One of two is refused: the other one's mail goes, and Postfix tells the sender the server's own words."""
    postfix, relay_port = sending
    before = len(sink.mails)
    with running_relay(settings(sink.port, listen=f"127.0.0.1:{relay_port}"), postbox):
        with connect(postfix.port) as client:
            client.sendmail("shop@example.com", ["refused@example.com", "reader@example.com"], mime(PLAIN).as_bytes())
        mail, bounce = sorted(new(sink, before, 2), key=lambda mail: mail.recipients, reverse=True)
    assert (mail.recipients, bounce.recipients) == (["shop@example.com"], ["reader@example.com"])
    assert b"No such reader" in mail.raw
    assert mail.sender in ("", "<>")


@pytest.mark.parametrize("how", ["451 4.7.1 Not now", CLOSE])
def test_a_split_mail_of_postfix_reaches_everybody_once(
    how: str, sending: tuple[Postfix, int], postbox: Postbox
) -> None:
    """One copy is put off, Postfix tries again with all of them, and nobody has two."""
    postfix, relay_port = sending
    refusals = Counter[str]()
    current = ""

    def script(verb: str, line: str) -> str | None:
        nonlocal current
        current = line if verb == "RCPT" else current
        if verb == "MESSAGE" and "two@" in current and not refusals["two"]:
            refusals["two"] += 1
            return how
        return None

    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port, listen=f"127.0.0.1:{relay_port}", split=True), postbox),
    ):
        with connect(postfix.port) as client:
            client.ehlo()
            client.mail("shop@example.com")
            for address in TO_THREE:
                client.rcpt(address)
            code, text = client.data(mime(PLAIN).as_bytes())
        assert code == 250
        postfix.wait_until(f"{queue_id(text)}: removed")
    whose = Counter(
        postbox.open(match[0].decode()).message_tags["recipient"][0]
        for message in server.messages
        if (match := re.search(rb"https://click\.example\.com/c/[\w-]+", message))
    )
    assert whose == dict.fromkeys(TO_THREE, 1)
    assert refusals["two"] == 1
