"""The Tornado routes that answer tracking links.

Mount them in an application that you have::

    app = tornado.web.Application([*routes(postbox), (r"/", Home)])

and keep ``postbox.running()`` around the server. Requests are answered where Tornado's HTTP implementation hands them
over, without a ``RequestHandler``, which would cost more than all the rest of a redirect.
"""

from __future__ import annotations

import html
import logging
import time
from functools import lru_cache, partial
from typing import Any, Final

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.routing import Matcher, Rule

from postbox_plugin.errors import InvalidToken
from postbox_plugin.forwarded import TrustedProxies
from postbox_plugin.location import location
from postbox_plugin.postbox import Postbox
from postbox_plugin.unknown_keys import UnknownKeys

__all__ = ["RedirectServer", "routes"]

_PHRASES: Final = {302: "Found", 404: "Not Found", 405: "Method Not Allowed"}
_REDIRECT: Final = {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}

_access = logging.getLogger("postbox.access")
_log = logging.getLogger("postbox.redirect")


def routes(postbox: Postbox) -> list[Rule]:
    """The rules for a Tornado application: everything below ``Settings.path``.

    :param postbox: whose links are answered.
    """
    return [Rule(_Below(postbox.settings.path), RedirectServer(postbox))]


class _Below(Matcher):
    """Matches the paths that begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix: Final = prefix

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return {} if request.path.startswith(self._prefix) else None


class RedirectServer(HTTPServerConnectionDelegate):
    """Answers tracking links, and nothing else: what a ``tornado.httpserver.HTTPServer`` of its own is given in place
    of an application.

    :param postbox: whose links are answered.
    """

    def __init__(self, postbox: Postbox) -> None:
        self._postbox: Final = postbox
        self._proxies: Final = TrustedProxies(postbox.settings.trusted_proxies)
        self._prefix: Final = postbox.settings.path
        self._unknown_keys: Final = UnknownKeys()
        self._not_found: Final = _not_found_page(postbox.settings.home_url)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado for each request.

        :param server_conn: the connection, which may bring more requests.
        :param request_conn: what the response to this one is written to.
        """
        return _Request(self, request_conn)

    def answer(self, request: _Request) -> None:
        """Answer a request.

        :param request: the request, read whole.
        """
        if request.method not in ("GET", "HEAD"):
            self._respond(request, 405, {"Allow": "GET, HEAD"})
            return
        path = request.path
        try:
            if not path.startswith(self._prefix):
                raise InvalidToken("not a tracking link")
            link = self._postbox.open(path[len(self._prefix) :])
            target = location(link.url)
        except InvalidToken as error:
            if error.key_id:
                self._postbox.counts.unknown_keys += 1
                self._unknown_keys.saw(error.key_id)
            self._refuse(request)
        except ValueError:
            _log.error("a sealed address is not http or https: not redirected")
            self._refuse(request)
        else:
            if request.method == "HEAD":
                self._redirect(request, target)
                return
            headers = request.headers
            self._postbox.record_then(
                link,
                address=self._proxies.client(
                    request.peer, headers.get_list("Forwarded"), headers.get_list("X-Forwarded-For")
                ),
                user_agent=headers.get("User-Agent", ""),
                headers=headers,
                then=partial(self._redirect, request, target),
            )

    def _refuse(self, request: _Request) -> None:
        self._respond(request, 404, {"Content-Type": "text/html; charset=utf-8"}, self._not_found)

    def _redirect(self, request: _Request, target: str) -> None:
        self._respond(request, 302, {"Location": target, **_REDIRECT})

    def _respond(self, request: _Request, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self._postbox.counts.responses[status] += 1
        request.respond(status, headers, body)


class _Request(HTTPMessageDelegate):
    """One request on its way in, and its response.

    :ivar method: ``GET``, ``HEAD``, ...
    :ivar path: without the query.
    :ivar headers: all of them.
    """

    __slots__ = ("_connection", "_server", "_started", "_version", "headers", "method", "path")

    def __init__(self, server: RedirectServer, connection: HTTPConnection) -> None:
        self._server: Final = server
        self._connection: Final = connection
        self._started = time.perf_counter()

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        assert isinstance(start_line, RequestStartLine)
        self.method, path, self._version = start_line
        self.path = path.partition("?")[0]
        self.headers = headers

    def data_received(self, chunk: bytes) -> None:
        """No request that is answered has a body."""

    def finish(self) -> None:
        self._server.answer(self)

    @property
    def peer(self) -> str:
        """The other end of the connection, and not what ``HTTPServer(xheaders=True)`` makes of headers that anybody can
        send.
        """
        address = getattr(getattr(self._connection, "context", None), "address", None)
        return str(address[0]) if isinstance(address, tuple) and address else ""

    def respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send the response.

        :param headers: those of this response; what they contain is without line breaks.
        """
        headers["Cache-Control"] = "no-store"
        headers["Content-Length"] = str(len(body))
        headers["Date"] = _date(int(time.time()))
        content = b"" if self.method == "HEAD" else body
        connection: Any = self._connection
        stays_open = "Connection" not in self.headers and not getattr(connection, "no_keep_alive", True)
        if self._version == "HTTP/1.1" and stays_open:
            # What write_headers() would come to, in a tenth of its time.
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            connection.write(f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{lines}\r\n".encode("ascii") + content)
        else:
            connection.write_headers(ResponseStartLine("", status, _PHRASES[status]), HTTPHeaders(headers), content)
        connection.finish()
        # Neither the path, which is the token, nor the query.
        _access.info("%d %s %.2fms", status, self.method, 1000 * (time.perf_counter() - self._started))


@lru_cache(1)
def _date(second: int) -> str:
    return format_timestamp(second)


def _not_found_page(home_url: str) -> bytes:
    home = f'<p><a href="{html.escape(home_url)}">Go to the home page</a></p>' if home_url else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>This link does not work</title>
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 32rem; margin: 20vh auto 0; padding: 0 1.5rem }}
</style>
<h1>This link does not work</h1>
<p>It may have been cut off where it was copied. Please open it again from the message it came in.</p>
{home}
</html>
""".encode()
