"""A tiny mail framework that is extended by plugins. It knows pluggy, and one hook specification of ours."""

import smtplib
from email.message import EmailMessage

import pluggy

from postbox_plugin import hookspecs

NAME = "newsletter"


class Newsletter:
    """Writes to each reader in turn.

    :param host: the mail server.
    :param port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.plugins = pluggy.PluginManager(NAME)
        # Our specifications, marked for this framework's own project name.
        self.plugins.add_hookspecs(hookspecs.for_project(NAME))

    def send(self, message: EmailMessage, readers: list[str], campaign: str) -> None:
        """Send a message to each reader, as whatever the plugins make of it."""
        with smtplib.SMTP(*self.server) as smtp:
            for reader in readers:
                del message["To"]
                message["To"] = reader
                rewritten = self.plugins.hook.postbox_rewrite(
                    message=message, recipients=[reader], message_tags={"campaign": campaign}
                )
                # Without a plugin there is no answer, and the message goes out as it is.
                smtp.send_message(rewritten or message, to_addrs=[reader])
