"""Records that check themselves, and what they say of a value that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from postbox_plugin.errors import SettingsError

__all__ = ["Checked", "check_positive", "described", "reason", "unknown_key"]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A record that checks the type of each of its fields when it is made, not only when it is decoded."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            try:
                # from_attributes lets a record pass that was made before.
                msgspec.convert(value, field.type, from_attributes=True)
            except msgspec.ValidationError as error:
                raise SettingsError(field.name, reason(error), f"Write {described(field.type)}") from None


def unknown_key(key: str, known: Iterable[str]) -> SettingsError:
    """The error for a key that nobody knows, with the nearest one that somebody does."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(names)}"
    return SettingsError(key, "is not a setting", remedy)


def check_positive(record: msgspec.Struct, *names: str) -> None:
    """Hold numbers of a record against the rule that they are above zero.

    :param names: the fields.
    :raises SettingsError: naming the first that is not.
    """
    for name in names:
        if not getattr(record, name) > 0:
            raise SettingsError(name, f"{getattr(record, name)!r} is not above zero", "Write a number above zero")


def reason(error: msgspec.ValidationError) -> str:
    """What is wrong with a value's type, as part of a sentence."""
    if str(error).startswith("Invalid enum value"):
        return f"cannot be {str(error).removeprefix('Invalid enum value ')}"
    return f"has the wrong type ({str(error)[0].lower()}{str(error)[1:]})"


_DESCRIBED: Final[dict[Any, str]] = {
    str: 'text in quotes, for example "..."',
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list[str]: 'a list of texts, for example ["...", "..."]',
    dict[str, str]: 'a table of texts, for example { "..." = "..." }',
    dict[str, str] | None: 'a table of texts, for example { "..." = "..." }',
    dict[str, list[str]] | None: 'a table of lists of texts, for example { "..." = ["...", "..."] }',
    Sequence[str]: 'a list of texts, for example ["...", "..."]',
}


def described(kind: Any) -> str:
    """What a value of a type looks like in a settings file.

    :param kind: the type.
    """
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "a table"
    return _DESCRIBED.get(kind, f"a value of the type {kind}")
