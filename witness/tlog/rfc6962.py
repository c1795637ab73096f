"""Tree heads that RFC 6962 logs sign, as note signatures (https://c2sp.org/static-ct-api, Checkpoints).

The value of a signature line of type 0x05 is a timestamp and a TLS `digitally-signed` value::

    struct { uint64 timestamp; TreeHeadSignature signature; } RFC6962NoteSignature;

The signed message names neither the log nor its extension lines: the origin is unauthenticated, and a
checkpoint with extension lines is refused.
"""

from dataclasses import dataclass

from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE
from witness.tlog.note import MalformedNote

RSA = 1
"""`SignatureAlgorithm.rsa` of RFC 5246, section 7.4.1.4.1."""
ECDSA = 3
"""`SignatureAlgorithm.ecdsa` of RFC 5246, section 7.4.1.4.1."""

_SHA256 = 4
_V1_TREE_HASH = b"\x00\x01"
_MAX_UINT64 = 2**64 - 1
_HEAD_SIZE = 12


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A parsed `RFC6962NoteSignature`.

    Attributes:
        timestamp: of the tree head, in milliseconds since the epoch.
        algorithm: `RSA` or `ECDSA`; the hash is always SHA-256.
        signature: the signature proper; for ECDSA in DER.
    """

    timestamp: int
    algorithm: int
    signature: bytes


def tree_head_message(timestamp_ms: int, size: int, root: bytes) -> bytes:
    """The message of a `TreeHeadSignature` (RFC 6962, section 3.5), 50 bytes.

    Args:
        timestamp_ms: milliseconds since the epoch.
        size: the tree size.
        root: the root hash, 32 bytes.

    Raises:
        ValueError: a number or length out of range.
    """
    if not 0 <= timestamp_ms <= _MAX_UINT64 or not 0 <= size <= MAX_TREE_SIZE:
        raise ValueError("timestamp or tree size out of range")
    if len(root) != HASH_SIZE:
        raise ValueError(f"a root hash of {len(root)} bytes, not {HASH_SIZE}")
    return _V1_TREE_HASH + timestamp_ms.to_bytes(8, "big") + size.to_bytes(8, "big") + root


def parse_note_signature(value: bytes) -> NoteSignature:
    """Parse the value of a signature line of type 0x05.

    Raises:
        MalformedNote: a wrong length, a hash other than SHA-256, or a signature neither RSA nor ECDSA.
    """
    if len(value) <= _HEAD_SIZE:
        raise MalformedNote("an RFC 6962 tree head signature that is too short")
    if value[8] != _SHA256 or value[9] not in (RSA, ECDSA):
        raise MalformedNote("an RFC 6962 tree head signature of another algorithm")
    signature = value[_HEAD_SIZE:]
    if int.from_bytes(value[10:_HEAD_SIZE], "big") != len(signature):
        raise MalformedNote("an RFC 6962 tree head signature of another length than it says")
    return NoteSignature(int.from_bytes(value[:8], "big"), value[9], signature)


def encode_note_signature(timestamp_ms: int, tree_head_signature: bytes) -> bytes:
    """The value of a signature line of type 0x05, from what `get-sth` answers (RFC 6962, section 4.3).

    Args:
        timestamp_ms: `timestamp`.
        tree_head_signature: `tree_head_signature`, the `digitally-signed` value.

    Raises:
        ValueError: the timestamp is out of range.
        MalformedNote: the signature is not of the form that `parse_note_signature` takes.
    """
    if not 0 <= timestamp_ms <= _MAX_UINT64:
        raise ValueError("timestamp out of range")
    value = timestamp_ms.to_bytes(8, "big") + tree_head_signature
    parse_note_signature(value)
    return value
