r"""Evidence of a log's misbehaviour: two checkpoints that it signed and that contradict each other.

The format is this project's own, JSON::

    {
      "format": "tlog-witness-evidence/v1",
      "kind": "same-size-different-root",
      "vkeys": ["example.com/log+…"],
      "notes": ["example.com/log\n5\n…", "example.com/log\n5\n…"]
    }

`kind` is one of

- `same-size-different-root`: the notes have one size and two roots.
- `fork-with-proof`: the first note has the smaller size. `contained_root` (base64) and `proof` (an array of
  base64 hashes, RFC 6962, section 2.1.2) show what the second note's tree contains at that size, and it is
  not the root that the first note has.

The keys in the file only say which keys to ask for: whoever reads it must know that they are the log's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.judge import LOG, Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.strict_json import MalformedJson, decode, list_of, refuse_other_cases, text_of
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.merkle import HASH_SIZE, InvalidProof, verify_consistency
from witness.tlog.note import (
    MalformedNote,
    MalformedVKey,
    Note,
    VerifierKey,
    encode_base64,
    parse_note,
    parse_vkey,
)
from witness.tlog.signature import InvalidNoteSignature, verify_note

FORMAT: Final = "evidence"
HEADER: Final = "tlog-witness-evidence/v1"
SAME_SIZE: Final = "same-size-different-root"
FORK: Final = "fork-with-proof"

_NAMES: Final = ("format", "kind", "vkeys", "notes", "contained_root", "proof")
_MAX_KEYS: Final = 16
_MAX_HASHES: Final = 64
"""A consistency proof has one hash more than an inclusion proof where the old tree is no whole subtree."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two notes that contradict each other, if they verify.

    Attributes:
        kind: `same-size-different-root` or `fork-with-proof`.
        vkeys: the log's keys, as the file has them.
        notes: two signed checkpoints; in a fork, the smaller tree's first.
        contained_root: the root that the second note's tree has at the first's size; None but in a fork.
        proof: the consistency proof from that root to the second note's; empty but in a fork.
    """

    kind: str
    vkeys: tuple[VerifierKey, ...]
    notes: tuple[bytes, bytes]
    contained_root: bytes | None = None
    proof: tuple[bytes, ...] = ()
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """One origin, both signed by a key that the reader knows for the log's, and a contradiction."""
        parsed = [
            self._judge_note(judge, ordinal, data)
            for ordinal, data in zip(("first", "second"), self.notes, strict=True)
        ]
        first, second = parsed
        if first is None or second is None:
            return
        if first.origin != second.origin:
            judge.check("origin", False, f"two logs: {first.origin} and {second.origin}")
        elif judge.options.origin not in (None, first.origin):
            judge.check("origin", False, f"expected {judge.options.origin}, found {first.origin}")
        elif self.kind == SAME_SIZE:
            self._judge_same_size(judge, first, second)
        else:
            self._judge_fork(judge, first, second)

    def _judge_note(self, judge: Judge, ordinal: str, data: bytes) -> Checkpoint | None:
        name = f"{ordinal} checkpoint"
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except (MalformedNote, MalformedCheckpoint) as error:
            judge.check(name, False, f"not a signed checkpoint: {error.reason}")
            return None
        judge.check(
            name, True, f"{checkpoint.origin}, size {checkpoint.size}, root {encode_base64(checkpoint.root)}"
        )
        self._judge_signature(judge, f"{ordinal} {LOG}", note, checkpoint.origin)
        return checkpoint

    def _judge_signature(self, judge: Judge, name: str, note: Note, origin: str) -> None:
        known = judge.log_keys(origin)
        keys = [key for key in self.vkeys if key in known]
        if not keys:
            named = ", ".join(map(str, self.vkeys)) or "none"
            judge.check(name, False, f"no key in the file is known as the log's; the file has {named}")
            return
        try:
            signed = verify_note(note, keys)
        except InvalidNoteSignature as error:
            judge.check(name, False, f"the signature by {error.name}+{error.key_id.hex()} is not valid")
            return
        # A key of type 0x06 leaves the extension lines out, and 0x05 the origin; the roots are in all.
        shown = f"{keys[0].name}+{keys[0].key_id.hex()}"
        judge.check(
            name, bool(signed), f"signed by {shown}" if signed else f"expected a signature by {shown}"
        )

    def _judge_same_size(self, judge: Judge, first: Checkpoint, second: Checkpoint) -> None:
        ok = first.size == second.size and first.root != second.root
        if ok:
            detail = f"two roots at size {first.size}"
        elif first.size != second.size:
            detail = f"expected one size, found {first.size} and {second.size}"
        else:
            detail = "expected two roots, found one: the checkpoints agree"
        judge.check("contradiction", ok, detail)

    def _judge_fork(self, judge: Judge, first: Checkpoint, second: Checkpoint) -> None:
        name = "contradiction"
        contained = self.contained_root or b""
        if not 0 < first.size < second.size:
            judge.check(
                name, False, f"expected a smaller and a larger size, found {first.size} and {second.size}"
            )
        elif contained == first.root:
            judge.check(name, False, "the second tree contains the first: the checkpoints agree")
        else:
            try:
                verify_consistency(first.size, second.size, contained, second.root, self.proof)
            except InvalidProof as error:
                judge.check(
                    name, False, f"the proof does not show what the second tree contains: {error.reason}"
                )
                return
            detail = (
                f"at size {first.size} the second tree has root {encode_base64(contained)}, not the first's"
            )
            judge.check(name, True, detail)

    def learned(self) -> Learned:
        """Nothing: neither checkpoint is to be trusted."""
        return Learned()


def format_evidence(evidence: Evidence) -> bytes:
    """Write evidence; `parse` gives the same back."""
    members: dict[str, Any] = {
        "format": HEADER,
        "kind": evidence.kind,
        "vkeys": [str(key) for key in evidence.vkeys],
        "notes": [note.decode("utf-8") for note in evidence.notes],
    }
    if evidence.contained_root is not None:
        members["contained_root"] = encode_base64(evidence.contained_root)
        members["proof"] = [encode_base64(each) for each in evidence.proof]
    return json.dumps(members, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def recognises(members: dict[str, Any]) -> bool:
    """Whether a JSON object is meant as evidence."""
    return str(members.get("format", "")).startswith(HEADER[:-1])


def parse(members: dict[str, Any]) -> Evidence:
    """Take a JSON object as evidence; raises MalformedBundle."""
    try:
        return _parse(members)
    except MalformedJson as error:
        raise MalformedBundle(FORMAT, error.reason) from error
    except MalformedVKey as error:
        raise MalformedBundle(FORMAT, f"vkeys: {error.reason}") from error
    except UnicodeEncodeError as error:
        raise MalformedBundle(FORMAT, "a note is not UTF-8") from error


def _parse(members: dict[str, Any]) -> Evidence:
    refuse_other_cases(members, _NAMES)
    if members.get("format") != HEADER:
        raise MalformedJson(f"not of the format {HEADER}")
    kind = text_of(members, "kind")
    vkeys, notes = list_of(members, "vkeys"), list_of(members, "notes")
    if not all(isinstance(each, str) for each in (*vkeys, *notes)):
        raise MalformedJson("vkeys or notes are no strings")
    if len(notes) != 2 or not 1 <= len(vkeys) <= _MAX_KEYS:  # noqa: PLR2004
        raise MalformedJson(f"not two notes and 1 to {_MAX_KEYS} vkeys")
    keys = tuple([parse_vkey(each) for each in vkeys])
    first, second = (each.encode("utf-8") for each in notes)
    if kind == SAME_SIZE:
        if "proof" in members or "contained_root" in members:
            raise MalformedJson("a proof where there is nothing to prove")
        return Evidence(kind, keys, (first, second))
    if kind != FORK:
        raise MalformedJson("an unknown kind")
    root = decode(members.get("contained_root"), "contained_root")
    proof = tuple([decode(each, "a hash of proof") for each in list_of(members, "proof")])
    if len(proof) > _MAX_HASHES or any(len(each) != HASH_SIZE for each in (root, *proof)):
        raise MalformedJson(f"not at most {_MAX_HASHES} hashes of {HASH_SIZE} bytes")
    return Evidence(kind, keys, (first, second), root, proof)
