"""Send a newsletter with tracked links: ``python send.py HOST PORT RECIPIENT``."""

import os
import sys
from email.message import EmailMessage

from postbox_hooks.mail.smtplib import SMTP
from postbox_plugin import Postbox, Settings, new_key

HTML = """\
<h1>New on the shelf</h1>
<p><a href="https://example.com/books/1?from=newsletter" postbox:tags="product:book">A book about lighthouses</a></p>
<p><a href="https://example.com/unsubscribe" postbox:no-track>No more letters</a></p>
"""

host, port, recipient = sys.argv[1:]

# The service that answers the links needs the same key: keep what `postbox keys new` prints in POSTBOX_KEY. A key made
# on the spot, as here without it, is forgotten when the script ends, and then nobody can open its links.
postbox = Postbox(Settings(domain="click.example.com", keys=[os.environ.get("POSTBOX_KEY") or new_key()]))

message = EmailMessage()
message["From"] = "Bookshop <letters@example.com>"
message["To"] = recipient
message["Subject"] = "New on the shelf"
message["X-Postbox-Tags"] = "campaign=spring"  # on every click of this mail; the header itself does not go out
message.set_content("New on the shelf: https://example.com/books/1")
message.add_alternative(HTML, subtype="html")

with SMTP(host, int(port), postbox=postbox) as smtp:
    smtp.send_message(message)
