"""Signatures by SSH keys, as `ssh-keygen -Y sign` makes them.

https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig

Only Ed25519 keys (`ssh-ed25519`): one algorithm is enough for operators, and strict to verify. Any bytes give
a verdict, or `MalformedKey` for a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError, CryptoError

NAMESPACE: Final = "approval@tlog-witness"
"""What `ssh-keygen -Y sign -n` is given: a signature for anything else is no approval."""
_MAGIC: Final = b"SSHSIG"
_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_TYPE: Final = b"ssh-ed25519"
_HASHES: Final = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_KEY_SIZE: Final = 32
_PARTS: Final = 2


class MalformedKey(Exception):
    """Not a line `NAME ssh-ed25519 BASE64`, or a key of another type."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who may approve: a name, and an Ed25519 public key of 32 bytes."""

    name: str
    key: bytes


def parse_operator(line: str) -> Operator:
    """An operator from `NAME ssh-ed25519 BASE64`, in the order of an allowed_signers file.

    Raises:
        MalformedKey: it is none.
    """
    parts = line.split()
    if len(parts) < 3 or parts[1] != _TYPE.decode():  # noqa: PLR2004 - what follows is a comment
        raise MalformedKey(f"an operator is NAME ssh-ed25519 BASE64, not {line[:60]!r}")
    try:
        blob = base64.b64decode(parts[2], validate=True)
        strings = _strings(blob)
    except (ValueError, binascii.Error) as error:
        raise MalformedKey(f"{parts[0]}: not a key: {error}") from error
    if len(strings) != _PARTS or strings[0] != _TYPE or len(strings[1]) != _KEY_SIZE:
        raise MalformedKey(f"{parts[0]}: not an ssh-ed25519 key")
    return Operator(parts[0], strings[1])


def signer(armored: bytes, message: bytes, operators: tuple[Operator, ...]) -> Operator | None:
    """Which operator signed a message in our namespace; None for a signature that shows nothing."""
    try:
        key, namespace, digest_name, signature = _parse(armored)
    except (ValueError, binascii.Error, IndexError):
        return None
    make = _HASHES.get(digest_name)
    if make is None or namespace != NAMESPACE.encode():
        return None
    signed = _MAGIC + b"".join(
        struct.pack(">I", len(part)) + part for part in (namespace, b"", digest_name, make(message).digest())
    )
    for operator in operators:
        if operator.key == key:
            try:
                crypto_sign_open(signature + signed, key)
            except (BadSignatureError, CryptoError, ValueError):
                return None
            return operator
    return None


def _parse(armored: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    text = armored.strip()
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise ValueError("no SSH signature")
    blob = base64.b64decode(b"".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
    if not blob.startswith(_MAGIC + b"\0\0\0\1"):
        raise ValueError("not version 1")
    public, namespace, reserved, digest_name, signature = _strings(blob[len(_MAGIC) + 4 :])
    key_type, key = _strings(public)
    signature_type, value = _strings(signature)
    if key_type != _TYPE or signature_type != _TYPE or reserved or len(key) != _KEY_SIZE:
        raise ValueError("not by an Ed25519 key")
    return key, namespace, digest_name, value


def _strings(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("cut short")
        (size,) = struct.unpack_from(">I", data, at)
        if at + 4 + size > len(data):
            raise ValueError("cut short")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found
