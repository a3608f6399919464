"""The hooks: their one name, their markers, and what each is called for.

Implement one by writing a function or method of its name, marked with ``@postbox_plugin.hookimpl``, with those of its
arguments that you need.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from email.message import Message
from types import FunctionType, ModuleType
from typing import Final

import pluggy

from postbox_plugin.click import Click, Verdict
from postbox_plugin.mail import Link, Mail

__all__ = [
    "NAME",
    "for_project",
    "hookimpl",
    "hookspec",
    "postbox_before_send",
    "postbox_classify",
    "postbox_click",
    "postbox_convert",
    "postbox_link",
    "postbox_rewrite",
    "postbox_start",
    "postbox_stop",
]

NAME: Final = "postbox"
"""Pluggy's project name, the prefix of every hook, and the first word of the entry-point groups."""

hookspec = pluggy.HookspecMarker(NAME)
hookimpl = pluggy.HookimplMarker(NAME)
"""Marks a function or method as the implementation of a hook."""


@hookspec
def postbox_before_send(mail: Mail) -> None:
    """Called for every outgoing message, in the order the plugins were given, before its links are rewritten.

    Change ``mail.html``, ``mail.tags`` or ``mail.track`` in place; the next plugin sees the change. An exception is
    logged, the change of that plugin is dropped, and the mail goes out. Not called for a message that nobody may
    change: signed, encrypted, malformed, or switched off with ``X-Postbox-Track: no``.

    :param mail: the message, its headers and recipients, and its HTML.
    """


@hookspec(firstresult=True)
def postbox_convert(content_type: str, text: str, file: str) -> str | None:
    """Called for every inline text part of a message that is neither plain text nor HTML (nor AMP), before
    :func:`postbox_before_send`: return the HTML that it stands for, which then takes its place; ``None`` leaves it to
    the next plugin.

    Called whether the message will be tracked or not, but not for one that nobody may change. An exception is logged,
    and the part goes out as it came. The command line calls this for a file, and shows the exception.

    :param content_type: the media type, in lower case, without parameters: ``text/mjml``.
    :param text: the text.
    :param file: the file that the text comes from, whose folder it may refer to; ``""`` for a part of a message.
    """


@hookspec(firstresult=True)
def postbox_link(link: Link, mail: Mail, attributes: Mapping[str, str]) -> Link | None:
    """Called for every link that would be tracked; the first plugin with an opinion decides.

    Return ``link.replace(track=False, reason="...")`` to leave the link alone, ``link.replace(tags={...})`` to tag
    it, or ``None`` to leave the decision to the next plugin.

    :param link: the link, with its address, tags and position.
    :param mail: the message it is in, after the before-send hooks.
    :param attributes: the attributes of its tag, by name in lower case, with their decoded values; read when they are
        first looked at.
    """


@hookspec
def postbox_click(click: Click) -> Awaitable[None] | None:
    """Called for every click, at least once, with the same ``click.event_id`` each time.

    Returning acknowledges the click; raising means "again later". May be ``async``; if not, it is called in threads
    of this plugin's own. Several clicks may be in flight at once, in no promised order.

    :param click: the click.
    """


@hookspec(firstresult=True)
def postbox_classify(click: Click, request_headers: Mapping[str, str]) -> Verdict | None:
    """Called for every click at the moment it is made, before the reader is redirected: be quick, and wait for nothing.

    The first verdict counts, and is kept with the click; without one the click is taken for a human's.

    :param click: the click, with the full address and user agent whatever the privacy level.
    :param request_headers: the headers of the request; names are matched without regard to case.
    """


@hookspec
def postbox_start() -> Awaitable[None] | None:
    """Called once when the service starts, before the first click is delivered: open connections here. May be
    ``async``.
    """


@hookspec
def postbox_stop() -> Awaitable[None] | None:
    """Called once when the service stops, after the last delivery: close connections here. May be ``async``."""


@hookspec(firstresult=True)
def postbox_rewrite(
    message: Message | bytes, recipients: Sequence[str] | None, message_tags: Mapping[str, str] | None
) -> Message | bytes | None:
    """Called by a mail framework that has a plugin manager of its own, for a message that is ready to be sent.

    Implemented by :meth:`postbox_plugin.Postbox.as_plugin`; the result is the message to send instead.

    :param message: the message, as an object or as raw bytes; it is not changed.
    :param recipients: the envelope's recipients, or ``None`` to take them from To, Cc and Bcc.
    :param message_tags: tags that every click of this message carries.
    """


def for_project(project: str) -> ModuleType:
    """These specifications for a plugin manager whose project name is not ``postbox``.

    pluggy finds a specification by a marker that bears the project's name, so ``PluginManager("newsletter")`` sees
    none of the functions above. ``pm.add_hookspecs(hookspecs.for_project("newsletter"))`` gives it copies that it
    does see.

    :param project: the manager's ``project_name``.
    """
    specs = ModuleType(f"{__name__}.for_{project}", __doc__)
    for name, function in list(globals().items()):
        options = getattr(function, f"{NAME}_spec", None)
        if options is None:
            continue
        copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
        copy.__doc__ = function.__doc__
        copy.__annotations__ = function.__annotations__
        setattr(copy, f"{project}_spec", options)
        setattr(specs, name, copy)
    return specs
