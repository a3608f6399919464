"""Track the mails of a framework that has a plugin manager of its own: ``python main.py HOST PORT RECIPIENT...``."""

import os
import sys
from email.message import EmailMessage

from framework import NAME, Newsletter

from postbox_plugin import Postbox, Settings, new_key

host, port, *readers = sys.argv[1:]

newsletter = Newsletter(host, int(port))

# The two lines. The key is the one that the service which answers the links has too.
postbox = Postbox(Settings(domain="click.example.com", keys=[os.environ.get("POSTBOX_KEY") or new_key()]))
newsletter.plugins.register(postbox.as_plugin(NAME))

message = EmailMessage()
message["From"] = "Bookshop <letters@example.com>"
message["Subject"] = "New on the shelf"
message.set_content('<p><a href="https://example.com/books/1">A book about lighthouses</a></p>', subtype="html")
newsletter.send(message, readers, campaign="spring")
