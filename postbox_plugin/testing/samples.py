"""Sample mails and clicks, and a notifier that remembers."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage

from postbox_plugin.click import Click, ClickDetail, ClickedMail, CommonHeaders, Tracking
from postbox_plugin.hookspecs import hookimpl

__all__ = ["RecordingNotifier", "sample_click", "sample_message"]


class RecordingNotifier:
    """A notifier that keeps the clicks it receives, for tests.

    :param name: its name, under which its clicks wait in the outbox.
    :ivar clicks: what it received, in order.
    """

    def __init__(self, name: str = "recording") -> None:
        self.name = name
        self.clicks: list[Click] = []
        self._arrived = asyncio.Event()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Keep the click."""
        self.clicks.append(click)
        self._arrived.set()

    async def wait_for(self, count: int, timeout: float = 10.0) -> list[Click]:  # noqa: ASYNC109 - a test's own limit
        """The clicks received, once there are enough.

        :param count: how many.
        :param timeout: seconds to wait for them.
        :raises TimeoutError: if they do not come.
        """
        async with asyncio.timeout(timeout):
            while len(self.clicks) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.clicks


def sample_click(event_id: str = "jdMtnVniDeHqlQX8ygwEX:0", url: str = "https://example.com/some-link") -> Click:
    """A click as a notifier receives it.

    :param event_id: its event id.
    :param url: the original address.
    """
    return Click(
        mail=ClickedMail(
            timestamp="2026-04-25T18:08:04.000000+00:00",
            message_id="QA_JPkU2fkpIWdkx",
            identity_id="example.com",
            common_headers=CommonHeaders(
                from_=("User <user@example.com>",),
                date="Sat, 25 Apr 2026 18:08:03 +0000",
                to=("Recipient Name <recipient@example.com>",),
                message_id="QA_JPkU2fkpIWdkx",
                subject="Order shipped",
            ),
            tags={"campaign": ("spring",)},
        ),
        click=ClickDetail(
            ip_address="192.0.2.1",
            timestamp="2026-04-25T18:09:10.933666+00:00",
            user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X)",
            url=url,
            link_tags={"product": ("book",), "genre": ("fiction",)},
        ),
        event_id=event_id,
        tracking=Tracking(link_index=3),
    )


def sample_message(html: str = '<p><a href="https://example.com/">Hello</a></p>') -> EmailMessage:
    """A message to one recipient, with a text and an HTML part.

    :param html: the HTML part.
    """
    message = EmailMessage()
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "Reader <reader@example.com>"
    message["Subject"] = "Order shipped"
    message["Date"] = "Sat, 25 Apr 2026 18:08:03 +0000"
    message["Message-ID"] = "<1@example.com>"
    message.set_content("Hello")
    message.add_alternative(html, subtype="html")
    return message
