"""Every raw message of the corpus, whole and damaged: rewritten without harm, or not at all."""

from __future__ import annotations

import email
import email.policy
import re
from pathlib import Path

import pytest
from conformance.corpus import files, installation, needs_corpus
from conformance.messages import check_sent
from conformance.profiles import few, patient
from hypothesis import given
from hypothesis import strategies as st

pytestmark = [needs_corpus, patient]

PATHS = files("eml")
MESSAGES = [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in PATHS]
SIGNATURE = re.compile(rb"^(?:DKIM-Signature|ARC-Seal)(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)
POLICIES = [email.policy.compat32, email.policy.default, email.policy.SMTP, email.policy.SMTPUTF8]


def raw_of(path: Path) -> bytes:
    """A message as if it were still to be signed: most of the corpus's HTML mails were already."""
    return SIGNATURE.sub(b"X-Was-Signed", path.read_bytes())


@pytest.mark.parametrize("path", MESSAGES)
def test_message_as_it_is(path: Path) -> None:
    """Only what may change of a raw message changes; one that is signed is left as it is."""
    postbox = installation()
    raw = path.read_bytes()
    sent = postbox.before_send(raw, recipients=["one@example.com"])
    check_sent(raw, sent, postbox)
    if SIGNATURE.search(raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0]):
        assert sent == raw


@pytest.mark.parametrize("path", MESSAGES)
def test_message_before_it_is_signed(path: Path) -> None:
    """Likewise without its signature, and with the other line endings."""
    postbox = installation()
    raw = raw_of(path)
    with_lf = raw.replace(b"\r\n", b"\n")
    for variant in (raw, with_lf, with_lf.replace(b"\n", b"\r\n")):
        check_sent(variant, postbox.before_send(variant, recipients=["one@example.com"]), postbox)


@pytest.mark.parametrize("policy", POLICIES, ids=["compat32", "default", "SMTP", "SMTPUTF8"])
@pytest.mark.parametrize("path", MESSAGES)
def test_message_object(path: Path, policy: email.policy.Policy) -> None:
    """A message object of any policy is rewritten as the raw message is, and is not changed itself."""
    postbox = installation()
    message = email.message_from_bytes(raw_of(path), policy=policy)
    parts = [(part.items(), part._payload) for part in message.walk() if not part.is_multipart()]  # type: ignore[attr-defined]
    sent = postbox.before_send(message, recipients=["one@example.com"])
    assert [(part.items(), part._payload) for part in message.walk() if not part.is_multipart()] == parts  # type: ignore[attr-defined]
    assert [part.get_content_type() for part in sent.walk()] == [part.get_content_type() for part in message.walk()]
    assert (sent is message) == ("X-Postbox-Message-Id" not in sent)


def test_the_corpus_has_messages_to_rewrite() -> None:
    """What the tests above say is said of some messages in which links are tracked."""
    counts = []
    for path in PATHS:
        postbox = installation()
        raw = raw_of(path)
        counts.append(check_sent(raw, postbox.before_send(raw, recipients=["one@example.com"]), postbox))
    assert sum(map(bool, counts)) >= 14
    assert sum(counts) > 50


SMALL = [data for data in map(raw_of, PATHS) if len(data) < 40_000]
HTML = [data for data in SMALL if b"text/html" in data.lower()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message of the corpus, cut, with a piece of another in it, or with some bits flipped; or all of that."""
    raw = draw(st.sampled_from(HTML))
    for kind in draw(st.lists(st.sampled_from(("cut", "drop", "splice", "flip")), min_size=1, max_size=3)):
        position = draw(st.integers(0, len(raw)))
        if kind == "cut":
            raw = raw[:position]
        elif kind == "drop":
            raw = raw[:position] + raw[position + draw(st.integers(0, 300)) :]
        elif kind == "splice":
            other = draw(st.sampled_from(SMALL))
            start = draw(st.integers(0, len(other)))
            raw = raw[:position] + other[start : start + draw(st.integers(0, 2000))] + raw[position:]
        else:
            flipped = bytearray(raw)
            for place, bit in draw(
                st.lists(st.tuples(st.integers(0, max(0, len(raw) - 1)), st.integers(0, 7)), max_size=20)
            ):
                if flipped:
                    flipped[place] ^= 1 << bit
            raw = bytes(flipped)
    return raw


if PATHS:

    @few
    @given(damaged())
    def test_damaged_message(raw: bytes) -> None:
        """A message that something happened to raises nothing, and is rewritten without harm or not at all."""
        postbox = installation()
        check_sent(raw, postbox.before_send(raw, recipients=["one@example.com"]), postbox)
        for policy in POLICIES[:2]:
            try:
                message = email.message_from_bytes(raw, policy=policy)
            except IndexError:
                continue  # the standard library cannot read `name*` without a value: there is no object to send
            sent = postbox.before_send(message, recipients=["one@example.com"])
            assert (sent is message) == ("X-Postbox-Message-Id" not in sent)
