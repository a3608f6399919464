"""django-anymail with click tracking, by its signal ``pre_send``.

Two settings make every backend of django-anymail track::

    INSTALLED_APPS = [..., "anymail", "postbox_hooks.mail.anymail.Tracking"]
    POSTBOX = {"domain": "click.example.com", "keys": [os.environ["POSTBOX_KEY"]]}

``POSTBOX`` is as in ``postbox_hooks.mail.django``. A message's ``metadata`` becomes message tags, so that each click
carries it.

The signal shows the caller's own message, and anymail sends what the message holds then. So the tracking links are
lent to it: it has its own content back once it is sent (``post_send``). anymail has no signal for a message that it
could not send: such a one has its own back before it is sent again. Where that is too late, put
``postbox_hooks.mail.django.EmailBackend`` in front of anymail's backend instead, which hands anymail a copy.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from postbox_hooks._shared import outermost
from postbox_plugin.errors import MissingExtra

try:
    from anymail.signals import post_send, pre_send  # type: ignore[import-untyped]
    from django.apps import AppConfig
    from django.core.mail import EmailMessage

    from postbox_hooks._django import CONTENT, tracked
except ImportError:
    raise MissingExtra("postbox_hooks.mail.anymail", "django-anymail", "anymail") from None

__all__ = ["Tracking"]

_LENT: Final = "_postbox_lent"


class Tracking(AppConfig):
    """The application for ``INSTALLED_APPS``."""

    name = "postbox_hooks.mail.anymail"
    label = "postbox_anymail"  # the last part of its name is that of anymail's own
    verbose_name = "Postbox for django-anymail"

    def ready(self) -> None:
        """Called by Django once all applications are there."""
        pre_send.connect(_before_send, dispatch_uid=_LENT)
        post_send.connect(_after_send, dispatch_uid=_LENT)


class _Lent(NamedTuple):
    """One attribute of a message that holds another value while it is sent.

    :ivar own: the caller's value.
    :ivar lent: what the attribute holds instead.
    :ivar items: of a list or dictionary, what was in both when it was lent: others may have changed them since.
    """

    own: Any
    lent: Any
    items: Any


def _before_send(message: EmailMessage, esp_name: str, **_: object) -> None:
    with outermost() as first:
        if not first:
            return
        _give_back(message)
        metadata = getattr(message, "metadata", None)
        tags = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else None
        copied = tracked(message, esp_name=esp_name, message_tags=tags)
        if copied is not message:
            _lend(message, copied)


def _after_send(message: EmailMessage, **_: object) -> None:
    _give_back(message)


def _lend(message: EmailMessage, copied: EmailMessage) -> None:
    lent = {}
    for name in sorted(CONTENT):
        own, value = getattr(message, name, None), getattr(copied, name, None)
        if value is own:
            continue
        items: Any = dict(value) if isinstance(value, dict) else None
        if isinstance(value, list):
            items = list(zip(value, own or (), strict=True))
        lent[name] = _Lent(own, value, items)
        setattr(message, name, value)
    vars(message)[_LENT] = lent


def _give_back(message: EmailMessage) -> None:
    """The message's own content instead of what was lent to it; what others did to it since is kept."""
    for name, value in vars(message).pop(_LENT, {}).items():
        setattr(message, name, _returned(value, getattr(message, name)))


def _returned(value: _Lent, now: Any) -> Any:
    if isinstance(value.items, dict) and isinstance(now, dict):
        changed = {key: new for key, new in now.items() if value.items.get(key, _LENT) is not new}
        removed = value.items.keys() - now.keys()
        own = {key: old for key, old in value.own.items() if key not in removed}
        return {**own, **changed} if changed or removed else value.own
    if isinstance(value.items, list) and isinstance(now, list):
        own_of = {id(item): own for item, own in value.items}
        items = [own_of.get(id(item), item) for item in now]
        same = len(items) == len(value.own) and all(map(operator.is_, items, value.own))
        return value.own if same else items
    return value.own if now is value.lent else now
