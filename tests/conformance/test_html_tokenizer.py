"""The html5lib project's tokenizer tests: every start tag, attribute and reference of theirs as our scanner sees it.

The scanner hands out link elements only. So the tests' elements are renamed to ``a``, and where the tests are about
something else (comments, raw text, doctypes), a link is put after it, in each of the ways in which it might be hidden.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, NamedTuple

import pytest
from conformance.corpus import FOLDER, load, needs_corpus
from conformance.opinions import our_tags, reference_tags, reference_value

from postbox_plugin.links.references import decode_attribute

pytestmark = needs_corpus

FILES = [
    "contentModelFlags",
    "domjs",
    "entities",
    "escapeFlag",
    "namedEntities",
    "numericEntities",
    "pendingSpecChanges",
    "test1",
    "test2",
    "test3",
    "test4",
    "unicodeChars",
    "unicodeCharsProblematic",
    "xmlViolation",
]

# What a document must begin with for its tokenizer to be in the state that a test begins in.
PREFIXES = {
    "Data state": "",
    "RCDATA state": "<textarea>",
    "RAWTEXT state": "<style>",
    "Script data state": "<script>",
    "PLAINTEXT state": "<plaintext>",
}
# The one state that no prefix leads to: the tokenizer enters it only within SVG and MathML, and only if the tree
# builder says so. A scanner of e-mail HTML builds no tree.
UNREACHABLE = {"CDATA section state"}

PROBES = [
    "<a href=probe>",
    "><a href=probe>",
    '"><a href=probe>',
    "'><a href=probe>",
    "--><a href=probe>",
    "--!><a href=probe>",
    "]]><a href=probe>",
    " href=probe>",
    "=probe href=other>",
    "</textarea></style></script><a href=probe>",
    "--></textarea></style></script><a href=probe>",
]
ENCLOSURES = ['<a href="{}">', "<a href='{}'>", "<a href={}>", "<a {} href=x>", "<a {}=x href=y>", '<a x="y"{}href=x>']


class Case(NamedTuple):
    """One of the tests, begun in one of its states."""

    name: str
    html: str
    tags: list[tuple[str, dict[str, str]]]
    text: str


def _unescaped(value: Any, escaped: bool) -> Any:
    if not escaped:
        return value
    if isinstance(value, str):
        return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), value)
    if isinstance(value, list):
        return [_unescaped(item, escaped) for item in value]
    if isinstance(value, dict):
        return {_unescaped(name, escaped): _unescaped(item, escaped) for name, item in value.items()}
    return value


def cases(file: str) -> list[Case]:
    """The tests of one file, each in each of its states."""
    found = []
    content = load(f"standards/html5lib-tokenizer/tokenizer__{file}.test")
    for test in content.get("tests") or content["xmlViolationTests"]:
        escaped = test.get("doubleEscaped", False)
        html, output = _unescaped(test["input"], escaped), _unescaped(test["output"], escaped)
        for state in test.get("initialStates", ["Data state"]):
            if state in UNREACHABLE:
                continue
            prefix = PREFIXES[state]
            begun = html
            if "lastStartTag" in test and prefix:  # the tests use xmp for every raw text element
                begun = re.sub(f"(?i)(?<=</){test['lastStartTag']}", prefix[1:-1], html)
            tags = [(token[1], token[2]) for token in output if token[0] == "StartTag"]
            text = "".join(token[1] for token in output if token[0] == "Character")
            found.append(Case(f"{test['description']} ({state})", prefix + begun, tags, text))
    return found


def renamed(case: Case) -> str:
    """The test's HTML with its elements renamed to ``a``."""
    html = case.html
    for name in dict.fromkeys(name for name, _ in case.tags):
        written = re.escape(name).replace("\N{REPLACEMENT CHARACTER}", "[\0\N{REPLACEMENT CHARACTER}]")
        html, count = re.subn(rf"(?i)<{written}(?=[\t\n\f\r />])", "<a", html)
        assert count, case
    return html


@pytest.mark.parametrize("file", FILES)
def test_start_tags_and_attributes_are_those_that_the_standard_sees(file: str) -> None:
    """Each start tag that a test expects is seen, with its attributes, decoded; and no other."""
    for case in cases(file):
        assert our_tags(renamed(case)) == [("a", attributes) for _, attributes in case.tags], case


@pytest.mark.parametrize("file", FILES)
def test_a_link_after_each_test_is_seen_where_html5lib_sees_it(file: str) -> None:
    """After each test's text, in whatever state it leaves the tokenizer, links are found where html5lib finds them."""
    for case in cases(file):
        for probe in PROBES:
            html = case.html + probe
            assert our_tags(html) == list(reference_tags(html)), (case, probe)


@pytest.mark.parametrize("file", FILES)
def test_each_test_within_an_attribute_is_read_as_html5lib_reads_it(file: str) -> None:
    """Each test's text as an attribute's value or name, in every way of writing one, reads as html5lib reads it."""
    for case in cases(file):
        for enclosure in ENCLOSURES:
            html = enclosure.format(case.html) + "<a href=probe>"
            assert our_tags(html) == list(reference_tags(html)), (case, enclosure)


@pytest.mark.parametrize("file", ["entities", "namedEntities", "numericEntities"])
def test_character_references_have_the_values_that_the_standard_gives(file: str) -> None:
    """References decode to what the tests expect, or stay as they are by the rule for attributes; html5lib agrees."""
    exceptions = 0
    for case in cases(file):
        written = re.fullmatch(r"""<h a=(["'])(.*)\1>""", case.html, re.DOTALL)
        html, expected = (written[2], case.tags[0][1]["a"]) if written else (case.html, case.text)
        if html.startswith("<"):  # raw text, and tags: the other tests have those
            continue
        value = decode_attribute(html)
        assert value == reference_value(html), case
        if value != expected:
            # 13.2.5.73: without a semicolon, and before "=" or an alphanumeric, an attribute's reference is none.
            assert value == html, case
            assert re.match(r"&[A-Za-z0-9]+", html), case
            exceptions += 1
    assert exceptions < 10


def test_nothing_is_left_out_but_cdata_sections() -> None:
    """Of all the tests only those that begin within a CDATA section are left out."""
    assert FOLDER is not None
    present = {path.name for path in (FOLDER / "standards/html5lib-tokenizer").glob("*.test")}
    assert present == {f"tokenizer__{file}.test" for file in FILES}
    states: Counter[str] = Counter()
    for file in FILES:
        content = load(f"standards/html5lib-tokenizer/tokenizer__{file}.test")
        for test in content.get("tests") or content["xmlViolationTests"]:
            states.update(test.get("initialStates", ["Data state"]))
    assert set(states) - set(PREFIXES) == UNREACHABLE
    assert sum(states[state] for state in UNREACHABLE) < sum(states.values()) // 100
