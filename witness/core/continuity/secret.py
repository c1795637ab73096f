"""Keys for our own records: each made for its one purpose out of a witness key's secret.

Such a key protects what stands on disk against everybody who has no access to the keys themselves. It signs
nothing that anybody outside would see.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from witness.core.ownership import leave_to_folder

HIGH_WATER: Final = "tlog-witness/v1/mac/high-water"
AUDIT: Final = "tlog-witness/v1/mac/audit"
KEY_SIZE: Final = 32
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


def mac_key(sources: Iterable[object], purpose: str, fallback: Path) -> MacKey:
    """The key for a purpose.

    It comes from the first witness key whose secret is in this process (soft and derived keys). Where all
    keys stay in devices that only sign, it comes from a file of 32 random bytes, made when first needed.

    Args:
        sources: the signers, in the order of the keys.
        purpose: one of this module's constants.
        fallback: that file.

    Raises:
        KeystoreError: the key is locked or away; later it may not be.
        OSError: the file cannot be made or read.
    """
    for source in sources:
        if isinstance(source, SecretSource):
            return MacKey(source.derive_secret(purpose))
    return MacKey(hmac.digest(_from_file(fallback), purpose.encode(), hashlib.sha256))


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return bytes.fromhex(file.read(_FILE_LIMIT).decode("ascii").strip())
    except FileNotFoundError:
        pass
    key = secrets.token_bytes(KEY_SIZE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(key.hex() + "\n")
        out.flush()
        leave_to_folder(out.fileno(), path)
        os.fsync(out.fileno())
    return key
