"""Checkpoints: what a log says about its tree (https://c2sp.org/tlog-checkpoint).

The text of the signed note, one item a line::

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

that is the origin, the tree size, the root hash in base64, and perhaps opaque extension lines.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, check_text, decode_base64, encode_base64

MAX_ORIGIN_SIZE = 255
"""Longest origin in bytes: tlog-cosignature's `log_origin<1..2^8-1>` cannot hold a longer one."""

_SIZE = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_CONTROL = re.compile("[\x00-\x1f]")
_MANDATORY_LINES = 3


class MalformedCheckpoint(Exception):
    """This is no checkpoint; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head of one log; always one that `text()` can encode and `parse_checkpoint` takes.

    Attributes:
        origin: identifies the log, 1 to 255 bytes in UTF-8, no control characters.
        size: number of leaves, 0 to 2^63 - 1. The specification sets no bound; this is the one of
            SQLite's integers, of the signed 64-bit sizes that other implementations use, and of
            63-line consistency proofs.
        root: 32 bytes, the Merkle tree hash of the tree of that size.
        extensions: the extension lines, without newlines, none empty.

    Raises:
        MalformedCheckpoint: when made of anything else.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            octets = self.origin.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MalformedCheckpoint("the origin has no UTF-8 form") from error
        # SPEC tlog-checkpoint: "The origin MUST be non-empty".
        if not octets:
            raise MalformedCheckpoint("empty origin")
        if len(octets) > MAX_ORIGIN_SIZE:
            raise MalformedCheckpoint(f"origin longer than {MAX_ORIGIN_SIZE} bytes")
        if _CONTROL.search(self.origin):
            raise MalformedCheckpoint("control character in the origin")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedCheckpoint("tree size out of range")
        if len(self.root) != HASH_SIZE:
            raise MalformedCheckpoint(f"root hash of {len(self.root)} bytes, not {HASH_SIZE}")
        if self.extensions:
            _check_extensions(self.extensions)

    def text(self) -> bytes:
        """The note text, ending in a newline; byte for byte what was parsed."""
        head = f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"
        return (head + "".join(f"{line}\n" for line in self.extensions)).encode("utf-8")


def _check_extensions(lines: tuple[str, ...]) -> None:
    for line in lines:
        # SPEC tlog-checkpoint: "Extension lines, if any, MUST be non-empty."
        if not line:
            raise MalformedCheckpoint("empty extension line")
        if _CONTROL.search(line):
            raise MalformedCheckpoint("control character in an extension line")
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MalformedCheckpoint("an extension line has no UTF-8 form") from error


def parse_size(digits: bytes) -> int:
    """Parse a tree size: ASCII decimal, 0 to 2^63 - 1.

    Raises:
        ValueError: for anything else: leading zeroes, signs, spaces, a size out of range.
    """
    # SPEC tlog-checkpoint: "the ASCII decimal representation of the number of leaves in the tree, with
    # no leading zeroes (unless the tree is empty, in which case the tree size is 0)."
    if not _SIZE.match(digits):
        raise ValueError("not a decimal number without leading zeroes")
    size = int(digits)
    if size > MAX_TREE_SIZE:
        raise ValueError("larger than 2^63 - 1")
    return size


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Parse a checkpoint's note text (tlog-checkpoint, Note text).

    Args:
        text: the text of a signed note, with its final newline and without signatures.

    Raises:
        MalformedCheckpoint: for anything else.
    """
    try:
        check_text(text)
    except MalformedNote as error:
        raise MalformedCheckpoint(error.reason) from error
    # SPEC tlog-checkpoint: "The note text is a sequence of at least three non-empty lines, separated by
    # newlines (U+000A)."
    lines = text.split(b"\n")
    if len(lines) <= _MANDATORY_LINES or lines[-1]:
        raise MalformedCheckpoint("not three lines, each ending in a newline")
    try:
        size = parse_size(lines[1])
    except ValueError as error:
        raise MalformedCheckpoint(f"tree size: {error}") from error
    # SPEC tlog-checkpoint: "The third line is the root hash, the base64 encoding of the root".
    try:
        root = decode_base64(lines[2])
    except ValueError as error:
        raise MalformedCheckpoint(f"root hash: {error}") from error
    extensions = tuple([line.decode("utf-8") for line in lines[_MANDATORY_LINES:-1]])
    return Checkpoint(lines[0].decode("utf-8"), size, root, extensions)


def origin_hash(origin: str) -> bytes:
    """SHA-256 of the origin, 32 bytes: in hex it names a log in a monitoring path (tlog-witness)."""
    return sha256(origin.encode("utf-8")).digest()


def log_id(origin: str) -> str:
    """The log's ID at a distributor, 64 hex digits: SHA-256 of `o:` and the origin."""
    return sha256(b"o:" + origin.encode("utf-8")).hexdigest()
