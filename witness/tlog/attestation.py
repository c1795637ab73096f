"""Attestation notes, in the Armored Witness's format (transparency-dev/armored-witness, devices/README.md).

A signed note of four lines: what it is, the device's serial number, how often the identity was renewed, and
the identity: a witness's vkey, or the ID under which the device registers with bastions. It is signed by a
key that lives as long as the device, so that who knows that key can tell whose the next identity is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.tlog.note import MalformedNote, MalformedVKey, SignatureType, VerifierKey, parse_vkey

KEY_NAME: Final = "AW-ID-Attestation-"
DEV: Final = "DEV:"
"""What stands before the names of a device's keys where nothing protects its secret (trusted_applet/key.go:
"Add an obvious prefix to key names when we're running without secure boot")."""

_HEADS: Final = {
    b"ArmoredWitness ID attestation v1": "witness",
    b"ArmoredWitness BastionID attestation v1": "bastion",
}
_IDENTITY_HEAD: Final = "ArmoredWitness ID attestation v1"
_SERIAL: Final = re.compile(rb"[0-9A-F]{16}")
_COUNTER: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_BASTION_ID: Final = re.compile(rb"[0-9a-f]{64}")
_LINES: Final = 5  # four, and what follows the last newline
_ALGORITHMS: Final = {
    SignatureType.ED25519: "ed25519",
    SignatureType.COSIGNATURE_ED25519: "ed25519",
    SignatureType.COSIGNATURE_MLDSA44: "ml-dsa-44",
}


@dataclass(frozen=True, slots=True)
class AttestationText:
    """What an attestation says: `kind` is witness or bastion, `identity` the vkey or the ID."""

    kind: str
    serial: str
    counter: str
    identity: str

    @property
    def key_names(self) -> tuple[str, str]:
        """The names that the key of this device may have: a device's, or a development device's."""
        return KEY_NAME + self.serial, DEV + KEY_NAME + self.serial

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names that its file may have: SERIAL.KIND.COUNTER, and .ALGORITHM where a witness has two keys.

        The Armored Witness has one key an identity, and no suffix; its tools read what comes after the
        serial number as they find it.
        """
        plain = f"{self.serial}.{self.kind}.{self.counter}"
        if self.kind != "witness":
            return (plain,)
        algorithm = _ALGORITHMS.get(parse_vkey(self.identity).type)
        return (plain, f"{plain}.{algorithm}") if algorithm else (plain,)


def attestation_text(serial: str, counter: int, identity: VerifierKey) -> bytes:
    """The text of a note that attests a witness's key.

    Args:
        serial: the device's serial number, 16 upper-case hexadecimal digits.
        counter: how often the identity was renewed: which generation the key is of.
        identity: the key.

    Raises:
        ValueError: a field is not of its form.
    """
    text = f"{_IDENTITY_HEAD}\n{serial}\n{counter}\n{identity}\n".encode()
    try:
        parse_attestation(text)
    except MalformedNote as error:
        raise ValueError(error.reason) from error
    return text


def recognises(data: bytes) -> bool:
    """Whether the first line is an attestation's."""
    return data.partition(b"\n")[0] in _HEADS


def parse_attestation(text: bytes) -> AttestationText:
    """Parse a note's text.

    Raises:
        MalformedNote: it is no attestation.
    """
    lines = text.split(b"\n")
    if len(lines) != _LINES:
        raise MalformedNote(f"{len(lines) - 1} lines, not four")
    head, serial, counter, identity, _ = lines
    if not _SERIAL.fullmatch(serial):
        raise MalformedNote("the second line is no serial number of 16 hex digits")
    if not _COUNTER.fullmatch(counter):
        raise MalformedNote("the third line is no decimal number without leading zeroes")
    kind = _HEADS.get(head, "")
    if kind == "witness":
        try:
            parse_vkey(identity.decode("utf-8"))
        except MalformedVKey as error:
            raise MalformedNote(f"the fourth line is no vkey: {error.reason}") from error
    elif kind != "bastion" or not _BASTION_ID.fullmatch(identity):
        raise MalformedNote("the fourth line is no bastion ID of 64 hex digits")
    return AttestationText(kind, serial.decode(), counter.decode(), identity.decode("utf-8"))
