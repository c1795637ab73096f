"""Sigsum proofs (sigsum-go, doc/sigsum-proof.md; log.md for what is signed), versions 2 and 1."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from witness.bundles.judge import HEAD, INCLUSION, LOG, Head, Judge
from witness.bundles.options import RawKey
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message
from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE, leaf_hash
from witness.tlog.note import (
    ED25519_PUBLIC_KEY_SIZE,
    ED25519_SIGNATURE_SIZE,
    Signature,
    SignatureType,
    VerifierKey,
    format_note,
    make_vkey,
)
from witness.tlog.policy import SIGSUM_ORIGIN
from witness.tlog.proof import MAX_PROOF_HASHES
from witness.tlog.signature import verify_signature

FORMAT: Final = "sigsum-proof"
MESSAGE: Final = "message"
"""The artifact that is the logged message itself: 32 bytes, usually a file's SHA-256 hash."""

MAX_COSIGNATURES: Final = 1024

_LEAF_NAMESPACE: Final = b"sigsum.org/v1/tree-leaf\x00"
_HASH: Final = rb"[0-9a-fA-F]{64}"
_SIGNATURE: Final = rb"[0-9a-fA-F]{128}"
_NUMBER: Final = rb"0|[1-9][0-9]{0,18}"
_VERSION: Final = re.compile(rb"version=([12])")
_LOG: Final = re.compile(rb"log=(%s)" % _HASH)
_LEAF: Final = {
    1: re.compile(rb"leaf=([0-9a-fA-F]{4}) (%s) (%s)" % (_HASH, _SIGNATURE)),
    2: re.compile(rb"leaf=()(%s) (%s)" % (_HASH, _SIGNATURE)),
}
_SIZE: Final = re.compile(rb"size=(%s)" % _NUMBER)
_ROOT: Final = re.compile(rb"root_hash=(%s)" % _HASH)
_LOG_SIGNATURE: Final = re.compile(rb"signature=(%s)" % _SIGNATURE)
_COSIGNATURE: Final = re.compile(rb"cosignature=(%s) (%s) (%s)" % (_HASH, _NUMBER, _SIGNATURE))
_INDEX: Final = re.compile(rb"leaf_index=(%s)" % _NUMBER)
_NODE: Final = re.compile(rb"node_hash=(%s)" % _HASH)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's cosignature; the witness is named by the SHA-256 hash of its public key."""

    key_hash: bytes
    timestamp: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class SigsumProof:
    """A parsed proof.

    Attributes:
        log_hash: SHA-256 of the log's public key.
        short_checksum: the first two bytes of the checksum, in version 1; else empty.
        key_hash: SHA-256 of the submitter's public key.
        leaf_signature: the submitter's, over the checksum.
        checkpoint: the tree head, with the log's Sigsum origin.
        log_signature: over the checkpoint.
        cosignatures: at most one a key hash.
        index: the leaf's index.
        path: the inclusion proof.
    """

    log_hash: bytes
    short_checksum: bytes
    key_hash: bytes
    leaf_signature: bytes
    checkpoint: Checkpoint
    log_signature: bytes
    cosignatures: tuple[Cosignature, ...]
    index: int
    path: tuple[bytes, ...]
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """Steps 1 to 6 of "Verifying a proof"."""
        head = self._judge_head(judge)
        checksum = self._judge_leaf(judge)
        if checksum is None:
            judge.check(INCLUSION, False, "without the message, the leaf is not known")
            return
        leaf = leaf_hash(checksum + self.leaf_signature + self.key_hash)
        given = judge.options.leaf_hash
        if given is not None:
            detail = f"expected leaf hash {given.hex()}, found {leaf.hex()}"
            judge.check("entry", given == leaf, detail)
        judge.inclusion(self.index, leaf, self.path, head)

    def _judge_head(self, judge: Judge) -> Head:
        checkpoint = self.checkpoint
        judge.check(HEAD, True, f"{checkpoint.origin}, size {checkpoint.size}")
        origin = judge.options.origin
        trusted = True
        if origin is not None:
            detail = f"expected {origin}, found {checkpoint.origin}"
            trusted = judge.check("origin", origin == checkpoint.origin, detail)
        trusted = self._judge_log(judge) and trusted
        trusted = self._judge_cosignatures(judge) and trusted
        head = Head(self._note(), checkpoint, trusted, judge.needs_witness())
        judge.consistency(head)
        judge.learn(checkpoint, head.note)
        return head

    def _judge_log(self, judge: Judge) -> bool:
        policy = judge.options.policy
        keys = [*judge.options.logs, *(log.key for log in (policy.logs if policy is not None else ()))]
        for key in keys:
            if key.type is not SignatureType.ED25519 or _key_hash(key.public_key) != self.log_hash:
                continue
            ok = verify_signature(key, self.checkpoint.text(), self.log_signature)
            detail = f"the log {self.log_hash.hex()} has {'' if ok else 'not '}signed this tree head"
            return judge.check(LOG, ok, detail)
        return judge.check(LOG, False, f"no key is known with the hash {self.log_hash.hex()}")

    def _judge_cosignatures(self, judge: Judge) -> bool:
        """Counts what verifies; a cosignature that does not is as good as none (sigsum-go, policy.go)."""
        known: dict[bytes, bytes] = {
            _key_hash(key.public_key): key.public_key for key in judge.options.witnesses
        }
        for witness in judge.options.policy.witnesses if judge.options.policy is not None else ():
            known[witness.key_hash] = witness.public_key
        stamps: dict[bytes, int] = {}
        refused = 0
        for each in self.cosignatures:
            public_key = known.get(each.key_hash)
            if public_key is None or len(public_key) != ED25519_PUBLIC_KEY_SIZE:
                continue
            message = cosignature_v1_message(each.timestamp, self.checkpoint.text())
            if _verifies(public_key, message, each.signature):
                stamps[public_key] = each.timestamp
            else:
                refused += 1
        return judge.quorum(stamps, f"; {refused} not valid" if refused else "")

    def _judge_leaf(self, judge: Judge) -> bytes | None:
        """The checksum under which the submitter signed what was given, or None without anything given."""
        messages = _messages(judge)
        if not messages:
            judge.check("leaf signature", False, "no message was given: neither the entry nor its hash")
            return None
        checksums = {how: hashlib.sha256(message).digest() for how, message in messages.items()}
        first = next(iter(checksums.values()))
        key = next((key for key in _submitters(judge) if _key_hash(key) == self.key_hash), None)
        if key is None:
            detail = f"no submitter's key is known with the hash {self.key_hash.hex()}"
            judge.check("leaf signature", False, detail)
            return first
        for how, checksum in checksums.items():
            if self.short_checksum and checksum[: len(self.short_checksum)] != self.short_checksum:
                continue
            # SPEC sigsum log.md: "The `sigsum.org/v1/tree-leaf` namespace, a NUL byte, and the checksum".
            if _verifies(key, _LEAF_NAMESPACE + checksum, self.leaf_signature):
                judge.check("leaf signature", True, f"the submitter signed {how}, checksum {checksum.hex()}")
                return checksum
        found = ", ".join(checksum.hex() for checksum in checksums.values())
        detail = f"the submitter {self.key_hash.hex()} has not signed the checksum {found}"
        if self.short_checksum:
            detail += f"; the proof is of one that begins with {self.short_checksum.hex()}"
        judge.check("leaf signature", False, detail)
        return first

    def _note(self) -> bytes:
        """The tree head as a signed checkpoint, to be compared with later."""
        name = self.checkpoint.origin
        # The key ID needs the public key; without it the line is a stranger's, and none is trusted later.
        line = Signature(name, self.log_hash[:4], self.log_signature)
        return format_note(self.checkpoint.text(), [line])

    def learned(self) -> Learned:
        """The tree head as a checkpoint."""
        return Learned((self._note(),))


def _messages(judge: Judge) -> dict[str, bytes]:
    """What may have been logged: the message given as such, or the given file's hash.

    A file of 32 bytes can be meant as either, as in Sigsum's own tools with --raw-hash; the submitter's
    signature decides which it is.
    """
    messages: dict[str, bytes] = {}
    judge.use_entry()
    entry = judge.options.entry
    if entry is not None:
        messages["the entry's SHA-256 hash"] = hashlib.sha256(entry).digest()
        if len(entry) == HASH_SIZE:
            messages["the entry itself"] = entry
    message = judge.artifact(MESSAGE)
    if message is not None:
        if messages and message not in messages.values():
            judge.check("entry", False, "the given message is not that of the given entry")
        messages = {"the message": message}
        if len(message) != HASH_SIZE:
            judge.check("entry", False, f"a message has {HASH_SIZE} bytes, the given one {len(message)}")
    return messages


def _submitters(judge: Judge) -> list[bytes]:
    return [
        key.public_key
        for key in judge.options.manifest_keys
        if isinstance(key, RawKey) or key.type in (SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519)
    ]


def _key_hash(public_key: bytes) -> bytes:
    return hashlib.sha256(public_key).digest()


def _verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Plain Ed25519 over a message that is no note."""
    key: VerifierKey = make_vkey("sigsum", SignatureType.ED25519, public_key)
    return len(signature) == ED25519_SIGNATURE_SIZE and verify_signature(key, message, signature)


def recognises(data: bytes) -> bool:
    """Whether the bytes begin as a Sigsum proof."""
    return data.startswith(b"version=")


class _Lines:
    """The proof's lines, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.removesuffix(b"\n").split(b"\n")
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._lines)

    def maybe(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        match = pattern.fullmatch(self._lines[self._at]) if self.more() else None
        if match is not None:
            self._at += 1
        return match

    def need(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = self.maybe(pattern)
        if match is None:
            raise MalformedBundle(FORMAT, f"line {self._at + 1} is no {what}")
        return match

    def empty(self) -> None:
        if not self.more() or self._lines[self._at]:
            raise MalformedBundle(FORMAT, f"line {self._at + 1} is not empty")
        self._at += 1

    def end(self) -> None:
        if self.more():
            raise MalformedBundle(FORMAT, f"line {self._at + 1} belongs to nothing")


def parse(data: bytes) -> SigsumProof:
    """Parse a proof; raises MalformedBundle."""
    lines = _Lines(data)
    version = int(lines.need(_VERSION, "version 1 or 2")[1])
    log_hash = _bytes(lines.need(_LOG, "log key hash")[1])
    leaf = lines.need(_LEAF[version], f"leaf of version {version}")
    lines.empty()
    size = _number(lines.need(_SIZE, "size")[1])
    root = _bytes(lines.need(_ROOT, "root hash")[1])
    log_signature = _bytes(lines.need(_LOG_SIGNATURE, "log signature")[1])
    cosignatures: dict[bytes, Cosignature] = {}
    while (match := lines.maybe(_COSIGNATURE)) is not None:
        each = Cosignature(_bytes(match[1]), _number(match[2]), _bytes(match[3]))
        if each.key_hash in cosignatures:
            raise MalformedBundle(FORMAT, "two cosignatures by one key")
        cosignatures[each.key_hash] = each
        if len(cosignatures) > MAX_COSIGNATURES:
            raise MalformedBundle(FORMAT, f"more than {MAX_COSIGNATURES} cosignatures")
    # SPEC sigsum-proof: "A proof with `size` = 0 is always invalid, and for `size` = 1, it is implied that
    # `leaf_index` = 0 and there is no inclusion path."
    if size == 0:
        raise MalformedBundle(FORMAT, "a proof in an empty tree")
    index, path = 0, []
    if size > 1:
        lines.empty()
        index = _number(lines.need(_INDEX, "leaf index")[1])
        path = [_bytes(lines.need(_NODE, "node hash")[1])]
        while (match := lines.maybe(_NODE)) is not None:
            path.append(_bytes(match[1]))
            if len(path) > MAX_PROOF_HASHES:
                raise MalformedBundle(FORMAT, f"more than {MAX_PROOF_HASHES} node hashes")
    lines.end()
    origin = SIGSUM_ORIGIN + log_hash.hex()
    return SigsumProof(
        log_hash,
        _bytes(leaf[1]),
        _bytes(leaf[2]),
        _bytes(leaf[3]),
        Checkpoint(origin, size, root),
        log_signature,
        tuple(cosignatures.values()),
        index,
        tuple(path),
    )


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.decode("ascii"))


def _number(text: bytes) -> int:
    value = int(text)
    if value > MAX_TREE_SIZE:
        raise MalformedBundle(FORMAT, "a number above 2^63 - 1")
    return value
