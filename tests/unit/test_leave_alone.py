"""Links that are better left alone: by rules that a user sees and edits, each named in the report."""

from __future__ import annotations

import pytest

from postbox_hooks.leave_alone import RULES, LeaveAlone
from postbox_hooks.optouts import OptOuts
from postbox_plugin import Link, Postbox, Settings, new_key
from postbox_plugin.errors import SettingsError

SETTINGS = Settings(domain="click.example.com", keys=[new_key()], strict=True)


def link_of(url: str, *plugins: object, headers: str = "") -> Link:
    """What becomes of the one link of a mail."""
    html = f'<a ses:tags="a:b" href="{url}">x</a>'
    raw = f"From: a@example.com\nTo: b@example.org\n{headers}Content-Type: text/html\n\n{html}\n".encode()
    (link,) = Postbox(SETTINGS, plugins=plugins or [LeaveAlone()]).explain(raw).links
    return link


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        # As the frameworks of this field build them.
        ("https://example.com/users/password/edit?reset_password_token=x3Kq", "password reset"),
        ("https://example.com/accounts/reset/MQ/c5y-8a2/", "password reset"),
        ("https://example.com/password_reset/confirm/MQ/set-password/", "password reset"),
        ("https://example.com/reset-password/8c1f?email=a%40example.com", "password reset"),
        ("https://example.com/wp-login.php?action=rp&amp;key=x&amp;login=a", "password reset"),
        ("https://example.com/__/auth/action?mode=resetPassword&amp;oobCode=x", "password reset"),
        ("https://example.com/auth/v1/verify?token=x&amp;type=recovery", "password reset"),
        ("https://example.com/#/ForgotPassword/8c1f", "password reset"),
        ("https://example.com/auth/v1/verify?token=x&amp;type=magiclink", "magic link"),
        ("https://example.com/api/auth/callback/email?token=x&amp;email=a", "magic link"),
        ("https://example.com/magic-link/8c1f", "magic link"),
        ("https://example.com/passwordless/verify_redirect?code=1", "magic link"),
        ("https://example.com/login?otp=123456", "magic link"),
        ("https://example.com/confirmation?confirmation_token=x", "confirmation"),
        ("https://example.com/verify-email/8c1f", "confirmation"),
        ("https://example.com/unsubscribe?u=1", "unsubscribe"),
        ("https://UNSUB.example.com/1", "unsubscribe"),
        ("https://example.com/list/opt_out/1", "unsubscribe"),
        ("https://example.com/OptOut.aspx?u=1", "unsubscribe"),
    ],
)
def test_the_shipped_rules(address: str, rule: str) -> None:
    """Addresses that are keys to an account, or leave a list, are left alone, and explain names the rule."""
    link = link_of(address)
    assert (link.track, link.reason) == (False, f"leave-alone: {rule}")


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/",
        "https://example.com/products/password-manager",
        "https://example.com/adopt-outfit",
        "https://example.com/stop-outage",
        "https://example.com/login",
        "https://example.com/reset/",
        "https://example.com/subscribe?token=1",
        "https://example.com/blog/sunsubtitle",
        "https://photos.example.com/",
    ],
)
def test_what_they_do_not_take(address: str) -> None:
    """Words within other words, and addresses that everybody may have, are tracked."""
    assert link_of(address).track


def test_what_list_unsubscribe_names() -> None:
    """The address of the header is left alone wherever else it stands; folded and beside a mailto."""
    headers = "List-Unsubscribe: <mailto:leave@example.com?subject=x>,\n <https://example.com/l/8c1f?a=1&b=\n 2>\n"
    link = link_of("https://example.com/l/8c1f?a=1&amp;b=2", headers=headers)
    assert link.reason == "leave-alone: List-Unsubscribe"
    assert link_of("https://example.com/l/8c1f", headers=headers).track


def test_rules_of_ones_own_replace_the_shipped_ones() -> None:
    """A user's rules are all the rules there are; words and marks are found in any case."""
    own = LeaveAlone(rules={"vault": ["secret file", "?key=", "https://id.example.com/"]})
    for address in ("https://example.com/Secret_File/1", "https://example.com/?KEY=abc", "https://id.example.com/x"):
        assert link_of(address, own).reason == "leave-alone: vault"
    for address in ("https://example.com/unsubscribe", "https://example.com/?monkey=1", "https://example.com/secrets"):
        assert link_of(address, own).track


def test_it_is_asked_before_others() -> None:
    """A plugin with tags for the link does not keep it from being left alone, whatever the order given."""
    assert link_of("https://example.com/unsubscribe", OptOuts(), LeaveAlone()).reason == "leave-alone: unsubscribe"
    assert dict(link_of("https://example.com/", OptOuts(), LeaveAlone()).tags) == {"a": ("b",)}


def test_the_settings_hold_the_rules() -> None:
    """[[plugin]] use = "leave-alone" switches it on; [plugin.rules] edits it, and mistakes name their place."""
    base = {"domain": "click.example.com", "keys": [new_key()]}
    block = {"use": "leave-alone", "rules": {"mine": ["my words"]}}
    raw = (
        b"From: a@example.com\nTo: b@example.org\nContent-Type: text/html\n\n<a href=https://example.com/my-words>x</a>"
    )
    (link,) = Postbox.from_mapping(base | {"plugin": [block]}).explain(raw).links
    assert link.reason == "leave-alone: mine"
    for rules in ({"mine": []}, {"mine": [" "]}):
        with pytest.raises(SettingsError, match=r"plugin\[0\]\.rules\.mine: has no phrase"):
            Postbox.from_mapping(base | {"plugin": [block | {"rules": rules}]})
    with pytest.raises(SettingsError, match=r"plugin\[0\]\.rules: has the wrong type.*Write a table of lists of texts"):
        Postbox.from_mapping(base | {"plugin": [block | {"rules": ["my words"]}]})


def test_every_shipped_phrase_finds_itself() -> None:
    """No phrase of the shipped rules is one that can never be found."""
    for name, phrases in RULES.items():
        for phrase in phrases:
            own = LeaveAlone(rules={name: [phrase]})
            for separator in ("-", "_", "/", ""):
                address = f"https://example.com/?{phrase.replace(' ', separator)}"
                assert not link_of(address, own).track, address
