"""The attested head of a witness's record of events: how far the record goes, and what it ends with.

A note's text of six lines:

    tlog-witness record head v1
    witness <the witness's name>
    identity <the identifier that its keys and its database share, hexadecimal>
    entry <number of the last entry, from 1>
    hash <SHA-256 of that entry, hexadecimal>
    time <when this was signed, POSIX seconds>

Each entry holds the hash of the one before, so that whoever has kept such a note can tell later whether the
record still has everything that it had then: cut short, brought back or written anew, it has not.

The second line begins with a word, and so is no tree size: no parser takes this for a checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.tlog.note import MalformedNote, is_key_name

FIRST_LINE: Final = b"tlog-witness record head v1"
_TEXT: Final = re.compile(
    rb"tlog-witness record head v1\n"
    rb"witness ([^\n]+)\nidentity ([0-9a-f]+)\nentry ([0-9]+)\nhash ([0-9a-f]{64})\ntime ([0-9]+)\n"
)
_IDENTITY: Final = re.compile(r"[0-9a-f]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MOST: Final = 10**18
_LONGEST: Final = 4096
"""Bytes of a field; a number of so many digits would take its time."""


@dataclass(frozen=True, slots=True)
class RecordHead:
    """The head of a record of events.

    Attributes:
        name: the witness's name.
        identity: the identifier that its keys and its database share, lower-case hexadecimal.
        number: of the last entry, from 1.
        digest: SHA-256 of that entry, 64 lower-case hexadecimal digits.
        time: when this was signed, POSIX seconds, not negative.

    Raises:
        ValueError: when made of anything else.
    """

    name: str
    identity: str
    number: int
    digest: str
    time: int

    def __post_init__(self) -> None:
        # What is signed is one of these, so that no field can bring a line of its own.
        if not is_key_name(self.name) or not _IDENTITY.fullmatch(self.identity):
            raise ValueError("no witness's name and identity")
        if not 0 < self.number < _MOST or not 0 <= self.time < _MOST or not _HASH.fullmatch(self.digest):
            raise ValueError("no entry of a record, or no time")

    def text(self) -> bytes:
        """The note's text; `parse_record_head` gives the same head back."""
        return (
            f"{FIRST_LINE.decode()}\nwitness {self.name}\nidentity {self.identity}\n"
            f"entry {self.number}\nhash {self.digest}\ntime {self.time}\n"
        ).encode()


def recognises(data: bytes) -> bool:
    """Whether the first line is a record head's."""
    return data.partition(b"\n")[0] == FIRST_LINE


def parse_record_head(text: bytes) -> RecordHead:
    """Parse a note's text.

    Raises:
        MalformedNote: it is no record head, or not the one way to write it.
    """
    match = _TEXT.fullmatch(text)
    if match is None or max(map(len, match.groups())) > _LONGEST:
        raise MalformedNote("not the six lines of a record head")
    name, identity, number, digest, time = (group.decode("utf-8", "replace") for group in match.groups())
    try:
        head = RecordHead(name, identity, int(number), digest, int(time))
    except ValueError as error:
        raise MalformedNote(str(error)) from error
    if head.text() != text:
        raise MalformedNote("a number with leading zeroes, or a name that is not UTF-8")
    return head
