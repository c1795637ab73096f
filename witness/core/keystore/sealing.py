"""How the key file's secrets are sealed, and the file read and written.

A key that scrypt (RFC 7914) makes of the passphrase seals them by ChaCha20-Poly1305; the rest of the file,
its header, is authenticated with them. The nonce is random and each file is sealed once under its own salt,
so no key and nonce meet twice.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from witness.core.keystore.base import KeyAbsent, KeyFileInvalid, KeyLocked, WrongSecret

FORMAT: Final = "tlog-witness softkey v1"
SCRYPT_N: Final = 2**17
"""scrypt's cost: about 0.6 s and 128 MiB, once at start."""
MAX_FILE: Final = 64 * 1024
_MAX_N, _MAX_R, _MAX_P = 2**20, 16, 4  # what a hostile file may make us spend


def seal(
    header: Mapping[str, Any], held: Mapping[str, str], passphrase: str, *, scrypt_n: int
) -> dict[str, Any]:
    """A file's content: the header, and what it holds, sealed."""
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    whole = {
        **header,
        "scrypt": {"n": scrypt_n, "r": 8, "p": 1, "salt": b64(salt)},
        "nonce": b64(nonce),
    }
    key = Scrypt(salt=salt, length=32, n=scrypt_n, r=8, p=1).derive(passphrase.encode())
    sealed = ChaCha20Poly1305(key).encrypt(nonce, json.dumps(held).encode(), _associated(whole))
    return {**whole, "sealed": b64(sealed)}


def unseal(content: Mapping[str, Any], passphrase: str | None) -> object:
    """What a sealed file holds.

    Raises:
        KeyLocked: no passphrase is given.
        WrongSecret: it is another.
        KeyFileInvalid: the file does not say how it is sealed, or would cost too much to open.
    """
    if passphrase is None:
        raise KeyLocked(
            "the key file is sealed and no passphrase is given",
            "put it into WITNESS_PASSPHRASE, or name a file with keys.passphrase_file in witness.yaml",
        )
    scrypt = content.get("scrypt")
    if not isinstance(scrypt, dict):
        raise KeyFileInvalid("the key file does not say how it is sealed")
    n, r, p = (scrypt.get(name) for name in "nrp")
    if not (isinstance(n, int) and isinstance(r, int) and isinstance(p, int)):
        raise KeyFileInvalid("the key file's scrypt parameters are not numbers")
    if not (1 < n <= _MAX_N and n & (n - 1) == 0 and 0 < r <= _MAX_R and 0 < p <= _MAX_P):
        raise KeyFileInvalid(f"the key file's scrypt parameters are out of bounds: n={n} r={r} p={p}")
    salt, nonce = bytes_of(scrypt, "salt", 16), bytes_of(content, "nonce", 12)
    key = Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase.encode())
    header = {name: value for name, value in content.items() if name != "sealed"}
    try:
        plain = ChaCha20Poly1305(key).decrypt(nonce, bytes_of(content, "sealed"), _associated(header))
    except InvalidTag as error:
        raise WrongSecret("the passphrase does not open the key file, or the file was changed") from error
    return json.loads(plain)


def read_file(path: Path) -> dict[str, Any]:
    """A key file's content.

    Raises:
        KeyAbsent: there is none that could be read.
        KeyFileInvalid: it is not of a form this program knows.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise KeyAbsent(f"there is no key file at {path}", "restore it from its backup") from error
    except OSError as error:
        raise KeyAbsent(f"cannot read {path}: {error.strerror}") from error
    try:
        content = json.loads(data[:MAX_FILE])
    except (ValueError, RecursionError) as error:
        raise KeyFileInvalid(f"{path} is not a key file: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KeyFileInvalid(f"{path} is not a key file of a form this program knows")
    return content


def write_new(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a key file where there is none, mode 0600, durably but for its folder.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    # O_EXCL: a key file is never overwritten.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Makes names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def bytes_of(fields: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    """The bytes that a field has in base64, of the right size.

    Raises:
        KeyFileInvalid: it has not.
    """
    try:
        data = base64.b64decode(fields[name], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise KeyFileInvalid(f"the key file's {name} is missing or not base64") from error
    if size is not None and len(data) != size:
        raise KeyFileInvalid(f"the key file's {name} has {len(data)} bytes, not {size}")
    return data


def _associated(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
