"""Real servers for tests: the redirect routes on a free port, and what a reader's browser does with a link."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from postbox_plugin import Postbox, Settings, new_key
from postbox_plugin.redirect import routes

__all__ = ["get", "hrefs", "redirecting", "settings"]


def settings(tmp_path: Path, port: int = 80, **changes: Any) -> Settings:
    """Settings of an installation on this machine."""
    given = {"domain": "localhost", "http_port": port, "keys": [new_key()], "spool": str(tmp_path / "spool")}
    given["stop_limit"] = 0.5  # a test that leaves a call hanging does not wait for it
    return Settings(**{**given, **changes})


@asynccontextmanager
async def redirecting(tmp_path: Path, *plugins: object, **changes: Any) -> AsyncIterator[Postbox]:
    """A running Postbox whose links lead to a real server."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    postbox = Postbox(settings(tmp_path, socket.getsockname()[1], **changes), plugins)
    server = HTTPServer(Application([*routes(postbox)]))
    server.add_socket(socket)
    try:
        async with postbox.running():
            yield postbox
    finally:
        server.stop()
        await server.close_all_connections()


async def get(url: str, method: str = "GET", **options: Any) -> HTTPResponse:
    """The answer to one request; redirects are not followed."""
    url = url.replace("//localhost", "//127.0.0.1")
    body = b"" if method in ("POST", "PUT") else None
    return await AsyncHTTPClient(force_instance=True).fetch(
        url, method=method, follow_redirects=False, raise_error=False, body=body, **options
    )


def hrefs(html: str) -> list[str]:
    """The values of all href attributes."""
    return re.findall(r"""href=["']?([^"'\s>]*)""", html)
