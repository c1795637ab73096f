"""Keys for our own records: each made for its one purpose out of a witness key's secret.

Such a key protects what stands on disk against everybody who has no access to the keys themselves. It signs
nothing that anybody outside would see.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from witness.core.keystore.base import KeyFileInvalid, KeystoreError, Signer
from witness.core.keystore.keyring import Ring
from witness.core.ownership import leave_to_folder

HIGH_WATER: Final = "tlog-witness/v1/mac/high-water"
AUDIT: Final = "tlog-witness/v1/mac/audit"
SEALING: Final = "tlog-witness/v1/seal/record-keys"
"""The purpose of the key that seals the records' keys for a later generation; it seals nothing else."""
PURPOSES: Final = (HIGH_WATER, AUDIT)
"""Whose keys a rotation hands on."""
KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_FILE_LIMIT: Final = 256


@runtime_checkable
class SecretSource(Protocol):
    """A key that can make keys for other purposes out of its secret."""

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes for a purpose (HKDF-SHA256, the purpose as info). Raises KeystoreError."""
        ...


class MacKey:
    """A key for HMAC-SHA256. Its representation does not show it."""

    __slots__ = ("_key", "label")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.label = hmac.digest(key, b"label", hashlib.sha256)[:4].hex()
        """Which key it is, for the records; it tells nothing of the key."""

    def mac(self, *parts: bytes) -> bytes:
        """HMAC-SHA256 of the parts, one after the other; 32 bytes."""
        return hmac.digest(self._key, b"".join(parts), hashlib.sha256)

    def fits(self, mac: bytes, *parts: bytes) -> bool:
        """Whether `mac` is that of the parts."""
        return hmac.compare_digest(self.mac(*parts), mac)


class FileSecret:
    """Makes keys out of a file of 32 random bytes: where all witness keys stay in devices that only sign.

    Args:
        path: that file.
        make: whether it is made where there is none.

    Raises:
        OSError: it cannot be made or read.
    """

    __slots__ = ("_secret",)

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self._secret = _from_file(path, make=make)

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes for a purpose: HMAC-SHA256 of it."""
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Source:
    """One generation of witness keys, as what the records' keys come from.

    Attributes:
        secret: its first key whose secret is in this process, or a `FileSecret`.
        sealed: the records' keys as an earlier generation handed them on; empty for the first generation.
    """

    secret: SecretSource
    sealed: bytes = b""

    def keys(self, context: bytes) -> dict[str, bytes]:
        """The records' keys by purpose.

        Raises:
            KeystoreError: the generation's keys are locked or away, or this was not sealed for them.
        """
        if not self.sealed:
            return {purpose: self.secret.derive_secret(purpose) for purpose in PURPOSES}
        key = self.secret.derive_secret(SEALING)
        try:
            plain = ChaCha20Poly1305(key).decrypt(
                self.sealed[:_NONCE_SIZE], self.sealed[_NONCE_SIZE:], context
            )
        except (InvalidTag, ValueError) as error:
            raise KeyFileInvalid(
                "the records' keys in the ring were not sealed for this witness's keys",
                "restore the keys folder from its backup",
            ) from error
        return {purpose: bytes.fromhex(text) for purpose, text in json.loads(plain).items()}


def source(signers: Iterable[object], fallback: Path, sealed: bytes = b"", *, make: bool = True) -> Source:
    """A generation's source: the first signer whose secret is in this process, else the file.

    Args:
        signers: the generation's, in the order of the keys.
        fallback: the file.
        sealed: what the ring has for this generation.
        make: whether the file is made where it is needed and missing.
    """
    for signer in signers:
        if isinstance(signer, SecretSource):
            return Source(signer, sealed)
    return Source(FileSecret(fallback, make=make), sealed)


def sources_of(
    ring: Ring, signers: Sequence[Signer], fallback: Path, *, make: bool = True
) -> tuple[Source, ...]:
    """A source for each generation of which a key is there, the oldest first.

    Raises:
        OSError: a generation needs the file, and it cannot be read or made.
    """
    found = []
    for number, vkeys in ring.generations:
        mine = [signer for signer in signers if signer.vkey in vkeys]
        if mine:
            sealed = base64.b64decode(ring.records.get(str(number), ""))
            found.append(source(mine, fallback, sealed, make=make))
    return tuple(found)


def seal(keys: dict[str, bytes], secret: SecretSource, context: bytes) -> bytes:
    """Hands the records' keys on to a later generation.

    Args:
        keys: by purpose.
        secret: the later generation's.
        context: what they belong to (the identity); they open in no other.
    """
    plain = json.dumps({purpose: key.hex() for purpose, key in sorted(keys.items())}).encode()
    nonce = secrets.token_bytes(_NONCE_SIZE)
    return nonce + ChaCha20Poly1305(secret.derive_secret(SEALING)).encrypt(nonce, plain, context)


def record_keys(sources: Sequence[Source], context: bytes) -> dict[str, bytes]:
    """The records' keys, from the first generation that gives them: all give the same.

    Raises:
        KeystoreError: none does, and why the first does not; later it may.
    """
    errors: list[KeystoreError] = []
    for each in sources:
        try:
            return each.keys(context)
        except KeystoreError as error:
            errors.append(error)
    raise errors[0]


def _from_file(path: Path, *, make: bool) -> bytes:
    try:
        with path.open("rb") as file:
            return bytes.fromhex(file.read(_FILE_LIMIT).decode("ascii").strip())
    except FileNotFoundError:
        if not make:
            raise
    key = secrets.token_bytes(KEY_SIZE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(key.hex() + "\n")
        out.flush()
        leave_to_folder(out.fileno(), path)
        os.fsync(out.fileno())
    return key
