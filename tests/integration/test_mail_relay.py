"""The relay: smtplib sends to it, and a real server gets it; with STARTTLS and AUTH on both sides, and without."""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from relays import CLOSE, Script, Server, running_relay, running_server, settings
from sinks import Received, Sink, running_sink

from postbox_hooks.mail import smtplib as tracked
from postbox_hooks.relay.settings import RelaySettings
from postbox_plugin import Postbox, Settings, hookimpl, new_key

from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    PLAIN,
    Letter,
    MailCases,
    contents,
    message_id,
    mime,
    tracking_links,
)

USER, PASSWORD = "shop", "a pass: word"
TRACE = re.compile(
    rb"Received: from localhost \(\[127\.0\.0\.1\]\)\r\n"
    rb"\tby relay\.example\.com \(postbox relay\) with (\w+);\r\n\t[^\r]+\r\n"
)


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The mail server."""
    with running_sink() as sink:
        yield sink


class RelayCases(MailCases):
    """smtplib's own class sends to the relay; without one, to the mail server."""

    protocol = b"ESMTP"

    def build(self, letter: Letter) -> EmailMessage:
        return mime(letter)

    def readdress(self, message: EmailMessage, address: str) -> None:
        message.replace_header("To", address)

    def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        if postbox is None:
            self.send_to(sink.port, message)
            return
        with running_relay(self.settings(sink.port), postbox) as port:
            self.send_to(port, message)

    def arriving(self, message: Any, sink: Sink, postbox: Postbox | None) -> Received:
        """Without the header that a relay must add, which is held against what it must be."""
        arrived = super().arriving(message, sink, postbox)
        if postbox is None:
            return arrived
        trace = TRACE.match(arrived.raw)
        assert trace is not None
        assert trace[1] == self.protocol
        return replace(arrived, raw=arrived.raw[trace.end() :])

    def settings(self, port: int) -> RelaySettings:
        return settings(port)

    def send_to(self, port: int, message: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as smtp:
            smtp.send_message(message)

    def test_inside_another_adapter_nothing_is_rewritten(self, sink: Sink, postbox: Postbox) -> None:
        """The relay is another process, and knows what another adapter has rewritten by its links."""
        with (
            running_relay(self.settings(sink.port), postbox) as port,
            self.tracked_smtp(port, postbox) as smtp,
        ):
            self.secure(smtp)
            smtp.send_message(mime(PLAIN))
        (arrived,) = sink.mails
        assert len(tracking_links(arrived)) == len(ADDRESSES)
        assert {postbox.open(link.decode()).message_id for link in tracking_links(arrived)} == {message_id(arrived)}

    def tracked_smtp(self, port: int, postbox: Postbox) -> smtplib.SMTP:
        return tracked.SMTP("127.0.0.1", port, local_hostname="localhost", postbox=postbox)

    def secure(self, smtp: smtplib.SMTP) -> None:
        pass


class TestPlain(RelayCases):
    """On one machine."""


@dataclass(frozen=True)
class Certificates:
    """Where the certificates are.

    :ivar trusting: trusts whoever made them.
    :ivar serving: has one.
    """

    ca: Path
    chain: Path
    trusting: ssl.SSLContext
    serving: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "chain.pem")
    trusting, serving = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trusting)
    certificate.configure_cert(serving)
    return Certificates(folder / "ca.pem", folder / "chain.pem", trusting, serving)


class TestStartTlsAndAuth(RelayCases):
    """Both sides encrypt, and both ask for a password: the client's is the relay's, the relay's the server's."""

    protocol = b"ESMTPSA"

    @pytest.fixture
    def sink(self, certificates: Certificates) -> Iterator[Sink]:
        self.certificates = certificates
        with running_sink(starttls=certificates.serving, login=("relay", "its own")) as sink:
            yield sink
        assert sink.mails
        assert all(mail.encrypted for mail in sink.mails)

    def settings(self, port: int) -> RelaySettings:
        return settings(
            port,
            upstream_tls="starttls",
            upstream_ca_file=str(self.certificates.ca),
            upstream_user="relay",
            upstream_password="its own",
            cert=str(self.certificates.chain),
            key=str(self.certificates.chain),
            users={USER: PASSWORD, "relay": "another"},
        )

    def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        self.login = (USER, PASSWORD) if postbox else ("relay", "its own")
        super().send(message, sink, postbox)

    def send_to(self, port: int, message: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as smtp:
            self.secure(smtp)
            smtp.send_message(message)

    def secure(self, smtp: smtplib.SMTP) -> None:
        smtp.starttls(context=self.certificates.trusting)
        smtp.login(*getattr(self, "login", (USER, PASSWORD)))


class TestTlsFromTheFirstByte(RelayCases):
    """As on port 465 (RFC 8314, 3.3)."""

    protocol = b"ESMTPSA"

    @pytest.fixture(autouse=True)
    def _certificates(self, certificates: Certificates) -> None:
        self.certificates = certificates

    def settings(self, port: int) -> RelaySettings:
        chain = str(self.certificates.chain)
        return settings(port, listen_tls="tls", cert=chain, key=chain, users={USER: PASSWORD})

    def send(self, message: EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        if postbox is None:
            self.send_to(sink.port, message)
            return
        trusting = self.certificates.trusting
        with (
            running_relay(self.settings(sink.port), postbox) as port,
            smtplib.SMTP_SSL("127.0.0.1", port, local_hostname="localhost", context=trusting) as smtp,
        ):
            self.secure(smtp)
            assert not smtp.has_extn("starttls")
            smtp.send_message(message)

    def tracked_smtp(self, port: int, postbox: Postbox) -> smtplib.SMTP:
        trusting = self.certificates.trusting
        return tracked.SMTP_SSL("127.0.0.1", port, local_hostname="localhost", context=trusting, postbox=postbox)

    def secure(self, smtp: smtplib.SMTP) -> None:
        smtp.login(USER, PASSWORD)


RAW = mime(PLAIN).as_bytes()
TO_THREE = ["one@example.com", "two@example.com", "three@example.com"]


def answers(by_verb: dict[str, str | float]) -> Script:
    """A script that has one reply for each verb."""
    return lambda verb, _line: by_verb.get(verb)


def refusing(address: str, reply: str) -> Script:
    """A script that has this reply to a copy that is for this address."""
    current = ""

    def script(verb: str, line: str) -> str | None:
        nonlocal current
        current = line if verb == "RCPT" else current
        return reply if verb == "MESSAGE" and address in current else None

    return script


class Client(smtplib.SMTP):
    """smtplib's, and what the server says in bytes."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, local_hostname="localhost", timeout=20)
        self.ehlo()

    def say(self, command: str) -> tuple[int, bytes]:
        self.send(command.encode() + b"\r\n")
        return self.getreply()


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", "550 5.7.1 We do not know you"),
        ("MAIL", "451-4.7.1 Greylisted\r\n451 4.7.1 Come back in 5 minutes"),
        ("RCPT", "550 5.1.1 <reader@example.com>: no such user"),
        ("RCPT", "452 4.2.2 Mailbox full"),
        ("DATA", "554 5.5.1 No"),
        ("MESSAGE", "554-5.7.1 Spam\r\n554 5.7.1 said \u00abthe filter\u00bb"),
        ("MESSAGE", "452 4.3.1 No room"),
    ],
)
def test_a_refusal_is_handed_back_word_for_word(verb: str, reply: str, postbox: Postbox) -> None:
    """Code, text and lines are the server's; the connection goes on to serve the next mail."""
    refuse = True

    def script(command: str, _line: str) -> str | None:
        return reply if command == verb and refuse else None

    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        code, text = client.mail("shop@example.com")
        if verb != "MAIL":
            assert code == 250
            code, text = client.rcpt("reader@example.com")
        if verb in ("DATA", "MESSAGE"):
            assert code == 250
            code, text = client.data(RAW)
        lines = reply.split("\r\n")
        assert (code, text) == (int(reply[:3]), "\n".join(line[4:] for line in lines).encode())
        refuse = False
        client.rset()
        assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
    assert len(server.messages) == 1
    assert len(server.said) == 1, "one connection was enough"


def test_each_recipient_has_the_server_s_answer(postbox: Postbox) -> None:
    """One refused, one forwarded, one taken: the mail goes to those that the server took."""

    def script(verb: str, line: str) -> str | None:
        replies = {"one@": "550 5.1.1 Gone", "two@": "251 2.1.5 User not local; will forward"}
        return next((reply for part, reply in replies.items() if part in line), None) if verb == "RCPT" else None

    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        assert client.rcpt("one@example.com") == (550, b"5.1.1 Gone")
        assert client.rcpt("two@example.com") == (251, b"2.1.5 User not local; will forward")
        assert client.rcpt("three@example.com") == (250, b"2.0.0 Fine")
        assert client.data(RAW) == (250, b"2.0.0 Taken as 1234")
    assert len(server.messages) == 1


@pytest.mark.parametrize("verb", ["RCPT", "DATA", "MESSAGE"])
@pytest.mark.parametrize("how", [CLOSE, "nonsense", "354 Go on and on"])
def test_a_server_that_breaks_off_is_a_temporary_failure(verb: str, how: str, postbox: Postbox) -> None:
    """The client hears 451 and may come again; nothing is sent behind its back."""
    if (verb, how) == ("DATA", "354 Go on and on"):
        how = "250 Taken"  # before there was anything to take
    script = answers({verb: how})
    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        code, text = client.rcpt("reader@example.com")
        if verb != "RCPT":
            code, text = client.data(RAW)
        assert (code, text[:5]) == (451, b"4.4.2")
        if verb == "RCPT":
            code, text = client.docmd("DATA")
            assert code == 554, "there is no recipient"
        server.script = answers({})
        client.rset()
        assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
    assert len(server.messages) == 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "MESSAGE"])
def test_a_server_that_takes_too_long_is_a_temporary_failure(
    verb: str, postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay waits for each answer for as long as the settings say; a late one is no answer to what comes next."""
    with (
        running_server(Server(answers({verb: 2.0}))) as server,
        running_relay(settings(server.port, timeout=0.5), postbox) as port,
        Client(port) as client,
    ):
        code, text = client.mail("shop@example.com")
        if verb != "MAIL":
            code, text = client.rcpt("reader@example.com")
        if verb in ("DATA", "MESSAGE"):
            code, text = client.data(RAW)
        assert (code, text[:5]) == (451, b"4.4.2")
        server.script = answers({})
        client.rset()
        assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
    assert "upstream: no answer within 0.5 seconds" in caplog.text


def test_a_server_that_is_not_there_is_a_temporary_failure(postbox: Postbox) -> None:
    """451, never a bounce; and as soon as it is there, mail flows."""
    server = Server()
    with running_server(server):
        pass
    with running_relay(settings(server.port), postbox) as port, Client(port) as client:
        code, text = client.mail("shop@example.com")
        assert (code, text[:5]) == (451, b"4.4.1")
        with running_server(server):
            assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}


@pytest.mark.parametrize(
    ("script", "changes", "hint"),
    [
        ({"CONNECT": "554 5.7.1 You are blocked"}, {}, ""),
        ({"EHLO": "550 5.7.1 Go away", "HELO": "550 5.7.1 Go away"}, {}, ""),
        ({}, {"upstream_tls": "starttls"}, " (see relay.upstream_tls)"),
        (
            {},
            {"upstream_user": "relay", "upstream_password": "x", "plaintext_auth": True},
            " (see relay.upstream_user and relay.upstream_password)",
        ),
    ],
)
def test_what_is_wrong_between_relay_and_server_bounces_no_mail(
    script: dict[str, str | float],
    changes: dict[str, object],
    hint: str,
    postbox: Postbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A relay that may not connect, encrypt or log in says 451, and its log says why, and where to look."""
    with (
        running_server(Server(answers(script))) as server,
        running_relay(settings(server.port, **changes), postbox) as port,
        Client(port) as client,
    ):
        code, text = client.mail("shop@example.com")
        assert (code, text[:5]) == (451, b"4.4.1")
    assert re.search("upstream: SMTP\\w*(Error|Exception): .+", caplog.text)
    assert caplog.text.endswith(f"{hint}\n") if hint else "relay.upstream" not in caplog.text
    assert "example.com" not in caplog.text


def test_a_421_is_handed_back_and_ends_the_connection(postbox: Postbox) -> None:
    """RFC 5321, 3.8: who says 421 hangs up, and so does the relay."""
    with (
        running_server(Server(answers({"RCPT": "421 4.3.2 Going down"}))) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        assert client.rcpt("reader@example.com") == (421, b"4.3.2 Going down")
        assert client.file is not None
        assert client.file.readline() == b""


@pytest.mark.parametrize("how", [CLOSE, "421 4.4.2 Idle for too long"])
def test_a_connection_that_went_stale_is_replaced(how: str, postbox: Postbox) -> None:
    """What the server closed since the last mail is opened again, and the client hears nothing of it."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.sendmail("shop@example.com", "reader@example.com", RAW)

        def once(verb: str, _line: str) -> str | None:
            if verb == "MAIL":
                server.script = answers({})
                return how
            return None

        server.script = once
        client.sendmail("shop@example.com", "reader@example.com", RAW)
    assert len(server.messages) == 2
    assert len(server.said) == 2


def test_a_fresh_connection_is_not_tried_twice(postbox: Postbox) -> None:
    """A server that hangs up at MAIL every time gets two tries at the most, and the client 451."""
    with (
        running_server(Server(answers({"MAIL": CLOSE}))) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        code, text = client.mail("shop@example.com")
        assert (code, text[:5]) == (451, b"4.4.2")
    assert sum(line.startswith("MAIL") for said in server.said for line in said) <= 2


def test_connections_are_reused_and_given_up_when_idle(postbox: Postbox) -> None:
    """Clients come and go; the connection to the server stays, for as long as the settings say."""
    with running_server(Server()) as server, running_relay(settings(server.port, idle_timeout=0.2), postbox) as port:
        for _ in range(3):
            with Client(port) as client:
                client.sendmail("shop@example.com", "reader@example.com", RAW)
        assert len(server.said) == 1
        while server.said[0][-1] != "QUIT":
            time.sleep(0.01)
        with Client(port) as client:
            client.sendmail("shop@example.com", "reader@example.com", RAW)
        assert len(server.said) == 2


def test_what_the_client_leaves_off_is_reset(postbox: Postbox) -> None:
    """RSET, EHLO and QUIT in the middle of a mail end it there too, and the connection serves the next one."""
    with running_server(Server()) as server, running_relay(settings(server.port), postbox) as port:
        with Client(port) as client:
            for leave in (client.rset, client.ehlo):
                client.mail("shop@example.com")
                client.rcpt("reader@example.com")
                leave()
            client.mail("shop@example.com")
        with Client(port) as client:
            client.sendmail("shop@example.com", "reader@example.com", RAW)
    (said,) = server.said
    assert [line.partition(":")[0] for line in said] == (
        ["EHLO relay.example.com"]
        + ["MAIL FROM", "RCPT TO", "RSET"] * 2
        + ["MAIL FROM", "RSET", "MAIL FROM", "RCPT TO", "DATA", "QUIT"]
    )


def test_a_client_that_hangs_up_takes_its_mail_along(postbox: Postbox) -> None:
    """Half a message is sent to nobody."""
    with running_server(Server()) as server, running_relay(settings(server.port), postbox) as port:
        client = Client(port)
        client.mail("shop@example.com")
        client.rcpt("reader@example.com")
        client.docmd("DATA")
        client.send(RAW[:-20])
        client.close()
        with Client(port) as client:
            client.sendmail("shop@example.com", "reader@example.com", RAW)
    assert len(server.messages) == 1
    assert all("DATA" not in said for said in server.said[:-1])


def test_further_clients_wait(postbox: Postbox) -> None:
    """There are so many mails in hand and no more; nobody is turned away."""
    with (
        running_server(Server(answers({"MESSAGE": 0.02}))) as server,
        running_relay(settings(server.port, connections=2), postbox) as port,
    ):

        def send() -> None:
            with Client(port) as client:
                client.sendmail("shop@example.com", "reader@example.com", RAW)

        threads = [threading.Thread(target=send) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.messages) == 12
    assert server.most_connections == 2


@pytest.mark.parametrize(
    "extensions", [(), ("8BITMIME",), ("SIZE 1000", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES"), ("SIZE", "AUTH PLAIN")]
)
def test_what_is_offered_is_what_can_be_passed_on(extensions: tuple[str, ...], postbox: Postbox) -> None:
    """EHLO names what the server has, the smaller of the two size limits, and nothing else."""
    with (
        running_server(Server(extensions=extensions)) as server,
        running_relay(settings(server.port, size_limit=5000), postbox) as port,
        Client(port) as client,
    ):
        features = {name: value for name, value in client.esmtp_features.items() if name != "help"}
    wanted = {name.lower(): "" for name in extensions if name.isalnum()} | {"size": "5000"}
    assert features == wanted | ({"size": "1000"} if "SIZE 1000" in extensions else {})


def test_parameters_are_passed_on_as_they_were_written(postbox: Postbox) -> None:
    """8BITMIME, SIZE, SMTPUTF8 and DSN reach the server, also in RCPT, with their capitals."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        mail = 'MAIL FROM:<"a b"@example.com> SIZE=400 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314159'
        rcpt = "RCPT TO:<\u0447@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Reader@example.com"
        assert client.say(mail)[0] == 250
        assert client.say(rcpt)[0] == 250
        assert client.data(RAW)[0] == 250
    assert server.said[0][1:3] == [mail, rcpt]
    assert b" with UTF8SMTP;" in server.messages[0]


@pytest.mark.parametrize(
    ("commands", "code", "status"),
    [
        (["MAIL FROM:<shop@example.com> BODY=8BITMIME"], 555, "5.5.4"),
        (["MAIL FROM:<shop@example.com> SMTPUTF8"], 555, "5.5.4"),
        (["MAIL FROM:<shop@example.com> RET=FULL"], 555, "5.5.4"),
        (["MAIL FROM:<shop@example.com> FUTURE=1"], 555, "5.5.4"),
        (["MAIL FROM:<shop@example.com>", "RCPT TO:<r@example.com> NOTIFY=NEVER"], 555, "5.5.4"),
        (["MAIL FROM:<\u0447@example.com>"], 553, "5.6.7"),
        (["MAIL FROM:<shop@example.com>", "RCPT TO:<\u0447@example.com>"], 553, "5.6.7"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(commands: list[str], code: int, status: str, postbox: Postbox) -> None:
    """A server without extensions; nothing is dropped on the way to it."""
    with (
        running_server(Server(extensions=())) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        *before, last = commands
        assert [client.say(command)[0] for command in before] == [250] * len(before)
        said = client.say(last)
        assert (said[0], said[1][:5].decode()) == (code, status)
        client.rset()
        # What has served its purpose here may go no further: the size was held against our own limit.
        assert client.say("MAIL FROM:<shop@example.com> SIZE=100 AUTH=<>")[0] == 250
    assert server.said[0][0] == "EHLO relay.example.com"
    assert server.said[0][-2 - ("RSET" in server.said[0][-2:])] == "MAIL FROM:<shop@example.com>"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MAIL", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM: shop", None),
        ("MAIL FROM:<>", None),
        ("MAIL FROM:<@a,@b:shop@example.com>", None),
        ("mail from:shop@example.com size=10", None),
        ("MAIL FROM:<a@example.com> SIZE=x", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<a@example.com> BODY=9BIT", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<a@example.com>SIZE=1", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<a@example.com> SIZE=1 SIZE=1", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<a@example.com\x00>", b"5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<a@example.com> SIZE=99999999999", b"5.3.4 The message is larger than this relay takes"),
        ("RCPT TO:<r@example.com>", b"5.5.1 Say MAIL first"),
        ("DATA", b"5.5.1 Say MAIL first"),
        ("RSET now", b"5.5.4 This command takes no argument"),
        ("AUTH PLAIN AAAA", b"5.5.1 AUTH is not offered here"),
        ("NOOP", None),
        ("BDAT 5", b'5.0.0 Error: command "BDAT" not recognized'),
    ],
)
def test_commands_are_read_as_they_are_written(command: str, answer: bytes | None, postbox: Postbox) -> None:
    """What is clear is passed on, what is not is refused; each answer has an enhanced status code."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        code, text = client.say(command)
        assert re.match(rb"[245]\.\d\.\d ", text)
        assert (code < 300) == (answer is None)
        assert answer in (None, text)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_size_limit_is_announced_and_enforced(size: int, postbox: Postbox) -> None:
    """A message of that size passes, a larger one does not; the connection goes on."""
    filler = b"x" * 70 + b"\r\n"
    raw = RAW + filler * 2000
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port, size_limit=len(raw) + 1 - size), postbox) as port,
        Client(port) as client,
    ):
        assert client.esmtp_features["size"] == str(len(raw) + 1 - size)
        client.mail("shop@example.com")  # without SIZE
        client.rcpt("reader@example.com")
        code, text = client.data(raw)
        assert (code == 250) == (size < 2), text
        assert text.startswith(b"2.0.0 Taken" if size < 2 else b"5.3.4")
        assert client.mail("shop@example.com")[0] == 250
    assert len(server.messages) == (size < 2)


def test_tracking_makes_no_mail_too_large(postbox: Postbox) -> None:
    """Where only the original fits, the original goes out."""
    with (
        running_server(Server(extensions=[f"SIZE {len(RAW) + 200}"])) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
    (message,) = server.messages
    assert message.endswith(RAW.replace(b"\r\n.", b"\r\n.."))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".",
        b"..",
        b"\r\n.\r\n",
        b"a",
        b"ab",
        b"\r\n",
        b"\r\n\r\n.x",
        b".x.",
        b".x\r\n..\r\n...",
        b"x" * 200_000,
        b".\r\n" * 50_000,
        ("\u044f" * 70 + "\r\n").encode() * 20_000,
    ],
    ids=range(13),
)
@pytest.mark.parametrize("head", [b"Subject: x\r\n\r\n", b""])
def test_every_byte_of_a_message_arrives(head: bytes, body: bytes) -> None:
    """Dots, empty lines, long lines, 8 bits: what is between DATA and the last dot arrives."""
    message = head + body + (b"" if (head + body).endswith(b"\r\n") else b"\r\n")
    stuffed = (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:]
    with running_server(Server()) as server, running_relay(settings(server.port), None) as port, Client(port) as client:
        client.mail("shop@example.com")
        client.rcpt("reader@example.com")
        client.docmd("DATA")
        client.sock.sendall(stuffed + b".\r\nNOOP\r\n")  # the next command may come with it
        assert client.getreply() == (250, b"2.0.0 Taken as 1234")
        assert client.getreply()[0] == 250
    (arrived,) = server.messages
    trace = TRACE.match(arrived)
    assert trace is not None
    assert arrived[trace.end() :] == stuffed


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"])
def test_nobody_smuggles_a_mail(end: bytes, postbox: Postbox) -> None:
    """Only CR LF . CR LF ends a message; what looks like it to some server goes on with a dot that does not."""
    smuggled = b"Subject: x\r\n\r\nx" + end + b"MAIL FROM:<ceo@example.com>\r\nx\r\n.\r\n"
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        client.rcpt("reader@example.com")
        client.docmd("DATA")
        client.sock.sendall(smuggled)
        assert client.getreply()[0] == 250
        assert client.noop()[0] == 250
    (arrived,) = server.messages
    assert b"\r\nMAIL FROM:<ceo@example.com>" in arrived
    assert not re.search(rb"[\r\n]\.[\r\n]|\r(?!\n)|(?<!\r)\n", arrived)


def copies(server: Server) -> list[str]:
    """The recipients of the mails that the server took, from what it was told."""
    taken: list[str] = []
    for said in server.said:
        recipients: list[str] = []
        for line in said:
            if line.startswith(("MAIL", "RSET")):
                recipients = []
            elif line.startswith("RCPT"):
                recipients.append(line[9:-1])
            elif line == "DATA":
                taken += recipients
    return taken


def test_a_mail_to_several_is_split(sink: Sink, postbox: Postbox) -> None:
    """Each gets tracking links of their own, which say whose they are; To is as it was."""
    letter = replace(PLAIN, to=("one@example.com", "two@example.com"), bcc=("three@example.com", "one@example.com"))
    with running_relay(settings(sink.port, split=True), postbox) as port, Client(port) as client:
        client.send_message(mime(letter))
    assert [mail.recipients for mail in sink.mails] == [[address] for address in TO_THREE]
    ids = set()
    for mail in sink.mails:
        opened = [postbox.open(link.decode()) for link in tracking_links(mail)]
        assert [link.url for link in opened] == ADDRESSES
        assert {link.message_tags["recipient"] for link in opened} == {tuple(mail.recipients)}
        ids.add(message_id(mail))
        trace = TRACE.match(mail.raw)
        assert trace is not None
        assert contents(mail.raw[trace.end() :], postbox) == contents(mime(replace(letter, bcc=())).as_bytes())
    assert len(ids) == 3


@pytest.mark.parametrize(
    "letter",
    [
        Letter(text="Nothing to track"),
        PLAIN.with_headers(DKIM_Signature="v=1; a=rsa-sha256; d=example.com"),
        PLAIN.with_headers(X_Postbox_Track="no"),
    ],
    ids=["text", "signed", "switched off"],
)
def test_what_is_not_tracked_is_not_split(letter: Letter, sink: Sink, postbox: Postbox) -> None:
    """One mail to all says the same as one to each."""
    with running_relay(settings(sink.port, split=True), postbox) as port, Client(port) as client:
        client.send_message(mime(replace(letter, to=tuple(TO_THREE))))
    (arrived,) = sink.mails
    assert arrived.recipients == TO_THREE


def test_without_split_a_mail_to_several_is_one(sink: Sink, postbox: Postbox) -> None:
    """And untracked, for a click could not say whose it was."""
    with running_relay(settings(sink.port), postbox) as port, Client(port) as client:
        client.send_message(mime(replace(PLAIN, to=tuple(TO_THREE))))
    (arrived,) = sink.mails
    assert arrived.recipients == TO_THREE
    assert not tracking_links(arrived)


def send_to_three(client: Client) -> tuple[int, bytes]:
    """The answer to one mail to three."""
    client.rset()
    client.mail("shop@example.com", ["RET=HDRS"])
    for address in TO_THREE:
        assert client.rcpt(address, ["NOTIFY=NEVER"])[0] == 250
    return client.data(RAW)


def test_all_copies_accepted_are_all_answers(postbox: Postbox) -> None:
    """250 hands back what the server said to each; each copy had the parameters of its recipient."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        assert send_to_three(client) == (250, b"\n".join([b"2.0.0 Taken as 1234"] * 3))
    (said,) = server.said
    mail = "MAIL FROM:<shop@example.com> RET=HDRS"
    assert said.count(mail) == 4, "once to ask about the recipients"
    assert [line for line in said if "two@" in line] == ["RCPT TO:<two@example.com> NOTIFY=NEVER"] * 2


@pytest.mark.parametrize("reply", ["451 4.7.1 Later", CLOSE, "taken and " + CLOSE])
def test_a_copy_that_may_go_later_is_asked_for_again_and_alone(reply: str, postbox: Postbox) -> None:
    """The client hears a temporary failure; when it comes again, who has their copy gets no second one."""
    script = refusing("two@", reply)
    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        code, text = send_to_three(client)
        broken_off = reply.endswith(CLOSE)
        assert code == 451
        first = b"4.4.2 The connection to the mail" if broken_off else b"4.7.1 Later"
        count = 1 if broken_off else 2
        assert text.startswith(first)
        assert text.endswith(b"4.5.0 %d of 3 recipients have this mail" % count)
        server.script = answers({})
        code, text = send_to_three(client)
        assert code == 250
        assert text.count(b"2.0.0 Accepted before") == count
        assert text.count(b"2.0.0 Taken") == 3 - count
        code, text = send_to_three(client)
        assert text.count(b"2.0.0 Taken") == 3, "sent on purpose, this time"
    taken = 6 + (reply == "taken and " + CLOSE)  # what was taken and not said so comes twice: nobody can know
    assert len(server.messages) == taken


def test_a_copy_that_is_refused_for_good_is_a_failure(postbox: Postbox) -> None:
    """The client hears which answer it was, and how many have the mail."""
    with (
        running_server(Server(refusing("two@", "554 5.7.1 Not to him"))) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        assert send_to_three(client) == (554, b"5.7.1 Not to him\n5.5.0 2 of 3 recipients have this mail")
    assert len(server.messages) == 2


def test_a_recipient_refused_when_the_copy_goes_is_a_failure(postbox: Postbox) -> None:
    """Servers change their mind between two commands; what they said last counts."""
    asked = 0

    def script(verb: str, line: str) -> str | None:
        nonlocal asked
        asked += "three@" in line and verb == "RCPT"
        return "450 4.2.1 Too many mails" if "three@" in line and asked == 2 else None

    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        assert send_to_three(client) == (450, b"4.2.1 Too many mails\n4.5.0 2 of 3 recipients have this mail")
        assert send_to_three(client)[0] == 250
    assert len(server.messages) == 3


def test_a_server_that_hangs_up_between_copies_is_called_again(postbox: Postbox) -> None:
    """Some take so many mails a connection and no more."""

    def script(verb: str, _line: str) -> str | None:
        return "421 4.4.5 Enough" if verb == "MAIL" and sum(line == "DATA" for line in server.said[-1]) == 2 else None

    with (
        running_server(Server(script)) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        assert send_to_three(client)[0] == 250
        assert send_to_three(client)[0] == 250
    assert len(server.messages) == 6
    assert len(server.said) == 3


def test_a_split_mail_has_so_many_recipients_and_no_more(postbox: Postbox) -> None:
    """RFC 5321, 4.5.3.1.10: 452, and the client sends the others another mail."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port, split=True), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        said = [client.rcpt(f"{number}@example.com")[0] for number in range(102)]
    assert said == [250] * 100 + [452] * 2


def test_who_may_not_send_is_told_so(postbox: Postbox) -> None:
    """Neither trusted nor known: no command that is about mail does anything."""
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port, networks=["192.0.2.0/24"]), postbox) as port,
        Client(port) as client,
    ):
        assert client.mail("shop@example.com") == (550, b"5.7.1 This relay does not take mail from your address")
        assert client.rcpt("reader@example.com")[0] == 550
        assert client.docmd("DATA")[0] == 550
    assert all(line.partition(" ")[0] in ("EHLO", "QUIT") for said in server.said for line in said)


def test_auth_is_offered_over_tls_and_asked_for(certificates: Certificates, postbox: Postbox) -> None:
    """PLAIN and LOGIN; three failures end the connection."""
    given = {"cert": str(certificates.chain), "key": str(certificates.chain), "users": {USER: PASSWORD}}
    with running_server(Server()) as server, running_relay(settings(server.port, **given), postbox) as port:
        for mechanism in ("auth_plain", "auth_login"):
            with Client(port) as client:
                assert not client.has_extn("auth")
                assert client.mail("shop@example.com") == (530, b"5.7.0 Authentication required")
                assert client.docmd("AUTH", "PLAIN AAAA")[0] == 538
                client.starttls(context=certificates.trusting)
                client.ehlo()
                assert client.esmtp_features["auth"].split() == ["LOGIN", "PLAIN"]
                assert not client.has_extn("starttls")
                assert client.mail("shop@example.com")[0] == 530
                client.user, client.password = USER, PASSWORD
                client.auth(mechanism[5:].upper(), getattr(client, mechanism))
                assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
        with Client(port) as client:
            client.starttls(context=certificates.trusting)
            for user, password in ((USER, "wrong"), ("nobody", PASSWORD), ("", "")):
                client.ehlo()
                client.user, client.password = user, password
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    client.auth("PLAIN", client.auth_plain)
            assert client.getreply() == (421, b"4.7.0 Too many failed logins")
    assert len(server.messages) == 2
    assert b" with ESMTPSA;" in server.messages[0]


def test_auth_without_tls_where_told_so(postbox: Postbox) -> None:
    """On a network where nobody listens in."""
    given = {"users": {USER: PASSWORD}, "plaintext_auth": True}
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port, **given), postbox) as port,
        Client(port) as client,
    ):
        client.login(USER, PASSWORD)
        assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
    assert b" with ESMTPA;" in server.messages[0]


def test_tls_from_the_first_byte_towards_the_server(certificates: Certificates, postbox: Postbox) -> None:
    """As on port 465; a certificate that nobody trusted has signed is not taken."""
    with running_sink(tls=certificates.serving) as sink:
        given = {"upstream_tls": "tls", "upstream_ca_file": str(certificates.ca)}
        with running_relay(settings(sink.port, **given), postbox) as port, Client(port) as client:
            assert client.sendmail("shop@example.com", "reader@example.com", RAW) == {}
        with running_relay(settings(sink.port, upstream_tls="tls"), postbox) as port, Client(port) as client:
            assert client.mail("shop@example.com")[1].startswith(b"4.4.1")
    assert len(sink.mails) == 1


def test_a_signed_mail_passes_and_verifies(sink: Sink, postbox: Postbox) -> None:
    """dkimpy signs before the relay; the Received header that goes on top breaks nothing."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    raw = mime(replace(PLAIN, to=("one@example.com", "two@example.com"))).as_bytes()
    signed = dkim.sign(raw, b"s", b"example.com", pem) + raw
    for split in (False, True):
        with running_relay(settings(sink.port, split=split), postbox) as port, Client(port) as client:
            client.sendmail("shop@example.com", "one@example.com", signed)
            client.sendmail("shop@example.com", ["one@example.com", "two@example.com"], signed)
    assert len(sink.mails) == 4
    for mail in sink.mails:
        assert mail.raw.endswith(signed)
        assert dkim.verify(mail.raw, dnsfunc=lambda *_args, **_options: record)


def test_a_mail_that_goes_round_in_circles_is_refused(postbox: Postbox) -> None:
    """A relay whose server sends to the relay is a mistake that ends here."""
    with running_server(Server()) as server, running_relay(settings(server.port), postbox) as port:
        for hops, code in ((99, 250), (100, 554)):
            with Client(port) as client:
                client.mail("shop@example.com")
                client.rcpt("reader@example.com")
                assert client.data(b"Received: from a by b; x\r\n" * hops + RAW)[0] == code
    assert len(server.messages) == 1


def test_a_message_that_cannot_be_rewritten_for_a_bug_is_tried_later(caplog: pytest.LogCaptureFixture) -> None:
    """With strict, as in a project's own tests, what goes wrong is an error, and nothing is sent."""

    class Broken:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken")

    postbox = Postbox(Settings(domain=DOMAIN, keys=[new_key()], strict=True), [Broken()])
    with (
        running_server(Server()) as server,
        running_relay(settings(server.port), postbox) as port,
        Client(port) as client,
    ):
        client.mail("shop@example.com")
        client.rcpt("reader@example.com")
        assert client.data(RAW) == (451, b"4.3.0 The relay failed; try again later")
        assert client.noop()[0] == 250
    assert not server.messages
    assert "RuntimeError: broken" in caplog.text


def test_stopping_finishes_what_is_under_way(postbox: Postbox) -> None:
    """Who is in the middle of a mail gets its answer and is then sent away; who is not is sent away at once."""
    reached = threading.Event()

    def script(verb: str, _line: str) -> float | None:
        if verb == "MESSAGE":
            reached.set()
            return 0.3
        return None

    said: list[tuple[int, bytes]] = []
    with running_server(Server(script)) as server:
        with running_relay(settings(server.port), postbox) as port:
            idle, busy = Client(port), Client(port)
            busy.mail("shop@example.com")
            busy.rcpt("reader@example.com")
            sending = threading.Thread(target=lambda: said.append(busy.data(RAW)))
            sending.start()
            assert reached.wait(10)
        sending.join()
        assert idle.getreply() == (421, b"4.3.2 This relay is shutting down; try again later")
        assert said == [(250, b"2.0.0 Taken as 1234")]
        assert busy.getreply()[0] == 421
        for client in (idle, busy):
            client.close()
        with pytest.raises(OSError, match="refused"):
            Client(port)
    assert len(server.messages) == 1
    assert server.said[-1][-1] == "QUIT"


def test_stopping_does_not_wait_for_ever(postbox: Postbox) -> None:
    """A server that does not answer within the limit: the client hears nothing, least of all 250."""
    reached = threading.Event()

    def script(verb: str, _line: str) -> float | None:
        if verb == "MESSAGE":
            reached.set()
            return 30.0
        return None

    with running_server(Server(script)) as server:
        with running_relay(settings(server.port), postbox, stop_limit=0.1) as port:
            client = Client(port)
            client.mail("shop@example.com")
            client.rcpt("reader@example.com")
            client.docmd("DATA")
            client.send(RAW + b"\r\n.\r\n")
            assert reached.wait(10)
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.getreply()
        client.close()


def test_no_log_names_anybody(sink: Sink, postbox: Postbox, caplog: pytest.LogCaptureFixture) -> None:
    """Neither who sends nor who is sent to, nor what the server said about them."""
    caplog.set_level("DEBUG", logger="postbox")
    with running_relay(settings(sink.port, split=True), postbox) as port, Client(port) as client:
        client.sendmail("shop@example.com", ["reader@example.com", "refused@example.com", "one@example.com"], RAW)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("postbox")]
    assert f"a mail of {len(RAW)} bytes to 2: 250" in lines
    assert not [line for line in lines if "example.com" in line]
