"""A bare signed checkpoint (https://c2sp.org/tlog-checkpoint) with its cosignatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import MalformedNote, parse_note

FORMAT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A signed checkpoint, well-formed."""

    note: bytes
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """Who signed it, who saw it, what it extends."""
        judge.head(self.note)

    def learned(self) -> Learned:
        """The checkpoint itself."""
        return Learned((self.note,))


def parse(data: bytes) -> SignedCheckpoint:
    """Parse a signed checkpoint; raises MalformedBundle."""
    try:
        parse_checkpoint(parse_note(data).text)
    except (MalformedNote, MalformedCheckpoint) as error:
        raise MalformedBundle(FORMAT, error.reason) from error
    return SignedCheckpoint(data)
