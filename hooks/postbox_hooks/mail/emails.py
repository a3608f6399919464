"""python-emails with click tracking: its messages are rewritten when they are built, before they are signed.

Two lines make all messages of a class track::

    from postbox_hooks.mail.emails import track

    track(emails.Message, postbox)

python-emails builds a message anew each time it is sent, so the message object keeps its links. A DKIM signature by its
own ``message.dkim(...)`` is made of the rewritten mail. The recipients of ``send()`` decide who a message goes to.
"""

from __future__ import annotations

import email.message
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeAlias

from postbox_hooks._shared import check_postbox, outermost
from postbox_plugin import Postbox
from postbox_plugin.errors import MissingExtra

try:
    from emails.message import Message
except ImportError:
    raise MissingExtra("postbox_hooks.mail.emails", "emails", "emails") from None

__all__ = ["track"]

_REPLACED: Final = ("after_build", "send", "send_async")

AnyMessage: TypeAlias = "email.message.Message[Any, Any]"


class _Sending(NamedTuple):
    """A call of ``send()`` under way.

    :ivar first: whether no other adapter has the message in hand.
    :ivar to: the envelope's recipients where they are not those of the message, as they were given.
    """

    first: bool
    to: Any


_sending: Final[ContextVar[_Sending | None]] = ContextVar("postbox_emails_sending", default=None)


def track(message_class: type[Message], postbox: Postbox) -> ExitStack:
    """Make the messages of a class, and of its subclasses, go out with tracking links.

    :param message_class: ``emails.Message`` or a class made of it.
    :param postbox: what does the rewriting.
    :returns: what undoes it: by its ``close()``, or at the end of a ``with`` block.
    :raises TypeError: if it is no such class, or there is no ``Postbox``.
    :raises RuntimeError: if it is tracked already.
    """
    if not (isinstance(message_class, type) and issubclass(message_class, Message)):
        raise TypeError(
            f"track() needs a class of messages, not {message_class!r}: write track(emails.Message, postbox)"
        )
    check_postbox(postbox, "track(emails.Message, postbox)")
    if isinstance(message_class.after_build, _AfterBuild):
        raise RuntimeError(  # noqa: TRY004 - it is of the right type
            f"{message_class.__name__} is tracked already: close() what track() returned first"
        )
    own = {name: value for name, value in vars(message_class).items() if name in _REPLACED}
    message_class.after_build = _AfterBuild(postbox, inspect.getattr_static(message_class, "after_build"))
    _replace_sending(message_class)

    undo = ExitStack()
    for name in _REPLACED:
        if name in own:
            undo.callback(setattr, message_class, name, own[name])
        else:
            undo.callback(delattr, message_class, name)
    return undo


class _AfterBuild:
    """What python-emails calls with a message and the MIME that it has made of it."""

    def __init__(self, postbox: Postbox, before: Any) -> None:
        self._postbox: Final = postbox
        self._before: Final = before

    def __call__(self, message: Message, mime: AnyMessage) -> None:
        if self._before is not None:
            # As Python binds what it finds on a class: a method, a static method, or any other callable.
            bind = getattr(self._before, "__get__", None)
            (bind(message, type(message)) if bind else self._before)(message, mime)
        sending = _sending.get()
        with outermost() as first:
            if first if sending is None else sending.first:
                to = message if sending is None or sending.to is None else Message(mail_to=sending.to)
                recipients = [address for address in to.get_recipients_emails() if address]
                self._postbox.before_send(mime, recipients=recipients, in_place=True)


def _replace_sending(message_class: type[Message]) -> None:
    """Have ``send`` and ``send_async`` say who the envelope names, and keep other adapters off until they are done."""
    send, send_async = message_class.send, message_class.send_async

    def tracked_send(self: Message, to: Any = None, set_mail_to: bool = True, *args: Any, **options: Any) -> Any:
        with _in_hand(to, set_mail_to=set_mail_to):
            return send(self, to, set_mail_to, *args, **options)

    async def tracked_send_async(
        self: Message, to: Any = None, set_mail_to: bool = True, *args: Any, **options: Any
    ) -> Any:
        with _in_hand(to, set_mail_to=set_mail_to):
            return await send_async(self, to, set_mail_to, *args, **options)

    for name, function in (("send", tracked_send), ("send_async", tracked_send_async)):
        setattr(message_class, name, function)


@contextmanager
def _in_hand(to: Any, *, set_mail_to: bool) -> Iterator[None]:
    with outermost() as first:
        token = _sending.set(_Sending(first, to if to and not set_mail_to else None))
        try:
            yield
        finally:
            _sending.reset(token)
