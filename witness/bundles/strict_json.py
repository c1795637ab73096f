"""JSON from strangers: bounded in depth, without duplicate names, numbers that are integers."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from witness.tlog.note import decode_base64

MAX_DEPTH: Final = 32
"""Objects and arrays within one another."""

_MAX_DIGITS: Final = 20
# A string without its end matches too, to the end of the text: nothing is ever scanned twice.
_TOKENS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_OPENING: Final = (b"[", b"{")


class MalformedJson(Exception):
    """The text is not JSON, or not what is accepted of it, or a member is missing or of another type."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object (RFC 8259).

    Raises:
        MalformedJson: for anything else; for duplicate names, which readers take differently; for numbers
            that are no integers of at most 20 digits; for more than 32 levels.
    """
    _bound_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except UnicodeDecodeError as error:
        raise MalformedJson("not UTF-8") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise MalformedJson("not JSON") from error
    if not isinstance(value, dict):
        raise MalformedJson("not a JSON object")
    return value


def _bound_depth(data: bytes) -> None:
    """The parser recurses; how deep is decided here, in one flat pass."""
    depth = 0
    for token in _TOKENS.finditer(data):
        found = token[0]
        if found in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedJson(f"more than {MAX_DEPTH} levels")
        elif found in (b"]", b"}"):
            depth -= 1


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("a name stands twice in one object")
    return members


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise MalformedJson("a number that is too long")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise MalformedJson(f"{text[:20]} is no integer")


def member(parent: dict[str, Any], name: str) -> Any:
    """A member that must be there and not be null."""
    value = parent.get(name)
    if value is None:
        raise MalformedJson(f"{name} is missing")
    return value


def text_of(parent: dict[str, Any], name: str) -> str:
    """A string that must be there."""
    value = member(parent, name)
    if not isinstance(value, str):
        raise MalformedJson(f"{name} is no string")
    return value


def object_of(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """An object that must be there."""
    value = member(parent, name)
    if not isinstance(value, dict):
        raise MalformedJson(f"{name} is no object")
    return value


def list_of(parent: dict[str, Any], name: str) -> list[Any]:
    """An array; empty when missing or null, as Go and protobuf write empty ones."""
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedJson(f"{name} is no array")
    return value


def integer_of(parent: dict[str, Any], name: str) -> int:
    """An integer that must be there; true and false are none."""
    value = member(parent, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedJson(f"{name} is no integer")
    return value


def bytes_of(parent: dict[str, Any], name: str) -> bytes:
    """Bytes in canonical base64 that must be there: how Go writes `[]byte`."""
    return decode(text_of(parent, name), name)


def decode(value: Any, name: str) -> bytes:
    """Bytes in canonical base64."""
    if not isinstance(value, str) or not value.isascii():
        raise MalformedJson(f"{name} is not base64")
    try:
        return decode_base64(value.encode("ascii"))
    except ValueError as error:
        raise MalformedJson(f"{name}: {error}") from error


def refuse_other_cases(parent: dict[str, Any], names: tuple[str, ...]) -> None:
    """Refuse names that differ from known ones by case alone: Go would read them as those."""
    known = {name.casefold() for name in names}
    for name in parent:
        if name not in names and name.casefold() in known:
            raise MalformedJson(f"a member's name differs from {'/'.join(names)} by case alone")
