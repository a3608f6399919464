"""What ``explain`` says beyond what becomes of each link: places, sizes, and what to know before sending."""

from __future__ import annotations

import itertools
import subprocess
import sys
from email.message import EmailMessage

import pytest

from postbox_plugin import Postbox, Report, Settings
from postbox_plugin.explain import CLIPPED_OVER
from postbox_plugin.links.report import Notice


def report(*parts: str, domain: str = "click.tracker.example", **settings: object) -> Report:
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = "reader@example.org"
    message.set_content(parts[0], subtype="html")
    for part in parts[1:]:
        message.add_attachment(part, subtype="html", disposition="inline")
    postbox = Postbox(Settings(domain=domain, keys=["5fYqWk3hTz0nXcR8uJmL1pAaVdGsB7eQ2iOoKxNtHyE"]))
    as_object = postbox.explain(message)
    as_bytes = postbox.explain(message.as_bytes())
    assert as_object.notices == as_bytes.notices
    assert as_object.places == as_bytes.places
    return as_object


def kinds(*parts: str, domain: str = "click.tracker.example") -> list[tuple[str, int | None]]:
    return [(notice.kind, notice.link) for notice in report(*parts, domain=domain).notices]


def test_each_link_has_a_place_in_what_its_author_wrote() -> None:
    first = '<p>\n<a href="https://example.com/1">x</a> <a\n  href=https://example.com/2>y</a>'
    second = '\n<a href="#">z</a>'
    places = report(first, second).places
    assert [(place.part, place.line, place.column) for place in places] == [(0, 2, 10), (0, 3, 8), (1, 2, 10)]


@pytest.mark.parametrize(
    ("text", "href", "expected"),
    [
        ("https://example.com/sale", "https://example.com/sale?a=1", "text is an address"),
        ("www.example.com", "https://example.com/", "text is an address"),
        ("Example.COM/sale.", "http://www.example.com/", "text is an address"),
        ("<b>example</b>.com", "https://example.com/", "text is an address"),
        ("https://bank.example/login", "https://elsewhere.example/", "text differs"),
        ("www.bank.co.uk", "https://bank.example.co.uk/", "text differs"),
        ("https://bank.example", "mailto:a@bank.example", None),  # no host to differ from, and not tracked
        ("bank.example", "https://elsewhere.example/", None),  # no public suffix and no protocol: no address
        ("news.html", "https://example.com/", None),
        ("anna@example.com", "https://example.com/", None),
        ("Read more at example.com", "https://example.com/", None),
        ("Read more", "https://example.com/", None),
    ],
)
def test_a_text_that_is_another_address_is_told(text: str, href: str, expected: str | None) -> None:
    assert [kind for kind, _ in kinds(f'<a href="{href}">{text}</a>')] == ([expected] if expected else [])


def test_a_tracking_domain_of_the_same_owner_shows_no_other_address() -> None:
    html = '<a href="https://example.com/">www.example.com</a>'
    assert kinds(html, domain="click.example.com") == []
    assert kinds(html, domain="click.example.net") == [("text is an address", 0)]


def test_a_link_that_is_not_tracked_can_show_another_address_too() -> None:
    html = '<a href="https://example.com/" postbox:no-track>https://example.net/</a>'
    assert kinds(html) == [("text differs", 0)]


def test_texts_belong_to_their_links() -> None:
    """Where lxml sees other links than the scanner (Outlook's comments), no text is taken for another link's."""
    html = """<a href="https://example.com/a">x</a>
        <!--[if mso]><a href="https://example.com/b">www.example.com</a><![endif]-->
        <a postbox:no-track href="https://example.com/c">y</a> <a postbox:no-track href="https://example.com/c">www.example.net</a>
        <!--[if mso]><a postbox:no-track href="https://example.com/d">z</a><![endif]-->
        <a postbox:no-track href="https://example.com/d">www.example.net</a>
        <a href="https://example.com/e">www.example.com</a>"""
    assert kinds(html) == [("text differs", 3), ("text is an address", 6)]


def test_links_within_a_link_have_their_own_texts() -> None:
    """Links do not nest in a browser: the text after the second ``<a>`` is not the first one's."""
    html = """<a href="https://example.com/1">one<!-- x --> <b>b</b><a href="https://example.com/2">www.example.net</a></a>"""
    assert kinds(html) == [("text differs", 1)]


@pytest.mark.parametrize("unit", ['<a href="https://example.com/">', '<a href="https://example.com/"><p ', "{{ x }}"])
def test_a_megabyte_is_explained_in_time(unit: str) -> None:
    """Explaining takes no time that grows with the square of the size, either."""
    postbox = Postbox(Settings(domain="click.example.com", keys=["5fYqWk3hTz0nXcR8uJmL1pAaVdGsB7eQ2iOoKxNtHyE"]))
    message = EmailMessage()
    message["To"] = "reader@example.org"
    message.set_content(unit * (1_000_000 // len(unit)), subtype="html", cte="8bit")
    places = postbox.explain(message).places
    assert all(earlier.column < later.column for earlier, later in itertools.pairwise(places))


def test_a_message_that_tracking_makes_too_long_for_gmail() -> None:
    link = '<a href="https://example.com/">x</a>'
    (notice,) = report(link + "x" * (CLIPPED_OVER - len(link) - 20)).notices
    assert notice.kind == "clipped"
    assert "from 102.0 KB to 102.1 KB" in notice.text
    (notice,) = report(link + "x" * CLIPPED_OVER).notices
    assert "tracked or not" in notice.text
    assert report(link + "x" * (CLIPPED_OVER - 1000)).notices == ()


@pytest.mark.parametrize("left", ["{{ name }}", "{% if x %}", "*|FNAME|*", "<%= name %>", "%%name%%"])
def test_what_a_template_left_is_told_with_its_line(left: str) -> None:
    assert report(f"<p>Dear\n{left},</p>").notices == (
        Notice(kind="placeholder", text=f"the template left {left} as it is", line=2),
    )


@pytest.mark.parametrize("html", ["{{}}", "{ {a} }", "100%% of it", "", "<!-- -->", "\n", "a * | b | * c"])
def test_nothing_is_told_of_what_is_no_placeholder(html: str) -> None:
    assert report(html).notices == ()


def test_sending_does_not_load_lxml() -> None:
    script = """
import sys
from email.message import EmailMessage
from postbox_plugin import Postbox, Settings, new_key
message = EmailMessage()
message["To"] = "reader@example.org"
message.set_content('<a href="https://example.com/">x</a>', "html")
postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
assert postbox.before_send(message) is not message
assert postbox.before_send(message.as_bytes()) != message.as_bytes()
assert "lxml" not in sys.modules
postbox.explain(message)
assert "lxml" in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
