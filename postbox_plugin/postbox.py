"""The façade: what a program holds in its hand. Nothing but wiring."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.message import Message
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

from postbox_plugin.bridge import bridge
from postbox_plugin.config import followed, load
from postbox_plugin.counts import Counts
from postbox_plugin.errors import InvalidToken, PluginError, SettingsError
from postbox_plugin.hookspecs import NAME
from postbox_plugin.incoming import ClickRecorder
from postbox_plugin.links.report import Report
from postbox_plugin.mail import Mail, OpenedLink
from postbox_plugin.message.conversion import converted, converted_bytes
from postbox_plugin.message.objects import MessageObject
from postbox_plugin.message.raw import RawMessage
from postbox_plugin.outgoing import Outcome, Rewriter
from postbox_plugin.plugins import PluginHost, PluginInfo
from postbox_plugin.settings import Settings, from_mapping
from postbox_plugin.tokens.keyring import KeyRing
from postbox_plugin.tokens.seal import open_token

__all__ = ["Postbox"]

_log = logging.getLogger("postbox.send")

AnyMail = TypeVar("AnyMail", bound="Message[Any, Any] | bytes")


class Postbox:
    """Click tracking, set up once for a program.

    Making one opens nothing: no file, no thread, no connection. It may be made before a fork, shared by threads, and
    used by a sender that never redirects.

    :param settings: the settings.
    :param plugins: plugins in the order their before-send hooks are called; those with a ``postbox_click`` are
        notifiers.
    :param source: what an error about a setting names as its place.
    :raises PluginError: if one of the plugins is not one; it says how it would be.
    :raises SettingsError: if a ``[[plugin]]`` block is wrong.
    """

    def __init__(self, settings: Settings, plugins: Iterable[object] = (), *, source: str = "Settings") -> None:
        self.settings: Final = settings
        self._ring: Final = KeyRing(settings.keys)
        self._plugins: Final = PluginHost(
            plugins, settings.notify, strict=settings.strict, source=source, blocks=settings.plugin
        )
        self._rewriter: Final = Rewriter(settings, self._ring, self._plugins)
        self.counts: Final = Counts()
        self._recorder: Final = ClickRecorder(settings, self._plugins, self.counts)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], plugins: Iterable[object] = ()) -> Self:
        """Set up from a TOML file; environment variables (``POSTBOX_DOMAIN``, ...) outweigh it.

        :raises SettingsError: naming the file or variable, the key, what is wrong and what to write.
        """
        return cls(load(path, os.environ), plugins, source=str(path))

    @classmethod
    def from_mapping(
        cls, given: Mapping[str, Any], plugins: Iterable[object] = (), *, source: str = "Settings"
    ) -> Self:
        """Set up from plain values in the shape of ``postbox.toml``, as a framework's own settings hold them.

        :param given: the settings by name; ``serve`` is a mapping, ``notify`` and ``plugin`` are lists of mappings.
            ``env:NAME`` and ``file:PATH`` are followed as in a file; paths start at the working directory.
        :param source: what an error about a setting names as its place.
        :raises SettingsError: naming ``source``, the key, what is wrong and what to write.
        """
        try:
            values = followed(given, os.environ)
        except SettingsError as error:
            raise error.at(source) from None
        return cls(from_mapping(values, source), plugins, source=source)

    @classmethod
    def from_env(cls, plugins: Iterable[object] = ()) -> Self:
        """Set up from environment variables alone: ``POSTBOX_DOMAIN``, ``POSTBOX_KEYS``, ...

        :raises SettingsError: naming the variable, what is wrong and what to write.
        """
        return cls(load(None, os.environ), plugins, source="the environment")

    def before_send(
        self,
        message: AnyMail,
        *,
        recipients: Sequence[str] | None = None,
        message_tags: Mapping[str, str | Iterable[str]] | None = None,
        in_place: bool = False,
    ) -> AnyMail:
        """The message to send instead: links that are to be tracked are tracking links, and nothing else is changed.

        Never keeps a mail from being sent: what cannot be rewritten safely comes back as it is, with the reason in
        the log.

        :param message: the message, as an object of any policy or as raw bytes; it is not changed.
        :param recipients: the envelope's recipients. If ``None``, those of To, Cc and Bcc.
        :param message_tags: tags that every click of this message carries, beside those of its ``X-Postbox-Tags``.
        :param in_place: change the message object itself, for frameworks whose hook has no return value.
        :returns: the same kind of message; the argument itself if nothing was to be changed.
        :raises TypeError: if the message is neither an object nor bytes, or is bytes and to be changed in place.
        """
        _check_message(message, recipients, in_place=in_place)
        try:
            outcome = self._rewrite(message, recipients, message_tags, in_place=in_place)
        except Exception:
            if self.settings.strict:
                raise
            _log.exception("tracking failed; the message goes out as it came")
            return message
        if outcome.report.reason:
            _log.info("message left alone: %s", outcome.report.reason)
        return message if outcome.message is None else cast(AnyMail, outcome.message)

    def track_html(self, html: str, mail: Mail) -> str:
        """HTML with tracking links, for senders that hand over JSON instead of MIME.

        :param html: the HTML body.
        :param mail: who it is from and to, its subject and tags; ``X-Postbox-Track``, ``X-Postbox-Tags`` and
            ``X-Postbox-Message-Id`` among its headers count as in a message. Its ``message_id`` is filled in, so that
            the program can tie clicks to what it sent.
        :raises TypeError: if ``html`` is not text, or ``mail`` no :class:`Mail`.
        """
        if not isinstance(html, str) or not isinstance(mail, Mail):
            raise TypeError(
                f"track_html needs a text and a Mail, not {type(html).__name__} and {type(mail).__name__}: write "
                "track_html(html, Mail(sender=..., recipient=...))"
            )
        try:
            tracked, report = self._rewriter.html(html, mail)
        except Exception:
            if self.settings.strict:
                raise
            _log.exception("tracking failed; the HTML goes out as it came")
            return html
        if report.reason:
            _log.info("HTML left alone: %s", report.reason)
        return tracked

    def explain(
        self,
        message: Message[Any, Any] | bytes,
        *,
        recipients: Sequence[str] | None = None,
        message_tags: Mapping[str, str | Iterable[str]] | None = None,
    ) -> Report:
        """What :meth:`before_send` would do with a message, and why; changes nothing, and lets exceptions through.

        :param message: as for :meth:`before_send`, like the other arguments.
        """
        _check_message(message, recipients, in_place=False)
        from postbox_plugin.explain import explained  # noqa: PLC0415 - it reads visible text with lxml, which sending does not need

        _, outgoing = self._prepared(message, in_place=False)
        outcome: Outcome[Any] = self._rewriter.message(outgoing, recipients, message_tags)
        sent = outgoing if outcome.message is None else _outgoing(outcome.message, in_place=False)
        return explained(outcome, outgoing, sent, self.settings.domain)

    def convert(self, text: str, content_type: str, *, file: str = "") -> str:
        """The HTML that a text of another type stands for, by the first plugin that knows it: for senders that hand
        over JSON, before :meth:`track_html`. Messages need no such call.

        :param text: the text.
        :param content_type: its media type: ``text/mjml``.
        :param file: the file that it comes from, if it comes from one: what it includes is looked for beside it, and
            errors name it.
        :raises PluginError: if no plugin knows the type.
        :raises PostboxError: what a plugin raises; it says what is wrong with the text.
        """
        html = self._plugins.convert(content_type.lower(), text, file)
        if html is None:
            raise PluginError(f"no plugin makes HTML of {content_type}: `postbox plugins` lists those that are active")
        return html

    def open(self, url: str) -> OpenedLink:
        """What a tracking link holds.

        :param url: the whole link, or its token alone.
        :raises InvalidToken: if it is not a tracking link of ours that opens with a key of the ring.
        """
        if "/" not in url:
            return open_token(self._ring, url)
        path = urlsplit(url).path
        if path.startswith(self.settings.path):
            return open_token(self._ring, path.removeprefix(self.settings.path))
        raise InvalidToken(f"not a tracking link: its path does not begin with {self.settings.path}")

    @asynccontextmanager
    async def running(self, *, draining: Callable[[int], None] | None = None) -> AsyncIterator[Self]:
        """Opens the outbox, starts the notifiers and delivers what waits; stops them and closes it at the end.

        Clicks are kept, and notified, only while this is active. Mount the routes of ``postbox_plugin.redirect``
        beside it.

        :param draining: told now and then, at the end, how many clicks are still to be delivered.
        :raises OutboxError: if the spool cannot be used.
        :raises SettingsError: if a ``[[notify]]`` block is wrong.
        """
        from postbox_plugin.outbox import Outbox  # noqa: PLC0415 - a sender that never redirects needs no database

        if self._recorder.outbox is not None:
            raise RuntimeError("this Postbox is running already")
        notifiers = self._plugins.notifiers()
        if not notifiers:
            logging.getLogger("postbox.redirect").warning(
                "there is no notifier: readers are redirected, but their clicks are kept for nobody"
            )
        outbox = Outbox(Path(self.settings.spool), notifiers, stop_limit=self.settings.stop_limit, counts=self.counts)
        async with self._plugins.running():
            await outbox.start()
            self._recorder.outbox = outbox
            try:
                yield self
            finally:
                self._recorder.outbox = None
                await outbox.stop(draining=draining)

    async def record(self, link: OpenedLink, *, address: str, user_agent: str, headers: Mapping[str, str]) -> None:
        """Record a click: for whoever answers requests in place of ``postbox_plugin.redirect``.

        Returns when the click is on disk, or after ``journal_deadline`` seconds at the most; never raises, for the
        reader is to be redirected whatever happens.

        :param link: the link that was opened.
        :param address: who opened it: an IP address.
        :param user_agent: the request's ``User-Agent``; ``""`` without one.
        :param headers: all headers of the request, for the classify hooks.
        """
        recorded = asyncio.Event()
        self.record_then(link, address=address, user_agent=user_agent, headers=headers, then=recorded.set)
        await recorded.wait()

    def record_then(
        self, link: OpenedLink, *, address: str, user_agent: str, headers: Mapping[str, str], then: Callable[[], None]
    ) -> None:
        """Record a click, as :meth:`record` does, without a coroutine: for servers that count microseconds.

        :param link: as for :meth:`record`, like ``address``, ``user_agent`` and ``headers``.
        :param then: called once, in the running loop, when the reader is to be redirected.
        """
        self._recorder.record(link, address=address, user_agent=user_agent, headers=headers, then=then)

    @property
    def readers_waiting(self) -> int:
        """How many readers wait for their click to be on disk, at the moment."""
        return self._recorder.readers_waiting

    @property
    def clicks_seen(self) -> int:
        """How many clicks there have been since the program started."""
        return self.counts.clicks.total()

    def as_plugin(self, project: str = NAME) -> object:
        """A plugin for a framework's own pluggy manager: it implements ``postbox_rewrite``.

        :param project: the manager's ``project_name``; see :func:`postbox_plugin.hookspecs.for_project` if it is not
            ``postbox``.
        """
        return bridge(self, project)

    def plugins_report(self) -> list[PluginInfo]:
        """What is loaded, from where and with which hooks; what is installed but not configured; what failed, and
        why.
        """
        return self._plugins.infos()

    def _rewrite(
        self,
        message: Message[Any, Any] | bytes,
        recipients: Sequence[str] | None,
        message_tags: Mapping[str, str | Iterable[str]] | None,
        *,
        in_place: bool,
    ) -> Outcome[Any]:
        prepared, outgoing = self._prepared(message, in_place=in_place)
        outcome: Outcome[Any] = self._rewriter.message(outgoing, recipients, message_tags)
        if outcome.message is None and prepared is not message:
            return outcome._replace(message=prepared)
        return outcome

    def _prepared(
        self, message: Message[Any, Any] | bytes, *, in_place: bool
    ) -> tuple[Message[Any, Any] | bytes, MessageObject | RawMessage]:
        """The message with HTML for what plugins make HTML of, itself if there is no such part; and that on its way."""
        outgoing = _outgoing(message, in_place=in_place)
        if not outgoing.convertible or not self._plugins.converts:
            return message, outgoing
        changed: Message[Any, Any] | bytes | None
        if isinstance(message, Message):
            changed = converted(message, self._plugins.convert_part, in_place=in_place)
        else:
            changed = converted_bytes(bytes(message), self._plugins.convert_part)
        return (message, outgoing) if changed is None else (changed, _outgoing(changed, in_place=in_place))


def _check_message(message: object, recipients: object, *, in_place: bool) -> None:
    if isinstance(message, str):
        raise TypeError("a message is bytes or an email.message.Message, not text: encode it first")
    if not isinstance(message, Message | bytes | bytearray | memoryview):
        raise TypeError(f"a message is bytes or an email.message.Message, not {type(message).__qualname__}")
    if in_place and not isinstance(message, Message):
        raise TypeError("bytes cannot be changed in place: use what before_send returns")
    if isinstance(recipients, str):
        raise TypeError(f"recipients is a list of addresses: write [{recipients!r}]")


def _outgoing(message: Message[Any, Any] | bytes, *, in_place: bool) -> MessageObject | RawMessage:
    if isinstance(message, Message):
        return MessageObject(message, in_place=in_place)
    return RawMessage(bytes(message))
