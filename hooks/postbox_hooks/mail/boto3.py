"""boto3's clients for Amazon SES with click tracking, and for Yandex Cloud Postbox, which speaks the API of SES v2.

Two lines make a client track::

    from postbox_hooks.mail.boto3 import track

    client = boto3.client("sesv2", endpoint_url="https://postbox.cloud.yandex.net", region_name="ru-central1")
    track(client, postbox)

``SendEmail`` and ``SendRawEmail`` of the client ``ses``, and ``SendEmail`` of ``sesv2`` are tracked, before the request
is signed. ``Destination`` and ``Destinations`` decide who a message goes to; without them, and in a raw message only,
its headers do, as with SES. ``Tags`` and ``EmailTags`` are message tags too. Templates are filled in by SES, so mails
made of one are not tracked.

``X-Postbox-Track`` and ``X-Postbox-Tags`` are headers of the raw message, or stand among the ``Headers`` of a simple
one. ``SendEmail`` of ``ses`` has no headers: there a tag ``X-Postbox-Track`` switches a mail off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, TypeAlias

from postbox_hooks._shared import check_postbox, envelope, outermost
from postbox_plugin import Mail, Postbox
from postbox_plugin.errors import MissingExtra

try:
    from botocore.client import BaseClient
except ImportError:
    raise MissingExtra("postbox_hooks.mail.boto3", "boto3", "boto3") from None

__all__ = ["track"]

_ID: Final = "X-Postbox-Message-Id"
_TRACK: Final = "X-Postbox-Track"
_FOR_US: Final = frozenset(("x-postbox-tags", "x-postbox-track"))
_MAX_HEADERS: Final = 15  # of a simple message (SES API v2, Message)
_DONE: Final = "postbox_has_seen_it"

_log = logging.getLogger("postbox.send")

Params: TypeAlias = Mapping[str, Any]


def track(client: BaseClient, postbox: Postbox) -> ExitStack:
    """Make a client send tracking links.

    :param client: a client ``ses`` or ``sesv2``.
    :param postbox: what does the rewriting.
    :returns: what undoes it: by its ``close()``, or at the end of a ``with`` block.
    :raises TypeError: if it is another client, or none, or there is no ``Postbox``.
    """
    service = client.meta.service_model.service_name if isinstance(client, BaseClient) else ""
    if service not in _CHANGES:
        remedy = 'write track(boto3.client("sesv2"), postbox)'
        raise TypeError(f"track() needs a client of boto3 for SES, not {client!r}: {remedy}")
    check_postbox(postbox, "track(client, postbox)")
    handlers = {
        f"provide-client-params.{service}.{operation}": partial(_handle, postbox, change)
        for operation, change in _CHANGES[service].items()
    }
    undo = ExitStack()
    for event, handler in handlers.items():
        client.meta.events.register(event, handler)
        undo.callback(client.meta.events.unregister, event, handler)
    return undo


def _handle(
    postbox: Postbox,
    change: Callable[[Postbox, Params], Params],
    /,
    *,
    params: dict[str, Any],
    context: dict[str, Any],
    **_: object,
) -> None:
    """Called by botocore with the arguments of a call.

    :param params: a dictionary of botocore's own; what is in it is the caller's, and is not changed.
    :param context: of this one call; where a client is tracked twice, it shows.
    """
    with outermost() as first:
        if not first or _DONE in context:
            return
        context[_DONE] = True
        try:
            params.update(change(postbox, params))
        except Exception:
            if postbox.settings.strict:
                raise
            _log.exception("tracking failed; the message goes out as it came")


def _send_raw_email(postbox: Postbox, params: Params) -> Params:
    destinations = params.get("Destinations")
    recipients = envelope(destinations) if destinations else None
    return {"RawMessage": _raw(postbox, params["RawMessage"], recipients, _tags(params.get("Tags")))}


def _send_email(postbox: Postbox, params: Params) -> Params:
    tags = _tags(params.get("Tags"))
    switch = [(_TRACK, value) for name in tags if name.lower() == _TRACK.lower() for value in tags[name]]
    message = params["Message"]
    body = _simple(postbox, message, params.get("Source"), params["Destination"], tags=tags, further=switch)["Body"]
    # Nothing else of what _simple() makes has a place in it.
    changed: dict[str, Any] = {"Message": {**message, "Body": body}}
    if switch:
        changed["Tags"] = [tag for tag in params["Tags"] if tag["Name"].lower() != _TRACK.lower()]
    return changed


def _send_email_v2(postbox: Postbox, params: Params) -> Params:
    content = params["Content"]
    destination = params.get("Destination") or {}
    tags = _tags(params.get("EmailTags"))
    if "Raw" in content:
        recipients = _recipients(destination) or None
        return {"Content": {**content, "Raw": _raw(postbox, content["Raw"], recipients, tags)}}
    if "Simple" in content:
        simple = _simple(postbox, content["Simple"], params.get("FromEmailAddress"), destination, tags=tags)
        return {"Content": {**content, "Simple": simple}}
    return {}


_CHANGES: Final[Mapping[str, Mapping[str, Callable[[Postbox, Params], Params]]]] = {
    "ses": {"SendEmail": _send_email, "SendRawEmail": _send_raw_email},
    "sesv2": {"SendEmail": _send_email_v2},
}


def _raw(postbox: Postbox, raw: Params, recipients: list[str] | None, tags: Mapping[str, list[str]]) -> Params:
    data = raw["Data"]
    if isinstance(data, str):
        data = data.encode()  # as botocore does
    elif not isinstance(data, bytes | bytearray):
        data = data.read()
    return {**raw, "Data": postbox.before_send(data, recipients=recipients, message_tags=tags)}


def _simple(
    postbox: Postbox,
    message: Params,
    sender: str | None,
    destination: Params,
    *,
    tags: Mapping[str, list[str]],
    further: Iterable[tuple[str, str]] = (),
) -> Params:
    """A message in parts, with tracking links in its HTML.

    :param further: what counts as a header, beside those that the message has.
    """
    headers = message.get("Headers") or []
    kept = [header for header in headers if header["Name"].lower() not in _FOR_US]
    changed = {**message, "Headers": kept} if len(kept) < len(headers) else dict(message)
    html = message["Body"].get("Html")
    if not html:
        return changed
    addresses = (("From", sender or ""), *((kind, ", ".join(_of(destination, kind))) for kind in ("To", "Cc")))
    mail = Mail(
        headers=[
            *((name, value) for name, value in addresses if value),
            ("Subject", message["Subject"]["Data"]),
            *((header["Name"], header["Value"]) for header in headers),
            *further,
        ],
        recipients=dict.fromkeys(_recipients(destination)),
        tags=tags,
    )
    tracked = postbox.track_html(html["Data"], mail)
    if tracked != html["Data"]:
        changed["Body"] = {**message["Body"], "Html": {**html, "Data": tracked}}
        others = [header for header in kept if header["Name"].lower() != _ID.lower()]
        if len(others) < _MAX_HEADERS:
            changed["Headers"] = [*others, {"Name": _ID, "Value": mail.message_id}]
    return changed


def _of(destination: Params, kind: str) -> list[str]:
    return list(destination.get(f"{kind}Addresses") or ())


def _recipients(destination: Params) -> list[str]:
    return envelope(address for kind in ("To", "Cc", "Bcc") for address in _of(destination, kind))


def _tags(given: Iterable[Mapping[str, str]] | None) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for tag in given or ():
        tags.setdefault(tag["Name"], []).append(tag["Value"])
    return tags
