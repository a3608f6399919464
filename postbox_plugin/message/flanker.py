"""The one place that imports flanker: lazily, and so that nobody notices.

PLY, on which its address parser stands, would write its tables into site-packages and print warnings at the first
import; the parser would log the addresses it cannot read.
"""

from __future__ import annotations

import functools
import importlib
import logging
import warnings
from functools import lru_cache
from typing import Any

__all__ = ["html_bodies", "parse_addresses"]


@lru_cache(maxsize=1)
def _addresslib() -> Any:
    _silence_parser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yacc: Any = importlib.import_module("ply.yacc")
        building = yacc.yacc
        # A partial, not a function of ours: PLY looks for the grammar in the module of its caller's frame.
        yacc.yacc = functools.partial(building, write_tables=False)
        try:
            return importlib.import_module("flanker.addresslib.address")
        finally:
            yacc.yacc = building
            _silence_parser()  # once more: its modules set their own level when they are imported


def _silence_parser() -> None:
    for name in ("flanker.addresslib._parser.parser", "flanker.addresslib._parser.lexer"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@lru_cache(maxsize=1)
def _scanner() -> Any:
    _addresslib()  # which it imports too, and not quietly
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("flanker.mime.message.scanner")


def parse_addresses(text: str) -> tuple[list[str], list[str]]:
    """The addresses of an unfolded recipient header, and what flanker could not read. One odd address empties the
    first list.

    :param text: the header's value.
    """
    library = _addresslib()
    parsed, unparsed = library.parse_list(text, as_tuple=True)
    addresses = [item.address for item in parsed if isinstance(item, library.EmailAddress)]
    return addresses, [*unparsed, *(item.address for item in parsed if not isinstance(item, library.EmailAddress))]


def html_bodies(text: str) -> list[tuple[int, int]] | None:
    """Where flanker sees the bodies of the text/html parts of a raw message; ``None`` if it sees no message.

    Attachments are among them; enclosed messages are not looked into.

    :param text: the message, one character a byte.
    """
    try:
        scanner = _scanner()
        spans: list[tuple[int, int]] = []
        _collect(scanner.scan(text), scanner.parsing, spans)
    except Exception:  # it raises whatever the regular expressions and wrappers inside it happen to raise
        return None
    return spans


def _collect(part: Any, parsing: Any, spans: list[tuple[int, int]]) -> None:
    if part.content_type.is_multipart():
        for child in part.parts:
            _collect(child, parsing, spans)
    elif part.content_type.value == "text/html":
        container = part._container  # its public face decodes the body; only here is it still a place in the text
        container.stream.seek(container.start)
        parsing._read_header_lines(container.stream)  # and what is in them the scan has read already
        spans.append((container.stream.tell(), container.end + 1))
