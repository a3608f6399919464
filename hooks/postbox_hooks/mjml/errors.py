"""What is wrong with an MJML template, and where."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postbox_plugin.errors import PostboxError

__all__ = ["MjmlError", "Problem"]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a template.

    :ivar text: what it is.
    :ivar file: the file it is in; ``""`` for the body part of a message.
    :ivar line: its line, from 1; 0 where that is not known.
    :ivar component: the component it is about: ``mj-button``; ``""`` where it is about none.
    """

    text: str
    file: str = ""
    line: int = 0
    component: str = ""

    def __str__(self) -> str:
        place = f"{self.file or 'MJML'}:{self.line}" if self.line else self.file or "MJML"
        return ": ".join(filter(None, (place, self.component, self.text)))


class MjmlError(PostboxError):
    """A template cannot be compiled. Its message names file, line and component of everything that was found, one a
    line.

    :param problems: what was found.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
