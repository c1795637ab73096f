"""A Sigsum proof as a tlog-proof, and back. Pure.

Both hold the same: a tree head signed by the log and cosigned (Sigsum's is a checkpoint, signed in the same
bytes), an index, an inclusion proof. They differ in how keys are named (a hash here; name and key ID there),
and a Sigsum proof has two thirds of the leaf, which a tlog-proof leaves to its reader. These become its extra
line: the submitter's signature, 64 bytes, and key hash, 32. The leaf is SHA-256(message) and these.
"""

from __future__ import annotations

import hashlib
from typing import Final

from witness.bundles.sigsum import Cosignature, SigsumProof
from witness.reading.heads import Trust
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.cosignature import encode_timestamped, parse_timestamped
from witness.tlog.merkle import HASH_SIZE
from witness.tlog.note import (
    ED25519_SIGNATURE_SIZE,
    MalformedNote,
    Signature,
    SignatureType,
    VerifierKey,
    format_note,
    parse_note,
)
from witness.tlog.policy import SIGSUM_ORIGIN
from witness.tlog.proof import Proof

EXTRA_SIZE: Final = ED25519_SIGNATURE_SIZE + HASH_SIZE
"""Bytes of the extra data: the leaf without its checksum."""

LEAF_SIZE: Final = HASH_SIZE + EXTRA_SIZE
"""Bytes of a Sigsum leaf: checksum, signature, key hash."""


class NoSuchForm(Exception):
    """What the other form needs is not there; `reason` says what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def as_tlog_proof(sigsum: SigsumProof, trust: Trust) -> tuple[Proof, tuple[str, ...]]:
    """The tlog-proof, and what it leaves out.

    Args:
        sigsum: the proof, not verified.
        trust: has the log's key, and the vkeys of the witnesses.

    Raises:
        NoSuchForm: the log's key is not known.
    """
    log = _log_key(trust, sigsum.checkpoint.origin)
    if log is None:
        raise NoSuchForm(f"the key of the log {sigsum.log_hash.hex()} is needed, to name it by its key ID")
    cosigners = {_key_hash(key): key for key in trust.witness_keys(()) if _is_ed25519(key)}
    lines = [Signature(log.name, log.key_id, sigsum.log_signature)]
    lost = ["the first bytes of the checksum (version 1)"] if sigsum.short_checksum else []
    for each in sigsum.cosignatures:
        key = cosigners.get(each.key_hash)
        if key is None:
            lost.append(f"the cosignature by {each.key_hash.hex()}, whose vkey is not known")
        else:
            value = encode_timestamped(each.timestamp, each.signature)
            lines.append(Signature(key.name, key.key_id, value))
    note = format_note(sigsum.checkpoint.text(), lines)
    return Proof(sigsum.index, sigsum.path, note, sigsum.leaf_signature + sigsum.key_hash), tuple(lost)


def as_sigsum(proof: Proof, trust: Trust, leaf: bytes | None) -> tuple[bytes, tuple[str, ...]]:
    """The Sigsum proof, version 2, and what it leaves out.

    Args:
        proof: of a Sigsum log, not verified.
        trust: has the log's key, and the vkeys of the witnesses.
        leaf: the log's leaf, 128 bytes, where the extra data is not what `as_tlog_proof` puts there.

    Raises:
        NoSuchForm: it is of another log, or the log's key, its signature or the leaf is not there.
    """
    try:
        note = parse_note(proof.checkpoint)
        checkpoint = parse_checkpoint(note.text)
    except (MalformedNote, MalformedCheckpoint) as error:
        raise NoSuchForm(f"not a signed checkpoint: {error.reason}") from error
    if not checkpoint.origin.startswith(SIGSUM_ORIGIN) or checkpoint.extensions or not checkpoint.size:
        raise NoSuchForm(
            f"{checkpoint.origin} is no Sigsum log, or the checkpoint has what Sigsum's have not"
        )
    submitter = _submitter(proof, leaf)
    log = _log_key(trust, checkpoint.origin)
    if log is None:
        raise NoSuchForm("the log's key is needed, to tell its signature by")
    cosigners = {
        (key.name, key.key_id): key for key in trust.witness_keys(note.signatures) if _is_ed25519(key)
    }
    signature: bytes | None = None
    cosignatures: dict[bytes, Cosignature] = {}
    lost = [] if leaf is None or proof.extra is None else [f"the extra data ({len(proof.extra)} bytes)"]
    for line in note.signatures:
        key = cosigners.get((line.name, line.key_id))
        if (line.name, line.key_id) == (log.name, log.key_id) and len(line.value) == ED25519_SIGNATURE_SIZE:
            signature = line.value
        elif key is not None and _key_hash(key) not in cosignatures:
            cosignatures[_key_hash(key)] = _cosignature(key, line)
        else:
            lost.append(f"the signature line by {line.name}+{line.key_id.hex()}")
    if signature is None:
        raise NoSuchForm("no signature by the log's key")
    log_hash = _key_hash(log)
    sigsum = SigsumProof(
        log_hash=log_hash,
        short_checksum=b"",
        key_hash=submitter[ED25519_SIGNATURE_SIZE:],
        leaf_signature=submitter[:ED25519_SIGNATURE_SIZE],
        checkpoint=checkpoint,
        log_signature=signature,
        cosignatures=tuple(cosignatures.values()),
        index=proof.index,
        path=proof.hashes,
    )
    return format_sigsum(sigsum), tuple(lost)


def format_sigsum(proof: SigsumProof) -> bytes:
    """Write a Sigsum proof, version 2 (sigsum-go, doc/sigsum-proof.md)."""
    head = proof.checkpoint
    lines = [
        "version=2",
        f"log={proof.log_hash.hex()}",
        f"leaf={proof.key_hash.hex()} {proof.leaf_signature.hex()}",
        "",
        f"size={head.size}",
        f"root_hash={head.root.hex()}",
        f"signature={proof.log_signature.hex()}",
    ]
    lines += [
        f"cosignature={each.key_hash.hex()} {each.timestamp} {each.signature.hex()}"
        for each in proof.cosignatures
    ]
    if head.size > 1:
        lines += ["", f"leaf_index={proof.index}", *(f"node_hash={each.hex()}" for each in proof.path)]
    return "".join([f"{line}\n" for line in lines]).encode("ascii")


def _submitter(proof: Proof, leaf: bytes | None) -> bytes:
    """The submitter's signature and key hash."""
    if leaf is not None:
        if len(leaf) != LEAF_SIZE:
            raise NoSuchForm(f"a Sigsum leaf has {LEAF_SIZE} bytes, the given entry {len(leaf)}")
        return leaf[HASH_SIZE:]
    if proof.extra is None or len(proof.extra) != EXTRA_SIZE:
        raise NoSuchForm("the submitter's signature and key hash are not in the proof: give the leaf")
    return proof.extra


def _cosignature(key: VerifierKey, line: Signature) -> Cosignature:
    try:
        stamped = parse_timestamped(line.value, key.type)
    except MalformedNote as error:
        raise NoSuchForm(f"the line by {line.name}: {error.reason}") from error
    return Cosignature(_key_hash(key), stamped.timestamp, stamped.signature)


def _log_key(trust: Trust, origin: str) -> VerifierKey | None:
    for key in trust.log_keys(origin):
        if key.type is SignatureType.ED25519 and SIGSUM_ORIGIN + _key_hash(key).hex() == origin:
            return key
    return None


def _is_ed25519(key: VerifierKey) -> bool:
    return key.type is SignatureType.COSIGNATURE_ED25519


def _key_hash(key: VerifierKey) -> bytes:
    return hashlib.sha256(key.public_key).digest()
