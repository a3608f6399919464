"""Everything the demo runs, on free ports of this machine: a mail server, the redirect service, a shop, an inbox."""

from __future__ import annotations

import asyncio
import base64
import os
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr
from errno import EADDRINUSE
from pathlib import Path
from socket import AF_INET6, create_server, socket
from tempfile import TemporaryDirectory
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from postbox_hooks.demo.certificate import make_certificate
from postbox_hooks.demo.feed import Feed
from postbox_hooks.demo.inbox import Letter, inbox_routes
from postbox_hooks.demo.mails import newsletter, note
from postbox_hooks.demo.shop import PATH, shop_routes
from postbox_hooks.demo.sink import smtp_sink
from postbox_plugin import Postbox, new_key
from postbox_plugin.errors import PostboxError
from postbox_plugin.redirect import routes

__all__ = ["Stage", "stage"]

MESSAGE_TAGS: Final = {"campaign": "lantern-week", "letter": "2026-11"}


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo while it runs.

    :ivar address: where the inbox is.
    :ivar services: the addresses of the redirect service, http and https.
    :ivar certificate: whom to trust on https, a PEM file.
    :ivar letters: the mails in the inbox, the newsletter first.
    :ivar feed: the notifications.
    """

    address: str
    services: tuple[str, str]
    certificate: Path
    letters: list[Letter]
    feed: Feed

    def tagged_links(self) -> list[str]:
        """The newsletter's tracking links that have link tags, in their order."""
        letter = self.letters[0]
        return [letter.tracking[link.index] for link in letter.report.tracked if link.tags]


@asynccontextmanager
async def stage(port: int, say: Callable[[str], None]) -> AsyncIterator[Stage]:
    """Set the demo up, send its mails, and run it.

    :param port: where the inbox page is to be; 0 for a free one.
    :param say: called with each step in a few words.
    :raises MissingExtra: if a library of the extra ``demo`` is missing.
    :raises PostboxError: if the port is taken.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="postbox-demo-")))
        try:
            inbox, http, https = (_listen(stack, wanted) for wanted in (port, 0, 0))
        except OSError as error:
            raise PostboxError(f"cannot listen on port {port} ({error.strerror}): choose another with --port") from None
        address, service, secure_service = _address("http", inbox), _address("http", http), _address("https", https)
        certificate, key = make_certificate(folder)
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode("ascii")
        postbox = Postbox.from_mapping(
            {
                "domain": "localhost",
                "keys": [new_key()],
                "http_port": _port(http),
                "https_port": _port(https),
                "spool": str(folder / "spool"),
                "notify": [{"use": "webhook", "url": f"{address}/hooks/clicks", "secret": secret}],
            }
        )
        the_stage = Stage(address, (service, secure_service), certificate, [], Feed())

        # Taken down in the opposite order: first no new clicks come in, then the outbox delivers, then the inbox goes.
        pages = inbox_routes(the_stage.letters, the_stage.feed, secret, the_stage.services)
        _serve(stack, Application([*pages, *shop_routes()], log_function=_no_access_log), inbox)
        stack.callback(the_stage.feed.close)
        await stack.enter_async_context(postbox.running())
        # The one https link leads to the service's own address, so that the browser asks about one certificate, once.
        redirect = Application([*routes(postbox), *shop_routes()], log_function=_no_access_log)
        _serve(stack, redirect, http)
        _serve(stack, redirect, https, certificate, key)
        say(f"redirect service on {service} and {secure_service}")

        shop = address + PATH
        written = [newsletter(shop, secure_service + PATH), note(shop)]
        say("compiled newsletter.mjml with mjml")
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        async with smtp_sink(arrived.put_nowait) as smtp_port:
            for message in written:
                recipients = [address for _, address in getaddresses(message.get_all("To", []))]
                await asyncio.to_thread(_send, postbox, message, recipients, smtp_port)
                report = postbox.explain(message, recipients=recipients, message_tags=MESSAGE_TAGS)
                the_stage.letters.append(Letter.received(message, await arrived.get(), report, postbox))
                outcome = report.reason or f"{len(report.tracked)} of {len(report.links)} links tracked"
                say(f'sent "{message["Subject"]}" by SMTP: {outcome}')
        yield the_stage


def _send(postbox: Postbox, message: EmailMessage, recipients: list[str], port: int) -> None:
    tracked = postbox.before_send(message, recipients=recipients, message_tags=MESSAGE_TAGS)
    # Without a name of our own smtplib asks the resolver for one, which can take seconds.
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as client:
        client.send_message(tracked, parseaddr(message["From"])[1], recipients)


def _listen(stack: AsyncExitStack, port: int) -> list[socket]:
    sockets = [stack.enter_context(create_server(("127.0.0.1", port)))]
    try:
        sockets.append(stack.enter_context(create_server(("::1", _port(sockets)), family=AF_INET6)))
    except OSError as error:
        # Browsers try ::1 first for localhost: a machine may lack it, but nobody else may be there.
        if error.errno == EADDRINUSE:
            raise
    for one in sockets:
        one.setblocking(False)
    return sockets


def _serve(
    stack: AsyncExitStack,
    application: Application,
    sockets: list[socket],
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    server = HTTPServer(application, ssl_options=context)
    server.add_sockets(sockets)
    stack.push_async_callback(server.close_all_connections)
    stack.callback(server.stop)


def _port(sockets: list[socket]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port


def _address(scheme: str, sockets: list[socket]) -> str:
    return f"{scheme}://localhost:{_port(sockets)}"


def _no_access_log(_handler: RequestHandler) -> None:
    """Tornado would warn on the terminal of the shop's page that is out of order on purpose."""
