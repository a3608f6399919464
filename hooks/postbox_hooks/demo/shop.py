"""The shop that the demo's links lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from tornado.routing import Rule
from tornado.template import Loader
from tornado.web import RequestHandler, StaticFileHandler, url

__all__ = ["PATH", "shop_routes"]

PATH: Final = "/shop"
"""Where the shop begins."""

_HERE: Final = Path(__file__).parent
_PAGES: Final = Loader(str(_HERE / "page"))


def shop_routes() -> list[Rule]:
    """The rules for a Tornado application: pictures and style, one page that is out of order, and a page for every
    other address.
    """
    return [
        url(rf"{PATH}/images/(.*)", StaticFileHandler, {"path": str(_HERE / "images")}),
        url(rf"{PATH}/style/(.*\.css)", StaticFileHandler, {"path": str(_HERE / "page")}),
        url(rf"{PATH}/sold-out/.*", SoldOut),
        url(rf"{PATH}(?:/.*)?", Arrival),
    ]


class Arrival(RequestHandler):
    """Says where the reader arrived, and with what."""

    status = 200

    def get(self) -> None:
        """Answer with a page."""
        request = self.request
        path = unquote(request.path).removeprefix(PATH).strip("/")
        self.set_status(self.status)
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'")
        self.finish(
            _PAGES.load("shop.html").generate(
                path=PATH,
                title=path.rpartition("/")[2].replace("-", " ").capitalize() or "Home",
                address=f"{request.protocol}://{request.host}{unquote(request.path)}",
                parameters=parse_qsl(request.query, keep_blank_values=True),
                referrer=request.headers.get("Referer", ""),
                sold_out=self.status != 200,
            )
        )


class SoldOut(Arrival):
    """A page that answers with an error, as real ones sometimes do: the click was notified all the same."""

    status = 410
