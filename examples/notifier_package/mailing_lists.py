"""A plugin for senders of mailing lists: clicks can be counted by list, and the unsubscribe link stays as it is."""

import re

from postbox_plugin import Link, Mail, hookimpl


@hookimpl
def postbox_before_send(mail: Mail) -> None:
    """Tag the mail with its list (RFC 2919: ``List-Id: The Weekly <weekly.example.com>``)."""
    name = re.search(r"<([^<>]+)>", mail.header("List-Id"))
    if name:
        mail.tags = {**mail.tags, "list": (name[1],)}


@hookimpl
def postbox_link(link: Link, mail: Mail) -> Link | None:
    """Leave the link alone that the header names (RFC 2369: ``List-Unsubscribe: <https://example.com/leave>``)."""
    if f"<{link.url}>" in mail.header("List-Unsubscribe"):
        return link.replace(track=False, reason="the unsubscribe link")
    return None
