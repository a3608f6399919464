"""A thousand mails from fifty connections through the relay, to a mail server that refuses, closes, is slow, and dies
in the middle.
"""

from __future__ import annotations

import random
import re
import smtplib
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from relays import CLOSE, Server, running_relay, running_server, settings

from postbox_plugin import Postbox, Settings, new_key

MAILS, CLIENTS = 1000, 50
NUMBER = re.compile(r"(?:number-|X-Number: )(\d+)")
LINK = re.compile(rb"https://click\.example\.com/c/[\w-]+")

FAULTS: dict[str, list[str | float]] = {
    "MAIL": ["451 4.3.0 Not now", CLOSE, 0.01],
    "RCPT": ["450 4.2.0 Not now", CLOSE, 0.01],
    "DATA": ["451 4.3.0 Not now", CLOSE, 0.01],
    "MESSAGE": ["451 4.3.0 Not now", CLOSE, 0.01, "taken and " + CLOSE, "nonsense"],
    "RSET": [CLOSE],
}
FOR_GOOD = {"MAIL": 11, "RCPT": 13, "MESSAGE": 17}
"""Every so many mails are refused for good, at that command."""


class Faulty:
    """A mail server that does wrong at every eighth command, and says 550 where it means it."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self.faults = Counter[str]()

    def __call__(self, verb: str, line: str) -> str | float | None:
        found = NUMBER.search(line)
        if found and verb in FOR_GOOD and int(found[1]) % FOR_GOOD[verb] == 0:
            return f"550 5.7.1 Never {found[1]}"
        if verb in FAULTS and self._random.random() < 0.125:
            fault = self._random.choice(FAULTS[verb])
            self.faults[f"{verb} {fault}"] += 1
            return fault
        return None


def wanted(number: int) -> bool:
    """Whether the server takes the mail of this number some day."""
    return all(number % every for every in FOR_GOOD.values())


def raw(number: int) -> bytes:
    body = f'<a href="https://example.com/{number}">{"x" * (number % 60)}</a>\r\n.\r\n' * (1 + number % 20)
    return (
        f"From: Shop <shop@example.com>\r\nTo: number-{number}@example.com\r\nX-Number: {number}\r\n"
        f"Content-Type: text/html\r\n\r\n{body}"
    ).encode()


class Sender(threading.Thread):
    """A client with a queue: it comes again as long as it hears of temporary failures, and notes what it hears.

    :ivar answers: the last answer to each mail.
    """

    def __init__(self, port: int, numbers: list[int]) -> None:
        super().__init__()
        self.port = port
        self.numbers = numbers
        self.answers: dict[int, int] = {}
        self.tries = 0

    def run(self) -> None:
        smtp = smtplib.SMTP(local_hostname="localhost", timeout=60)
        for number in self.numbers:
            while 400 <= self.answers.get(number, 400) < 500:
                self.answers[number] = self.try_to_send(smtp, number)
                self.tries += 1
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()

    def try_to_send(self, smtp: smtplib.SMTP, number: int) -> int:
        try:
            if smtp.sock is None:
                smtp.connect("127.0.0.1", self.port)
                smtp.ehlo()
            code, _ = smtp.mail(f"number-{number}@example.com")
            if code == 250:
                code, _ = smtp.rcpt(f"number-{number}@example.com")
            if code == 250:
                code, _ = smtp.docmd("DATA")
            if code == 354:
                smtp.send(smtplib._quote_periods(raw(number)) + b".\r\n")  # type: ignore[attr-defined]
                code, _ = smtp.getreply()
            elif code != 250:
                smtp.rset()
        except (smtplib.SMTPException, OSError):
            smtp.close()
            return 400
        return code


@pytest.mark.parametrize("connections", [50, 5])
def test_nothing_is_lost_and_nothing_is_claimed(connections: int) -> None:
    """Every mail that was answered 250 arrived whole, and no other was; every refusal is the server's own."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    faulty = Faulty()
    server = Server(faulty)
    with running_server(server):
        pass  # to have a port
    with running_relay(settings(server.port, connections=connections), postbox) as port:
        senders = [Sender(port, list(range(first, MAILS, CLIENTS))) for first in range(CLIENTS)]
        with running_server(server):
            for sender in senders:
                sender.start()
            while len(server.messages) < MAILS // 3:
                time.sleep(0.01)
        # It is dead; senders hear 451 in the meantime.
        with running_server(server):
            for sender in senders:
                sender.join()
    answers = {number: code for sender in senders for number, code in sender.answers.items()}
    assert answers == {number: 250 if wanted(number) else 550 for number in range(MAILS)}

    arrived = Counter[int]()
    for message in server.messages:
        found = NUMBER.search(message.decode())
        assert found
        number = int(found[1])
        arrived[number] += 1
        links = [postbox.open(link.decode()) for link in LINK.findall(message)]
        assert {link.url for link in links} == {f"https://example.com/{number}"}
        undone = LINK.sub(f"https://example.com/{number}".encode(), message).replace(b"\r\n..\r\n", b"\r\n.\r\n")
        assert undone.endswith(raw(number).partition(b"\r\n\r\n")[2])
    assert arrived.keys() == {number for number in range(MAILS) if wanted(number)}
    # A mail comes twice only where the server had taken it and did not live to say so.
    most = faulty.faults["MESSAGE taken and " + CLOSE] + CLIENTS
    assert arrived.total() - len(arrived) <= most
    assert len(faulty.faults) == sum(map(len, FAULTS.values())), "each fault was met"
    assert sum(sender.tries for sender in senders) > MAILS
