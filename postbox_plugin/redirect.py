"""The Tornado routes that answer tracking links.

Mount them in an application that you have::

    app = tornado.web.Application([*routes(postbox), (r"/", Home)])

and keep ``postbox.running()`` around the server. The routes answer without a ``RequestHandler``, which would cost
more than all the rest of a redirect.
"""

from __future__ import annotations

import html
import logging
import time
from functools import partial
from typing import Any, Final

from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine, format_timestamp
from tornado.routing import Matcher, Rule

from postbox_plugin.errors import InvalidToken
from postbox_plugin.forwarded import TrustedProxies
from postbox_plugin.location import location
from postbox_plugin.postbox import Postbox
from postbox_plugin.unknown_keys import UnknownKeys

__all__ = ["routes"]

_PHRASES: Final = {302: "Found", 404: "Not Found", 405: "Method Not Allowed"}

_access = logging.getLogger("postbox.access")
_log = logging.getLogger("postbox.redirect")


def routes(postbox: Postbox) -> list[Rule]:
    """The rules for a Tornado application: everything below ``Settings.path``.

    :param postbox: whose links are answered.
    """
    return [Rule(_Below(postbox.settings.path), _Redirect(postbox))]


class _Below(Matcher):
    """Matches the paths that begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix: Final = prefix

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return {} if request.path.startswith(self._prefix) else None


class _Redirect:
    """Answers one request after the other. Called by Tornado once a request is read whole."""

    def __init__(self, postbox: Postbox) -> None:
        self._postbox: Final = postbox
        self._proxies: Final = TrustedProxies(postbox.settings.trusted_proxies)
        self._unknown_keys: Final = UnknownKeys()
        self._not_found: Final = _not_found_page(postbox.settings.home_url)

    def __call__(self, request: HTTPServerRequest) -> None:
        if request.method not in ("GET", "HEAD"):
            self._respond(request, 405, {"Allow": "GET, HEAD"})
            return
        try:
            link = self._postbox.open(request.path)
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
                    _peer(request), headers.get_list("Forwarded"), headers.get_list("X-Forwarded-For")
                ),
                user_agent=headers.get("User-Agent", ""),
                headers=headers,
                then=partial(self._redirect, request, target),
            )

    def _refuse(self, request: HTTPServerRequest) -> None:
        self._respond(request, 404, {"Content-Type": "text/html; charset=utf-8"}, self._not_found)

    def _redirect(self, request: HTTPServerRequest, target: str) -> None:
        self._respond(request, 302, {"Location": target, "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"})

    def _respond(self, request: HTTPServerRequest, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self._postbox.counts.responses[status] += 1
        connection = request.connection
        assert connection is not None
        fields = HTTPHeaders(headers)
        fields["Cache-Control"] = "no-store"
        fields["Content-Length"] = str(len(body))
        fields["Date"] = format_timestamp(time.time())
        content = b"" if request.method == "HEAD" else body
        connection.write_headers(ResponseStartLine("", status, _PHRASES[status]), fields, content)
        connection.finish()
        # Neither the path, which is the token, nor the query.
        _access.info("%d %s %.2fms", status, request.method, 1000 * request.request_time())


def _peer(request: HTTPServerRequest) -> str:
    """The other end of the connection, and not what ``HTTPServer(xheaders=True)`` makes of headers that anybody can
    send.
    """
    address = getattr(getattr(request.connection, "context", None), "address", None)
    return str(address[0]) if isinstance(address, tuple) and address else str(request.remote_ip)


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
