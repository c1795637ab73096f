"""The attestation key: it lives as long as its device, and says which keys are that device's.

This is, beside the cosigner, the only program that signs anything that others see, and like it builds every
text itself, out of values that were checked. It signs two kinds of note, and no bytes of a caller's choosing:

- attestations (`witness.tlog.attestation`): this key is this device's, of this generation;
- record heads (`witness.tlog.record_head`): so far goes the record of events.

Neither can be taken for the other, nor for what logs and witnesses sign. The first lines of the two differ.
A checkpoint's second line is a tree size and its third the base64 of 32 bytes: a record head's second line
begins with a word, and an attestation's third is a number of 18 digits at most. A cosignature message begins
with `cosignature/v1` or `subtree/v1`. And no log and no witness has a key named `AW-ID-Attestation-…`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair

from witness.core.keystore.derivation import ARMORED_WITNESS, DEV
from witness.tlog.attestation import KEY_NAME, attestation_text
from witness.tlog.note import Signature, SignatureType, VerifierKey, format_note, make_vkey
from witness.tlog.record_head import RecordHead

_SERIAL: Final = re.compile(r"[0-9A-F]{16}")
_SERIAL_BYTES: Final = 8


def serial_of(unique_id: str, scheme: str = "") -> str:
    """A device's serial number as attestations have it: 16 upper-case hexadecimal digits.

    An Armored Witness's unique ID is its serial number. Of any other device, and of a key file, it is the
    first 8 bytes of the SHA-256 of the unique ID (a key file's is the identity that it carries).
    """
    if scheme == ARMORED_WITNESS and _SERIAL.fullmatch(unique_id):
        return unique_id
    return hashlib.sha256(unique_id.encode()).digest()[:_SERIAL_BYTES].hex().upper()


class AttestationKey:
    """An opened attestation key (Ed25519, a note key of type 0x01). Its representation does not show it."""

    __slots__ = ("_secret", "serial", "vkey")

    def __init__(self, seed: bytes, serial: str, *, dev: bool) -> None:
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.serial = serial
        self.vkey = attestation_vkey(public, serial, dev=dev)

    def attest(self, key: VerifierKey, generation: int) -> bytes:
        """A note that says: this witness key is this device's, of this generation.

        Raises:
            ValueError: the generation is negative.
        """
        return self._note(attestation_text(self.serial, generation, key))

    def attest_head(self, head: RecordHead) -> bytes:
        """A note that says: so far goes this witness's record of events."""
        return self._note(head.text())

    def _note(self, text: bytes) -> bytes:
        signature = crypto_sign(text, self._secret)[:crypto_sign_BYTES]
        return format_note(text, [Signature(self.vkey.name, self.vkey.key_id, signature)])


def attestation_vkey(public_key: bytes, serial: str, *, dev: bool) -> VerifierKey:
    """The vkey of a device's attestation key, by the name that goes with its serial number."""
    return make_vkey(f"{DEV if dev else ''}{KEY_NAME}{serial}", SignatureType.ED25519, public_key)
