"""What the ways into Django share: the ``Postbox`` of its settings, and its messages rewritten by way of their MIME.

It imports Django, so the adapters import it where they import Django themselves.
"""

from __future__ import annotations

import copy
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from typing import Any, Final, TypeAlias

from django.conf import settings
from django.core import checks, mail
from django.core.signals import setting_changed

from postbox_hooks._shared import envelope, postbox_of
from postbox_plugin import Postbox
from postbox_plugin.errors import PostboxError, SettingsError

__all__ = ["CONTENT", "SET_HERE", "get_postbox", "tracked"]

_ID_HEADER: Final = "X-Postbox-Message-Id"
_LINE_ENDING: Final = re.compile(r"\r\n?")

CONTENT: Final = frozenset(("body", "content_subtype", "alternatives", "attachments", "extra_headers"))
"""The attributes of a message that are another in the copy that is sent."""

SET_HERE: Final = frozenset(("date", "message-id", _ID_HEADER.lower()))
"""The headers that are set on that copy, in lower case."""

AnyMessage: TypeAlias = "Message[Any, Any]"

_log = logging.getLogger("postbox.send")

_lock: Final = threading.Lock()
_made: Postbox | None = None


def get_postbox() -> Postbox:
    """The ``Postbox`` of ``settings.POSTBOX``: made when first asked for, one a process, and anew when a test changes
    the setting.

    :raises SettingsError: naming what is wrong with the setting and what to write.
    :raises PluginError: if a plugin cannot be used.
    """
    global _made  # noqa: PLW0603 - Django's settings are one a process, and so is what is made of them
    with _lock:
        if _made is None:
            _made = postbox_of(getattr(settings, "POSTBOX", None), "settings.POSTBOX", "Django's settings")
        return _made


def _forget(*, setting: str, **_: object) -> None:
    global _made  # noqa: PLW0603
    if setting == "POSTBOX":
        with _lock:
            _made = None


setting_changed.connect(_forget)


@checks.register
def _check(app_configs: Sequence[Any] | None, **_: object) -> list[checks.CheckMessage]:
    """Called by Django's system check, once one of the adapters is in ``INSTALLED_APPS``."""
    try:
        get_postbox()
    except SettingsError as error:
        problem = f"{error.where}: {error.key}: {error.problem}."
        return [checks.Error(problem, hint=error.remedy, id="postbox.E001")]
    except PostboxError as error:
        return [checks.Error(str(error), id="postbox.E001")]
    return []


def tracked(
    message: mail.EmailMessage, *, esp_name: str = "", message_tags: Mapping[str, str] | None = None
) -> mail.EmailMessage:
    """The message to send instead: a copy with tracking links, or the message itself if nothing is to be changed or
    anything goes wrong.

    :param esp_name: django-anymail's name of the service that sends; ``""`` where another backend sends.
    :param message_tags: tags of the message, beside those of its headers.
    """
    try:
        postbox = get_postbox()
    except Exception as error:
        _log.error("the message goes out untracked: %s", error, exc_info=not isinstance(error, PostboxError))
        return message
    try:
        return _rewritten(message, postbox, esp_name, message_tags)
    except _NotOfItsParts:
        _log.info("message left alone: its message() has HTML other than that of its body and alternatives")
    except Exception:
        if postbox.settings.strict:
            raise
        _log.exception("tracking failed; the message goes out as it came")
    return message


def _rewritten(
    message: mail.EmailMessage, postbox: Postbox, esp_name: str, message_tags: Mapping[str, str] | None
) -> mail.EmailMessage:
    built = message.message()
    sent = postbox.before_send(built, recipients=envelope(message.recipients()), message_tags=message_tags)
    if sent is built:
        return message
    changed = copy.copy(message)
    _put_back(message, changed, built, sent)
    changed.extra_headers = _headers(message.extra_headers, built, sent, _settable(esp_name))
    return changed


def _settable(esp_name: str) -> frozenset[str]:
    """Which headers may be set on a message, in lower case."""
    if not esp_name:
        return SET_HERE
    # These set Date and Message-ID themselves; some of their APIs refuse a mail that comes with them (Cloudflare's), or
    # with any header from all but Enterprise accounts (MailerSend's).
    return frozenset() if esp_name == "MailerSend" else frozenset((_ID_HEADER.lower(),))


def _headers(extra: Mapping[str, Any], built: AnyMessage, sent: AnyMessage, settable: frozenset[str]) -> dict[str, Any]:
    """The extra headers of the copy: without those that were meant for us, with our id, and with the Message-ID and
    Date that the hook saw, which Django would make anew.
    """
    kept = {name: value for name, value in extra.items() if name in sent or name not in built}
    if _ID_HEADER in sent and _ID_HEADER.lower() in settable:
        kept = {name: value for name, value in kept.items() if name.lower() != _ID_HEADER.lower()}
        kept[_ID_HEADER] = str(sent[_ID_HEADER])
    free = settable - {name.lower() for name in kept}
    pinned = {name: str(sent[name]) for name in ("Date", "Message-ID") if name in sent and name.lower() in free}
    return {**pinned, **kept}


class _NotOfItsParts(Exception):
    """The MIME is not what Django makes of a message's body, alternatives and attachments, as where a subclass has a
    ``message()`` of its own; so a change of it cannot be put back.
    """


def _put_back(message: mail.EmailMessage, changed: mail.EmailMessage, built: AnyMessage, sent: AnyMessage) -> None:
    """Give the copy of a message the HTML that the hook made.

    :param built: the message as MIME.
    :param sent: the same after the hook.
    :raises _NotOfItsParts: if there is no telling which part is which.
    """
    attached = {id(item) for item in message.attachments if isinstance(item, Message)}
    replaced: dict[int, AnyMessage] = {}
    parts: list[tuple[str, str]] = []
    types = {"text/html"}  # and those of which a plugin made HTML
    for before, after in _pairs(built, sent, attached):
        if id(before) in attached:
            replaced[id(before)] = after
        elif after.get_content_type() == "text/html":
            types.add(before.get_content_type())
            parts.append((_text(before), _text(after)))
    # In the order in which Django puts them into the message. Some of those without text it leaves out.
    remaining = iter([part for part in parts if _same_lines(part[0])])
    if f"text/{message.content_subtype}" in types:
        changed.body = _next(remaining, str(message.body))
        changed.content_subtype = "html"
    if isinstance(changed, mail.EmailMultiAlternatives):
        changed.alternatives = [_alternative(item, remaining, types) for item in changed.alternatives]
    changed.attachments = [replaced.get(id(item), item) for item in message.attachments]
    if any(before != after for before, after in remaining):
        raise _NotOfItsParts


def _pairs(before: AnyMessage, after: AnyMessage, whole: set[int]) -> Iterator[tuple[AnyMessage, AnyMessage]]:
    """Each part of one message beside the same part of the other, but none within those whose id is in ``whole``."""
    yield before, after
    if before.get_content_maintype() == "multipart" and id(before) not in whole:
        for one, other in zip(before.get_payload(), after.get_payload(), strict=True):
            yield from _pairs(one, other, whole)


def _alternative(item: Any, parts: Iterator[tuple[str, str]], types: set[str]) -> Any:
    content, content_type = item
    if content_type not in types:
        return item
    html = _next(parts, content.decode() if isinstance(content, bytes) else str(content))
    # A plain tuple before Django 5.2.
    return item._replace(content=html, mimetype="text/html") if hasattr(item, "_replace") else (html, "text/html")


def _next(parts: Iterator[tuple[str, str]], text: str) -> str:
    """What the hook made of a text, which must be that of the next part unless it is empty."""
    if not _same_lines(text):
        return text
    before, after = next(parts, ("", ""))
    if _same_lines(before) != _same_lines(text):
        raise _NotOfItsParts
    if after == before:
        return text
    # A part ends with a line ending whether or not its text does.
    return after if text.endswith(("\n", "\r")) else after.removesuffix("\n")


def _text(part: AnyMessage) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode(part.get_content_charset("us-ascii"))


def _same_lines(text: str) -> str:
    return _LINE_ENDING.sub("\n", text).rstrip("\n")
