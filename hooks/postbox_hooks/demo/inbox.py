"""The demo's web page: the inbox, each mail as written and as sent, and the notifications as they come in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Final

from tornado.iostream import StreamClosedError
from tornado.routing import Rule
from tornado.template import Loader
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, url

from postbox_hooks.demo.feed import Feed
from postbox_plugin import Postbox, Report
from postbox_plugin.errors import MissingExtra
from postbox_plugin.stats import Aggregation, click_map

__all__ = ["Letter", "inbox_routes", "verifier"]

VIEWS: Final = {
    "sent": "As sent",
    "written": "As written",
    "both": "Side by side",
    "links": "Links",
    "map": "Click map",
}
"""The ways to look at a mail: the name that the page's style sheet and script know, and what its button says."""

_PAGE: Final = Path(__file__).parent / "page"
_HEAD: Final = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_CONTENT_ID: Final = re.compile(r"""(?<=src=")cid:([^"]+)""")
_BREAKS: Final = re.compile(r"(?<=[/?&])")
"""Where an address may be broken over lines."""

_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; "


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail in the inbox.

    :ivar written: the message as its author made it.
    :ivar sent: the message as it came in by SMTP.
    :ivar report: what became of its links.
    :ivar tracking: its tracking links, by the index of the link.
    """

    written: EmailMessage
    sent: EmailMessage
    report: Report
    tracking: Mapping[int, str]

    @classmethod
    def received(cls, written: EmailMessage, raw: bytes, report: Report, postbox: Postbox) -> Letter:
        """A mail that has just come in.

        :param raw: what the mail server was sent.
        :param postbox: what made its tracking links.
        """
        sent = message_from_bytes(raw, policy=default)
        settings = postbox.settings
        prefixes = "|".join(re.escape(settings.origin(scheme) + settings.path) for scheme in ("http", "https"))
        links = re.findall(rf"(?:{prefixes})[\w-]+", _html(sent))
        return cls(written, sent, report, {postbox.open(link).index: link for link in links})

    @property
    def message_id(self) -> str:
        """Our id of the message, as its clicks carry it; ``""`` where it has no tracking links."""
        return str(self.sent["X-Postbox-Message-Id"] or "")

    @property
    def sent_html(self) -> str:
        """The HTML that was sent."""
        return _html(self.sent)

    @property
    def written_html(self) -> str:
        """The HTML that was written."""
        return _html(self.written)

    def image(self, content_id: str) -> EmailMessage | None:
        """The picture inside the message that its HTML calls ``cid:content_id``, or ``None``."""
        wanted = f"<{content_id}>"
        return next((part for part in self.sent.walk() if part["Content-ID"] == wanted), None)


def verifier(secret: str) -> Any:
    """What checks the signature of a webhook (Standard Webhooks).

    :param secret: the secret that the sender and the receiver share, ``whsec_...``.
    :raises MissingExtra: without the ``standardwebhooks`` library.
    """
    try:
        from standardwebhooks.webhooks import Webhook  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("the demo", "standardwebhooks", "demo") from None
    return Webhook(secret)


def inbox_routes(letters: Sequence[Letter], feed: Feed, secret: str, services: Sequence[str]) -> list[Rule]:
    """The rules for a Tornado application.

    :param letters: the mails; more may come in later.
    :param feed: takes the notifications in, and hands them to the page.
    :param secret: the webhook's secret.
    :param services: the addresses of the redirect service, for the page to show.
    """
    mails = {"letters": letters}
    return [
        url(r"/(?:mail/(\d+))?", Page, {**mails, "services": services}),
        url(r"/mail/(\d+)/(sent|written)", Body, mails),
        url(r"/mail/(\d+)/image/(.+)", Image, mails),
        url(r"/mail/(\d+)/map", Map, {**mails, "feed": feed}),
        url(r"/notifications", Notifications, {"feed": feed}),
        url(r"/hooks/clicks", Receiver, {"feed": feed, "webhook": verifier(secret)}),
        url(r"/page/(.*\.(?:css|js))", StaticFileHandler, {"path": str(_PAGE)}),
    ]


class _MailHandler(RequestHandler):
    def initialize(self, letters: Sequence[Letter]) -> None:
        self.letters = letters

    def letter(self, number: str) -> Letter:
        """The mail of that number, from 0."""
        if int(number) >= len(self.letters):
            raise HTTPError(404)
        return self.letters[int(number)]


class Page(_MailHandler):
    """The inbox with one mail open."""

    def initialize(self, letters: Sequence[Letter], services: Sequence[str]) -> None:  # type: ignore[override]
        """Called by Tornado with what the route says."""
        super().initialize(letters)
        self.services = services

    def get(self, number: str | None) -> None:
        """Answer with the page."""
        letter = self.letter(number or "0")
        self.set_header(
            "Content-Security-Policy",
            _POLICY
            + "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self'; "
            + "frame-ancestors 'none'",
        )
        self.set_header("Referrer-Policy", "no-referrer")
        self.finish(
            Loader(str(_PAGE))
            .load("inbox.html")
            .generate(
                letters=list(enumerate(self.letters)),
                number=int(number or "0"),
                letter=letter,
                services=self.services,
                views=VIEWS,
                pieces=_BREAKS.split,
            )
        )


class Body(_MailHandler):
    """One mail's HTML, for a sandboxed frame: nothing in it runs, and its links open in new tabs."""

    def get(self, number: str, version: str) -> None:
        """Answer with the HTML, shown as a mail client does: pictures that are inside the message come from there."""
        letter = self.letter(number)
        html = letter.sent_html if version == "sent" else letter.written_html
        html = _CONTENT_ID.sub(rf"/mail/{number}/image/\1", html)
        html = _HEAD.sub(lambda head: head[0] + '<base target="_blank">', html, count=1)
        self.set_header(
            "Content-Security-Policy",
            _POLICY + f"img-src http://{self.request.host} http://localhost:*; style-src 'unsafe-inline'; "
            "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox",
        )
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(html)


class Image(_MailHandler):
    """A picture that came inside a mail."""

    def get(self, number: str, content_id: str) -> None:
        """Answer with the picture."""
        image = self.letter(number).image(content_id)
        if image is None or image.get_content_maintype() != "image":
            raise HTTPError(404)
        self.set_header("Content-Type", image.get_content_type())
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(image.get_content())


class Map(_MailHandler):
    """One mail as it was sent, with its clicks so far on it. Its links work: each press is one more."""

    def initialize(self, letters: Sequence[Letter], feed: Feed) -> None:  # type: ignore[override]
        """Called by Tornado with what the route says."""
        super().initialize(letters)
        self.feed = feed

    def get(self, number: str) -> None:
        """Answer with the page."""
        letter = self.letter(number)
        clicks = Aggregation()
        for notification in self.feed.notifications:
            if notification["mail"]["messageId"] == letter.message_id:
                clicks.add(json.dumps(notification).encode())
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")  # beside the page's own
        self.set_header("Cache-Control", "no-store")
        self.finish(click_map(letter.sent, clicks, remote_images=True, working_links=True))


class Receiver(RequestHandler):
    """Receives the webhook, as an application of yours would."""

    def initialize(self, feed: Feed, webhook: Any) -> None:
        """Called by Tornado with what the route says."""
        self.feed = feed
        self.webhook = webhook

    def post(self) -> None:
        """Take a notification in if its signature is right."""
        from standardwebhooks.webhooks import WebhookVerificationError  # noqa: PLC0415

        try:
            notification = self.webhook.verify(self.request.body, dict(self.request.headers))
        except (WebhookVerificationError, ValueError) as error:
            raise HTTPError(401, "webhook refused: %s", error) from None
        self.feed.add(notification)
        self.set_status(204)


class Notifications(RequestHandler):
    """The notifications as server-sent events: first those so far, then each as it comes in."""

    def initialize(self, feed: Feed) -> None:
        """Called by Tornado with what the route says."""
        self.feed = feed

    async def get(self) -> None:
        """Answer for as long as the page stays open."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        # A browser that lost the connection says which event was its last (HTML standard, 9.2.4).
        last = self.request.headers.get("Last-Event-ID", "")
        try:
            await self.flush()
            async for event in self.feed.follow(int(last) + 1 if last.isdecimal() else 0):
                if event is None:
                    self.write(": still here\n\n")
                else:
                    self.write(f"id: {event[0]}\ndata: {json.dumps(event[1])}\n\n")
                await self.flush()
        except StreamClosedError:
            return


def _html(message: EmailMessage) -> str:
    part = message.get_body(("html",))
    return "" if part is None else str(part.get_content())
