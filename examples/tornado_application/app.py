"""A Tornado application that shows a letter, and answers and prints the clicks on it: ``python app.py [PORT]``."""

import asyncio
import os
import signal
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from postbox_plugin import Click, Mail, Postbox, Settings, hookimpl, new_key
from postbox_plugin.redirect import routes

LETTER = """\
<!DOCTYPE html>
<title>A letter</title>
<h1>New on the shelf</h1>
<p><a href="http://example.com/books/1" postbox:tags="product:book">A book about lighthouses</a></p>
"""


class PrintClicks:
    """A notifier: it gets every click, at least once. Returning says "dealt with", raising says "again later"."""

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        print(f"{click.mail.common_headers.to[0]} clicked {click.url} {dict(click.link_tags)}", flush=True)


class Letter(RequestHandler):
    """A page that the application had before: here, the letter as its reader would see it."""

    def initialize(self, postbox: Postbox) -> None:
        self.postbox = postbox

    def get(self) -> None:
        mail = Mail(sender="letters@example.com", recipient="reader@example.com", subject="New on the shelf")
        self.write(self.postbox.track_html(LETTER, mail))


async def main() -> None:
    (socket,) = bind_sockets(int(sys.argv[1]) if sys.argv[1:] else 8080, "127.0.0.1")
    port = socket.getsockname()[1]
    # In production: the domain that the links shall have, and a key that outlives this process. Clicks wait for the
    # notifiers in the folder `spool`.
    settings = Settings(
        domain="localhost", http_port=port, keys=[os.environ.get("POSTBOX_KEY") or new_key()], spool="clicks-waiting"
    )
    postbox = Postbox(settings, plugins=[PrintClicks()])

    server = HTTPServer(Application([*routes(postbox), ("/", Letter, {"postbox": postbox})]))
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)

    async with postbox.running():
        server.add_socket(socket)
        print(f"Open http://localhost:{port}/ and click", flush=True)
        await stop.wait()
        server.stop()
        await server.close_all_connections()


asyncio.run(main())
