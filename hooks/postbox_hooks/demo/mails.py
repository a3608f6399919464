"""The mails that the demo sends: a newsletter as shops send them, and a note to two readers, which is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from pathlib import Path
from typing import Final

from postbox_plugin.errors import MissingExtra

__all__ = ["compile_newsletter", "newsletter", "note"]

HERE: Final = Path(__file__).parent
SENDER: Final = "Paper Lantern <letters@paper-lantern.example>"


def compile_newsletter(addresses: Mapping[str, str]) -> str:
    """The newsletter as HTML.

    :param addresses: what to put for each ``{{name}}`` of ``newsletter.mjml``.
    :raises MissingExtra: without the ``mjml`` library.
    """
    try:
        from mjml import mjml_to_html  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("the demo", "mjml", "demo") from None
    html: str = mjml_to_html(_filled("newsletter.mjml", addresses)).html
    return html


def newsletter(shop: str, secure: str) -> EmailMessage:
    """The newsletter as a message: text and HTML, with the logo inside.

    :param shop: the http address that its links begin with.
    :param secure: the https address of its one https link.
    :raises MissingExtra: without the ``mjml`` library.
    """
    # Browsers take every name below localhost for this machine (RFC 6761, 6.3): the link without a scheme arrives too.
    www = shop.replace("http://", "www.", 1)
    addresses = {"shop": shop, "secure": secure, "www": www}
    message = _addressed("The harbour is lit again: ноябрьское письмо", "Вера Орлова <vera@example.org>")  # noqa: RUF001 - a name
    message["List-Unsubscribe"] = f"<{shop}/letters/unsubscribe?reader=1047>"
    message.set_content(_filled("newsletter.txt", addresses))
    message.add_alternative(compile_newsletter(addresses), subtype="html")
    html_part = message.get_body(("html",))
    assert isinstance(html_part, EmailMessage)
    logo = (HERE / "images" / "logo.png").read_bytes()
    html_part.add_related(logo, "image", "png", cid="<logo@paper-lantern>", disposition="inline", filename="logo.png")
    return message


def note(shop: str) -> EmailMessage:
    """A note to two readers: a click could not say whose it was, so its links are not tracked.

    :param shop: the http address that its links begin with.
    """
    message = _addressed("Who pours on Thursday?", "Ilse <ilse@example.org>, Captain Brandt <brandt@example.org>")
    message.set_content(f"Who pours the tea on Thursday? The list: {shop}/evenings?id=82\n")
    message.add_alternative(_filled("note.html", {"shop": shop}), subtype="html")
    return message


def _addressed(subject: str, to: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = SENDER
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain="paper-lantern.example")
    return message


def _filled(name: str, addresses: Mapping[str, str]) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    for placeholder, address in addresses.items():
        text = text.replace("{{" + placeholder + "}}", address)
    return text
