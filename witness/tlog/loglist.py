"""Lists of logs that a witness may take on: the `logs/v0` format.

Specification: https://witness-network.org/log-list-format.

Lists are fetched from others and edited by hand, and one of them may name thousands of logs. Read for
use, therefore, an entry that cannot be understood is left out and told of, and does not take the others
with it. Read strictly, the first fault ends it, as a list's author wants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from witness.tlog.note import MalformedVKey, SignatureType, VerifierKey, has_control, parse_vkey

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER: Final = "logs/v0"
"""The list's first line that is neither blank nor a comment."""

MAX_QPD: Final = 2**31 - 1
"""The most add-checkpoint requests a day that an entry may claim."""

MAX_ORIGIN_SIZE: Final = 255
"""Bytes of an origin: no checkpoint with a longer one can be cosigned (tlog-cosignature)."""

_KEYWORDS: Final = ("vkey", "origin", "qpd", "contact")
_QPD: Final = re.compile("[1-9][0-9]{0,9}")


class MalformedLogList(Exception):
    """The list is not of the form the specification gives: `line` (counted from 1) says where."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LogListEntry:
    """One log of a list.

    Attributes:
        vkey: the log's verification key.
        origin: the origin line of its checkpoints, 1 to 255 bytes of UTF-8.
        qpd: add-checkpoint requests that the log may do per day; 0 where the list does not say.
        contact: how to reach the operator, for people; empty where the list does not say. Others'
            text, unescaped: it may hold any character but a line feed.
    """

    vkey: VerifierKey
    origin: str
    qpd: int
    contact: str


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry that was left out: the line (from 1) of its first fault, and what is wrong there."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class LogList:
    """What a list says: the entries that were understood and those that were not, in its order."""

    entries: tuple[LogListEntry, ...]
    skipped: tuple[SkippedEntry, ...]


class _Line(NamedTuple):
    number: int
    keyword: str
    value: str
    """What follows the keyword and one space; "" is no value."""


def parse_log_list(data: bytes, *, strict: bool = False) -> LogList:
    """Reads a `logs/v0` list.

    Read leniently, an entry with a fault is skipped; lines with unknown keywords are ignored; `qpd` and
    `contact` may be missing (lists in use lack them); and every key type that can verify a log is taken.
    Read strictly, all of these are faults, and the only key type is Ed25519 (0x01).

    Raises:
        MalformedLogList: the header is missing or unknown; when strict, also for any other fault.
    """
    lines = _significant_lines(data)
    number, header = next(lines, (1, ""))
    if header != HEADER:
        raise MalformedLogList(number, f"the list does not start with {HEADER!r}")
    entries = []
    skipped = []
    for group in _groups(lines, strict=strict):
        try:
            entries.append(_entry(group, strict=strict))
        except MalformedLogList as fault:
            if strict:
                raise
            skipped.append(SkippedEntry(fault.line, fault.reason))
    return LogList(tuple(entries), tuple(skipped))


def _significant_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines that are neither blank nor comments, stripped, with their numbers.

    Bytes that are not UTF-8 become surrogates, so that they spoil the entry they stand in, and no other.
    """
    for number, raw in enumerate(data.decode(errors="surrogateescape").split("\n"), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            yield number, line


def _groups(lines: Iterator[tuple[int, str]], *, strict: bool) -> Iterator[list[_Line]]:
    """The lines of one entry each: from a `vkey` to before the next, or up to and with its `contact`.

    Lines that belong to no entry, for their `vkey` is missing, make a group of their own: they must
    neither spoil nor change the entry before them.
    """
    group: list[_Line] = []
    for number, line in lines:
        # Whatever whitespace follows the keyword, it is that keyword: taken for an unknown one, a
        # mistyped vkey line would leave its origin to the key above it.
        keyword = line.split(maxsplit=1)[0]
        if keyword not in _KEYWORDS:
            if strict:
                raise MalformedLogList(number, "unknown keyword")
            continue
        if keyword == "vkey" and group:
            yield group
            group = []
        group.append(_Line(number, keyword, line[len(keyword) :].removeprefix(" ")))
        if keyword == "contact":
            yield group
            group = []
    if group:
        yield group


def _entry(group: list[_Line], *, strict: bool) -> LogListEntry:
    """The entry that the lines of a group make."""
    values: dict[str, _Line] = {}
    next_keywords: tuple[str, ...] = _KEYWORDS
    for line in group:
        if line.keyword not in next_keywords:
            raise MalformedLogList(line.number, f"{line.keyword} is repeated or out of order")
        next_keywords = next_keywords[next_keywords.index(line.keyword) + 1 :]
        _check_value(line)
        values[line.keyword] = line
    required = ("vkey", "qpd", "contact") if strict else ("vkey",)
    for keyword in required:
        if keyword not in values:
            raise MalformedLogList(group[0].number, f"an entry without {keyword}")
    vkey = _vkey(values["vkey"], strict=strict)
    # SPEC log-list-format: If omitted, the log's origin line defaults to the vkey key-name.
    origin = values["origin"].value if "origin" in values else vkey.name
    _check_origin(values.get("origin", values["vkey"]).number, origin)
    return LogListEntry(
        vkey=vkey,
        origin=origin,
        qpd=_qpd(values["qpd"]) if "qpd" in values else 0,
        contact=values["contact"].value if "contact" in values else "",
    )


def _check_value(line: _Line) -> None:
    if not line.value:
        raise MalformedLogList(line.number, f"{line.keyword} without a value")
    if line.value[0].isspace():
        raise MalformedLogList(line.number, f"more than one space after {line.keyword}")
    try:
        line.value.encode()
    except UnicodeEncodeError as error:
        raise MalformedLogList(line.number, f"{line.keyword} is not UTF-8") from error


def _vkey(line: _Line, *, strict: bool) -> VerifierKey:
    try:
        vkey = parse_vkey(line.value)
    except MalformedVKey as error:
        raise MalformedLogList(line.number, f"vkey: {error}") from error
    # SPEC log-list-format: Currently, only ed25519 alg1 type keys are permitted.
    if strict and vkey.type is not SignatureType.ED25519:
        raise MalformedLogList(line.number, "the key's type is not Ed25519 (0x01)")
    return vkey


def _check_origin(number: int, origin: str) -> None:
    """Refuses what no checkpoint can have as its origin, and a list should therefore not promise."""
    encoded = origin.encode()
    if len(encoded) > MAX_ORIGIN_SIZE:
        raise MalformedLogList(number, f"an origin of more than {MAX_ORIGIN_SIZE} bytes")
    if has_control(encoded):
        raise MalformedLogList(number, "an origin with a control character")


def _qpd(line: _Line) -> int:
    # SPEC log-list-format: It MUST be a number in the range [1, 2^31) encoded as an ASCII decimal
    # consisting of characters in the range 0-9 only, with no leading zeroes.
    if _QPD.fullmatch(line.value) is None or int(line.value) > MAX_QPD:
        raise MalformedLogList(line.number, "qpd is not a decimal number from 1 to 2147483647")
    return int(line.value)
