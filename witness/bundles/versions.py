"""Versions that must not go down: semantic versions (https://semver.org, 2.0.0) and plain counts."""

from __future__ import annotations

import re
from typing import Final

VersionKey = tuple[tuple[int, int, int], bool, tuple[tuple[int, int, str], ...]]
"""Sorts as the versions do."""

_MAX_LENGTH: Final = 256
_NUMBER: Final = r"(0|[1-9][0-9]{0,18})"
_PRE: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PRE}(?:\.{_PRE})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_COUNT: Final = re.compile(_NUMBER)


class MalformedVersion(Exception):
    """The text is no semantic version and no count."""


def version_key(text: str) -> VersionKey:
    """A key by which versions sort (semver.org, section 11; build metadata does not count).

    Raises:
        MalformedVersion: the text is no version.
    """
    count = _COUNT.fullmatch(text)
    if count is not None:
        return (int(text), 0, 0), True, ()
    match = _VERSION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise MalformedVersion(text)
    numbers = (int(match[1]), int(match[2]), int(match[3]))
    # A pre-release is below its release; numbers are below letters, and fewer fields below more.
    pre = match[4].split(".") if match[4] else []
    fields = tuple((0, int(each), "") if each.isdigit() else (1, 0, each) for each in pre)
    return numbers, not pre, fields
