"""Do no harm, tried on made-up messages: every charset and transfer encoding, with all line endings and lengths."""

from __future__ import annotations

import base64
import binascii
import email
import email.policy
import re
from collections.abc import Iterator
from email.message import Message
from typing import NamedTuple

from conformance.corpus import TRACKING_LINK, installation
from conformance.messages import check_sent, html_text
from conformance.profiles import few, patient
from hypothesis import given
from hypothesis import strategies as st

pytestmark = patient

LETTERS = {
    "us-ascii": "",
    "utf-8": "éжあ中\U0001f600\N{NO-BREAK SPACE}",
    "koi8-r": "жёЩ─",
    "windows-1251": "жёЩ№",
    "iso-8859-1": "éß\N{NO-BREAK SPACE}",
    "iso-2022-jp": "あ漢ア。",
    "shift_jis": "あ漢ｱソ表",  # the second byte of the last two is a backslash
    "gb18030": "中文€\U0001f600é",
    "big5": "中文功",
    "euc-kr": "한글",
    "utf-16": "éжあ\U0001f600",
}
PLAIN = "abc XYZ-=.?&;:'\t"
MAX_LINE = 998


class Body(NamedTuple):
    """A generated HTML part.

    :ivar text: its HTML.
    :ivar urls: the addresses in it that are to be tracked, in order.
    :ivar charset: the charset of its Content-Type.
    :ivar encoding: its Content-Transfer-Encoding.
    :ivar encoded: its body.
    """

    text: str
    urls: list[str]
    charset: str
    encoding: str
    encoded: bytes


class Sample(NamedTuple):
    """A generated message."""

    raw: bytes
    body: Body


@st.composite
def bodies(draw: st.DrawFn, newline: str) -> Body:
    """An HTML part of some texts, with links between them, in one of the charsets and transfer encodings."""
    charset = draw(st.sampled_from(sorted(LETTERS)))
    letters = LETTERS[charset]
    words = st.one_of(
        st.text(PLAIN + letters, max_size=30),
        st.integers(0, 1000).map(lambda length: "x" * length),
        st.sampled_from((newline, newline + newline, "<br>", "</p>", "<!-- - -->", " " + newline, "." + newline)),
    )
    text = draw(st.sampled_from(("", "\ufeff"))) if charset == "utf-8" else "\ufeff" if charset == "utf-16" else ""
    urls: list[str] = []
    for word in draw(st.lists(words, max_size=8)):
        text += word
        if draw(st.booleans()):
            path = draw(st.text("ab/20" + letters, max_size=100))
            quote = draw(st.sampled_from(('"', "'")))
            before, after = draw(st.sampled_from((("", ""), (" ", " "), (newline, ""), ("", newline), ("\t", newline))))
            url = f"https://example.com/{path}"
            text += f"<a href={quote}{before}{url}{after}{quote}>"
            urls.append(url)
    content = text.encode("utf-16-le" if charset == "utf-16" else charset)
    encodings = ["base64", "quoted-printable"]
    if charset != "utf-16":
        encodings.append("8bit")
    if content.isascii():
        encodings += ["7bit", ""]
    encoding = draw(st.sampled_from(encodings))
    return Body(text, urls, charset, encoding, draw(encoded(content, encoding, newline.encode())))


@st.composite
def encoded(draw: st.DrawFn, content: bytes, encoding: str, newline: bytes) -> bytes:
    """The content in its transfer encoding, in lines that somebody else's encoder might make."""
    if encoding == "base64":
        length = draw(st.sampled_from((4, 60, 72, 76, 77, 998)))
        text = base64.b64encode(content)
        lines = [text[start : start + length] for start in range(0, len(text), length)]
        return newline.join(lines) + draw(st.sampled_from((b"", newline, newline * 2)))
    if encoding != "quoted-printable":
        return content
    # Its own line breaks are written as they are, or encoded; nothing says which lines must be how long.
    random = draw(st.randoms(use_true_random=False))
    rate = draw(st.sampled_from((0.0, 0.02, 0.5)))
    hexadecimal = draw(st.sampled_from(("=%02X", "=%02x")))
    written = b""
    length = 0
    position = 0
    while position < len(content):
        if content.startswith(newline, position) and rate < 0.5:
            if written[-1:] in (b" ", b"\t"):
                written = written[:-1] + (hexadecimal % written[-1]).encode()
            written += newline
            position += len(newline)
            length = 0
            continue
        byte = content[position]
        literal = (0x20 <= byte < 0x7F or byte == 9) and byte != ord("=") and random.random() >= rate
        unit = bytes((byte,)) if literal else (hexadecimal % byte).encode()
        if length + len(unit) > 75 or random.random() < rate / 4:
            written += b"=" + newline
            length = 0
        written += unit
        length += len(unit)
        position += 1
    if written[-1:] in (b" ", b"\t"):
        written = written[:-1] + (hexadecimal % written[-1]).encode()
    return written


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """A message with that HTML part, alone or among others."""
    newline = draw(st.sampled_from(("\n", "\r\n")))
    body = draw(bodies(newline))
    end = newline.encode()
    head = [f"Content-Type: text/html; charset={body.charset}"]
    if body.encoding:
        head.append(f"Content-Transfer-Encoding: {draw(st.sampled_from((body.encoding, body.encoding.upper())))}")
    part = newline.join(head).encode() + end + end + body.encoded
    lines = ["From: shop@example.com", "Subject: =?utf-8?q?=D0=B6?=", "To: one@example.com", "MIME-Version: 1.0"]
    top = newline.join(lines).encode() + end
    for depth, subtype in enumerate(draw(st.lists(st.sampled_from(("alternative", "mixed", "related")), max_size=3))):
        boundary = f"=_{subtype}_{depth}".encode()
        between = end + b"--" + boundary + end
        other = draw(st.sampled_from(OTHER_PARTS)).replace(b"\n", end)
        before, after = draw(st.sampled_from(((b"", b""), (b"preamble" + end, b"epilogue" + end))))
        first, second = draw(st.sampled_from(((other, part), (part, other))))
        part = (
            b"Content-Type: multipart/%s; boundary=\"%s\"" % (subtype.encode(), boundary)
            + end + end + before + between.removeprefix(b"" if before else end) + first + between + second
            + end + b"--" + boundary + b"--" + end + after
        )  # fmt: skip
    return Sample(top + part, body)


OTHER_PARTS = [
    b"Content-Type: text/plain; charset=utf-8\n\nhttps://example.com/ \xd0\xb6 \n.\n",
    b'Content-Type: text/html\nContent-Disposition: attachment; filename=a.html\n\n<a href="https://example.com/">x</a>\n',
    b'Content-Type: text/x-amp-html\n\n<a href="https://example.com/">x</a>\n',
    b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + b"QUJD" * 6000 + b"\n",
    b'Content-Type: message/rfc822\n\nSubject: enclosed\nContent-Type: text/html\n\n<a href="https://example.com/">x</a>\n',
]


def lines_of(raw: bytes) -> list[int]:
    """The length of each line of a message, without its line ending."""
    return [len(line.removesuffix(b"\r")) for line in raw.split(b"\n")]


@few
@given(samples())
def test_a_message_is_rewritten_without_harm(sample: Sample) -> None:
    """Each link of the HTML part is tracked and opens to its address; undone, the message is the same to the byte; and
    no line became longer than mail servers take.
    """
    postbox = installation()
    sent = postbox.before_send(sample.raw, recipients=["one@example.com"])
    assert check_sent(sample.raw, sent, postbox) == len(sample.body.urls)
    assert tracked_urls(sent) == sample.body.urls
    if max(lines_of(sample.raw)) <= MAX_LINE:
        assert max(lines_of(sent)) <= MAX_LINE


@few
@given(samples(), st.sampled_from((email.policy.compat32, email.policy.default, email.policy.SMTP)))
def test_a_message_object_is_rewritten_likewise(sample: Sample, policy: email.policy.Policy) -> None:
    """The same links of the same message are tracked when it comes as an object, and the object is not changed."""
    postbox = installation()
    message = email.message_from_bytes(sample.raw, policy=policy)
    before = message.as_bytes()
    sent = postbox.before_send(message, recipients=["one@example.com"])
    assert tracked_urls(sent.as_bytes(policy=email.policy.compat32)) == sample.body.urls
    assert message.as_bytes() == before


@few
@given(samples().filter(lambda sample: sample.body.encoding == "quoted-printable" and sample.body.charset != "utf-16"))
def test_lines_of_quoted_printable_without_a_link_stay(sample: Sample) -> None:
    """Of a quoted-printable body only the lines on which a link's value lies are written anew, in at most 76."""
    postbox = installation()
    sent = postbox.before_send(sample.raw, recipients=["one@example.com"])
    (part,) = html_parts(sent)
    body = sample.body
    spans = [
        tuple(len(body.text[:place].encode(body.charset)) for place in match.span(1))
        for match in re.finditer(r"""href=("[^"]*"|'[^']*')""", body.text)
    ]
    offset = 0
    kept: list[bytes] = []
    lines = body.encoded.splitlines(keepends=True)
    for line in lines:
        end = offset + len(binascii.a2b_qp(line))
        if not any(start < end and offset < stop for start, stop in spans):
            kept.append(line.rstrip(b"\r\n"))
        offset = end
    found = part.split(b"\n")
    remaining = iter(line.removesuffix(b"\r") for line in found)
    assert all(line in remaining for line in kept)  # in their order
    assert all(len(line.removesuffix(b"\r")) <= 76 or line.removesuffix(b"\r") in kept for line in found)


def html_parts(raw: bytes) -> list[bytes]:
    """The bodies of the inline HTML parts of a message, as they stand."""
    return [
        part._payload.encode("ascii", "surrogateescape")  # type: ignore[attr-defined]
        for part in inline_html(email.message_from_bytes(raw))
    ]


def inline_html(message: Message) -> Iterator[Message]:
    """The inline HTML parts of a message, but nothing of a message that is enclosed in it."""
    if message.get_content_maintype() == "multipart":
        for part in message.get_payload():
            assert isinstance(part, Message)
            yield from inline_html(part)
    elif message.get_content_type() == "text/html" and message.get_content_disposition() != "attachment":
        yield message


def tracked_urls(raw: bytes) -> list[str]:
    """Where the tracking links of a message lead, in order."""
    postbox = installation()
    parts = inline_html(email.message_from_bytes(raw))
    return [postbox.open(link).url for part in parts for link in TRACKING_LINK.findall(html_text(part))]
