"""A signer for a key that is not there yet: locked, or derived by a device that is away."""

from __future__ import annotations

from witness.core.keystore.base import KeyAbsent, KeystoreError, Signer
from witness.tlog.note import VerifierKey


class HeldSigner:
    """Signs with the key it was given, in this process; until then it raises why there is none."""

    __slots__ = ("_error", "_signer", "vkey")

    def __init__(self, vkey: VerifierKey) -> None:
        self.vkey = vkey
        self._signer: Signer | None = None
        self._error: KeystoreError = KeyAbsent("the key's device is being opened")

    @property
    def error(self) -> KeystoreError | None:
        """Why it cannot sign, or None."""
        return None if self._signer is not None else self._error

    def give(self, signer: Signer) -> None:
        """The key itself, already found to be the registered one."""
        if signer.vkey != self.vkey:
            raise ValueError("a held signer is given its own key only")
        self._signer = signer

    def fail(self, error: KeystoreError) -> None:
        """Why there is no key."""
        self._error = error

    def sign(self, message: bytes) -> bytes:
        """The signature of the message.

        Raises:
            KeystoreError: the key is not there.
        """
        return self._held().sign(message)

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes for another purpose, out of the key's secret.

        Raises:
            KeystoreError: the key is not there.
        """
        signer = self._held()
        derive = getattr(signer, "derive_secret", None)
        if derive is None:
            raise KeyAbsent("the key's secret is not in this process")
        secret: bytes = derive(purpose)
        return secret

    def _held(self) -> Signer:
        if self._signer is None:
            error = self._error
            raise type(error)(error.reason, error.hint)
        return self._signer
