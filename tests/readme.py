"""README.md, taken apart: its samples with the sections that they stand in, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "COMMANDS",
    "CONFIGURATIONS",
    "DIAGRAM",
    "DJANGO",
    "HEADINGS",
    "INTRODUCTION",
    "NOTIFICATION",
    "PROGRAM",
    "README",
    "SAMPLES",
    "TUTORIAL",
    "Sample",
    "random_parts_named",
    "rows",
]

README: Final = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


class Sample(NamedTuple):
    """A fenced block: its first line's number, the heading above it, its language, and what stands in it."""

    line: int
    section: str
    language: str
    text: str


def _taken_apart() -> Iterator[str | Sample]:
    """Headings and samples, in their order."""
    section, language, first, lines = "", None, 0, list[str]()
    for number, line in enumerate(README.splitlines(), 1):
        if language is not None and line != "```":
            lines.append(line)
        elif language is not None:
            yield Sample(first, section, language, "\n".join([*lines, ""]))
            language = None
        elif match := re.fullmatch(r"```(\w*)", line):
            language, first, lines = match[1], number + 1, []
        elif match := re.fullmatch(r"#+ (.+)", line):
            section = match[1]
            yield section


_PARTS: Final = list(_taken_apart())
HEADINGS: Final = [part for part in _PARTS if isinstance(part, str)]
SAMPLES: Final = [part for part in _PARTS if isinstance(part, Sample)]

# Who executes what: test_no_sample_is_passed_over holds that together they are all.
INTRODUCTION: Final = [sample for sample in SAMPLES if sample.section == "postbox-plugin"]
TUTORIAL: Final = [sample for sample in SAMPLES if sample.section == "Tutorial"]
_REST: Final = [sample for sample in SAMPLES if sample not in TUTORIAL]
DJANGO: Final = [sample for sample in _REST if sample.text.startswith("# settings.py")]
PROGRAM: Final = [sample for sample in _REST if sample.language == "python" and sample not in DJANGO]
CONFIGURATIONS: Final = [sample for sample in _REST if sample.language == "toml"]
COMMANDS: Final = [sample for sample in _REST if sample.language == "sh"]
NOTIFICATION: Final = [sample for sample in _REST if sample.language == "json"]
DIAGRAM: Final = [sample for sample in _REST if sample.section == "The life of a click"]


def rows(first_cell: str) -> list[list[str]]:
    """The rows of the table whose head begins with that cell."""
    lines = README[README.index(f"| {first_cell} |") :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def random_parts_named(text: str) -> str:
    """The text with the name of what is different each time in its place: message ids, tokens, a client's port."""
    text = re.sub(r"X-Postbox-Message-Id: \S{16}", "X-Postbox-Message-Id: ID", text)
    text = re.sub(r"X-Peer: .*", "X-Peer: CLIENT", text)
    return re.sub(r"/c/[A-Za-z0-9_-]+(=\n[A-Za-z0-9_-]+)*", "/c/TOKEN", text)
