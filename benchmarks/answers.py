"""A load test counts signatures, so some of the answers are checked to be signatures."""

from __future__ import annotations

from collections.abc import Sequence

from witness.tlog.note import Note, parse_signature_lines, parse_vkey
from witness.tlog.signature import verify_note


class WrongAnswer(Exception):
    """A 200 whose body is not one valid cosignature by each of the witness's keys."""


def check(samples: Sequence[tuple[bytes, bytes]], vkeys: Sequence[str]) -> int:
    """Verifies (checkpoint text, answer) pairs against all of the keys; returns how many there were.

    Raises:
        WrongAnswer: the first that is not as it must be.
    """
    keys = [parse_vkey(vkey) for vkey in vkeys]
    for text, answer in samples:
        verified = verify_note(Note(text, parse_signature_lines(answer)), keys)
        if {v.key for v in verified} != set(keys):
            raise WrongAnswer(f"{answer[:200]!r} does not carry a cosignature by each of {list(vkeys)}")
    return len(samples)
