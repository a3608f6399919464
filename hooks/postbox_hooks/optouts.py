"""What other senders' templates say about single links, heeded as if it were ours. Off by default; switch it on with
``[[plugin]] use = "optouts"``, or ``Postbox(..., plugins=[OptOuts()])``.

=====================================================  ===================================
in the tag of a link                                   whose it is, and what it does
=====================================================  ===================================
``ses:no-track``                                       Amazon SES: not tracked
``ses:tags="key:value;key:value;"``                    Amazon SES: link tags
``clicktracking="off"``                                SendGrid: not tracked
``data-pm-no-track``                                   Postmark: not tracked
``data-msys-clicktrack="0"``                           SparkPost: not tracked
``mc:disable-tracking``                                Mandrill: not tracked
``disable-tracking="true"``                            Mailgun: not tracked
=====================================================  ===================================

The attributes stay in the mail, where they mean nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from postbox_plugin import Link, hookimpl

__all__ = ["OptOuts"]

# Each with the values that switch tracking off; none listed where the attribute alone does. Written without a value it
# counts too: nobody writes it in order to be tracked.
_OFF: Final[Mapping[str, frozenset[str]]] = {
    "ses:no-track": frozenset(),
    "clicktracking": frozenset(("", "off", "false", "0", "no")),
    "data-pm-no-track": frozenset(),
    "data-msys-clicktrack": frozenset(("", "0", "off", "false", "no")),
    "mc:disable-tracking": frozenset(),
    "disable-tracking": frozenset(("", "true", "1", "yes", "on")),
}
_SES_TAGS: Final = "ses:tags"


class OptOuts:
    """Heeds the opt-outs and link tags of other senders."""

    @hookimpl
    def postbox_link(self, link: Link, attributes: Mapping[str, str]) -> Link | None:
        """See :func:`postbox_plugin.hookspecs.postbox_link`."""
        for name, values in _OFF.items():
            if name in attributes and (not values or attributes[name].strip().lower() in values):
                return link.replace(track=False, reason=name)
        if _SES_TAGS in attributes:
            # What is written for us outweighs what was written for somebody else.
            return link.replace(tags={**_tags(attributes[_SES_TAGS]), **link.tags})
        return None


def _tags(text: str) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for pair in text.split(";"):
        key, _, value = pair.partition(":")
        if key := key.strip():
            tags.setdefault(key, []).append(value.strip())
    return tags
