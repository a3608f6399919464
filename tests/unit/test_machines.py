"""Which clicks are taken for a machine's, and which must not be."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
import pytest

from postbox_hooks.machines import MESSAGES, MachineClassifier
from postbox_plugin import Click, Postbox, Settings, Verdict, new_key
from postbox_plugin.testing import sample_click

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
PEOPLE = [
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {WEBKIT} Version/17.4 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.1; WOW64; Trident/7.0; Microsoft Outlook 16.0.5056; MSOffice 16)",
    f"Mozilla/5.0 (Linux; Android 13; CUBOT NOTE 20) {WEBKIT} Chrome/112 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; rv:115.0) Gecko/20100101 Thunderbird/115.0",
    f"Mozilla/5.0 (Linux; Android 14; SM-A515F) {WEBKIT} YaBrowser/24.4 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0",
]


def made(
    *, user_agent: str = PEOPLE[0], message: str = "QA_JPkU2fkpIWdkx", index: int = 0, seconds: float = 60
) -> Click:
    """A click so many seconds after the message was sent."""
    click = sample_click()
    at = f"2026-04-25T18:{8 + int(seconds // 60):02}:{4 + seconds % 60:09.6f}+00:00"
    return msgspec.structs.replace(
        click,
        mail=msgspec.structs.replace(click.mail, message_id=message),
        click=msgspec.structs.replace(click.click, user_agent=user_agent, timestamp=at),
        tracking=msgspec.structs.replace(click.tracking, link_index=index),
    )


def reason(click: Click, headers: Mapping[str, str] | None = None, **options: float) -> str:
    verdict = MachineClassifier(**options).postbox_classify(click, headers or {})  # type: ignore[arg-type]
    assert verdict is None or verdict.verdict == "machine"
    return verdict.reason if verdict else ""


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_what_people_read_mail_with_is_no_machine(user_agent: str) -> None:
    assert reason(made(user_agent=user_agent)) == ""


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("", "no user agent"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler"),
        ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "crawler"),
        ("curl/8.5.0", "crawler"),
        ("python-requests/2.31.0", "crawler"),
    ],
)
def test_a_user_agent_gives_a_machine_away(user_agent: str, expected: str) -> None:
    assert reason(made(user_agent=user_agent)) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Sec-Purpose", "prefetch", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender", "prefetch"),
        ("Sec-Purpose", "prefetch; anonymous-client-ip", "prefetch"),
        ("Purpose", "prefetch", "prefetch"),
        ("X-Purpose", "preview", "prefetch"),
        ("X-Moz", "prefetch", "prefetch"),
        ("Sec-Purpose", "", ""),
        ("Sec-Purpose", "reading", ""),
        ("Sec-Purpose", "no-prefetch", ""),
        ("Sec-Fetch-Dest", "prefetch", ""),
    ],
)
def test_a_prefetch_says_so(name: str, value: str, expected: str) -> None:
    assert reason(made(), {name: value}) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, True), (1.9, True), (2.0, False), (30.0, False)])
def test_nobody_reads_a_mail_in_a_moment(seconds: float, expected: bool) -> None:
    assert reason(made(seconds=seconds)) == ("moments after sending" if expected else "")
    assert reason(made(seconds=seconds), moments=0) == ""


def test_several_links_at_once_are_a_scanner_s() -> None:
    """From the third on: the first two were classified before there was a third."""
    now = 100.0
    classifier = MachineClassifier(clock=lambda: now)
    verdicts = [classifier.postbox_classify(made(index=index), {}) for index in range(4)]
    assert verdicts == [None, None, *[Verdict("machine", "several links at once")] * 2]
    assert classifier.postbox_classify(made(index=1, message="another-message"), {}) is None


def test_a_person_may_press_a_link_again_and_others_later() -> None:
    now = 100.0
    classifier = MachineClassifier(clock=lambda: now)
    for index in (0, 0, 0, 0, 1, 0, 1):
        assert classifier.postbox_classify(made(index=index), {}) is None
    now += 10
    for index in range(2, 8):
        now += 0.6
        assert classifier.postbox_classify(made(index=index), {}) is None


def test_only_so_many_messages_are_remembered() -> None:
    classifier = MachineClassifier()
    for number in range(MESSAGES + 100):
        classifier.postbox_classify(made(message=f"message-{number}"), {})
    assert len(classifier._latest) == MESSAGES


def test_a_rule_that_takes_everybody_for_a_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="links must be 2 or more, not 1"):
        MachineClassifier(links=1)


def test_it_is_on_once_installed_and_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(domain="click.example.com", keys=[new_key()])
    states = []
    for disabled in ("", "machines"):
        monkeypatch.setenv("POSTBOX_DISABLED_PLUGINS", disabled)
        (info,) = (one for one in Postbox(settings).plugins_report() if one.name == "machines")
        states.append(info.state)
    assert states == ["active", "blocked"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
