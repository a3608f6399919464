"""Charsets: how a body becomes text, and how a change of the text becomes a change of the bytes."""

from __future__ import annotations

import codecs

import pytest

from postbox_plugin.message.charsets import Unreadable, read_text


def changed(data: bytes, charset: str, old: str, new: str) -> bytes:
    """The bytes after one change of their text, made through byte edits."""
    text = read_text(data, charset)
    start = text.text.index(old)
    position = 0
    pieces = []
    for first, last, replacement in text.byte_edits([(start, start + len(old), new)]):
        pieces += [data[position:first], replacement]
        position = last
    return b"".join([*pieces, data[position:]])


@pytest.mark.parametrize(
    ("charset", "before"),
    [
        ("utf-8", "жé中😀"),
        ("koi8-r", "жёЩ"),
        ("windows-1251", "жёЩ№"),
        ("iso-8859-1", "é"),
        ("gb18030", "中文€😀"),
        ("gbk", "中文"),
        ("big5", "中文功"),
        ("shift_jis", "あ漢ソ表"),
        ("euc-jp", "あ漢"),
        ("euc-kr", "한글"),
        ("iso-2022-jp", "あ漢"),
        ("iso-2022-kr", "한글"),
        ("hz", "中文"),
        ("utf-16-le", "ж😀"),
        ("utf-16-be", "ж😀"),
        ("utf-32-le", "ж😀"),
        ("utf-7", "ж"),
        ("cp037", "é"),  # not even the letters are where ASCII has them
    ],
)
@pytest.mark.parametrize("pattern", ["{0}<a href=X>{0}", "<a href=X>", "{0}<a href=X{0}>{0}", "<a href={0}X>{0}"])
def test_a_change_of_the_text_is_that_change_of_the_bytes(charset: str, before: str, pattern: str) -> None:
    """In every charset, also stateful ones, the bytes come to hold the changed text, and nothing else changes."""
    text = pattern.format(before)
    data = text.encode(charset)
    result = changed(data, charset, "X", "http://t.example/")
    assert result.decode(charset) == text.replace("X", "http://t.example/")
    assert result == text.replace("X", "http://t.example/").encode(charset)


@pytest.mark.parametrize(
    ("mark", "codec"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
@pytest.mark.parametrize("charset", ["", "us-ascii", "windows-1251", "utf-16", "utf-8"])
def test_a_byte_order_mark_outweighs_the_header(mark: bytes, codec: str, charset: str) -> None:
    """A text that begins with a byte order mark is read as that says, and keeps it."""
    data = mark + "<a href=X>ж".encode(codec)
    assert read_text(data, charset).text == "\ufeff<a href=X>ж"
    assert changed(data, charset, "X", "Y") == mark + "<a href=Y>ж".encode(codec)


@pytest.mark.parametrize("charset", ["", "us-ascii", "utf-8", "windows-1252", "shift_jis", "gb18030"])
def test_bytes_that_are_not_in_their_charset_are_read_one_by_one(charset: str) -> None:
    """Where a superset of ASCII is declared and is not there, the markup can be read all the same, and only that."""
    data = b"\xff\x81\x8d<a href=X>\xff\xfe\x81"
    text = read_text(data, charset)
    assert not text.faithful
    assert text.text == data.decode("latin-1")
    assert changed(data, charset, "X", "Y") == data.replace(b"X", b"Y")


def test_bytes_that_would_not_come_back_the_same_are_read_one_by_one() -> None:
    """A charset that has two forms of one text (here, an unused shift) is not trusted with it."""
    data = b"<a href=X>\x1b(B\x1b(B"
    with pytest.raises(Unreadable):
        read_text(data, "iso-2022-jp")


@pytest.mark.parametrize("charset", ["iso-2022-jp", "utf-16-le", "utf-16", "hz"])
def test_what_is_no_superset_of_ascii_must_be_valid(charset: str) -> None:
    """Nobody can say where the markup is in an invalid text of a charset in which ASCII bytes mean something else."""
    with pytest.raises(Unreadable, match="not valid"):
        read_text(b"<a href=X>\xff", charset)


def test_japanese_bytes_are_not_taken_for_markup() -> None:
    """In ISO-2022-JP the two bytes of a character can look like ``<a``: they are a character."""
    character = b"\x1b$B<a\x1b(B"
    text = read_text(character + b"<a href=X>", "iso-2022-jp")
    assert text.text == character.decode("iso-2022-jp") + "<a href=X>"
    assert text.faithful


@pytest.mark.parametrize(
    "charset",
    [
        "no-such-charset",
        "base64",
        "rot13",
        "hex",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "a\0b",
        "utf-8\udc80",
        "undefined",
    ],
)
def test_what_is_no_charset_is_unreadable(charset: str) -> None:
    """An unknown charset, and what Python calls a codec but nobody a charset, leaves the body alone."""
    with pytest.raises(Unreadable, match="charset"):
        read_text(b"<a href=X>", charset)


def test_without_a_charset_a_text_is_ascii() -> None:
    """RFC 2046, 4.1.2: the default is US-ASCII."""
    assert read_text(b"<a href=X>", "").faithful
    assert not read_text(b"<a href=X>\xe9", "").faithful


def test_other_text_is_written_with_references_for_what_the_charset_lacks() -> None:
    """A plugin's HTML may hold what the charset does not have."""
    text = read_text("é".encode("latin-1"), "iso-8859-1")
    assert text.encode("é ж") == b"\xe9 &#1078;"
