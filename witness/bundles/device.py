"""Notes that a device's attestation key signs (`witness.tlog.attestation`): that key is no log's."""

from __future__ import annotations

from collections.abc import Sequence

from witness.bundles.judge import Judge
from witness.tlog.note import MalformedNote, VerifierKey, parse_note
from witness.tlog.signature import InvalidNoteSignature, verify_note


def manifest_keys(judge: Judge) -> list[VerifierKey]:
    """The keys that were given for manifests and devices, as far as they are note keys."""
    return [key for key in judge.options.manifest_keys if isinstance(key, VerifierKey)]


def judge_device_signature(
    judge: Judge, note: bytes, keys: Sequence[VerifierKey], expected: str
) -> VerifierKey | None:
    """Checks that one of the device's keys signed a note.

    Args:
        judge: takes the check.
        note: the whole signed note.
        keys: those of the known keys that may have signed it.
        expected: how such a key is named, for whoever has none.

    Returns:
        The key that signed; None where none did.
    """
    name = "device signature"
    if not keys:
        others = ", ".join(key.name for key in manifest_keys(judge)) or "none"
        judge.check(name, False, f"expected a key named {expected}; known: {others}")
        return None
    try:
        signed = verify_note(parse_note(note), keys)
    except (InvalidNoteSignature, MalformedNote) as error:
        judge.check(name, False, str(error))
        return None
    found = "signed by" if signed else "expected a signature, found none, by"
    key = signed[0].key if signed else keys[0]
    judge.check(name, bool(signed), f"{found} {key.name}+{key.key_id.hex()}")
    return key if signed else None
