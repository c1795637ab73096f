"""What a device is allowed to sign for us: cosignature messages, and nothing else.

The cosigner builds every message itself and is the first to decide. This is the second look, on the other
side of a process boundary: whoever talks a core into sending other bytes to its device still gets no
signature for them. A message is parsed whole and held against its own re-encoding.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from witness.core.keystore.base import KeyRefused
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message
from witness.tlog.merkle import EMPTY_ROOT, HASH_SIZE
from witness.tlog.note import SignatureType, VerifierKey
from witness.tlog.succession import MalformedSuccession, Succession, parse_succession

_V1: Final = b"cosignature/v1\ntime "
_SUBTREE: Final = b"subtree/v1\n\x00"
_NUMBERS: Final = struct.Struct(">QQ")
TEST_ORIGIN: Final = "/key-test"
"""What follows the witness's name in the origin of the checkpoint that a key is tested with."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a cosignature message says: `[start, end)` of `origin` has the hash `root`; POSIX seconds."""

    timestamp: int
    origin: str
    start: int
    end: int
    root: bytes


def parse_message(key: VerifierKey, message: bytes) -> Cosigned:
    """What a cosignature message for a key says (tlog-cosignature).

    Args:
        key: the witness key that is to sign, of type 0x04 or 0x06.
        message: the bytes to be signed.

    Raises:
        KeyRefused: the bytes are no such message, byte for byte.
    """
    try:
        if key.type == SignatureType.COSIGNATURE_ED25519:
            said, encoded = _parse_v1(message)
        elif key.type == SignatureType.COSIGNATURE_MLDSA44:
            said, encoded = _parse_subtree(key.name, message)
        else:
            raise ValueError(f"a key of type 0x{key.type:02x} makes no cosignatures")  # noqa: TRY301
    except (ValueError, IndexError, struct.error, MalformedCheckpoint) as error:
        raise KeyRefused(f"asked to sign what is no cosignature message: {error}") from error
    if encoded != message:
        raise KeyRefused("asked to sign what is no cosignature message: it is not its own re-encoding")
    return said


def parse_statement(key: VerifierKey, message: bytes) -> Succession:
    """What a succession statement says that a key is to sign (`witness.tlog.succession`).

    Raises:
        KeyRefused: the bytes are none, or one about other keys.
    """
    try:
        said = parse_succession(message)
    except MalformedSuccession as error:
        raise KeyRefused(f"asked to sign what is no succession statement: {error.reason}") from error
    if key not in (*said.old, *said.new):
        raise KeyRefused("asked to sign a succession statement of other keys")
    return said


def trial_message(key: VerifierKey, timestamp: int) -> bytes:
    """A harmless message for trying a key: a cosignature over an empty tree of our own.

    An empty tree is consistent with every other, so that it can contradict nothing.
    """
    origin = key.name + TEST_ORIGIN
    if key.type == SignatureType.COSIGNATURE_MLDSA44:
        return cosigned_message(key.name, timestamp, _short(origin), 0, 0, EMPTY_ROOT)
    text = parse_checkpoint(f"{_short(origin)}\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n".encode()).text()
    return cosignature_v1_message(timestamp, text)


def is_signed(key: VerifierKey, message: bytes, signature: bytes) -> bool:
    """Whether a device's signature over a message is by a witness key: what a device says is not believed."""
    if key.type == SignatureType.COSIGNATURE_ED25519:
        if len(signature) != crypto_sign_BYTES:
            return False
        try:
            crypto_sign_open(signature + message, key.public_key)
        except BadSignatureError:
            return False
        return True
    try:
        MLDSA44PublicKey.from_public_bytes(key.public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _parse_v1(message: bytes) -> tuple[Cosigned, bytes]:
    if not message.startswith(_V1):
        raise ValueError("no cosignature/v1 header")
    line, _, text = message[len(_V1) :].partition(b"\n")
    if not (line.isdigit() and len(line) < 20):  # noqa: PLR2004 - digits of 2^63
        raise ValueError("no timestamp")
    timestamp = int(line)
    if timestamp == 0:
        raise ValueError("a checkpoint's cosignature has a timestamp")
    checkpoint = parse_checkpoint(text)
    said = Cosigned(timestamp, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
    return said, cosignature_v1_message(timestamp, checkpoint.text())


def _parse_subtree(name: str, message: bytes) -> tuple[Cosigned, bytes]:
    if not message.startswith(_SUBTREE):
        raise ValueError("no subtree/v1 label")
    at = len(_SUBTREE)
    cosigner, at = _opaque(message, at)
    if cosigner != name:
        raise ValueError("it names another cosigner")
    timestamp = int.from_bytes(message[at : at + 8], "big")
    origin, at = _opaque(message, at + 8)
    start, end = _NUMBERS.unpack_from(message, at)
    root = message[at + _NUMBERS.size : at + _NUMBERS.size + HASH_SIZE]
    said = Cosigned(timestamp, origin, start, end, root)
    return said, cosigned_message(name, timestamp, origin, start, end, root)


def _opaque(message: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + message[at]
    return message[at + 1 : end].decode("utf-8"), end


def _short(origin: str) -> str:
    encoded = origin.encode()
    return origin if len(encoded) <= 255 else "witness" + TEST_ORIGIN  # noqa: PLR2004 - an origin's bytes
