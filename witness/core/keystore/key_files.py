"""The key files of one witness, one for each generation of soft keys: read early, opened then or later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.base import (
    KeyAbsent,
    KeyFileInvalid,
    KeyLocked,
    KeystoreError,
    Signer,
    WrongSecret,
)
from witness.core.keystore.held import HeldSigner
from witness.core.keystore.keyring import KeyEntry, Ring, key_file
from witness.core.keystore.softkey import KeyFile, SoftKeystore
from witness.core.layout import StateLayout
from witness.tlog.note import VerifierKey


class KeyFiles:
    """The soft keys among a witness's keys.

    Args:
        layout: the state folder.
        ring: what is registered.
        keys: the keys that may sign.
        wait: whether a file that no passphrase opens is waited for, instead of failing.

    Raises:
        KeyAbsent, KeyFileInvalid: the newest generation's file is not there, or one is not what it must be.
    """

    def __init__(self, layout: StateLayout, ring: Ring, keys: Sequence[KeyEntry], *, wait: bool) -> None:
        self._ring = ring
        self._wait = wait
        self._keys: dict[Path, list[KeyEntry]] = {}
        self._files: dict[Path, KeyFile] = {}
        self._opened: dict[Path, SoftKeystore] = {}
        self._signers: dict[VerifierKey, Signer] = {}
        self._held: dict[VerifierKey, HeldSigner] = {}
        self.attempt = ""
        """The name of the last try to unlock them."""
        for key in keys:
            if key.how == "soft":
                self._keys.setdefault(key_file(layout, key), []).append(key)
        newest = max((key.rotation for key in keys), default=0)
        for path, inside in self._keys.items():
            try:
                self._files[path] = KeyFile(path)
            except KeyAbsent as error:
                if inside[0].rotation == newest:
                    raise
                # Of an older generation it may be gone for good reasons, which others tell (a retirement that
                # this database does not know of). Until then it is a key that is away.
                self._hold(inside, error)

    def open(self, passphrase: str | None) -> None:
        """Opens every file that is there.

        Raises:
            KeyLocked, WrongSecret: one does not open, and is not waited for.
            KeyFileInvalid: one is another witness's, or lacks a registered key.
        """
        for path, file in self._files.items():
            if path in self._opened:
                continue
            try:
                soft = file.open(passphrase)
            except (KeyLocked, WrongSecret) as error:
                if not self._wait:
                    raise
                self._hold(self._keys[path], error)
                continue
            self._take(path, soft)

    def unlock(self, passphrase: str, attempt: str) -> None:
        """Tries a passphrase on the files that are locked. What came of it shows in the keys' states."""
        try:
            self.open(passphrase)
        except KeystoreError as error:
            for held in self._held.values():
                if held.error is not None:
                    held.fail(error)
        self.attempt = attempt

    @property
    def lockable(self) -> bool:
        """Whether a file waits for its passphrase."""
        return any(key.vkey in self._held for path in self._files for key in self._keys[path])

    def signer(self, vkey: VerifierKey) -> Signer:
        """What signs with a key."""
        return self._held.get(vkey) or self._signers[vkey]

    def is_sealed(self, key: KeyEntry) -> bool:
        """Whether the file that a key is in is sealed."""
        file = next((self._files.get(path) for path, keys in self._keys.items() if key in keys), None)
        return file.public.sealed if file is not None else False

    @property
    def attestation(self) -> AttestationKey | None:
        """The attestation key, once a file that has it is open: all of a witness's have the same."""
        return next((soft.attestation for soft in self._opened.values() if soft.attestation), None)

    def warnings(self) -> tuple[str, ...]:
        """That a file is not sealed, if so."""
        return tuple(dict.fromkeys(line for soft in self._opened.values() for line in soft.warnings()))

    def _hold(self, keys: Sequence[KeyEntry], error: KeystoreError) -> None:
        for key in keys:
            self._held.setdefault(key.vkey, HeldSigner(key.vkey)).fail(error)

    def _take(self, path: Path, soft: SoftKeystore) -> None:
        public, ring = soft.public, self._ring
        if (public.name, public.identity) != (ring.name, ring.identity):
            raise KeyFileInvalid(
                f"the key file {path.name} belongs to {public.name} ({public.identity}) and the ring to"
                f" {ring.name} ({ring.identity})",
                "restore the two from the same witness",
            )
        by_vkey = {signer.vkey: signer for signer in soft.signers()}
        for key in self._keys[path]:
            if key.vkey not in by_vkey:
                raise KeyFileInvalid(
                    f"the key file {path.name} does not hold {key.vkey.name}+{key.vkey.key_id.hex()}",
                    "restore it from its backup",
                )
        self._opened[path] = soft
        for key in self._keys[path]:
            self._signers[key.vkey] = by_vkey[key.vkey]
            if key.vkey in self._held:
                self._held[key.vkey].give(by_vkey[key.vkey])
