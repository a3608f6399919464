"""``manage.py send_newsletter``: nothing in here knows that links are tracked."""

from argparse import ArgumentParser
from typing import Any

from django.core.mail import EmailMultiAlternatives
from django.core.management.base import BaseCommand

HTML = """\
<h1>New on the shelf</h1>
<p><a href="https://example.com/books/1" postbox:tags="product:book">A book about lighthouses</a></p>
"""


class Command(BaseCommand):
    """Writes to each reader."""

    help = "Send the newsletter to each reader, one mail a reader."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("readers", nargs="+", metavar="READER", help="a mail address")

    def handle(self, *_: Any, readers: list[str], **__: Any) -> None:
        message = EmailMultiAlternatives(
            "New on the shelf",
            "New on the shelf: https://example.com/books/1",
            "Bookshop <letters@example.com>",
            headers={"X-Postbox-Tags": "campaign=spring"},  # on every click; the header itself does not go out
        )
        message.attach_alternative(HTML, "text/html")
        for reader in readers:
            message.to = [reader]
            message.send()
        self.stdout.write(self.style.SUCCESS(f"Sent {len(readers)} mails"))
