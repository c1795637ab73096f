"""What a key backend offers, and the ways it can fail.

A backend holds secrets; the core holds `Signer`s. A signer signs the bytes it is given, so it is handed to
nobody but `witness.core.cosigner`, which signs nothing but cosignatures.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from witness.core.wire import KeyInfo
from witness.tlog.note import SignatureType, VerifierKey


class Algorithm(StrEnum):
    """How a witness key signs, by the names that configuration uses."""

    ED25519 = "ed25519"
    MLDSA44 = "ml-dsa-44"


COSIGNATURE_TYPES = {
    Algorithm.ED25519: SignatureType.COSIGNATURE_ED25519,
    Algorithm.MLDSA44: SignatureType.COSIGNATURE_MLDSA44,
}
"""The note signature type of a witness key, by its algorithm (tlog-cosignature)."""


class KeystoreError(Exception):
    """A key cannot be had or used; `hint` tells the operator what to do next."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class KeyAbsent(KeystoreError):
    """The device or file is not there."""


class KeyLocked(KeystoreError):
    """The secret that unlocks it was not given."""


class WrongSecret(KeystoreError):
    """The secret given does not unlock it (or the file was tampered with: the two look the same)."""


class KeyFileInvalid(KeystoreError):
    """The key file is not of a form this program knows."""


class Signer(Protocol):
    """One key that can sign."""

    @property
    def vkey(self) -> VerifierKey:
        """The key as verifiers know it: name, key ID, type 0x04 or 0x06, public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of the message, without timestamp. May block; may be called from several threads.

        Raises:
            KeystoreError: the key cannot sign now.
        """
        ...


class Keystore(Protocol):
    """The keys of one witness identity."""

    def signers(self) -> tuple[Signer, ...]:
        """The keys that sign, in the order in which their cosignatures are returned."""
        ...

    def states(self) -> tuple[KeyInfo, ...]:
        """Every key with its state, for the operator."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """What the operator should know about how the keys are kept, one line each."""
        ...
