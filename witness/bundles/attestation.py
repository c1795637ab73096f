"""Device attestations (`witness.tlog.attestation`) as bundles.

They are signed by the device's own key, which is no log's: there is nothing to be included in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.bundles.device import judge_device_signature, manifest_keys
from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.attestation import DEV, AttestationText, parse_attestation, recognises
from witness.tlog.note import MalformedNote, VerifierKey, parse_note, parse_vkey

__all__ = ["FORMAT", "Attestation", "parse", "recognises"]

FORMAT: Final = "armored-witness-attestation"
_FILE_NAME: Final = re.compile(r"[0-9A-Fa-f]{16}\.(witness|bastion)\.[0-9]+(\.[a-z0-9-]+)?")


@dataclass(frozen=True, slots=True)
class Attestation:
    """A parsed attestation and the note that it is from."""

    note: bytes
    says: AttestationText
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """The device's signature, and that the names it goes by agree with what it says."""
        says = self.says
        judge.check("attestation", True, f"device {says.serial}, {says.kind} {says.identity}")
        self._judge_signature(judge)
        self._judge_file_name(judge)
        self._judge_identity(judge)
        judge.version(self._subject(), says.counter)
        judge.say_unchecked("an attestation is in no log: only the device's own key vouches for it")

    def _judge_signature(self, judge: Judge) -> None:
        expected = self.says.key_names
        keys = [key for key in (*manifest_keys(judge), *judge.options.logs) if key.name in expected]
        key = judge_device_signature(judge, self.note, keys, expected[0])
        if key is not None:
            self._judge_development(judge, key)

    def _judge_identity(self, judge: Judge) -> None:
        """That the identity is one of the witnesses that were named, if any: by its key, of whatever type."""
        named = judge.options.witnesses
        if named:
            known = [f"{key.name}+{key.key_id.hex()}" for key in named]
            identity = parse_vkey(self.says.identity) if self.says.kind == "witness" else None
            ok = identity is not None and any(
                (key.name, key.public_key) == (identity.name, identity.public_key) for key in named
            )
            judge.check("identity", ok, f"{'is' if ok else 'is not'} one of {', '.join(known)}")

    def _judge_development(self, judge: Judge, key: VerifierKey) -> None:
        if not key.name.startswith(DEV):
            return
        judge.say_unchecked("a development device (DEV:) protects its secret from nobody")
        # Upstream marks both keys of such a device. It has no word for a key that is not marked so.
        if self.says.kind == "witness":
            marked = self.says.identity.startswith(DEV)
            found = "so too" if marked else "not marked so"
            judge.check("development", marked, f"the device is marked DEV:, the identity is {found}")

    def _judge_file_name(self, judge: Judge) -> None:
        file_name = judge.options.file_name
        if file_name is None or not _FILE_NAME.fullmatch(file_name):
            judge.say_unchecked("the file's name is not one to compare serial number and counter with")
            return
        known = self.says.file_names
        expected = " or ".join(known)
        judge.check("file name", file_name in known, f"expected {expected}, found {file_name}")

    def _subject(self) -> str:
        return f"{self.says.serial} {self.says.kind}"

    def learned(self) -> Learned:
        """How often the identity was renewed."""
        return Learned((), {self._subject(): self.says.counter})


def parse(data: bytes) -> Attestation:
    """Parse an attestation; raises MalformedBundle."""
    try:
        return Attestation(data, parse_attestation(parse_note(data).text))
    except MalformedNote as error:
        raise MalformedBundle(FORMAT, error.reason) from error
