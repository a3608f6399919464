"""The notifier ``webhook``: posts each click to an address of yours, signed as the Standard Webhooks specification
says (https://www.standardwebhooks.com)::

    [[notify]]
    use = "webhook"
    url = "https://app.example.com/hooks/clicks"
    secret = "env:WEBHOOK_SECRET"

The body is the notification as JSON; ``webhook-id`` is its ``eventId``, the same on every repetition. A 2xx status
acknowledges the click, 410 Gone pauses the notifier, ``Retry-After`` is honoured, and after anything else the click
comes again later. Connections are kept open between deliveries.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postbox_plugin import Click, PostboxError, hookimpl
from postbox_plugin.errors import MissingExtra, PauseNotifier, RetryLater, SettingsError

if TYPE_CHECKING:
    import aiohttp
    from standardwebhooks import Webhook

__all__ = ["WebhookError", "WebhookNotifier"]

BODY_LIMIT: Final = 8192
"""Bytes of an answer's body that are read, so that its connection can be used again; a longer body costs the
connection."""
BODY_TIME: Final = 1.0
"""Seconds that such a body may take."""

_OURS: Final = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "transfer-encoding", "upgrade", "webhook-id", "webhook-signature", "webhook-timestamp",
})  # fmt: skip
_NEW_ONE: Final = 'Make one with  echo "whsec_$(openssl rand -base64 32)"  and give it to the receiver too'
_URL = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_HEADER_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")  # RFC 9110, 5.5, without what is obsolete
_SECONDS = re.compile(r"[0-9]+")


class WebhookError(PostboxError):
    """A delivery failed: which host, and what it did. Neither the address's path and query nor a secret is in it."""


class WebhookNotifier:
    """Posts each click to one address.

    :param url: where to: http or https, in ASCII as it is to be sent.
    :param secret: signs each notification (HMAC-SHA256): ``whsec_`` and 24 to 64 random bytes in base64.
    :param headers: further headers, for example ``Authorization``; their values are taken for secrets too.
    :param ca_file: a PEM file with the authorities to trust in place of the system's.
    :param connect_timeout: seconds to look the host up, connect and shake hands.
    :param request_timeout: seconds for a whole delivery, connecting included. The host's own ``timeout`` (30 s) cuts a
        longer one.
    :raises SettingsError: if one of them cannot work; it says what to write.
    :raises MissingExtra: if aiohttp or standardwebhooks is not installed.
    """

    def __init__(
        self,
        *,
        url: str,
        secret: str = "",
        headers: dict[str, str] | None = None,
        ca_file: str = "",
        connect_timeout: float = 5.0,
        request_timeout: float = 20.0,
    ) -> None:
        self._host: Final = _checked_host(url)
        self._url: Final = url
        self._signer: Final = _signer(secret)
        # A body is not looked at, so it need not be compressed.
        always = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        self._headers: Final = always | _checked_headers(headers or {})
        self._ca_file: Final = ca_file
        self._connect_timeout: Final = _checked_seconds("connect_timeout", connect_timeout)
        self._request_timeout: Final = _checked_seconds("request_timeout", request_timeout)
        self._session: aiohttp.ClientSession | None = None

    @hookimpl
    async def postbox_start(self) -> None:
        """Read the authorities and make the pool of connections, which is empty until the first click."""
        import aiohttp  # noqa: PLC0415 - an extra, and slow to import
        from yarl import URL  # noqa: PLC0415

        self._target = URL(self._url, encoded=True)
        self._session = aiohttp.ClientSession(
            # How many are open at once is the host's to limit.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls()),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            headers={"User-Agent": "postbox-plugin"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Deliver one click.

        :raises PauseNotifier: if the answer is 410.
        :raises RetryLater: if another answer than 2xx says in ``Retry-After`` when to come again.
        :raises WebhookError: if anything else than a 2xx came of it.
        """
        import aiohttp  # noqa: PLC0415

        # Not aiohttp's own total, which is rounded up to whole seconds and would not span the second attempt.
        limit = asyncio.timeout(self._request_timeout)
        try:
            async with limit:
                try:
                    await self._post(click)
                except aiohttp.ClientConnectionError as error:
                    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
                        raise
                    # Most likely the receiver closed an idle connection just when it was wanted again.
                    await self._post(click)
        except TimeoutError:
            if limit.expired():
                raise WebhookError(f"{self._host} did not answer within {self._request_timeout:g} s") from None
            raise WebhookError(f"no connection to {self._host} within {self._connect_timeout:g} s") from None
        except aiohttp.ClientError as error:
            # Without its cause: aiohttp's errors hold the whole address.
            raise WebhookError(self._explained(error)) from None

    async def _post(self, click: Click) -> None:
        assert self._session is not None, "postbox_start comes first"
        body = click.to_json()
        async with self._session.post(
            self._target, data=body, headers=self._signed(click.event_id, body), allow_redirects=False
        ) as response:
            await _finish(response)
            if not 200 <= response.status < 300:
                raise self._refusal(response.status, response.headers)

    def _signed(self, event_id: str, body: bytes) -> dict[str, str]:
        # The time of this attempt, not of the click: receivers refuse what is more than minutes old.
        now = datetime.now(UTC)
        return self._headers | {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(event_id, now, body.decode()),
        }

    def _refusal(self, status: int, headers: Mapping[str, str]) -> PostboxError:
        said = f"{self._host} answered {_described(status)}"
        if status == HTTPStatus.GONE:
            return PauseNotifier(f"{said}: it wants no more notifications at this address")
        after = _retry_after(headers.get("Retry-After", ""))
        if after > 0:
            return RetryLater(after, f"{said} and asked for {after:.0f} s of patience")
        if 300 <= status < 400:
            place = _destination(headers.get("Location", ""))
            return WebhookError(f"{said}, which leads to {place}. Redirects are not followed: change url")
        return WebhookError(said)

    def _explained(self, error: aiohttp.ClientError) -> str:
        import aiohttp  # noqa: PLC0415

        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
            return f"the certificate of {self._host} is not trusted: {why}. Does ca_file lack its authority?"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"cannot connect to {self._host}: {_why(error.os_error)}"
        if isinstance(error, aiohttp.ClientConnectionError):
            return f"{self._host} closed the connection without an answer"
        return f"{self._host} did not answer in HTTP ({type(error).__name__})"

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:  # ssl.SSLError is one: a file without a certificate
            reason = getattr(error, "reason", None) or error.strerror
            raise SettingsError(
                "ca_file", f"cannot read certificates from {self._ca_file!r} ({reason})", "Name a PEM file"
            ) from None


async def _finish(response: aiohttp.ClientResponse) -> None:
    """Read a short body to its end: the connection can be used again only then. What it says is of no interest, and
    nor is whether it ever comes: the status has been given.
    """
    import aiohttp  # noqa: PLC0415

    if response.content.is_eof():
        return
    limit = asyncio.timeout(BODY_TIME)
    size = 0
    try:
        async with limit:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > BODY_LIMIT:
                    break
    except TimeoutError:
        if not limit.expired():
            raise
    except aiohttp.ClientError:
        pass


def _why(error: OSError) -> str:
    """The system's words. asyncio has the address in their place."""
    if error.errno and (error.strerror or "").startswith("Connect call failed"):
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__


def _described(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _destination(location: str) -> str:
    """Where a redirect leads, as far as that can hold no secret."""
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.hostname}" if parts.scheme and parts.hostname else "another address"
    except ValueError:
        return "another address"


def _retry_after(value: str) -> float:
    """Seconds to wait, from ``Retry-After`` (RFC 9110, 10.2.3): a number of them, or a date in any of the three forms
    of RFC 9110, 5.6.7. 0 without one that can be read, and for one in the past.
    """
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        # The form of C's asctime() has no zone; all of HTTP is UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _checked_host(url: str) -> str:
    """Host, and port where the address has one, as errors name it."""
    example = 'Write for example "https://app.example.com/hooks/clicks"'
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("url", "is not an address", example) from None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError("url", "is not an http or https address with a host", example)
    if not _URL.fullmatch(url):
        raise SettingsError("url", "has blanks or is not ASCII", "Percent-encode it, and write the host as xn--...")
    if "@" in parts.netloc:
        raise SettingsError("url", "has a user name", 'Write headers = { Authorization = "Basic ..." } instead')
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _signer(secret: str) -> Webhook:
    if not secret:
        raise SettingsError("secret", "is missing: without it receivers cannot tell ours from forged ones", _NEW_ONE)
    prefix, text = secret[:6], secret[6:]
    try:
        # The library reads base64 leniently and would sign with what is left of a mistyped secret.
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if prefix != "whsec_" or not 24 <= size <= 64:
        raise SettingsError("secret", "is not whsec_ followed by 24 to 64 bytes in base64", _NEW_ONE)
    try:
        import aiohttp  # noqa: F401, PLC0415 - when settings are read is a better time to miss it than when clicks come
        from standardwebhooks import Webhook  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("the notifier webhook", error.name or "a library", "webhook") from error
    return Webhook(secret)


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        key = f"headers.{name}"
        if not _HEADER_NAME.fullmatch(name):
            raise SettingsError("headers", f"{name!r} is no header name", 'Write for example { Authorization = "..." }')
        if name.lower() in _OURS:
            raise SettingsError(key, "is written by the notifier itself", "Remove it")
        if not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(key, "is empty, or holds what a header value cannot", "Write printable ASCII")
    return headers


def _checked_seconds(key: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise SettingsError(key, f"{value} is no number of seconds to wait", "Write for example 5.0")
    return value
