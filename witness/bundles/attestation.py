"""Armored Witness device attestations (transparency-dev/armored-witness, devices/README.md).

A signed note of four lines: what it is, the device's serial number, how often the identity was renewed, and
the identity: a witness's vkey, or the ID under which the device registers with bastions. It is signed by
the device's own key, which is no log's: there is nothing to be included in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.note import MalformedNote, MalformedVKey, VerifierKey, parse_note, parse_vkey
from witness.tlog.signature import InvalidNoteSignature, verify_note

FORMAT: Final = "armored-witness-attestation"
KEY_NAME: Final = "AW-ID-Attestation-"

_HEADS: Final = {
    b"ArmoredWitness ID attestation v1": "witness",
    b"ArmoredWitness BastionID attestation v1": "bastion",
}
_SERIAL: Final = re.compile(rb"[0-9A-F]{16}")
_COUNTER: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_BASTION_ID: Final = re.compile(rb"[0-9a-f]{64}")
_FILE_NAME: Final = re.compile(r"([0-9A-Fa-f]{16})\.(witness|bastion)\.([0-9]+)")
_LINES: Final = 5  # four, and what follows the last newline


@dataclass(frozen=True, slots=True)
class Attestation:
    """A parsed attestation: `kind` is witness or bastion, `identity` the vkey or the ID."""

    note: bytes
    kind: str
    serial: str
    counter: str
    identity: str
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """The device's signature, and that the names it goes by agree with what it says."""
        judge.check("attestation", True, f"device {self.serial}, {self.kind} {self.identity}")
        self._judge_signature(judge)
        self._judge_file_name(judge)
        judge.version(self._subject(), self.counter)
        judge.say_unchecked("an attestation is in no log: only the device's own key vouches for it")

    def _judge_signature(self, judge: Judge) -> None:
        name = "device signature"
        expected = KEY_NAME + self.serial
        known = [key for key in judge.options.manifest_keys if isinstance(key, VerifierKey)]
        keys = [key for key in (*known, *judge.options.logs) if key.name == expected]
        if not keys:
            others = ", ".join(key.name for key in known) or "none"
            judge.check(name, False, f"expected a key named {expected}; known: {others}")
            return
        try:
            signed = verify_note(parse_note(self.note), keys)
        except (InvalidNoteSignature, MalformedNote) as error:
            judge.check(name, False, str(error))
            return
        found = "signed by" if signed else "expected a signature, found none, by"
        judge.check(name, bool(signed), f"{found} {keys[0].name}+{keys[0].key_id.hex()}")

    def _judge_file_name(self, judge: Judge) -> None:
        file_name = judge.options.file_name
        match = _FILE_NAME.fullmatch(file_name) if file_name is not None else None
        if match is None:
            judge.say_unchecked("the file's name is not one to compare serial number and counter with")
            return
        found = f"{self.serial}.{self.kind}.{self.counter}"
        judge.check("file name", match[0] == found, f"expected {found}, found {match[0]}")

    def _subject(self) -> str:
        return f"{self.serial} {self.kind}"

    def learned(self) -> Learned:
        """How often the identity was renewed."""
        return Learned((), {self._subject(): self.counter})


def recognises(data: bytes) -> bool:
    """Whether the first line is an attestation's."""
    return data.partition(b"\n")[0] in _HEADS


def parse(data: bytes) -> Attestation:
    """Parse an attestation; raises MalformedBundle."""
    try:
        lines = parse_note(data).text.split(b"\n")
    except MalformedNote as error:
        raise MalformedBundle(FORMAT, error.reason) from error
    if len(lines) != _LINES:
        raise MalformedBundle(FORMAT, f"{len(lines) - 1} lines, not four")
    head, serial, counter, identity, _ = lines
    if not _SERIAL.fullmatch(serial):
        raise MalformedBundle(FORMAT, "the second line is no serial number of 16 hex digits")
    if not _COUNTER.fullmatch(counter):
        raise MalformedBundle(FORMAT, "the third line is no decimal number without leading zeroes")
    kind = _HEADS.get(head, "")
    if kind == "witness":
        try:
            parse_vkey(identity.decode("utf-8"))
        except MalformedVKey as error:
            raise MalformedBundle(FORMAT, f"the fourth line is no vkey: {error.reason}") from error
    elif not _BASTION_ID.fullmatch(identity):
        raise MalformedBundle(FORMAT, "the fourth line is no bastion ID of 64 hex digits")
    return Attestation(data, kind, serial.decode(), counter.decode(), identity.decode("utf-8"))
