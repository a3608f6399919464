"""Messages as ``email.message.Message`` of any policy: read, and copied with other HTML."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

from postbox_plugin.mail import Headers
from postbox_plugin.message.body import HtmlBody, html_body
from postbox_plugin.message.charsets import Unreadable
from postbox_plugin.message.headers import MESSAGE_ID, OWN_HEADERS, unfold
from postbox_plugin.message.structure import AnyMessage, charset_of, encoded_body, examine, header_of, is_inline

__all__ = ["MessageObject", "body_of", "shallow_copy"]


MAX_ENCODED: Final = 4096
"""The longest header that is encoded, in characters: the modern policies take a tenth of a millisecond for each."""

_ESCAPED: Final = re.compile("[\udc80-\udcff]")  # bytes that are not ASCII, in a message that was parsed (PEP 383)


class MessageObject:
    """A message object on its way out.

    :param message: the message; it is not changed unless ``in_place``.
    :param in_place: change the message itself, for frameworks whose hook has no return value.
    :ivar headers: name and unfolded value of each header.
    :ivar untouchable: why it must go out as it came; ``""`` if it may be changed.
    :ivar bodies: its inline HTML bodies that can be read.
    :ivar problem: why a body cannot be read, if one cannot.
    :ivar convertible: whether it has an inline part of which a plugin may make HTML.
    """

    def __init__(self, message: AnyMessage, *, in_place: bool = False) -> None:
        self._message: Final = message
        self._in_place: Final = in_place
        self.headers: Final = Headers((name, _as_written(message, name, value)) for name, value in message.raw_items())
        self.untouchable, parts, others = examine(message)
        self.convertible = any(map(is_inline, others))
        self.bodies: Final[list[HtmlBody]] = []
        self.problem = ""
        self._parts: Final[list[AnyMessage]] = []
        for part in filter(is_inline, parts):
            try:
                self.bodies.append(body_of(part))
            except Unreadable as error:
                self.problem = str(error)
            else:
                self._parts.append(part)

    @property
    def size(self) -> int:
        """The message's size in bytes, as it would be written out."""
        return len(self._message.as_bytes())

    def with_changes(self, bodies: Mapping[int, str], message_id: str) -> AnyMessage:
        """The message with other HTML bodies and without the headers meant for us.

        :param bodies: the new bodies, in their transfer encoding, by their place in :attr:`bodies`.
        :param message_id: the value of ``X-Postbox-Message-Id``; ``""`` to leave it as it is.
        """
        payloads = {id(self._parts[place]): body for place, body in bodies.items()}
        changed = _rebuilt(self._message, payloads, in_place=self._in_place)
        if changed is self._message and not self._in_place:
            changed = shallow_copy(changed)
        for name in OWN_HEADERS:
            if self.headers.all(name):
                del changed[name]
        if message_id and self.headers.first(MESSAGE_ID) != message_id:
            if self.headers.all(MESSAGE_ID):
                del changed[MESSAGE_ID]
            changed.set_raw(MESSAGE_ID, message_id)  # which no policy has to parse or fold
        return changed


def _as_written(message: AnyMessage, name: str, value: object) -> str:
    """A header's value as it will stand in the message: what was set may be decoded text, which the policy encodes.

    8bit headers that were parsed stay as they are; nor is anything encoded that nobody would take for a header.
    """
    text = str(value)
    if (text.isascii() and isinstance(value, str)) or _ESCAPED.search(text) or len(text) > MAX_ENCODED:
        return unfold(text)
    try:
        folded = message.policy.fold(name, value)  # type: ignore[arg-type]  # typeshed has text only; compat32 takes Header
    except Exception:  # the header parsers of the modern policies raise whatever happens inside them (IndexError, ...)
        return unfold(text)
    return unfold(folded.partition(":")[2])


def body_of(part: AnyMessage) -> HtmlBody:
    """The body of a part.

    :raises Unreadable: if it cannot be read safely.
    """
    encoded = encoded_body(part)
    if encoded is None:
        raise Unreadable("its body is text that was not encoded: give set_payload() a charset")
    return html_body(encoded, header_of(part, "content-transfer-encoding") or "", charset_of(part))


def _rebuilt(part: AnyMessage, payloads: Mapping[int, str], *, in_place: bool) -> AnyMessage:
    """The part with the new payloads in it, and a copy of each multipart that holds one: the original keeps its own
    list.
    """
    new: Any = payloads.get(id(part))
    if new is None and part.is_multipart() and payloads:
        children: Any = part.get_payload()
        rebuilt = [_rebuilt(child, payloads, in_place=in_place) for child in children]
        if any(one is not other for one, other in zip(rebuilt, children, strict=True)):
            new = rebuilt
    if new is None:
        return part
    changed = part if in_place else shallow_copy(part)
    changed.set_payload(new)
    return changed


def shallow_copy(message: AnyMessage) -> AnyMessage:
    """A message that shares everything with the original but the list of its headers, which `Message` appends to in
    place.
    """
    duplicate = copy.copy(message)
    vars(duplicate)["_headers"] = list(vars(message)["_headers"])
    return duplicate
