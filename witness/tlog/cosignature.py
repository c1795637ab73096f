"""Cosignatures: what a witness signs, and when it says it did (https://c2sp.org/tlog-cosignature).

Two signature types, Ed25519 (0x04) over a text, ML-DSA-44 (0x06) over a structure that names the
cosigner and may speak of a subtree. Both signature bodies are a timestamp and the signature proper.
"""

from dataclasses import dataclass
from typing import Protocol

from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE
from witness.tlog.note import ED25519_SIGNATURE_SIZE, MLDSA44_SIGNATURE_SIZE, MalformedNote, SignatureType

MAX_TIMESTAMP = 2**63 - 1
"""tlog-cosignature: "It MUST NOT exceed 2^63 - 1"."""

_TIMESTAMP_SIZE = 8
_LABEL = b"subtree/v1\n\x00"
_MAX_NAME_SIZE = 255

_SIGNATURE_SIZES = {
    SignatureType.COSIGNATURE_ED25519: ED25519_SIGNATURE_SIZE,
    SignatureType.COSIGNATURE_MLDSA44: MLDSA44_SIGNATURE_SIZE,
}


class Cosigner(Protocol):
    """What of a cosigner's key decides the message: a `VerifierKey` is one."""

    @property
    def name(self) -> str:
        """The cosigner's key name."""

    @property
    def type(self) -> SignatureType:
        """0x04 or 0x06."""


@dataclass(frozen=True, slots=True)
class TimestampedSignature:
    """A `timestamped_signature`: POSIX seconds (perhaps 0), and 64 or 2420 bytes."""

    timestamp: int
    signature: bytes


def cosignature_v1_message(timestamp: int, text: bytes) -> bytes:
    """The message of an Ed25519 cosignature (tlog-cosignature, Ed25519 signed message).

    Args:
        timestamp: POSIX seconds, 0 to 2^63 - 1.
        text: the whole note text of the checkpoint, extension lines and final newline included.

    Raises:
        ValueError: the timestamp is out of range.
    """
    _check_timestamp(timestamp)
    return b"cosignature/v1\ntime %d\n%b" % (timestamp, text)


def cosigned_message(  # noqa: PLR0917 - the fields of the structure, in its order
    cosigner: str, timestamp: int, origin: str, start: int, end: int, root: bytes
) -> bytes:
    """The message of an ML-DSA-44 cosignature (tlog-cosignature, ML-DSA-44 signed message).

    Args:
        cosigner: the cosigner's key name, 1 to 255 bytes in UTF-8.
        timestamp: POSIX seconds, or 0 for no statement about the largest tree observed.
        origin: the log's origin, 1 to 255 bytes in UTF-8.
        start: index of the subtree's first leaf; 0 for a checkpoint.
        end: one more than the index of its last leaf; the tree size for a checkpoint.
        root: the hash of the (sub)tree, 32 bytes.

    Raises:
        ValueError: a length or number out of range, or a timestamp beside a start that is not zero.
    """
    _check_timestamp(timestamp)
    # SPEC tlog-cosignature: "If start is not zero, timestamp MUST be zero."
    if start and timestamp:
        raise ValueError("a subtree that does not start at 0 is cosigned with timestamp 0")
    if not 0 <= start <= end <= MAX_TREE_SIZE:
        raise ValueError(f"[{start}, {end}) is no range of leaves")
    if len(root) != HASH_SIZE:
        raise ValueError(f"a hash of {len(root)} bytes, not {HASH_SIZE}")
    return b"".join(
        (
            _LABEL,
            _opaque(cosigner),
            timestamp.to_bytes(8, "big"),
            _opaque(origin),
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            root,
        )
    )


def cosign_message(cosigner: Cosigner, timestamp: int, checkpoint: Checkpoint, text: bytes) -> bytes:
    """The bytes that a cosigner signs for a checkpoint.

    Args:
        cosigner: its key; only name and type are looked at.
        timestamp: POSIX seconds.
        checkpoint: the checkpoint, for ML-DSA-44, which does not cover extension lines.
        text: the checkpoint's note text, for Ed25519: `checkpoint.text()`.

    Raises:
        ValueError: the key is of another type, or a value is out of range.
    """
    if cosigner.type is SignatureType.COSIGNATURE_ED25519:
        return cosignature_v1_message(timestamp, text)
    if cosigner.type is SignatureType.COSIGNATURE_MLDSA44:
        return cosigned_message(
            cosigner.name, timestamp, checkpoint.origin, 0, checkpoint.size, checkpoint.root
        )
    raise ValueError(f"type 0x{cosigner.type:02x} makes no cosignatures")


def encode_timestamped(timestamp: int, signature: bytes) -> bytes:
    """A `timestamped_signature`: the value of a signature line, after the key ID.

    Raises:
        ValueError: the timestamp is out of range.
    """
    _check_timestamp(timestamp)
    return timestamp.to_bytes(_TIMESTAMP_SIZE, "big") + signature


def parse_timestamped(value: bytes, signature_type: SignatureType) -> TimestampedSignature:
    """Parse a `timestamped_signature` (tlog-cosignature, Format).

    Args:
        value: what follows the key ID: 72 bytes for 0x04, 2428 for 0x06.
        signature_type: 0x04 or 0x06.

    Raises:
        MalformedNote: another length, another type, or a timestamp beyond 2^63 - 1.
    """
    size = _SIGNATURE_SIZES.get(signature_type)
    if size is None:
        raise MalformedNote(f"type 0x{signature_type:02x} is no cosignature")
    if len(value) != _TIMESTAMP_SIZE + size:
        raise MalformedNote(f"a cosignature of {len(value)} bytes, not {_TIMESTAMP_SIZE + size}")
    timestamp = int.from_bytes(value[:_TIMESTAMP_SIZE], "big")
    # SPEC tlog-cosignature: "It MUST NOT exceed 2^63 - 1".
    if timestamp > MAX_TIMESTAMP:
        raise MalformedNote("a timestamp beyond 2^63 - 1")
    return TimestampedSignature(timestamp, value[_TIMESTAMP_SIZE:])


def _check_timestamp(timestamp: int) -> None:
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise ValueError(f"{timestamp} is no timestamp")


def _opaque(text: str) -> bytes:
    """A TLS vector `opaque<1..2^8-1>` of the text's UTF-8 form."""
    octets = text.encode("utf-8")
    if not 1 <= len(octets) <= _MAX_NAME_SIZE:
        raise ValueError(f"a name of {len(octets)} bytes, not 1 to {_MAX_NAME_SIZE}")
    return bytes((len(octets),)) + octets
