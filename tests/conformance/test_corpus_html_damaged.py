"""The HTML templates of the corpus after something happened to them: cut, mixed, some characters changed."""

from __future__ import annotations

from conformance.corpus import files, installation, needs_corpus, restored
from conformance.opinions import links, our_tags, reference_tags
from conformance.profiles import few, patient
from hypothesis import given
from hypothesis import strategies as st

from postbox_plugin import Mail

pytestmark = [needs_corpus, patient]

SMALL = [text for text in (path.read_bytes().decode("utf-8") for path in files("html")) if len(text) < 20_000]
# What decides where a tag, an attribute or a comment begins and ends.
CHARACTERS = "<>\"'=/!-&;? \n\0a"


@st.composite
def damaged(draw: st.DrawFn) -> str:
    html = draw(st.sampled_from(SMALL))
    start = draw(st.integers(0, len(html)))
    html = html[start : start + draw(st.integers(0, 4000))]
    for kind in draw(st.lists(st.sampled_from(("drop", "splice", "change")), max_size=4)):
        position = draw(st.integers(0, len(html)))
        if kind == "drop":
            html = html[:position] + html[position + draw(st.integers(0, 200)) :]
        elif kind == "splice":
            other = draw(st.sampled_from(SMALL))
            begin = draw(st.integers(0, len(other)))
            html = html[:position] + other[begin : begin + draw(st.integers(0, 1000))] + html[position:]
        else:
            html = html[:position] + draw(st.text(CHARACTERS, max_size=8)) + html[position + 1 :]
    return html


if SMALL:

    @few
    @given(damaged())
    def test_damaged_template(html: str) -> None:
        """Its links are those that html5lib sees, and with their values put back it is what it was."""
        assert links(our_tags(html)) == links(reference_tags(html))
        postbox = installation()
        tracked = postbox.track_html(html, Mail(sender="shop@example.com", recipient="one@example.com"))
        assert restored(tracked, html, postbox) == html


def test_there_are_templates_to_damage() -> None:
    assert len(SMALL) > 100
