"""Send a newsletter by an HTTP API that takes JSON: ``python send_letters.py URL RECIPIENT...``

The JSON is in the form of Resend (https://api.resend.com/emails). SendGrid, Postmark, Brevo and the others call the
fields otherwise; what is done with the HTML is the same.
"""

import json
import os
import sys
import urllib.request
from typing import Any

from postbox_plugin import Mail, Postbox, Settings, new_key

HTML = """\
<h1>New on the shelf</h1>
<p><a href="https://example.com/books/1?from=newsletter" postbox:tags="product:book">A book about lighthouses</a></p>
<p><a href="https://example.com/unsubscribe" postbox:no-track>No more letters</a></p>
"""


def newsletter(postbox: Postbox, recipient: str) -> dict[str, Any]:
    """The letter to one reader, whose links tell that it is theirs: never send the same HTML to two."""
    mail = Mail(
        sender="Bookshop <letters@example.com>",
        recipient=recipient,
        subject="New on the shelf",
        tags={"campaign": "spring"},
    )
    html = postbox.track_html(HTML, mail)
    return {
        "from": mail.sender,
        "to": [recipient],
        "subject": mail.subject,
        "html": html,
        # Every click carries this id; keep it beside what you know of the letter.
        "headers": {"X-Postbox-Message-Id": mail.message_id},
    }


def send(url: str, letter: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('API_KEY', '')}"}
    request = urllib.request.Request(url, json.dumps(letter).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()


# The service that answers the links needs the same key: keep what `postbox keys new` prints in POSTBOX_KEY. A key made
# on the spot, as here without it, is forgotten when the script ends, and then nobody can open its links.
postbox = Postbox(Settings(domain="click.example.com", keys=[os.environ.get("POSTBOX_KEY") or new_key()]))

url, *recipients = sys.argv[1:]
for recipient in recipients:
    send(url, newsletter(postbox, recipient))
print(f"Sent {len(recipients)} letters")
