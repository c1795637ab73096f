"""Attested heads of a witness's record of events (`witness.tlog.record_head`) as bundles.

They are signed by the attestation key of the witness's device, which is no log's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.bundles.device import judge_device_signature, manifest_keys
from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.attestation import DEV, KEY_NAME
from witness.tlog.note import MalformedNote, parse_note
from witness.tlog.record_head import RecordHead, parse_record_head, recognises

__all__ = ["FORMAT", "AttestedHead", "parse", "recognises"]

FORMAT: Final = "record-head"
_ATTESTATION_KEY: Final = re.compile(f"(?:{DEV})?{KEY_NAME}[0-9A-F]{{16}}")


@dataclass(frozen=True, slots=True)
class AttestedHead:
    """A parsed head and the note that it is from."""

    note: bytes
    head: RecordHead
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """The device's signature, the witness's name, and that the record has not become shorter."""
        head = self.head
        judge.check("record head", True, f"entry {head.number} {head.digest} of {head.name} at {head.time}")
        self._judge_signature(judge)
        named = judge.options.witnesses
        if named:
            ok = head.name in {key.name for key in named}
            judge.check("identity", ok, f"the witness is {head.name}")
        judge.version(self._subject(), str(head.number))
        judge.say_unchecked(
            "whether the record still has this entry: witness audit verify --head FILE, where the record is"
        )

    def _judge_signature(self, judge: Judge) -> None:
        keys = [key for key in manifest_keys(judge) if _ATTESTATION_KEY.fullmatch(key.name)]
        judge_device_signature(judge, self.note, keys, f"{KEY_NAME}…")

    def _subject(self) -> str:
        return f"{self.head.identity} record"

    def learned(self) -> Learned:
        """How far the record went."""
        return Learned((), {self._subject(): str(self.head.number)})


def parse(data: bytes) -> AttestedHead:
    """Parse a head; raises MalformedBundle."""
    try:
        return AttestedHead(data, parse_record_head(parse_note(data).text))
    except MalformedNote as error:
        raise MalformedBundle(FORMAT, error.reason) from error
