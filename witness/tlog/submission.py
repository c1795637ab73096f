"""The bodies that a witness is sent (https://c2sp.org/tlog-witness): add-checkpoint and sign-subtree.

Both are some lines, an empty line, and a signed checkpoint::

    old 20852014
    PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDe…

Parsing judges the form alone. Sizes that contradict each other, proofs and signatures are the verifier's.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass
from struct import unpack

from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, Note, encode_base64, parse_note

MAX_PROOF_LINES = 63
"""tlog-witness: "The client MUST NOT send more than 63 consistency proof lines." """

_HASH_LINE_SIZE = 45  # 43 characters of base64, "=", newline
_UNPADDED_SIZE = HASH_SIZE + 1

_OLD_LINE = re.compile(rb"old (0|[1-9][0-9]{0,18})\n")
_SUBTREE_LINE = re.compile(rb"subtree (0|[1-9][0-9]{0,18}) (0|[1-9][0-9]{0,18})\n")


class MalformedSubmission(Exception):
    """The body is not of the form that tlog-witness gives; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A parsed add-checkpoint body; nothing in it has been verified.

    Attributes:
        old_size: the tree size that the client believes the witness to have, 0 to 2^63 - 1.
        proof: at most 63 hashes of 32 bytes.
        note: the signed checkpoint.
        checkpoint: its text, parsed.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class SignSubtree:
    """A parsed sign-subtree body; nothing in it has been verified.

    Attributes:
        start: index of the subtree's first leaf, 0 to 2^63 - 1.
        end: one more than the index of its last leaf, 0 to 2^63 - 1; perhaps not larger than `start`.
        root: the subtree's hash, 32 bytes.
        proof: at most 63 hashes of 32 bytes.
        note: the signed reference checkpoint.
        checkpoint: its text, parsed.
    """

    start: int
    end: int
    root: bytes
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Parse the body of an add-checkpoint request. The caller bounds its size.

    Raises:
        MalformedSubmission: for anything else; caused by MalformedNote or MalformedCheckpoint when the
            lines before the empty one are good.
    """
    # SPEC tlog-witness: "The old size line MUST consist of the string old, a single space (0x20), and the
    # tree size of the previous checkpoint encoded as an ASCII decimal with no leading zeroes (unless the
    # size is zero, in which case the encoding MUST be 0)."
    first = _OLD_LINE.match(body)
    if first is None:
        raise MalformedSubmission("the first line is not `old` and a tree size")
    old_size = _bounded(first[1])
    end = _end_of_lines(body)
    proof = _hash_lines(body[first.end() : end], MAX_PROOF_LINES)
    note, checkpoint = _signed_checkpoint(body[end + 1 :])
    return AddCheckpoint(old_size, proof, note, checkpoint)


def parse_sign_subtree(body: bytes) -> SignSubtree:
    """Parse the body of a sign-subtree request. The caller bounds its size.

    Raises:
        MalformedSubmission: for anything else; caused by MalformedNote or MalformedCheckpoint when the
            lines before the empty one are good.
    """
    # SPEC tlog-witness: "The subtree range line MUST consist of the string subtree, a single space (0x20),
    # the subtree start encoded as an ASCII decimal with no leading zeroes (unless start is zero, in which
    # case the encoding MUST be 0), a single space (0x20), and the subtree end".
    first = _SUBTREE_LINE.match(body)
    if first is None:
        raise MalformedSubmission("the first line is not `subtree`, a start and an end")
    start, stop = _bounded(first[1]), _bounded(first[2])
    end = _end_of_lines(body)
    # SPEC tlog-witness: "The subtree hash line MUST be the Merkle Tree hash of the subtree encoded in
    # base64."
    hashes = _hash_lines(body[first.end() : end], 1 + MAX_PROOF_LINES)
    if not hashes:
        raise MalformedSubmission("no subtree hash line")
    note, checkpoint = _signed_checkpoint(body[end + 1 :])
    return SignSubtree(start, stop, hashes[0], hashes[1:], note, checkpoint)


def _bounded(digits: bytes) -> int:
    number = int(digits)
    if number > MAX_TREE_SIZE:
        raise MalformedSubmission("a tree size larger than 2^63 - 1")
    return number


def _end_of_lines(body: bytes) -> int:
    """Where the empty line begins that separates the lines from the checkpoint."""
    # The first empty line: neither the line before it nor a hash line is empty, and the origin is not either.
    end = body.find(b"\n\n")
    if end < 0:
        raise MalformedSubmission("no empty line before the checkpoint")
    return end + 1


def _hash_lines(block: bytes, most: int) -> tuple[bytes, ...]:
    """Decode lines of canonical base64 of 32 bytes each, all in one call.

    A line is 43 characters, "=" and a newline. With "A" (six zero bits) for the "=" and without the newline,
    every line is 44 characters without padding: 32 bytes, and a byte of the two unused bits of the 43rd
    character, which must be zero, and of the six of the "A". Strict mode refuses any other character.
    """
    count, rest = divmod(len(block), _HASH_LINE_SIZE)
    # SPEC tlog-witness: "The client MUST NOT send more than 63 consistency proof lines."
    if count > most:
        raise MalformedSubmission(f"more than {MAX_PROOF_LINES} proof lines")
    if count == 0 and rest == 0:
        return ()
    # SPEC tlog-witness: "Each consistency proof line MUST encode a single hash in base64."
    if rest or block[43::_HASH_LINE_SIZE] != b"=" * count or block[44::_HASH_LINE_SIZE] != b"\n" * count:
        raise MalformedSubmission("a line that is not the base64 of a 32-byte hash")
    unpadded = bytearray(block)
    unpadded[43::_HASH_LINE_SIZE] = b"A" * count
    del unpadded[44::_HASH_LINE_SIZE]
    try:
        joined = a2b_base64(unpadded, strict_mode=True)
    except Base64Error as error:
        raise MalformedSubmission("a line that is not the base64 of a 32-byte hash") from error
    if len(joined) != _UNPADDED_SIZE * count or joined[HASH_SIZE::_UNPADDED_SIZE] != bytes(count):
        raise MalformedSubmission("a line that is not the canonical base64 of a 32-byte hash")
    return unpack(f"{HASH_SIZE}sx" * count, joined)


def _signed_checkpoint(signed_note: bytes) -> tuple[Note, Checkpoint]:
    try:
        note = parse_note(signed_note)
        return note, parse_checkpoint(note.text)
    except MalformedNote as error:
        raise MalformedSubmission(f"malformed note: {error.reason}") from error
    except MalformedCheckpoint as error:
        raise MalformedSubmission(f"malformed checkpoint: {error.reason}") from error


def format_add_checkpoint(old_size: int, proof: Sequence[bytes], signed_note: bytes) -> bytes:
    """Encode an add-checkpoint body.

    Args:
        old_size: the size of the checkpoint that the proof starts from.
        proof: consistency proof, hashes of 32 bytes.
        signed_note: the signed checkpoint, passed on as it is: the witness decides about it.

    Raises:
        ValueError: more than 63 hashes, a hash of another length, or a size out of range.
    """
    _check_sizes(old_size)
    return f"old {old_size}\n{_format_hashes(proof)}\n".encode("ascii") + signed_note


def format_sign_subtree(
    start: int, end: int, root: bytes, proof: Sequence[bytes], signed_note: bytes
) -> bytes:
    """Encode a sign-subtree body.

    Args:
        start: index of the subtree's first leaf.
        end: one more than the index of its last leaf.
        root: the subtree's hash, 32 bytes.
        proof: subtree consistency proof, hashes of 32 bytes.
        signed_note: the reference checkpoint with the witness's cosignature.

    Raises:
        ValueError: more than 63 hashes, a hash of another length, or a number out of range.
    """
    _check_sizes(start, end)
    lines = _format_hashes([root]) + _format_hashes(proof)
    return f"subtree {start} {end}\n{lines}\n".encode("ascii") + signed_note


def _check_sizes(*sizes: int) -> None:
    for size in sizes:
        if not 0 <= size <= MAX_TREE_SIZE:
            raise ValueError(f"{size} is no tree size")


def _format_hashes(hashes: Sequence[bytes]) -> str:
    if len(hashes) > MAX_PROOF_LINES:
        raise ValueError(f"{len(hashes)} proof lines, more than {MAX_PROOF_LINES}")
    for digest in hashes:
        if len(digest) != HASH_SIZE:
            raise ValueError(f"a hash of {len(digest)} bytes, not {HASH_SIZE}")
    return "".join([f"{encode_base64(digest)}\n" for digest in hashes])
