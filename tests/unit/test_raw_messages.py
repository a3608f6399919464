"""Raw messages: only the HTML part's body and our own headers change, and what cannot be changed safely does not."""

from __future__ import annotations

import base64
import email
import email.policy
import re
import tracemalloc
from email.message import EmailMessage, Message
from typing import Any

import pytest

from postbox_plugin import Postbox, Report, Settings
from postbox_plugin.message.raw import RawMessage

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
LINK = re.compile(rb"https://click\.example\.com/c/[A-Za-z0-9_-]+")
HTML = b'<p><a href="https://example.com/">x</a></p>\n'
HEAD = b"From: Shop <shop@example.com>\nTo: reader@example.com\nSubject: s\nMIME-Version: 1.0\n"
ENCODED = b"Content-Transfer-Encoding: "
ID_LINE = re.compile(rb"X-Postbox-Message-Id: ([A-Za-z0-9_-]+)\r?\n")


def postbox(**changes: Any) -> Postbox:
    return Postbox(Settings(**{"domain": "click.example.com", "keys": [KEY], "strict": True, **changes}))


def html_part(html: bytes = HTML, headers: bytes = b"") -> bytes:
    return b"Content-Type: text/html; charset=utf-8\n" + headers + b"\n" + html


def multipart(*parts: bytes, subtype: bytes = b"alternative", boundary: bytes = b"b1") -> bytes:
    separator = b"\n--" + boundary + b"\n"
    return (
        b'Content-Type: multipart/%s; boundary="%s"\n\npreamble' % (subtype, boundary)
        + b"".join(separator + part for part in parts)
        + b"\n--" + boundary + b"--\nepilogue\n"
    )  # fmt: skip


def sent(raw: bytes, **options: Any) -> bytes:
    return postbox().before_send(raw, **options)


def undone(tracked: bytes) -> bytes:
    return ID_LINE.sub(b"", LINK.sub(b"https://example.com/", tracked))


def reason(raw: bytes, **options: Any) -> str:
    """Why a message is left alone, after asserting that it is."""
    assert sent(raw, **options) == raw
    return postbox().explain(raw, **options).reason


def explained(raw: bytes, **options: Any) -> Report:
    return postbox().explain(raw, **options)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "body",
    [
        html_part(),
        multipart(b"Content-Type: text/plain\n\nhttps://example.com/\n", html_part()),
        multipart(
            multipart(multipart(html_part(), subtype=b"alternative"), subtype=b"related", boundary=b"b2"),
            subtype=b"mixed",
            boundary=b"b3",
        ),
        multipart(html_part(), html_part(headers=b"Content-Disposition: inline; filename=a.html\n"), subtype=b"mixed"),
    ],
)
def test_everything_but_links_and_our_header_stays(body: bytes, newline: bytes) -> None:
    """Headers, preamble, epilogue, boundaries, line endings and other parts are the same to the byte."""
    raw = (HEAD + body).replace(b"\n", newline)
    result = sent(raw)
    assert len(LINK.findall(result)) == body.count(b"<a ")
    assert undone(result) == raw
    assert ID_LINE.search(result.partition(newline * 2)[0] + newline)


def test_our_header_stands_at_the_end_of_the_header_block() -> None:
    """``X-Postbox-Message-Id`` is the last header, with the message's line ending, and says what the tokens say."""
    result = sent((HEAD + html_part()).replace(b"\n", b"\r\n"))
    block, _, body = result.partition(b"\r\n\r\n")
    last = block.rpartition(b"\r\n")[2]
    link = LINK.search(body)
    assert link is not None
    assert last == b"X-Postbox-Message-Id: " + postbox().open(link[0].decode()).message_id.encode()


@pytest.mark.parametrize("given", [b"order-2026-000042", b"A" * 64, b"12345678"])
def test_a_message_id_of_the_application_is_kept(given: bytes) -> None:
    """An ``X-Postbox-Message-Id`` that is found stays where it is, and is what clicks say."""
    raw = HEAD + b"x-postbox-message-id:  " + given + b"\n" + html_part()
    result = sent(raw)
    link = LINK.search(result)
    assert link is not None
    assert postbox().open(link[0].decode()).message_id == given.decode()
    assert LINK.sub(b"https://example.com/", result) == raw


@pytest.mark.parametrize("given", [b"short", b"A" * 65, b"not an id!", b""])
def test_what_is_no_message_id_is_replaced(given: bytes) -> None:
    """An ``X-Postbox-Message-Id`` that nobody could have made gives way to a new one."""
    result = sent(HEAD + b"X-Postbox-Message-Id: " + given + b"\nX-Last: 1\n" + html_part())
    ids = ID_LINE.findall(result)
    assert len(ids) == 1
    assert ids[0] != given


def test_two_messages_have_two_ids() -> None:
    """Ids are made up anew for each message."""
    raw = HEAD + html_part()
    assert ID_LINE.findall(sent(raw)) != ID_LINE.findall(sent(raw))


def test_headers_meant_for_us_are_removed() -> None:
    """``X-Postbox-Tags`` and ``X-Postbox-Track`` never leave, folded and in any case; their tags are sealed."""
    raw = (
        HEAD
        + b"X-Postbox-Tags: campaign=spring,\n cohort=b\nx-postbox-track: yes\nX-SES-MESSAGE-TAGS: a=1, b=2\n"
        + html_part()
    )
    result = sent(raw, message_tags={"b": "3"})
    assert b"x-postbox-ta" not in result.lower()
    assert b"x-postbox-track" not in result.lower()
    assert b"X-SES-MESSAGE-TAGS: a=1, b=2\n" in result
    link = LINK.search(result)
    assert link is not None
    assert postbox().open(link[0].decode()).message_tags == {
        "a": ("1",),
        "b": ("3",),
        "campaign": ("spring",),
        "cohort": ("b",),
    }


@pytest.mark.parametrize("word", [b"no", b"NO", b"off", b"false", b"0"])
def test_a_message_can_be_switched_off(word: bytes) -> None:
    """``X-Postbox-Track: no`` leaves the links of one message alone; the header itself goes."""
    raw = HEAD + b"X-Postbox-Track: " + word + b"\n" + html_part()
    assert sent(raw) == HEAD + html_part()
    assert "switched off" in explained(raw).reason


def test_attachments_and_enclosed_messages_are_never_touched() -> None:
    """HTML that is attached, of another disposition, in an enclosed message, or of AMP stays as it is."""
    enclosed = b"Content-Type: message/rfc822\n\nSubject: inner\n" + html_part()
    amp = b"Content-Type: text/x-amp-html\n\n" + HTML
    attached = html_part(headers=b'Content-Disposition: ATTACHMENT; filename="a.html"\n')
    other = html_part(headers=b"Content-Disposition: signal\n")
    raw = HEAD + multipart(
        html_part(), attached, enclosed, amp, other, multipart(attached, enclosed, boundary=b"b2"), subtype=b"mixed"
    )
    result = sent(raw)
    assert len(LINK.findall(result)) == 1
    assert undone(result) == raw
    assert LINK.search(result.partition(b"a.html")[0])


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"multipart/signed; protocol=p", "signed or encrypted (multipart/signed)"),
        (b"Multipart/Encrypted", "signed or encrypted (multipart/encrypted)"),
    ],
)
def test_signed_and_encrypted_parts_leave_the_whole_message_alone(content_type: bytes, expected: str) -> None:
    """Wherever a signed or encrypted part is, nothing of the message is touched, not even our own headers."""
    sealed = b"Content-Type: " + content_type + b"; boundary=s\n\n--s\n" + html_part() + b"\n--s--\n"
    for raw in (HEAD + sealed, HEAD + multipart(html_part(), sealed), HEAD + b"X-Postbox-Track: no\n" + sealed):
        assert reason(raw) == expected


def test_pkcs7_and_signature_headers_leave_the_message_alone() -> None:
    """S/MIME, and what DKIM or ARC signed already."""
    for kind in (b"pkcs7-mime", b"x-pkcs7-mime"):
        part = b"Content-Type: application/" + kind + b"; name=smime.p7m\n\nAAAA\n"
        assert reason(HEAD + part) == f"signed or encrypted (application/{kind.decode()})"
        assert reason(HEAD + multipart(html_part(), part)).startswith("signed or encrypted")
    for header in (b"DKIM-Signature", b"dkim-signature", b"ARC-Seal"):
        assert "already signed" in reason(HEAD + header + b": v=1\n" + html_part())


def test_a_signature_within_an_enclosed_message_is_nobody_elses() -> None:
    """A signed message that is enclosed does not keep the message around it from being tracked."""
    inner = b"DKIM-Signature: v=1\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--\n"
    signed = b"Content-Type: message/rfc822\n\n" + inner
    assert len(LINK.findall(sent(HEAD + multipart(html_part(), signed, subtype=b"mixed")))) == 1


@pytest.mark.parametrize(
    ("raw", "options", "expected"),
    [
        (HEAD + b"Content-Type: text/plain\n\nhttps://example.com/\n", {}, "no HTML part"),
        (HEAD + b"\nhttps://example.com/\n", {}, "no HTML part"),
        (HEAD + html_part(b"<p>x</p>"), {}, "no links"),
        (HEAD + html_part(b'<a href="mailto:a@b.example">'), {}, "no link to track"),
        (HEAD + html_part(), {"recipients": ["a@b.example", "c@d.example"]}, "2 recipients"),
        (HEAD + html_part(), {"recipients": []}, "no recipient"),
        (HEAD.replace(b"To: reader@example.com\n", b"") + html_part(), {}, "no recipient"),
        (HEAD + b"Cc: other@example.com\n" + html_part(), {}, "2 recipients"),
        (HEAD + b"Bcc: other@example.com\n" + html_part(), {}, "2 recipients"),
        (HEAD.replace(b"reader@example.com", b"root") + html_part(), {}, "the recipients in To are unclear"),
        (HEAD.replace(b"reader@example.com", b"(" * 3000) + html_part(), {}, "the recipients in To are unclear"),
        (HEAD.replace(b"reader@example.com", b'"' * 50_001) + html_part(), {}, "the recipients in To are unclear"),
        (HEAD + b"Content-Type: text/html; charset=no-such\n\n" + HTML, {}, "its charset 'no-such' is not known"),
        (HEAD + b"Content-Type: text/html; charset=utf-16le\n\n" + HTML + b"x", {}, "its body is not valid utf-16-le"),
        (HEAD + html_part(headers=ENCODED + b"base64\n"), {}, "its body is not valid base64"),
        (HEAD + html_part(headers=ENCODED + b"x-uu\n"), {}, "its transfer encoding 'x-uu' is not known"),
        (
            HEAD + html_part(HTML + b"a= \nb", ENCODED + b"quoted-printable\n"),
            {},
            "its quoted-printable lines end in a way that decoders disagree on",
        ),
        (b"", {}, "not a message: it has no headers"),
        (b"\n\n" + HTML, {}, "not a message: it has no headers"),
        (HTML, {}, "not a message: it has no headers"),
        (HEAD + b"no header\nX: y\n" + html_part(), {}, "malformed: a line among its headers is none"),
        (HEAD + b"X: a\rb\n" + html_part(), {}, "malformed: a line among its headers is none"),
        (
            HEAD + b"Content-Type: text/html" + b"; a=b" * 5000 + b"\n\n" + HTML,
            {},
            "malformed: more than 16384 bytes of parameters",
        ),
        (
            HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 6000,
            {},
            "malformed: more than 5000 lines that look like boundaries",
        ),
        (HEAD + b"X: boundary=b\n" * 501 + html_part(), {}, "malformed: more than 500 multiparts"),
        (HEAD + b"X: y\n" * 300_000 + html_part(), {}, "malformed: more than 1048576 bytes of headers"),
    ],
)  # fmt: skip
def test_what_is_left_alone_says_why(raw: bytes, options: dict[str, Any], expected: str) -> None:
    """The same bytes come back, and the report names the reason."""
    assert reason(raw, **options) == expected


def test_deep_nesting_is_left_alone() -> None:
    """A message nested deeper than any mail program nests is left alone."""
    part = html_part()
    for depth in range(40):
        part = multipart(part, boundary=b"b%d" % depth)
    assert reason(HEAD + part) == "its parts are nested deeper than 32"


def test_the_envelope_outweighs_the_headers() -> None:
    """The envelope says who a message goes to, equal addresses count once, and it is not parsed."""
    raw = HEAD.replace(b"reader@example.com", b"list: a@b.example, c@d.example;") + html_part()
    for envelope in (["reader@example.com"], ["root"], ["a..b@docomo.ne.jp"], ["a@b.example", "a@b.example"]):
        assert len(LINK.findall(sent(raw, recipients=envelope))) == 1


@pytest.mark.parametrize(
    "to",
    [
        b"a..b@docomo.ne.jp",
        b"Reader\n <reader@example.com>",
        b"A <a@b.example>, a@b.example",
        b'"Last, First" <a@b.example>',
        b"=?utf-8?q?=D0=B6?= <a@b.example>",
    ],
)
def test_one_recipient_is_recognised(to: bytes) -> None:
    """One plain address, however it is written, and however often, is one recipient."""
    assert LINK.search(sent(HEAD.replace(b"reader@example.com", to) + html_part()))


@pytest.mark.parametrize("part", [
    b"Content-Type:\n text/html\n\n" + HTML,
    b"Content-Type: text/html; charset=utf-8\n\n" + HTML,
])  # fmt: skip
def test_where_two_parsers_disagree_nothing_is_touched(part: bytes) -> None:
    """flanker misses a boundary line with trailing blanks, and a Content-Type folded after its colon: whatever it sees
    then, either the message is left alone, or only links of the HTML part change.
    """
    pdf = b"Content-Type: application/pdf\n\n" + HTML
    for separator in (b"\n--b1  \n", b"\n--b1\t\n", b"\n--b1\n"):
        raw = HEAD + b"Content-Type: multipart/mixed; boundary=b1\n\n--b1\n" + part + separator + pdf + b"\n--b1--\n"
        result = sent(raw)
        assert undone(result) == raw
        assert not LINK.search(result.partition(b"application/pdf")[2])


def test_a_large_attachment_is_passed_over() -> None:
    """Ten megabytes beside the HTML part, and megabytes of lines that look like boundaries, do not keep it from being
    tracked, and stay as they are.
    """
    attachment = b"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(
        bytes(7_500_000)
    )
    text = (
        b"Content-Type: text/plain\n\n" + (b"x" * 70 + b"\n--no boundary\n--\n--b\n--b2 \n" + b"y" * 70 + b"\n") * 300
    )
    for parts in (
        (html_part(), attachment),
        (attachment, html_part()),
        (attachment, text, html_part(), text, attachment),
    ):
        raw = HEAD + multipart(*parts, subtype=b"mixed")
        for variant in (raw, raw.replace(b"\n", b"\r\n")):
            result = sent(variant)
            assert len(LINK.findall(result)) == 1
            assert undone(result) == variant


def test_a_large_html_part_is_read_whole() -> None:
    """A link in the middle of a long HTML body is found, whatever lines are around it."""
    filler = b"<p>" + b"z" * 60 + b"</p>\n"
    for length in (10, 100, 1000, 10_000):
        raw = HEAD + multipart(
            html_part(filler * length + b"--\n--x\n" + HTML + filler * length),
            b"Content-Type: text/plain\n\n" + filler * length,
        )
        result = sent(raw)
        assert len(LINK.findall(result)) == 1
        assert undone(result) == raw


@pytest.mark.parametrize("encoding", [b"7bit", b"8bit", b""])
def test_no_line_becomes_longer_than_servers_take(encoding: bytes) -> None:
    """In a body that is not encoded, no line goes beyond 998 bytes that did not before, also where tags are removed."""
    line = (
        b"x" * 900
        + b'<a postbox:tags="a:b;\nc:d" title="'
        + b"y" * 800
        + b'" href="https://example.com/">'
        + b"z" * 100
        + b"\n"
    )
    headers = b"Content-Transfer-Encoding: " + encoding + b"\n" if encoding else b""
    result = sent(HEAD + html_part(line, headers))
    assert len(LINK.findall(result)) == 1
    assert max(map(len, result.split(b"\n"))) <= 998


def test_a_body_of_several_charsets_parts() -> None:
    """Each part is read in its own charset and transfer encoding."""
    parts = []
    for charset, word in (("koi8-r", "жж"), ("shift_jis", "表"), ("utf-16", "é"), ("iso-2022-jp", "漢字")):
        body = base64.encodebytes(f'{word}<a href="https://example.com/{word}">'.encode(charset))
        parts.append(
            f"Content-Type: text/html; charset={charset}\nContent-Transfer-Encoding: base64\n\n".encode() + body
        )
    result = email.message_from_bytes(sent(HEAD + multipart(*parts)), policy=email.policy.default)
    urls = []
    for part in result.walk():
        if part.get_content_type() == "text/html":
            assert isinstance(part, EmailMessage)
            urls += [postbox().open(link.decode()).url for link in LINK.findall(part.get_content().encode())]
    assert urls == [f"https://example.com/{word}" for word in ("жж", "表", "é", "漢字")]


def test_links_count_through_all_parts() -> None:
    """The index of a link is its place among all links of the message."""
    raw = HEAD + multipart(html_part(HTML * 2), html_part(b'<a href="#x">' + HTML))
    indices = [postbox().open(link.decode()).index for link in LINK.findall(sent(raw))]
    assert indices == [0, 1, 3]


def test_the_carried_headers_are_those_of_the_message() -> None:
    """A click will carry From, To, Subject and Date as they stand in the message."""
    raw = (
        b"From: =?utf-8?q?=D0=B6?=\n <shop@example.com>\nTo: A <a@b.example>\nSubject: =?utf-8?q?=D0=B6?=\n b\n"
        b"Date: Sat, 25 Apr 2026 18:08:03 +0300\n" + html_part()
    )
    link = LINK.search(sent(raw, recipients=["a@b.example"]))
    assert link is not None
    opened = postbox().open(link[0].decode())
    assert opened.headers == {
        "from": ("=?utf-8?q?=D0=B6?= <shop@example.com>",),
        "to": ("A <a@b.example>",),
        "subject": ("=?utf-8?q?=D0=B6?= b",),
        "date": ("Sat, 25 Apr 2026 18:08:03 +0300",),
    }
    assert opened.identity == "example.com"


def test_bytes_of_other_kinds_are_taken() -> None:
    """A bytearray or memoryview is a raw message too; text is not."""
    raw = HEAD + html_part()
    for kind in (bytearray, memoryview):
        assert len(LINK.findall(postbox().before_send(kind(raw)))) == 1  # type: ignore[type-var]
    with pytest.raises(TypeError, match="encode it first"):
        postbox().before_send(raw.decode())  # type: ignore[type-var]


def test_recipients_are_read_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in a recipient header, the parsers print nothing of it."""
    for to in (b"(((a@b.example", b'"a@b.example', b"<<a@b.example", b"a@[b", b"\\", b"a@b.example;;"):
        sent(HEAD.replace(b"reader@example.com", to) + html_part())
    assert capfd.readouterr() == ("", "")


HOSTILE = {
    "header lines": HEAD + b"X: y\n" * 200_000,
    "a header": HEAD + b"X: " + b"y" * 1_000_000 + b"\n" + html_part(),
    "folds": HEAD + b"X: y\n" + b" y\n" * 300_000 + html_part(),
    "recipients": HEAD.replace(b"reader@example.com", b"a@b.example, " * 80_000) + html_part(),
    "parameters": HEAD + b"Content-Type: text/html" + b"; a=b" * 200_000 + b"\n\n" + HTML,
    "quotes": HEAD + b"Content-Type: text/html" + b'; a="' * 200_000 + b"\n\n" + HTML,
    "boundaries": HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 200_000,
    "parts": HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + (b"--b\n" + html_part()) * 4900 + b"--b--\n",
    "nesting": HEAD
    + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(20_000)),
    "dashes": HEAD + html_part(b"--\n" * 300_000 + HTML),
    "newlines": HEAD + html_part(b"\n" * 1_000_000 + HTML),
    "returns": HEAD + html_part(b"\r" * 1_000_000 + HTML),
    "colons": HEAD + b":\n" * 500_000 + html_part(),
    "no colons": HEAD + b"x\n" * 500_000 + html_part(),
    "tags": HEAD + b"X-Postbox-Tags: " + b"a=b," * 250_000 + b"\n" + html_part(),
    "switches": HEAD + b"X-Postbox-Track: yes\n" * 40_000 + html_part(),
    "commas": HEAD.replace(b"Shop <shop@example.com>", b"," * 1_000_000) + html_part(),
    "shifts": HEAD + b"Content-Type: text/html; charset=iso-2022-jp\n\n" + (b"\x1b$B!!\x1b(B" + HTML) * 20_000,
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_is_sent_in_time(raw: bytes) -> None:
    """No message of a megabyte takes more than the time that a test has, and none is harmed."""
    result = sent(raw)
    bare = RawMessage(raw).with_changes({}, "")  # without the headers meant for us
    assert undone(result) in (raw, bare)


def test_objects_and_bytes_agree() -> None:
    """The same message as bytes and as an object of any policy comes out the same, but for the tokens."""
    raw = HEAD + multipart(b"Content-Type: text/plain\n\nx\n", html_part())
    for policy in (email.policy.compat32, email.policy.default, email.policy.SMTPUTF8):
        message: Message[Any, Any] = email.message_from_bytes(raw, policy=policy)
        result = postbox().before_send(message)
        assert undone(result.as_bytes(policy=policy.clone(linesep="\n", max_line_length=0))) == raw


def test_an_attachment_is_copied_once() -> None:
    """The memory that a large message takes is that of the new message."""
    attachment = b"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + b"A" * 76 + b"\n"
    attachment += (b"A" * 76 + b"\n") * 40_000
    raw = HEAD + multipart(html_part(), attachment, subtype=b"mixed")
    ours = postbox()
    ours.before_send(raw)  # what is loaded when first needed is no part of it
    tracemalloc.start()
    try:
        tracked = ours.before_send(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert undone(tracked) == raw
    assert peak < 1.1 * len(raw)
