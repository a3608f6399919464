"""Transfer encodings: a change writes anew what holds it, and nothing else."""

from __future__ import annotations

import base64
import binascii
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbox_plugin.message.charsets import ByteEdit, Unreadable
from postbox_plugin.message.transfer import MAX_LINE, decode, encode, splice

NEW = b"https://click.example.com/c/" + b"T" * 120


def edit(body: bytes, encoding: str, old: bytes, new: bytes = NEW) -> bytes:
    """The body with one text of its content replaced."""
    content = decode(body, encoding)
    start = content.index(old)
    return splice(body, encoding, [(start, start + len(old), new)])


def lengths(body: bytes) -> list[int]:
    return [len(line.removesuffix(b"\r")) for line in body.split(b"\n")]


@pytest.mark.parametrize("encoding", ["", "7bit", "8bit", "binary"])
def test_what_is_not_encoded_is_spliced(encoding: str) -> None:
    """Only the bytes of the value change."""
    body = b"<a href=OLD>\r\nx\n\xff\r.\r\n"
    assert decode(body, encoding) == body
    assert edit(body, encoding, b"OLD") == body.replace(b"OLD", NEW)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_no_line_becomes_too_long(newline: bytes) -> None:
    """Where a line would go beyond 998 bytes, the new value gets lines of its own, between the quotes."""
    start, end = b"x" * 600 + b'<a href="', b'">' + b"y" * 300
    body = newline.join((b"first", start + b"OLD" + end, b"last"))
    assert edit(body, "7bit", b"OLD") == newline.join((b"first", start, NEW, end, b"last"))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_line_of_just_998_bytes_may_not_grow(newline: bytes) -> None:
    """The line ending does not count: 998 bytes before it are still within the limit."""
    line = b'<a href="OLD">' + b"y" * (MAX_LINE - 14)
    result = edit(line + newline, "8bit", b"OLD")
    assert max(lengths(result)) <= MAX_LINE
    assert result == line.replace(b"OLD", newline + NEW + newline) + newline


def test_a_line_that_was_too_long_already_is_just_spliced() -> None:
    """Who sends longer lines knows how they get through."""
    body = b'<a href="OLD">' + b"y" * 2000
    assert edit(body, "8bit", b"OLD") == body.replace(b"OLD", NEW)


def test_values_that_go_over_a_line_join_no_lines() -> None:
    """Where a replaced value held a line's end, what becomes of both lines together is what must fit."""
    one, other = b"x" * 900 + b'<a href="', b'">' + b"y" * 900
    body = one + b"O\nLD" + other
    assert edit(body, "7bit", b"O\nLD") == one + b"\n" + NEW + b"\n" + other


def test_a_removed_attribute_that_went_over_a_line_leaves_a_line_end() -> None:
    """Likewise where ``postbox:tags`` goes."""
    body = b"x" * 900 + b'<a postbox:tags="a:b;\nc:d" title="' + b"y" * 900 + b'" href="OLD">'
    content = decode(body, "7bit")
    tags, href = content.index(b" postbox"), content.index(b"OLD")
    result = splice(body, "7bit", [(tags, content.index(b" title"), b""), (href, href + 3, NEW)])
    assert max(lengths(result)) <= MAX_LINE
    assert result.replace(b"\n", b"") == body.replace(b"\n", b"").replace(b' postbox:tags="a:b;c:d"', b"").replace(
        b"OLD", NEW
    )


@given(st.lists(st.sampled_from([b"", b"y" * 5, b"y" * 300, b"y" * 425, b"y" * 426, b"\n", b"\r\n"])), st.data())
def test_lines_are_broken_only_where_one_would_be_too_long(pieces: list[bytes], data: st.DataObject) -> None:
    """However values and lines follow one another: what fits is spliced and no more; what does not, fits after."""
    news = [b"" if piece.isspace() else data.draw(st.sampled_from([NEW, NEW * 2, b""])) for piece in pieces]
    body, as_is, edits = b"", b"", []
    for piece, new in zip(pieces, news, strict=True):
        body += piece
        as_is += piece
        if new:
            edits.append((len(body), len(body) + 3, new))
            body += b"OLD"
            as_is += new
    result = splice(body, "8bit", edits)
    if max(lengths(body)) > MAX_LINE:
        assert result.replace(b"\r\n", b"").replace(b"\n", b"") == as_is.replace(b"\r\n", b"").replace(b"\n", b"")
    elif max(lengths(as_is)) <= MAX_LINE:
        assert result == as_is
    else:
        assert max(lengths(result)) <= MAX_LINE


def test_lines_of_utf_16_are_not_broken() -> None:
    """A text in UTF-16 that nobody encoded has no lines of bytes to break."""
    new = NEW.decode().encode("utf-16-le")
    body = ("y" * 400 + "OLD" + "z" * 50).encode("utf-16-le")
    assert edit(body, "8bit", "OLD".encode("utf-16-le"), new) == body.replace("OLD".encode("utf-16-le"), new)


@pytest.mark.parametrize("length", [4, 60, 72, 76, 100])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("trailing", [b"", b"\n", b"\r\n\r\n"])
def test_base64_keeps_its_line_length(length: int, newline: bytes, trailing: bytes) -> None:
    """Encoded anew, base64 has lines as long as before, the same line ending, and the same end."""
    content = b"<a href=OLD>" + bytes(range(256))
    text = base64.b64encode(content)
    body = newline.join(text[at : at + length] for at in range(0, len(text), length)) + trailing
    result = edit(body, "base64", b"OLD")
    assert base64.b64decode(result) == content.replace(b"OLD", NEW)
    assert result.endswith(trailing)
    lines = result.removesuffix(trailing).split(newline)
    assert {len(line) for line in lines[:-1]} == {length}


def test_base64_of_one_line_gets_lines() -> None:
    """One line says nothing about the length: 76 it is (RFC 2045, 6.8)."""
    result = edit(base64.b64encode(b"OLD"), "base64", b"OLD")
    assert max(lengths(result)) == 76


@pytest.mark.parametrize("body", [b"YQ", b"YQ=", b"Y!==", b"YQ==YQ==", b"YQ==\nx", b"=", b"YQ=a"])
def test_invalid_base64_is_unreadable(body: bytes) -> None:
    """Decoders disagree on broken base64: it is left alone."""
    with pytest.raises(Unreadable):
        decode(body, "base64")


@pytest.mark.parametrize("encoding", ["uuencode", "x-uuencode", "quoted printable", "base-64", "7-bit"])
def test_unknown_transfer_encodings_are_unreadable(encoding: str) -> None:
    """What is in no known encoding is left alone."""
    with pytest.raises(Unreadable):
        decode(b"x", encoding)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_quoted_printable_lines_without_a_change_stay(newline: bytes) -> None:
    """Only the line of the value is written anew, in lines of at most 76 characters; odd lines elsewhere stay odd."""
    odd = [
        b"=e9=E9 lower and upper",
        b"=41=42 needlessly encoded",
        b"x" * 200,
        b"trailing=20",
        b"soft =",
        b"break",
        b"=zz invalid",
    ]
    line = b'<a href=3D"OLD">=C3=A9</a>'
    body = newline.join((*odd, line, *odd))
    result = edit(body, "quoted-printable", b"OLD").split(newline)
    assert result[: len(odd)] == odd
    assert result[-len(odd) :] == odd
    middle = result[len(odd) : -len(odd)]
    assert max(map(len, middle)) <= 76
    assert binascii.a2b_qp(newline.join(middle)) == b'<a href="' + NEW + b'">\xc3\xa9</a>'


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "content", [b"OLD", b"OLD\n", b"\nOLD", b"a\nOLD\nb", b"OLD \n", b" OLD\t\n\nx", b"O\nLD", b"a OLD=\xe9\n" * 1]
)
def test_quoted_printable_content_is_what_it_was_but_for_the_value(content: bytes, newline: bytes) -> None:
    """With hard and soft breaks anywhere, also within the value, the content has the new value and nothing else new."""
    content = content.replace(b"\n", newline)
    old = b"O" + newline + b"LD" if b"OLD" not in content else b"OLD"
    tidy = (
        quopri.encodestring(content)
        if newline == b"\n"
        else quopri.encodestring(content.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    )
    every = b"".join(b"=%02X=" % byte + newline for byte in content)
    for body in (tidy, every):
        assert decode(body, "quoted-printable") == content
        assert decode(edit(body, "quoted-printable", old), "quoted-printable") == content.replace(old, NEW)


def test_two_values_in_one_line_and_over_several() -> None:
    """Several changes of a line, and one that joins lines, are made at once, and no line gets over 76 characters."""
    body = b'<a href=3D"ONE\n"><a href=3D"TWO"> THREE =\nFOUR\nlast'
    content = decode(body, "quoted-printable")
    edits: list[ByteEdit] = []
    for word in (b"ONE\n", b"TWO", b"THREE FOUR"):
        start = content.index(word)
        edits.append((start, start + len(word), NEW))
    result = splice(body, "quoted-printable", edits)
    assert decode(result, "quoted-printable") == b'<a href="' + NEW + b'"><a href="' + NEW + b'"> ' + NEW + b"\nlast"
    assert max(lengths(result)) <= 76
    assert result.endswith(b"\nlast")


def test_a_value_that_is_removed_leaves_nothing() -> None:
    """An empty new value is one too."""
    assert edit(b"a OLD=\nOLD b\nc", "quoted-printable", b"OLDOLD", b"") == b"a  b\nc"
    assert edit(b"OLD=\n", "quoted-printable", b"OLD", b"") == b""


@pytest.mark.parametrize("body", [b"a= \nb", b"a=\t \r\nb", b"a=\rb\nc"])
def test_soft_breaks_that_decoders_disagree_on_are_unreadable(body: bytes) -> None:
    """White space after the ``=`` of a soft break is a break to some and text to others: it is left alone."""
    with pytest.raises(Unreadable):
        decode(body, "quoted-printable")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit", "7bit", ""])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_another_content_in_the_place_of_a_body(encoding: str, newline: bytes) -> None:
    """A plugin's HTML is encoded as the body was, with its line ending."""
    content = newline.join((b"one", b"two = " + b"x" * 100, b"trailing ", b""))
    body = encode(content, encoding, like=b"eA==" + newline)
    assert decode(body, encoding) == content
    if encoding in ("base64", "quoted-printable"):
        assert max(lengths(body)) <= 76


def test_other_content_that_does_not_fit_is_refused() -> None:
    """7bit cannot hold what is not ASCII."""
    with pytest.raises(Unreadable):
        encode(b"\xe9", "7bit", like=b"")
    assert encode(b"\xe9", "8bit", like=b"") == b"\xe9"


@pytest.mark.parametrize("unit", [b"=", b"=\n", b"= ", b"=\r", b"=4", b"\n", b"\r\n", b" ", b"A", b"=41", b"=41=\n"])
@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "7bit"])
def test_a_megabyte_of_anything_is_spliced_in_time(unit: bytes, encoding: str) -> None:
    """No body takes more than the time that a test has."""
    body = unit * (1_000_000 // len(unit))
    try:
        content = decode(body, encoding)
    except Unreadable:
        return
    middle = len(content) // 2
    result = splice(body, encoding, [(place, place, b"") for place in range(0, middle, 1000)] + [(middle, middle, NEW)])
    expected = content[:middle] + NEW + content[middle:]
    assert decode(result, encoding).replace(b"\n", b"") == expected.replace(b"\n", b"")


@pytest.mark.parametrize("unit", [b'<a href=3D"http://x">', b'<a href=3D"http://x\n/">', b'<a href=3D"http://x=\n/">'])
@pytest.mark.parametrize("encoding", ["quoted-printable", "7bit"])
def test_fifty_thousand_values_are_spliced_in_time(unit: bytes, encoding: str) -> None:
    """Nor does a body with very many changes, on one line or over many."""
    body = unit * 50_000
    content = decode(body, encoding)
    edits: list[ByteEdit] = []
    start = 0
    while (start := content.find(b"http", start)) >= 0:
        edits.append((start, content.index(b'"', start), NEW))
        start += 1
    result = decode(splice(body, encoding, edits), encoding)
    assert result.count(NEW) == len(edits) == 50_000
