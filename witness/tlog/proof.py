"""Proofs that an entry is in a log (https://c2sp.org/tlog-proof).

A proof is some lines, an empty line, and a signed checkpoint::

    c2sp.org/tlog-proof@v1
    extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=

    example.com/fancylog
    109482
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — example.com/fancylog hI2DJw…

Parsing judges the form alone, and leaves the checkpoint to `witness.tlog.note`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from witness.tlog.merkle import HASH_SIZE
from witness.tlog.note import decode_base64, encode_base64

HEADER: Final = b"c2sp.org/tlog-proof@v1"
"""A proof's first line."""

MAX_PROOF_HASHES: Final = 63
"""Most hashes of an inclusion proof: a tree has less than 2**63 leaves."""

_EXTRA: Final = b"extra "
_INDEX: Final = re.compile(rb"index (0|[1-9][0-9]{0,19})")
_MAX_INDEX: Final = 2**64 - 1


class MalformedProof(Exception):
    """These bytes are no tlog-proof; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof as parsed; nothing in it has been verified.

    Attributes:
        index: the entry's index, 0 to 2^64 - 1; perhaps not within the tree.
        hashes: the inclusion proof, at most 63 hashes of 32 bytes.
        checkpoint: the signed checkpoint, verbatim.
        extra: the extra data, which nobody signed; None where the line is missing.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


def parse_proof(data: bytes) -> Proof:
    """Parse a proof. The caller bounds its size.

    Raises:
        MalformedProof: for anything else.
    """
    # SPEC tlog-proof: "After the inclusion proof lines and an empty line, the checkpoint issued by the log
    # is included verbatim". No line before it is empty.
    head, separator, checkpoint = data.partition(b"\n\n")
    lines = head.split(b"\n")
    # SPEC tlog-proof: "The first line MUST be the string `c2sp.org/tlog-proof@v1`."
    if lines[0] != HEADER:
        raise MalformedProof("the first line is not c2sp.org/tlog-proof@v1")
    if not separator or not checkpoint:
        raise MalformedProof("no empty line with a checkpoint after it")
    if checkpoint[-1:] != b"\n":
        raise MalformedProof("the checkpoint does not end in a newline")
    at = 1
    extra: bytes | None = None
    # SPEC tlog-proof: "The second line MAY start with the string `extra` followed by a space (U+0020) and
    # base64-encoded opaque extra data."
    if at < len(lines) and lines[at].startswith(_EXTRA):
        try:
            extra = decode_base64(lines[at][len(_EXTRA) :])
        except ValueError as error:
            raise MalformedProof(f"extra line: {error}") from error
        at += 1
    # SPEC tlog-proof: "The next line MUST start with the string `index` followed by a space (U+0020) and
    # the zero-based index of the entry in the log, represented as an ASCII decimal with no leading zeroes
    # (unless the index is `0`)."
    match = _INDEX.fullmatch(lines[at]) if at < len(lines) else None
    if match is None or int(match[1]) > _MAX_INDEX:
        raise MalformedProof("no index line where one belongs")
    # SPEC tlog-proof: "The next zero or more non-empty lines are the base64-encoded Merkle inclusion
    # proof …, one SHA-256 hash per line".
    encoded = lines[at + 1 :]
    if len(encoded) > MAX_PROOF_HASHES:
        raise MalformedProof(f"{len(encoded)} hashes, more than {MAX_PROOF_HASHES}")
    return Proof(int(match[1]), tuple([_hash(line) for line in encoded]), checkpoint, extra)


def format_proof(proof: Proof) -> bytes:
    """Encode a proof; `parse_proof` gives the same back.

    Raises:
        MalformedProof: the index, a hash, the number of hashes or the checkpoint cannot stand in one.
    """
    if not 0 <= proof.index <= _MAX_INDEX:
        raise MalformedProof(f"no entry has index {proof.index}")
    if len(proof.hashes) > MAX_PROOF_HASHES or any(len(each) != HASH_SIZE for each in proof.hashes):
        raise MalformedProof(f"not at most {MAX_PROOF_HASHES} hashes of {HASH_SIZE} bytes")
    if not proof.checkpoint or proof.checkpoint[-1:] != b"\n":
        raise MalformedProof("the checkpoint does not end in a newline")
    extra = [] if proof.extra is None else [_EXTRA + encode_base64(proof.extra).encode("ascii")]
    hashes = [encode_base64(each).encode("ascii") for each in proof.hashes]
    index = b"index %d" % proof.index
    return b"\n".join([HEADER, *extra, index, *hashes, b"", proof.checkpoint])


def _hash(line: bytes) -> bytes:
    try:
        found = decode_base64(line)
    except ValueError as error:
        raise MalformedProof(f"a hash line: {error}") from error
    if len(found) != HASH_SIZE:
        raise MalformedProof(f"a hash of {len(found)} bytes, not {HASH_SIZE}")
    return found
