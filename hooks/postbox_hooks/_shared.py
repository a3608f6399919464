"""What the mail adapters share: who the envelope names, which of several adapters has a message first, the Postbox of a
framework's settings, and methods of a library's classes that are replaced for a while.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from email.utils import parseaddr
from typing import Any, Final
from weakref import WeakSet

from postbox_plugin import Postbox
from postbox_plugin.errors import SettingsError

__all__ = ["check_postbox", "envelope", "installed", "outermost", "postbox_of", "rewritten"]

_LINE_ENDING: Final = re.compile(r"\r\n|\r|\n")

_in_hand: Final = ContextVar("postbox_message_in_hand", default=False)


def envelope(addresses: Iterable[object]) -> list[str]:
    """Recipients as the envelope names them (RFC 5321, 3.3): addresses without display names, as smtplib takes them
    out.

    :param addresses: ``reader@example.com`` or ``Reader <reader@example.com>`` each.
    """
    return [parseaddr(address)[1] or address for address in map(str, addresses)]


def rewritten(postbox: Postbox, recipients: str | Iterable[str], message: Any) -> bytes:
    """The message that a method like smtplib's ``sendmail`` is to send instead.

    :param postbox: what does the rewriting.
    :param recipients: those of the envelope; a text is one address.
    :param message: bytes, or text in ASCII with any line endings.
    :raises UnicodeEncodeError: if the text is not ASCII: what such a method raises itself.
    """
    raw = _LINE_ENDING.sub("\r\n", message).encode("ascii") if isinstance(message, str) else bytes(message)
    return postbox.before_send(raw, recipients=envelope([recipients] if isinstance(recipients, str) else recipients))


@contextmanager
def outermost() -> Iterator[bool]:
    """Put around the rewriting and the sending: whether no other adapter has the message in hand already.

    Adapters meet where one framework sends by another. Only the outermost may rewrite: in what it hands on,
    ``X-Postbox-Track`` and ``postbox:no-track`` are no longer there to be heeded.
    """
    first = not _in_hand.get()
    token = _in_hand.set(True)
    try:
        yield first
    finally:
        _in_hand.reset(token)


def check_postbox(postbox: object, call: str) -> None:
    """Hold what is to rewrite against what can, before a mail depends on it.

    :param postbox: what was given.
    :param call: what to write: ``install(postbox)``.
    :raises TypeError: if it is no ``Postbox``.
    """
    if not isinstance(postbox, Postbox):
        name = call.partition("(")[0]
        raise TypeError(f"{name} needs the Postbox that rewrites, not {type(postbox).__name__}: write {call}")


def postbox_of(setting: object, source: str, where: str) -> Postbox:
    """The ``Postbox`` that a framework's own settings describe.

    :param setting: a mapping in the shape of ``postbox.toml``, the path of such a file, or a ``Postbox``; ``None`` if
        there is no setting.
    :param source: what an error within a mapping names as its place: ``settings.POSTBOX``.
    :param where: what an error about the setting itself names as its place: ``Django's settings``.
    :raises SettingsError: naming what is wrong with the setting and what to write.
    :raises PluginError: if a plugin cannot be used.
    """
    if isinstance(setting, Postbox):
        return setting
    if isinstance(setting, str | os.PathLike):
        return Postbox.from_file(setting)
    if isinstance(setting, Mapping):
        return Postbox.from_mapping(setting, source=source)
    problem = "is missing" if setting is None else f"is {type(setting).__name__}, not a mapping"
    remedy = 'Write POSTBOX = {"domain": "click.example.com", "keys": [...]}, or the path of a postbox.toml'
    raise SettingsError("POSTBOX", problem, remedy, where)


MakeStandIn = Callable[[Callable[..., Any], Callable[[], "Postbox | None"]], Callable[..., Any]]
"""Makes the method that stands in, wrapping (:func:`functools.wraps`) the original. Its second argument tells the
Postbox that is to rewrite: ``None`` where nobody wants it to any more, so that there is nothing to do but to call the
original.
"""


class _Replaced:
    """A method of a class that another one stands in for while somebody wants it to.

    They may come and go in any order; the latest has its way. When the last has gone, the class has its own method
    again; where another program has replaced the method in the meantime, ours stays underneath, and does nothing.
    """

    def __init__(self, owner: type, name: str, make: MakeStandIn) -> None:
        self._owner: Final = owner
        self._name: Final = name
        self._make: Final = make
        self._lock: Final = threading.Lock()
        self._stand_ins: Final[WeakSet[Any]] = WeakSet()
        # Never changed, only exchanged: readers take no lock.
        self._wanted: dict[object, Postbox] = {}

    def add(self, postbox: Postbox) -> Callable[[], None]:
        """Let this Postbox rewrite from now on; calling what is returned undoes it."""
        key = object()
        with self._lock:
            self._wanted = {**self._wanted, key: postbox}
            present = vars(self._owner)[self._name]
            if present not in self._stand_ins:
                stand_in = self._make(present, self._latest)
                self._stand_ins.add(stand_in)
                setattr(self._owner, self._name, stand_in)
        return lambda: self._remove(key)

    def _remove(self, key: object) -> None:
        with self._lock:
            self._wanted = {other: postbox for other, postbox in self._wanted.items() if other is not key}
            present = vars(self._owner)[self._name]
            if not self._wanted and present in self._stand_ins:
                setattr(self._owner, self._name, present.__wrapped__)

    def _latest(self) -> Postbox | None:
        return next(reversed(self._wanted.values()), None)


_replaced: Final[dict[tuple[type, str], _Replaced]] = {}


def installed(postbox: Postbox, classes: Iterable[type], name: str, make: MakeStandIn) -> ExitStack:
    """Replace a method of classes, for an adapter's ``install``.

    :param postbox: what does the rewriting.
    :param classes: the classes; one that inherits the method is covered by the class that it inherits it from.
    :param name: the method.
    :param make: makes the method that stands in.
    :returns: what undoes it: by its ``close()``, or at the end of a ``with`` block.
    :raises TypeError: if ``postbox`` is not one.
    """
    check_postbox(postbox, "install(postbox)")
    undo = ExitStack()
    owners = (next(base for base in one.__mro__ if name in vars(base)) for one in classes)
    for owner in dict.fromkeys(owners):
        undo.callback(_replaced.setdefault((owner, name), _Replaced(owner, name, make)).add(postbox))
    return undo
