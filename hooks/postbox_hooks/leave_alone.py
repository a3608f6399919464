"""Links that are better left alone: password resets, magic links, unsubscribing. Off by default; switch it on with
``[[plugin]] use = "leave-alone"``, or ``Postbox(..., plugins=[LeaveAlone()])``.

Such an address is a key to somebody's account: tracked, it would stand in every notification and log of its click. And
who unsubscribes should not be counted for it, nor depend on a redirect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from postbox_plugin import Link, Mail, hookimpl
from postbox_plugin.errors import SettingsError

__all__ = ["RULES", "LeaveAlone"]

RULES: Final[Mapping[str, Sequence[str]]] = {
    "password reset": (
        "reset password",
        "reset your password",
        "reset my password",
        "password reset",
        "password edit",
        "password change",
        "change password",
        "set password",
        "forgot password",
        "forgotten password",
        "recover password",
        "password recovery",
        "recover account",
        "account recovery",
        "accounts reset",
        "type=recovery",
        "action=rp",
    ),
    "magic link": (
        "magic link",
        "magic login",
        "login link",
        "login token",
        "login code",
        "sign in link",
        "sign in token",
        "one time login",
        "one time password",
        "passwordless",
        "mode=signin",
        "auth callback email",
        "clerk ticket",
        "otp",
    ),
    "confirmation": (
        "confirm email",
        "confirm your email",
        "verify email",
        "verify your email",
        "email verification",
        "email confirmation",
        "confirmation token",
        "verification token",
        "verification code",
        "activation token",
        "activation code",
        "type=signup",
        "type=invite",
    ),
    "unsubscribe": (
        "unsubscribe",
        "unsubscription",
        "unsub",
        "opt out",
    ),
}
"""The rules that hold unless others are given: each has a name, and phrases of which one must stand in the address."""

LIST_UNSUBSCRIBE: Final = "List-Unsubscribe"

_URI: Final = re.compile(r"<([^<>]*)>")  # RFC 2369, section 2


class LeaveAlone:
    """Leaves links alone whose address has a phrase of a rule in it, or stands in the header ``List-Unsubscribe``.

    :param rules: the name of each rule with its phrases, in place of :data:`RULES`. A phrase stands in an address if
        its words do, one after the other, with nothing or one character that is no letter between two of them, and no
        further letter before or after: ``opt out`` is found in ``/opt-out?u=1``, ``/optout`` and ``/OPT_OUT/1``, but
        not in ``/adopt-outfit``. Case does not matter, and characters that are no letters mean themselves: ``?key=``.
    :raises SettingsError: if a rule has no phrase, or an empty one.
    """

    def __init__(self, *, rules: dict[str, list[str]] | None = None) -> None:
        self._rules: Final = {
            name: _compiled(name, phrases) for name, phrases in (RULES if rules is None else rules).items()
        }

    @hookimpl(tryfirst=True)  # what is to be left alone needs no tags of another plugin's
    def postbox_link(self, link: Link, mail: Mail) -> Link | None:
        """See :func:`postbox_plugin.hookspecs.postbox_link`."""
        if link.url in _named(mail.header(LIST_UNSUBSCRIBE)):
            return link.replace(track=False, reason=f"leave-alone: {LIST_UNSUBSCRIBE}")
        for name, rule in self._rules.items():
            if rule.search(link.url):
                return link.replace(track=False, reason=f"leave-alone: {name}")
        return None


def _compiled(name: str, phrases: Sequence[str]) -> re.Pattern[str]:
    if not phrases or not all(phrase.strip() for phrase in phrases):
        raise SettingsError(f"rules.{name}", "has no phrase, or an empty one", 'Write for example ["opt out"]')
    return re.compile("|".join(map(_expression, phrases)), re.IGNORECASE)


def _expression(phrase: str) -> str:
    words = phrase.split()
    before = "(?<![a-z])" if words[0][0].isalpha() else ""
    after = "(?![a-z])" if words[-1][-1].isalpha() else ""
    return before + "[^a-z]?".join(map(re.escape, words)) + after


@lru_cache(maxsize=16)
def _named(header: str) -> frozenset[str]:
    """The addresses of a ``List-Unsubscribe`` header. White space in them comes from folding."""
    return frozenset("".join(uri.split()) for uri in _URI.findall(header))
