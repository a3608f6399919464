"""What others use: the plugin, and the function that it calls. lxml and mjml are loaded with the first template."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from postbox_plugin import hookimpl

__all__ = ["MjmlCompiler", "to_html"]


def to_html(text: str, *, file: str | os.PathLike[str] = "", folder: str | os.PathLike[str] = "") -> str:
    """The HTML that MJML stands for. The attributes ``postbox:tags`` and ``postbox:no-track`` of components are on the
    links that these make.

    :param text: the template.
    :param file: the file that it comes from: errors name it, and ``mj-include`` starts at its folder.
    :param folder: where ``mj-include`` starts, and what it may not lead out of, for a template that comes from no
        file; nothing is included if empty.
    :raises MjmlError: naming file, line and component of what is wrong.
    :raises MissingExtra: without the extra ``mjml``.
    """
    from postbox_hooks.mjml.compiler import compiled  # noqa: PLC0415 - who sends no MJML needs none of it
    from postbox_hooks.mjml.template import Origin  # noqa: PLC0415

    if file:
        return compiled(text, Origin(os.fspath(file), Path(file).parent))
    limit = Path(folder) if folder else None
    return compiled(text, Origin("", limit, limit))


class MjmlCompiler:
    """Compiles ``text/mjml`` parts. On once installed; ``[[plugin]] use = "mjml"`` gives it a folder.

    :param folder: where ``mj-include`` of a message's part starts, and what it may not lead out of; nothing is included
        if empty. A file includes what is beside it.
    """

    def __init__(self, *, folder: str = "") -> None:
        self._folder: Final = folder

    @hookimpl
    def postbox_convert(self, content_type: str, text: str, file: str) -> str | None:
        """See :func:`postbox_plugin.hookspecs.postbox_convert`."""
        return to_html(text, file=file, folder=self._folder) if content_type == "text/mjml" else None
