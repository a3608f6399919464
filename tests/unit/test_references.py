"""Character references in attribute values, rule by rule (HTML standard, 13.2.5.72 to 13.2.5.80)."""

from __future__ import annotations

import pytest

from postbox_plugin.links.references import decode_attribute

CASES = {
    "": "",
    "plain": "plain",
    "?a=1&amp;b=2": "?a=1&b=2",
    "?a=1&copy=2": "?a=1&copy=2",  # without a semicolon, before "=": none
    "?a=1&copy2": "?a=1&copy2",  # nor before an alphanumeric
    "?a=1&copy;=2": "?a=1©=2",
    "?a=1&copy": "?a=1©",  # at the end
    "?a=1&copy-2": "?a=1©-2",
    "?a=1&reg_id=2": "?a=1®_id=2",
    "&notit;": "&notit;",  # "&not" before a letter
    "&notin;": "∉",
    "&not;in": "¬in",
    "&unknown;": "&unknown;",
    "&AMP;&Amp;": "&&Amp;",  # names have their case
    "&": "&",
    "&;": "&;",
    "&&amp;": "&&",
    "&amp;amp;": "&amp;",  # decoded once
    "&#65;&#x41;&#X41": "AAA",
    "&#65": "A",
    "&#65b": "Ab",
    "&#x41g": "Ag",
    "&#;": "&#;",
    "&#x;": "&#x;",
    "&#xg": "&#xg",
    "&#0;": "\ufffd",
    "&#x80;": "€",  # the table of windows-1252
    "&#x81;": "\x81",
    "&#x9F;": "Ÿ",
    "&#xD800;": "\ufffd",
    "&#x110000;": "\ufffd",
    "&#xFFFF;": "\uffff",
    "&#0000000000065;": "A",
    "&#99999999999999999999;": "\ufffd",
    "&#13;&#10;": "\r\n",
    "&NotEqualTilde;": "≂̸",  # two characters
    "&CounterClockwiseContourIntegral;": "∳",
    "&CounterClockwiseContourIntegralx;": "&CounterClockwiseContourIntegralx;",
    "a\0b": "a\ufffdb",
    "a\r\nb\rc\nd": "a\nb\nc\nd",
}


@pytest.mark.parametrize(("written", "value"), CASES.items())
def test_a_value_is_read_as_the_standard_says(written: str, value: str) -> None:
    """Each rule for references, NULs and line endings in attribute values."""
    assert decode_attribute(written) == value


@pytest.mark.parametrize("unit", ["&", "&#", "&#0", "&#x", "&a", "&amp", "&ampersand", "&copy;", "&#9"])
def test_a_megabyte_of_references_takes_no_time(unit: str) -> None:
    """A megabyte of any beginning of a reference is read within the time that a test has."""
    written = unit * (1_000_000 // len(unit))
    assert len(decode_attribute(written)) <= len(written)
    assert len(decode_attribute("&#" + "9" * 1_000_000 + ";")) == 1
