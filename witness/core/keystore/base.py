"""What a key backend offers, and the ways it can fail.

A backend holds secrets; the core holds `Signer`s. A signer signs the bytes it is given, so it is handed to
nobody but `witness.core.cosigner`, which signs nothing but cosignatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable

from witness.core.wire import KeyInfo, LockdownStep
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
    """A key cannot be had or used.

    Attributes:
        reason: what is wrong, one plain line.
        hint: what the operator can do about it, or empty.
        code: which kind it is, for whoever is told across a process boundary.
        state: what a key in this condition is called towards the operator.
    """

    code: ClassVar[str] = "failed"
    state: ClassVar[str] = "absent"

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class KeyAbsent(KeystoreError):
    """The device, the file, or the key in it is not there."""

    code: ClassVar[str] = "absent"


class KeyLocked(KeystoreError):
    """The secret that unlocks it was not given."""

    code: ClassVar[str] = "locked"
    state: ClassVar[str] = "locked"


class WrongSecret(KeystoreError):
    """The secret given does not unlock it (or the file was tampered with: the two look the same)."""

    code: ClassVar[str] = "wrong-secret"
    state: ClassVar[str] = "locked"


class KeyRefused(KeystoreError):
    """The device is there, and its policy forbids: a retired identity, another boot state, a lockout."""

    code: ClassVar[str] = "refused"
    state: ClassVar[str] = "refused"


class KeyHung(KeystoreError):
    """The device did not answer within its deadline."""

    code: ClassVar[str] = "hung"
    state: ClassVar[str] = "hung"


class KeyBusy(KeystoreError):
    """The device works, and more waits for it than it can answer in time."""

    code: ClassVar[str] = "busy"
    state: ClassVar[str] = "ready"


class KeyInvalid(KeystoreError):
    """What is there is not the key that is registered, or not of a form this program knows."""

    code: ClassVar[str] = "invalid"
    state: ClassVar[str] = "invalid"


class DeviceLost(KeyInvalid):
    """The device is another, or was wiped: what it kept for this witness is not there."""

    code: ClassVar[str] = "device-lost"


class KeyFileInvalid(KeyInvalid):
    """The key file, or the ring of registered keys, is not of a form this program knows."""

    code: ClassVar[str] = "file-invalid"


class BackendMissing(KeystoreError):
    """The library that this backend needs is not installed."""

    code: ClassVar[str] = "backend-missing"


BY_CODE: dict[str, type[KeystoreError]] = {
    kind.code: kind
    for kind in (
        KeystoreError, KeyAbsent, KeyLocked, WrongSecret, KeyRefused, KeyHung, KeyBusy, KeyInvalid,
        KeyFileInvalid, DeviceLost, BackendMissing,
    )
}  # fmt: skip
"""Every kind of error by its code, for the way between processes."""


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


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a key that lives in devices signs.

    Attributes:
        lanes: devices that can sign with it at the same time, now; at least 1.
        seconds: that one signature takes on one device, as measured lately; 0 before the first.
    """

    lanes: int
    seconds: float


@runtime_checkable
class PacedSigner(Protocol):
    """A `Signer` that takes its time: it asks a device, and is never called where others would wait."""

    @property
    def pace(self) -> Pace:
        """How fast it signs now."""
        ...

    @property
    def most_lanes(self) -> int:
        """Devices that may ever sign with it side by side."""
        ...

    @property
    def error(self) -> KeystoreError | None:
        """Why it cannot sign now, or None."""
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

    def drivers(self) -> tuple[LockdownStep, ...]:
        """Which users drive the devices, where that was chosen: a step of the lock-down, as it were."""
        ...
