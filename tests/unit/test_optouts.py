"""Other senders' opt-outs and link tags: heeded once the plugin is on, and nothing changes before."""

from __future__ import annotations

import pytest

from postbox_hooks.optouts import OptOuts
from postbox_plugin import Link, Mail, Postbox, Settings, new_key

SETTINGS = Settings(domain="click.example.com", keys=[new_key()], strict=True)
MAIL = {"sender": "shop@example.com", "recipient": "reader@example.org"}


def link_of(tag: str, postbox: Postbox | None = None) -> Link:
    """What becomes of the one link of a mail."""
    used = postbox or Postbox(SETTINGS, plugins=[OptOuts()])
    raw = f"From: {MAIL['sender']}\nTo: {MAIL['recipient']}\nContent-Type: text/html\n\n<p>{tag}x</a></p>\n".encode()
    (link,) = used.explain(raw).links
    return link


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("ses:no-track", "ses:no-track"),
        ('SES:NO-TRACK=""', "ses:no-track"),
        ('clicktracking="off"', "clicktracking"),
        ("clicktracking=OFF", "clicktracking"),
        ("data-pm-no-track", "data-pm-no-track"),
        ('data-pm-no-track="true"', "data-pm-no-track"),
        ('data-msys-clicktrack="0"', "data-msys-clicktrack"),
        ("mc:disable-tracking", "mc:disable-tracking"),
        ('disable-tracking="true"', "disable-tracking"),
        ("disable-tracking", "disable-tracking"),
    ],
)
def test_opt_outs(attribute: str, reason: str) -> None:
    """Each leaves its link alone, and explain names it; without the plugin it means nothing."""
    tag = f'<a {attribute} href="https://example.com/">'
    assert (link_of(tag).track, link_of(tag).reason) == (False, reason)
    assert link_of(tag, Postbox(SETTINGS)).track
    # The tag is not ours to change.
    assert Postbox(SETTINGS, plugins=[OptOuts()]).track_html(tag, Mail(**MAIL)) == tag


@pytest.mark.parametrize(
    "attribute",
    ['clicktracking="on"', 'data-msys-clicktrack="1"', 'disable-tracking="false"', 'class="ses:no-track"', "track"],
)
def test_what_is_no_opt_out(attribute: str) -> None:
    """The same attributes with the opposite value, and words elsewhere in the tag, leave the link tracked."""
    assert link_of(f'<a {attribute} href="https://example.com/">').track


@pytest.mark.parametrize(
    ("attributes", "tags"),
    [
        ('ses:tags="product:book;genre:scifi;"', {"product": ("book",), "genre": ("scifi",)}),
        ('ses:tags="a:1; a:2"', {"a": ("1", "2")}),
        ('ses:tags="a:1;b:2" postbox:tags="b:3"', {"a": ("1",), "b": ("3",)}),
        ('postbox:tags="b:3"', {"b": ("3",)}),
        ('ses:tags="a:&quot;x&quot;"', {"a": ('"x"',)}),
    ],
)
def test_link_tags(attributes: str, tags: dict[str, tuple[str, ...]]) -> None:
    """Amazon's link tags come with the click; ours outweigh them, key by key."""
    link = link_of(f'<a {attributes} href="https://example.com/">')
    assert link.track
    assert dict(link.tags) == tags


def test_a_block_of_the_settings_switches_it_on() -> None:
    """[[plugin]] use = "optouts" is all it takes."""
    used = Postbox.from_mapping({"domain": "click.example.com", "keys": [new_key()], "plugin": [{"use": "optouts"}]})
    assert link_of('<a ses:no-track href="https://example.com/">', used).reason == "ses:no-track"
