"""A ``Postbox`` as a plugin of somebody else's pluggy manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.message import Message
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from postbox_plugin.postbox import Postbox

__all__ = ["bridge"]


def bridge(postbox: Postbox, project: str) -> object:
    """A plugin that implements ``postbox_rewrite``, marked for a manager of that project name.

    :param postbox: what does the rewriting.
    :param project: the manager's ``project_name``.
    """

    @pluggy.HookimplMarker(project)
    def postbox_rewrite(
        message: Message[Any, Any] | bytes, recipients: Sequence[str] | None, message_tags: Mapping[str, str] | None
    ) -> Message[Any, Any] | bytes:
        return postbox.before_send(message, recipients=recipients, message_tags=message_tags)

    return SimpleNamespace(postbox_rewrite=postbox_rewrite)
