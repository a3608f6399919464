"""The way out: one message, from the hooks through the links to the message that is sent instead."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from postbox_plugin.links.report import Report
from postbox_plugin.links.rewrite import MAX_LINK, Rewritten, apply, rewrite
from postbox_plugin.links.rules import AddressRules
from postbox_plugin.mail import Headers, Link, Mail, Tags, domain_of, freeze_tags
from postbox_plugin.message.body import HtmlBody
from postbox_plugin.message.headers import MESSAGE_ID, OWN_HEADERS, TRACK, read_message_tags, split_addresses
from postbox_plugin.message.recipients import recipients_of
from postbox_plugin.plugins import PluginHost
from postbox_plugin.settings import Settings
from postbox_plugin.tokens.keyring import KeyRing
from postbox_plugin.tokens.payload import MessageFacts
from postbox_plugin.tokens.seal import MessageSealer

__all__ = ["Outgoing", "Rewriter"]

_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_OFF: Final = frozenset(("no", "off", "false", "0"))

_log = logging.getLogger("postbox.send")

Sent_co = TypeVar("Sent_co", covariant=True)

TagsGiven = Mapping[str, str | Iterable[str]]


class Outgoing(Protocol[Sent_co]):
    """A message on its way out, whatever it is made of: see ``message/raw.py`` and ``message/objects.py``."""

    @property
    def headers(self) -> Headers:
        """Its headers, unfolded."""

    @property
    def untouchable(self) -> str:
        """Why it must go out as it came; ``""`` if it may be changed."""

    @property
    def bodies(self) -> list[HtmlBody]:
        """Its inline HTML bodies that can be read."""

    @property
    def problem(self) -> str:
        """Why a body cannot be read, if one cannot."""

    def with_changes(self, bodies: Mapping[int, str], message_id: str) -> Sent_co:
        """The message with other HTML bodies, by their place in ``bodies``."""


class Outcome(NamedTuple, Generic[Sent_co]):
    """What rewriting a message comes to.

    :ivar message: the message to send; ``None`` if it goes out as it came.
    :ivar report: what became of it and its links.
    :ivar html: the HTML whose links the report is about: that of the message, as the plugins left it.
    """

    message: Sent_co | None
    report: Report
    html: Sequence[str] = ()


class Rewriter:
    """Rewrites outgoing messages for one installation."""

    def __init__(self, settings: Settings, ring: KeyRing, plugins: PluginHost) -> None:
        self._settings: Final = settings
        self._ring: Final = ring
        self._plugins: Final = plugins
        self._rules: Final = AddressRules(settings, ring)
        self._origins: Final = {scheme: settings.origin(scheme) + settings.path for scheme in ("https", "http")}

    def message(
        self, outgoing: Outgoing[Sent_co], envelope: Sequence[str] | None, message_tags: TagsGiven | None
    ) -> Outcome[Sent_co]:
        """Rewrite a message.

        :param outgoing: the message.
        :param envelope: the envelope's recipients; ``None`` to take those of the headers.
        :param message_tags: tags of the message, beside those its headers name.
        """
        headers = outgoing.headers
        if outgoing.untouchable:
            return self._left_alone(outgoing, outgoing.untouchable)
        recipients, unclear = recipients_of(headers, envelope)
        if _switched_off(headers):
            return self._left_alone(outgoing, f"switched off by {TRACK}", recipients)
        mail = Mail(
            headers=headers,
            recipients=recipients,
            html_parts=[body.html for body in outgoing.bodies],
            tags={**read_message_tags(headers), **freeze_tags(message_tags)},
            message_id=_given_message_id(headers) or _new_message_id(),
        )
        self._plugins.before_send(mail)
        reason = unclear or _why_not(mail)
        if not outgoing.bodies:
            reason = outgoing.problem or "no HTML part"
        bodies, links = self._bodies(outgoing.bodies, mail, track=not reason)
        tracked = any(link.track for link in links)
        if not reason and not tracked:
            reason = "no link to track" if links else "no links"
        report = Report(
            reason=reason,
            recipients=recipients,
            message_id=mail.message_id if tracked else "",
            message_tags=dict(mail.tags),
            links=tuple(links),
        )
        if bodies or tracked or _has_own_headers(headers):
            return Outcome(outgoing.with_changes(bodies, report.message_id), report, mail.html_parts)
        return Outcome(None, report, mail.html_parts)

    def html(self, html: str, given: Mail) -> tuple[str, Report]:
        """Rewrite an HTML text that is not in a message.

        :param html: the text.
        :param given: who it is from and to, its subject and tags, and what its headers say, as those of a message.
            Only its ``message_id`` is changed: filled in.
        """
        if given.message_id and not _MESSAGE_ID.fullmatch(given.message_id):
            raise ValueError(f"message_id must be 8 to 64 of [A-Za-z0-9_-], not {given.message_id!r}")
        given.assign_message_id(given.message_id or _given_message_id(given.headers) or _new_message_id())
        if _switched_off(given.headers):
            return html, Report(reason=f"switched off by {TRACK}", recipients=given.recipients)
        recipients, unclear = recipients_of(Headers(("To", recipient) for recipient in given.recipients), None)
        mail = Mail(
            headers=given.headers,
            recipients=recipients,
            html_parts=[html],
            tags={**read_message_tags(given.headers), **given.tags},
            message_id=given.message_id,
        )
        mail.track = given.track
        self._plugins.before_send(mail)
        reason = unclear or _why_not(mail)
        if reason:
            return mail.html, Report(reason=reason, recipients=mail.recipients)
        sealer = MessageSealer(self._ring.sealing, self._facts(mail))
        edits, links = self._links(mail.html, mail, sealer, first_index=0)
        report = Report(
            recipients=mail.recipients, message_id=mail.message_id, message_tags=dict(mail.tags), links=tuple(links)
        )
        return apply(mail.html, edits), report

    def _left_alone(
        self, outgoing: Outgoing[Sent_co], reason: str, recipients: tuple[str, ...] = ()
    ) -> Outcome[Sent_co]:
        """The message as it came, but for the headers that are meant for us. A signature may cover those, so it
        keeps them.
        """
        report = Report(reason=reason, recipients=recipients)
        if outgoing.untouchable or not _has_own_headers(outgoing.headers):
            return Outcome(None, report)
        return Outcome(outgoing.with_changes({}, ""), report)

    def _bodies(self, bodies: list[HtmlBody], mail: Mail, *, track: bool) -> tuple[dict[int, str], list[Link]]:
        """The HTML bodies that change, by their place, and all links."""
        changed: dict[int, str] = {}
        links: list[Link] = []
        sealer = MessageSealer(self._ring.sealing, self._facts(mail)) if track else None
        for place, (body, html) in enumerate(zip(bodies, mail.html_parts, strict=True)):
            if sealer is None:
                if html != body.html:
                    changed[place] = body.replaced(html)
                continue
            edits, found = self._links(html, mail, sealer, first_index=len(links), body=body)
            links += found
            if html != body.html:
                changed[place] = body.replaced(apply(html, edits))
            elif edits:
                changed[place] = body.spliced(edits)
        return changed, links

    def _links(
        self, html: str, mail: Mail, sealer: MessageSealer, *, first_index: int, body: HtmlBody | None = None
    ) -> Rewritten:
        https, http = self._origins["https"], self._origins["http"]
        token = sealer.seal

        def seal(url: str, index: int, tags: Tags) -> str:
            return (https if url[4] in "sS" else http) + token(url, index, tags)

        return rewrite(
            html,
            self._rules,
            first_index=first_index,
            decide=partial(self._plugins.link, mail=mail) if self._plugins.decide_links else None,
            seal=seal,
            faithful=body is None or body.faithful,
            longest=MAX_LINK if body is None else body.longest_link,
        )

    def _facts(self, mail: Mail) -> MessageFacts:
        senders = split_addresses(mail.sender)
        carried: dict[str, tuple[str, ...]] = {}
        for name in self._settings.carry:
            value = mail.header(name)
            values = senders if name == "from" else split_addresses(value) if name == "to" else (value,)
            if value and values:
                carried[name] = values
        return MessageFacts(
            message_id=mail.message_id,
            sent_at=datetime.now(UTC),
            identity=self._settings.identity or domain_of(senders),
            tags=mail.tags,
            headers=carried,
            privacy=self._settings.privacy,
        )


def _why_not(mail: Mail) -> str:
    """Why no link of this mail is to be tracked; ``""`` if links are."""
    if not mail.track:
        return "switched off by a plugin"
    if len(mail.recipients) != 1:
        return f"{len(mail.recipients)} recipients" if mail.recipients else "no recipient"
    return ""


def _switched_off(headers: Headers) -> bool:
    return any(value.strip().lower() in _OFF for value in headers.all(TRACK))


def _given_message_id(headers: Headers) -> str:
    """The id that the message came with; ``""`` without one that is fit for it."""
    return next(filter(_MESSAGE_ID.fullmatch, headers.all(MESSAGE_ID)), "")


def _has_own_headers(headers: Headers) -> bool:
    return any(headers.all(name) for name in OWN_HEADERS)


def _new_message_id() -> str:
    """96 random bits as 16 characters of base64url: nobody guesses it, and a token packs it into 12 bytes."""
    return base64.urlsafe_b64encode(os.urandom(12)).decode("ascii")
