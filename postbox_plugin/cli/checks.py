"""The checks of ``postbox check``: from the settings to a link that opens where readers open it."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from postbox_plugin.config import set_by_environment
from postbox_plugin.errors import SettingsError
from postbox_plugin.location import location
from postbox_plugin.postbox import Postbox
from postbox_plugin.settings import Settings
from postbox_plugin.tokens.keyring import KeyRing
from postbox_plugin.tokens.payload import MessageFacts
from postbox_plugin.tokens.seal import MessageSealer

__all__ = ["Finding", "run_checks"]

TIMEOUT: Final = 10.0
TARGET: Final = "https://example.com/?postbox=check"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check.

    :ivar check: what was looked at.
    :ivar state: ``skipped`` where an earlier failure leaves nothing to look at, or nothing is set up.
    :ivar detail: what was found.
    :ivar remedy: what to do if it failed.
    """

    check: str
    state: Literal["ok", "failed", "skipped"]
    detail: str
    remedy: str = ""


def run_checks(path: Path | None) -> Iterator[Finding]:
    """Check after check; one that fails does not stop the others that can still be made.

    :param path: the file of settings, or ``None`` for the environment alone.
    """
    sources = ([] if path is None else [str(path)]) + set_by_environment(os.environ)
    try:
        postbox = Postbox.from_env() if path is None else Postbox.from_file(path)
    except SettingsError as error:
        yield Finding(
            check="settings", state="failed", detail=f"{error.where}: {error.key}: {error.problem}", remedy=error.remedy
        )
        return
    settings = postbox.settings
    yield Finding(check="settings", state="ok", detail=f"from {', '.join(sources)}")
    ring = KeyRing(settings.keys)
    ids = ", ".join(key.id for key in ring)
    yield Finding(check="keys", state="ok", detail=f"{len(settings.keys)}, with the ids {ids}; {ring.sealing.id} seals")
    token = _sealed(ring)
    yield _opens_here(postbox, token)
    yield _spool(Path(settings.spool))
    yield from _plugins(postbox)
    for scheme in ("http", "https"):
        yield _opens_there(settings, scheme, token)


def _sealed(ring: KeyRing) -> str:
    facts = MessageFacts(message_id="postbox-check", sent_at=datetime.now(UTC))
    return MessageSealer(ring.sealing, facts).seal(TARGET, 0, {})


def _opens_here(postbox: Postbox, token: str) -> Finding:
    opened = postbox.open(f"{postbox.settings.origin('https')}{postbox.settings.path}{token}").url
    if opened != TARGET:
        return Finding(
            check="links",
            state="failed",
            detail=f"a link to {TARGET} opens as {opened}",
            remedy="Install postbox-plugin and cryptography again: one of the two is damaged",
        )
    return Finding(check="links", state="ok", detail="what is sealed here opens here")


def _spool(spool: Path) -> Finding:
    if not spool.exists():
        parent = next(folder for folder in spool.absolute().parents if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            remedy = f"Make {spool}, owned by the user that the service runs as, with mode 700"
            return Finding(
                check="spool", state="failed", detail=f"{spool} is missing, and {parent} is not writable", remedy=remedy
            )
        return Finding(check="spool", state="ok", detail=f"{spool} will be made by the service")
    try:
        with tempfile.TemporaryFile(dir=spool):
            mode = spool.stat().st_mode & 0o777
    except OSError as error:
        remedy = f"Make {spool} a folder that the user of the service can write to"
        return Finding(
            check="spool", state="failed", detail=f"{spool} is not writable ({error.strerror})", remedy=remedy
        )
    if mode & 0o077:
        detail = f"{spool} is open to other users (mode {mode:o}), and clicks are personal data"
        return Finding(check="spool", state="failed", detail=detail, remedy=f"chmod 700 {spool}")
    return Finding(check="spool", state="ok", detail=f"{spool} is writable and private")


def _plugins(postbox: Postbox) -> Iterator[Finding]:
    for info in postbox.plugins_report():
        check = f"{'notifier' if info.kind == 'notifier' else 'plugin'} {info.name}"
        if info.state == "failed":
            remedy = "Correct it, or block it with POSTBOX_DISABLED_PLUGINS"
            yield Finding(check=check, state="failed", detail=info.error, remedy=remedy)
        elif info.state == "active":
            yield Finding(check=check, state="ok", detail=info.source)
    if not postbox.settings.notify:
        yield Finding(
            check="notifiers", state="skipped", detail="there is no [[notify]] block: only plugins get clicks"
        )


def _opens_there(settings: Settings, scheme: str, token: str) -> Finding:
    origin = settings.origin(scheme)
    port = settings.https_port if scheme == "https" else settings.http_port
    try:
        status, target = _head(scheme, settings.domain, port, settings.path + token)
    except socket.gaierror as error:
        detail, remedy = f"{settings.domain} does not resolve ({error.strerror})", "Add an A or AAAA record for it"
    except ssl.SSLCertVerificationError as error:
        detail = f"{origin} has no valid certificate ({error.verify_message})"
        remedy = f"Get one for {settings.domain} from an authority that browsers trust, with its chain"
    except (OSError, http.client.HTTPException) as error:
        detail = f"{origin} does not answer ({error or type(error).__name__})"
        remedy = "Start `postbox serve`, or point a reverse proxy's port there to it"
    else:
        if status == http.client.FOUND and target == location(TARGET):
            return Finding(check=scheme, state="ok", detail=f"what is sealed here opens at {origin}")
        if status == http.client.NOT_FOUND:
            detail = f"what is sealed here does not open at {origin}"
            remedy = "Give the service there the same keys and path as here"
        else:
            detail = f"{origin} answered {status} instead of redirecting"
            remedy = f"See that requests below {settings.path} reach the redirect service"
    return Finding(check=scheme, state="failed", detail=detail, remedy=remedy)


def _head(scheme: str, host: str, port: int, path: str) -> tuple[int, str]:
    """Status and Location. HEAD, which redirects as GET does and is no click."""
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
        if scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    )
    try:
        connection.request("HEAD", path, headers={"User-Agent": "postbox check"})
        response = connection.getresponse()
        return response.status, response.getheader("Location", "")
    finally:
        connection.close()
