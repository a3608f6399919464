"""Where the links of an HTML text are: a tokenizer that follows the HTML standard (13.2.5) and changes nothing.

Text in, spans out. What is not a link element is passed over by one regular expression whose every repetition is
possessive: it never goes back, so the time grows linearly with the text whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Final, NamedTuple

import msgspec

__all__ = ["Attribute", "Element", "scan"]


class Attribute(NamedTuple):
    """One attribute as it stands in the text.

    :ivar start: where its name begins.
    :ivar end: where it ends, closing quote included.
    :ivar value_start: where its value begins, after the opening quote. Equal to ``value_end`` where the value is empty.
    :ivar value_end: where its value ends.
    """

    start: int
    end: int
    value_start: int
    value_end: int


class Element(msgspec.Struct, gc=False):
    """The start tag of an element that can be a link.

    :ivar html: the text it stands in.
    :ivar name: its name, in lower case: ``a``, ``area``, ``v:roundrect``.
    :ivar start: where its name ends.
    :ivar end: where its ``>`` stands.
    :ivar href: where the value of its ``href`` begins and ends, if it has that attribute.
    :ivar own: all its attributes if one of them may be a ``postbox:`` attribute; else none, which is quicker to tell.
    """

    html: str
    name: str
    start: int
    end: int
    href: tuple[int, int] | None
    own: dict[str, Attribute] = {}

    @property
    def attributes(self) -> dict[str, Attribute]:
        """All attributes, by name in lower case; of several with one name, the first (13.2.5.33)."""
        found: dict[str, Attribute] = {}
        for match in _ONE_ATTRIBUTE.finditer(self.html, self.start, self.end):
            name = match[1].lower() if match[1].isascii() else match[1].translate(_ASCII_LOWER)
            group = match.lastindex or 1
            value = match.span(group) if group > 1 else (match.end(), match.end())
            found.setdefault(name, Attribute(match.start(), match.end(), *value))
        return found


# CR counts as white space: the standard has the input's newlines normalised before it is tokenized (13.2.3.5).
_SPACE = r"[\t\n\f\r ]"
_NAME_END = r"(?=[\t\n\f\r />])"

# 13.2.5.32 to 13.2.5.39. A name may begin with "=". An "=" after a name must lead to a value: where it does not (an
# unclosed quote), the tag never ends, and the whole expression must fail instead of taking "=" for the next name.
_ATTRIBUTE = rf"""
    [^\t\n\f\r />][^\t\n\f\r />=]*+
    (?: {_SPACE}*+ = {_SPACE}*+ (?: "[^"]*+" | '[^']*+' | [^\t\n\f\r >"'][^\t\n\f\r >]*+ | (?=>) )
      | (?! {_SPACE}*+ = )
    )
"""
_ATTRIBUTES_AND_END = rf"(?: [\t\n\f\r /]++ | {_ATTRIBUTE} )*+ >"
# What nearly all tags are, to pass over them more quickly: names whose first letters tell them from all those that the
# scanner stops at (td, img, span, ...), and attributes in double quotes.
_OTHER_NAME = r"""(?: [b-hj-moqruwyzB-HJ-MOQRUWYZ] | [tT](?![eEiI]) | [pP](?![lL]) | [sS](?![cCtT]) | [iI](?![fF]) )
                  [^\t\n\f\r />]*+"""
_USUAL_ATTRIBUTES_AND_END = r"""(?: [\t\n\f\r ]++ [^\t\n\f\r />="']++ = "[^"]*+" )++ [\t\n\f\r ]*+ /?+ >"""
_LINK_NAMES: Final = ("a", "area")
_VML_NAMES: Final = tuple(
    f"v:{shape}"
    for shape in ("roundrect", "rect", "shape", "oval", "line", "polyline", "curve", "arc", "image", "group")
)
_RAW_TEXT_NAMES: Final = ("style", "xmp", "iframe", "noembed", "noframes", "textarea", "title")
_STOPPING_NAMES: Final = (*_LINK_NAMES, *_RAW_TEXT_NAMES, "script", "plaintext")


def _either_case(names: tuple[str, ...]) -> str:
    """The names as an expression that matches them in either case, without the flag that would slow every other
    class.
    """
    return "|".join("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in names)


_COMMENTS: Final = r"""
          | <!--(?!\[[iI][fF]) (?: -?> | (?: [^-]++ | -(?!-!?>) )*+ --!?> )
          | <!-- (?: [^-hH]++ | -(?!-!?>) | [hH](?![rR][eE][fF]) )*+ --!?>
"""


def _uninteresting(stopping: tuple[str, ...], comments: str) -> re.Pattern[str]:
    """Everything up to the next start tag of one of these names, conditional comment with an ``href`` in it, or place
    where the text ends inside of something: text, comments, bogus comments (which ``<![if !mso]>``, ``<![CDATA[`` and
    ``<?xml`` are too, 13.2.5.41), doctypes, end tags, and all other start tags.
    """
    return re.compile(
        rf"""[^<]*+ (?:
            (?: </[A-Za-z][^>=]*+>
              | <{_OTHER_NAME} (?: > | {_USUAL_ATTRIBUTES_AND_END} )
              | <(?! (?:{_either_case(stopping)}){_NAME_END} )/?[A-Za-z][^\t\n\f\r />]*+ (?: > | {_ATTRIBUTES_AND_END} )
              {comments}
              | <(?: !(?!--) | \? | /(?![A-Za-z]) )[^>]*+>
              | <(?![A-Za-z/!?])
            ) [^<]*+
        )*+""",
        re.VERBOSE,
    )


_SKIP: Final = _uninteresting(_STOPPING_NAMES, _COMMENTS)
# Within a comment no other ends: looking for the end of each that seems to begin there would take quadratic time.
_SKIP_CONDITIONAL: Final = _uninteresting((*_STOPPING_NAMES, *_VML_NAMES), "")

# The form that nearly all links have: every attribute in double quotes, one of them an href that is not empty, and none
# with a colon in its name, hence none of ours.
_USUAL_ATTRIBUTE = rf"""{_SPACE}++ (?![hH][rR][eE][fF]=) [^\t\n\f\r />="':]++ = "[^"]*+" """
_USUAL_HREF = rf"""{_SPACE}++ [hH][rR][eE][fF]="([^"]++)" """
_USUAL_REST = rf"""(?: {_SPACE}++ [^\t\n\f\r />="':]++ = "[^"]*+" )*+ {_SPACE}*+ /?+ >"""
_USUAL_LINK = rf"""[aA](?:[rR][eE][aA])?+ (?: (?: {_USUAL_ATTRIBUTE} )*+ {_USUAL_HREF} {_USUAL_REST}"""
_LINK: Final = re.compile(rf"<{_USUAL_LINK} )", re.VERBOSE)
# What may be the start tag of a link, whose href is the group if it has the usual form, of a VML shape, or of an
# element that is raw text. Each choice begins with a class, and the last tells by two letters what it need not look at
# any closer: most tags are none of these, and are passed over in the least time that way.
_CANDIDATE: Final = re.compile(
    rf"""<(?: {_USUAL_LINK} | {_NAME_END} ) | [xX][mM] | [iInNpPsStTvV][:cCeEfFiIlLoOtT]
         (?<= [vV]: | [pP][lL] | [iI][fF] | [nN][oO] | [sS][cCtT] | [tT][eEiI] ) (?! (?<=[tT])[rR] ) )""",
    re.VERBOSE,
)
_START_TAG: Final = re.compile(
    rf"<([A-Za-z][^\t\n\f\r />]*+) (?: {_USUAL_ATTRIBUTES_AND_END} | {_ATTRIBUTES_AND_END} )", re.VERBOSE
)
_ONE_ATTRIBUTE: Final = re.compile(
    rf"""
    ([^\t\n\f\r />][^\t\n\f\r />=]*+)
    (?: {_SPACE}*+ = {_SPACE}*+ (?: "([^"]*+)" | '([^']*+)' | ([^\t\n\f\r >"'][^\t\n\f\r >]*+) )? )?
    """,
    re.VERBOSE,
)
_BEFORE_VALUE: Final = "=\t\n\f\r "
_ASCII_LOWER: Final = {upper: upper + 0x20 for upper in range(ord("A"), ord("Z") + 1)}
_COMMENT_END: Final = re.compile(r"--!?>")
_ABRUPT_COMMENT_END: Final = re.compile(r"-?>")
_CONDITION: Final = re.compile(r"\[if\b[^\]]*\]>", re.IGNORECASE)
_RAW_TEXT_END: Final = {
    name: re.compile(rf"</{_either_case((name,))}{_NAME_END}") for name in (*_RAW_TEXT_NAMES, "script")
}
_SCRIPT_STATE_CHANGE: Final = re.compile(rf"<!--|-->|<(/?)(?:{_either_case(('script',))}){_NAME_END}")


def scan(html: str) -> Iterator[Element]:
    """The start tags that can be links, in the order they stand in the text: ``a`` and ``area``, and, inside the
    conditional comments that only Outlook reads, VML shapes too.

    Goes from candidate to candidate where nothing between them can matter, which is quick, and tag by tag where
    something might.

    :param html: the text of an HTML part.
    """
    position: int | None = 0
    while position is not None:
        for candidate in _CANDIDATE.finditer(html, position):
            start, end = candidate.span()
            if not candidate.lastindex or not _is_data(html, position, start):
                break
            position = end
            yield _usual_element(html, candidate)
        else:
            return
        # Past the candidate, and not just one step: looking for the same one again after each takes quadratic time.
        while position is not None and position <= start:
            position = yield from _step(html, position, len(html), conditional=False)


def _usual_element(html: str, link: re.Match[str]) -> Element:
    """What ``_USUAL_LINK`` matches, ``<`` included."""
    start, end = link.span()
    if html[start + 2] in "rR":
        return Element(html, "area", start + 5, end - 1, link.span(1))
    return Element(html, "a", start + 2, end - 1, link.span(1))


def _element(html: str, name: str, start: int, end: int) -> Element:
    """A tag of any other form."""
    element = Element(html, name, start, end, None)
    attributes = element.attributes
    href = attributes.get("href")
    if href is not None:
        element.href = href.value_start, href.value_end
    if "postbox:" in html[start:end].lower():
        element.own = attributes
    return element


def _is_data(html: str, start: int, stop: int) -> bool:
    """Whether the tokenizer is surely in the data state (13.2.5.1) at ``stop``, as it is at ``start``.

    No raw text element may begin between. Then it could be in one of three other places, each of which leaves a mark
    behind. In a comment: the last that began has not ended. In a quoted value: the last quote of its kind follows an
    ``=``. Elsewhere in a tag or a bogus comment: the last ``>`` stands in a quoted value, whose end stands after it, or
    before the last ``<``. (Few calls, for each costs as much as what it does: this is asked for every link.)
    """
    before, _, after = html[start:stop].rpartition(">")
    if after and not after.isspace() and ("<" in after or '"' in after or "'" in after):
        return False
    quote = before.rfind('"')
    if quote > 0 and before[quote - 1] in _BEFORE_VALUE:
        return False
    if "'" in before:
        quote = before.rfind("'")
        if quote > 0 and before[quote - 1] in _BEFORE_VALUE:
            return False
    if before.endswith("--"):
        return True
    comment = before.rfind("<!--")
    return comment < 0 or before.find("-->", comment + 4) >= 0


def _steps(html: str, position: int | None, end: int, *, conditional: bool) -> Iterator[Element]:
    while position is not None:
        position = yield from _step(html, position, end, conditional=conditional)


def _step(html: str, position: int, end: int, *, conditional: bool) -> Generator[Element, None, int | None]:
    """From the data state at ``position`` to the first place that matters, and past it: returns where the tokenizer is
    in the data state again, or ``None`` at the end.
    """
    skipped = (_SKIP_CONDITIONAL if conditional else _SKIP).match(html, position, end)
    assert skipped is not None  # it matches nothing at the least
    position = skipped.end()
    if html.startswith("<!--", position, end):
        if conditional:
            # Comments do not nest: no other ends in here, so one that is no condition hides all that is left.
            condition = _CONDITION.match(html, position + 4, end)
            return condition.end() if condition else None
        (inner, inner_end), position = _comment(html, position + 4, end)
        condition = _CONDITION.match(html, inner, inner_end)
        if condition:
            yield from _steps(html, condition.end(), inner_end, conditional=True)
        return position
    link = _LINK.match(html, position, end)
    if link:
        yield _usual_element(html, link)
        return link.end()
    tag = _START_TAG.match(html, position, end)
    if tag is None:  # the end, or the text ends inside a tag: no token is emitted for it (13.2.5.8)
        return None
    name = tag[1].lower()
    if name in _RAW_TEXT_END:
        return _raw_text_end(html, name, tag.end(), end)
    if name == "plaintext":
        return None
    yield _element(html, name, tag.end(1), tag.end() - 1)
    return tag.end()


def _comment(html: str, start: int, end: int) -> tuple[tuple[int, int], int]:
    """A comment whose ``<!--`` ends at ``start``: the span of its data, and where it is over (13.2.5.43 to
    13.2.5.51).
    """
    closing = _ABRUPT_COMMENT_END.match(html, start, end) or _COMMENT_END.search(html, start, end)
    return ((start, closing.start()), closing.end()) if closing else ((start, end), end)


def _raw_text_end(html: str, name: str, position: int, end: int) -> int:
    """Where the end tag of a raw text element begins, after whose start tag ``position`` is."""
    if name == "script":
        return _script_end(html, position, end)
    closing = _RAW_TEXT_END[name].search(html, position, end)
    return closing.start() if closing else end


def _script_end(html: str, position: int, end: int) -> int:
    """Where a script's end tag begins: not the first in ``<!-- <script> </script> --> </script>`` (13.2.5.15 to
    13.2.5.31).
    """
    escaped = double_escaped = False
    while match := _SCRIPT_STATE_CHANGE.search(html, position, end):
        position = match.end()
        if match[0] == "<!--":
            escaped = True
            position -= 2  # its dashes may be those of "-->"
        elif match[0] == "-->":
            escaped = double_escaped = False
        elif match[1] and not double_escaped:
            return match.start()
        elif escaped:
            double_escaped = not match[1]
    return end
