"""Click tracking for the mail framework you already have, as Yandex Cloud Postbox does it.

A before-send hook replaces the links of an outgoing message's HTML part by tracking links; a Tornado handler
(:mod:`postbox_plugin.redirect`) receives the click, records it and redirects; notifier plugins receive each click::

    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    message = postbox.before_send(message)
"""

from postbox_plugin import hookspecs
from postbox_plugin.click import Click, Verdict
from postbox_plugin.errors import InvalidToken, PostboxError
from postbox_plugin.hookspecs import hookimpl
from postbox_plugin.links.report import Report
from postbox_plugin.mail import Link, Mail, OpenedLink
from postbox_plugin.postbox import Postbox
from postbox_plugin.settings import Settings
from postbox_plugin.tokens.keyring import new_key

__all__ = [
    "Click",
    "InvalidToken",
    "Link",
    "Mail",
    "OpenedLink",
    "Postbox",
    "PostboxError",
    "Report",
    "Settings",
    "Verdict",
    "hookimpl",
    "hookspecs",
    "new_key",
]
