"""Succession statements: the old keys of a witness name the new ones that follow them.

A format of this project's own, described in docs/verifying.md: a signed note (https://c2sp.org/signed-note)
with the text

    tlog-witness succession v1
    name witness.example/w1
    old witness.example/w1+0ab12c3d+BD…
    new witness.example/w1+4e5f6a7b+BA…
    time 1800000000

with one or more `old` and then one or more `new` lines. Every old key signs it, and every new one, which
proves that whoever has the new keys agreed to be the successor.

Keys that make cosignatures sign here something else than cosignatures, so the bytes must never be taken for
one another. They cannot be:

- A cosignature's message begins with `cosignature/v1` or `subtree/v1` (tlog-cosignature); this text begins
  with a first line of its own.
- A checkpoint's second line is its size (tlog-checkpoint); this text's second line begins with a letter, so
  that the statement is a checkpoint of no log, whatever name its signature lines have.
"""

from dataclasses import dataclass
from hashlib import sha256

from witness.tlog.cosignature import MAX_TIMESTAMP
from witness.tlog.note import (
    KEY_ID_SIZE,
    MalformedNote,
    MalformedVKey,
    Note,
    Signature,
    SignatureType,
    VerifierKey,
    check_text,
    is_key_name,
    key_id_for,
    parse_vkey,
)
from witness.tlog.signature import verify_raw

FIRST_LINE = "tlog-witness succession v1"
MAX_KEYS = 16
"""Old keys, and new keys, in one statement, at most."""
MLDSA44_IDENTIFIER = b"\xfftlog-witness/succession/ml-dsa-44"
"""The signature type of an ML-DSA-44 key's line. SPEC signed-note: "0xff — Reserved for signature types
without an identifier byte assigned by this specification. It is RECOMMENDED that this byte be followed by a
longer identifier that is unlikely to collide." """

_COSIGNERS = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_MLDSA44)


class MalformedSuccession(Exception):
    """These bytes are no succession statement; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Succession:
    """What a statement says.

    Attributes:
        name: the witness's name, which stays what it is.
        old: the keys that sign now, 1 to 16.
        new: the keys that follow, 1 to 16.
        time: when it was made, POSIX seconds, by the witness's own clock.

    Raises:
        MalformedSuccession: when made of anything else.
    """

    name: str
    old: tuple[VerifierKey, ...]
    new: tuple[VerifierKey, ...]
    time: int

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise MalformedSuccession("bad name")
        keys = (*self.old, *self.new)
        if not (1 <= len(self.old) <= MAX_KEYS and 1 <= len(self.new) <= MAX_KEYS):
            raise MalformedSuccession(f"not 1 to {MAX_KEYS} old and new keys")
        if any(key.type not in _COSIGNERS for key in keys):
            raise MalformedSuccession("names a key that makes no cosignatures")
        if any(key.name != self.name for key in keys):
            raise MalformedSuccession("names a key of another name")
        if len(set(keys)) != len(keys):
            raise MalformedSuccession("names a key twice")
        if not 0 < self.time <= MAX_TIMESTAMP:
            raise MalformedSuccession("the time is out of range")

    def text(self) -> bytes:
        """The note text: what is signed."""
        lines = [FIRST_LINE, f"name {self.name}"]
        lines += [f"old {key}" for key in self.old]
        lines += [f"new {key}" for key in self.new]
        return "\n".join([*lines, f"time {self.time}", ""]).encode()


def parse_succession(text: bytes) -> Succession:
    """A statement out of a note's text.

    Raises:
        MalformedSuccession: for anything that `Succession.text` does not write.
    """
    try:
        check_text(text)
    except MalformedNote as error:
        raise MalformedSuccession(error.reason) from error
    lines = text.decode().split("\n")
    if lines[0] != FIRST_LINE or len(lines) < 6 or lines[-1]:  # noqa: PLR2004 - one line of each kind
        raise MalformedSuccession("not of the lines that a statement has")
    keys: dict[str, list[VerifierKey]] = {"old": [], "new": []}
    for line in lines[2:-2]:
        word, _, vkey = line.partition(" ")
        if word not in keys:
            raise MalformedSuccession("a line is neither old nor new")
        try:
            keys[word].append(parse_vkey(vkey))
        except MalformedVKey as error:
            raise MalformedSuccession(f"an {word} line names no vkey: {error.reason}") from error
    time = lines[-2].removeprefix("time ")
    if not (time.isascii() and time.isdigit() and len(time) < 20):  # noqa: PLR2004 - digits of 2^63
        raise MalformedSuccession("no time")
    said = Succession(lines[1].removeprefix("name "), tuple(keys["old"]), tuple(keys["new"]), int(time))
    # One way of writing: the order of the lines, every space and digit.
    if said.text() != text:
        raise MalformedSuccession("not written as a statement is")
    return said


def statement_key_id(key: VerifierKey) -> bytes:
    """The key ID of a witness key's line below a statement, four bytes.

    An Ed25519 key signs as a plain note key, of type 0x01 (signed-note), so that any note tool verifies its
    line; its key ID is that of the same name and public key under type 0x01. An ML-DSA-44 key's line is of a
    type of our own, `MLDSA44_IDENTIFIER`.
    """
    if key.type is SignatureType.COSIGNATURE_ED25519:
        return key_id_for(key.name, SignatureType.ED25519, key.public_key)
    return sha256(key.name.encode() + b"\n" + MLDSA44_IDENTIFIER + key.public_key).digest()[:KEY_ID_SIZE]


def statement_line(key: VerifierKey, signature: bytes) -> Signature:
    """The line for a witness key's signature over a statement's text: 64 or 2420 bytes."""
    return Signature(key.name, statement_key_id(key), signature)


def is_stated_by(note: Note, key: VerifierKey) -> bool | None:
    """Whether a witness key signed a statement: None where there is no line that claims it.

    False where any line that claims to be the key's does not verify (signed-note: one spoils the note).
    """
    claimed = [
        line for line in note.signatures if (line.name, line.key_id) == (key.name, statement_key_id(key))
    ]
    if not claimed:
        return None
    return all(line.canonical and verify_raw(key, note.text, line.value) for line in claimed)
