"""The judgement: may this checkpoint, or this subtree, be cosigned? Pure functions, no state of their own.

https://c2sp.org/tlog-witness

The checks stand in the order of the specification's text, so that the two can be read side by side. Each
refusal is a type with its facts; `witness.front.endpoints` maps them to statuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from witness.core.refusals import (
    InvalidProof,
    InvalidSignature,
    InvalidSubtree,
    InvalidSubtreeProof,
    NoOwnCosignature,
    NoTrustedSignature,
    OldSizeTooLarge,
    RootMismatch,
    StaleOldSize,
    UnsignedExtensions,
    WrongEmptyRoot,
)
from witness.core.store.base import Head
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.contained import contained_root
from witness.tlog.note import Signature, SignatureType, VerifierKey
from witness.tlog.signature import InvalidNoteSignature, verify_note
from witness.tlog.submission import AddCheckpoint, SignSubtree


def authenticate(submission: AddCheckpoint, keys: Sequence[VerifierKey]) -> tuple[Signature, ...]:
    """The signature lines by the log's trusted keys, each verified.

    Args:
        submission: the parsed request; its origin is known.
        keys: the keys trusted for the origin.

    Raises:
        InvalidSignature: a line names a trusted key and does not verify.
        NoTrustedSignature: no line names one.
        UnsignedExtensions: extension lines that the log has not signed.
    """
    # SPEC tlog-witness: "The witness MUST verify the checkpoint signature against the public key(s) it trusts
    # for the checkpoint origin, and it MUST ignore signatures from unknown keys." … "403 Forbidden … if
    # either no signature from a trusted key for the origin is present, or a signature line's key name and ID
    # match a trusted key but the signature itself fails to verify".
    try:
        verified = verify_note(submission.note, keys)
    except InvalidNoteSignature as error:
        raise InvalidSignature(error.name, error.key_id.hex()) from error
    if not verified:
        raise NoTrustedSignature(submission.checkpoint.origin)
    # SPEC tlog-checkpoint: "the ML-DSA-44 cosignature format doesn't sign the extension lines, which SHOULD
    # be empty." Where it is the log's only signature, whoever relays the checkpoint could add lines, and our
    # Ed25519 cosignature would cover words of a stranger's choosing.
    if submission.checkpoint.extensions and all(
        v.key.type == SignatureType.COSIGNATURE_MLDSA44 for v in verified
    ):
        raise UnsignedExtensions(submission.checkpoint.origin)
    return tuple(v.signature for v in verified)


def contradicts(checkpoint: Checkpoint, head: Head | None) -> bool:
    """Whether a checkpoint, known to be signed by the log, cannot be true beside the head we cosigned."""
    return head is not None and checkpoint.size == head.size and checkpoint.root != head.root


def forks(submission: AddCheckpoint, head: Head) -> bool:
    """Whether a proof that was refused shows that the new tree holds another root at the size of our head.

    The log has signed both trees then, and they contradict each other.
    """
    checkpoint = submission.checkpoint
    if submission.old_size != head.size:
        return False
    contained = contained_root(head.size, checkpoint.size, checkpoint.root, submission.proof)
    return contained is not None and contained != head.root


def judge(submission: AddCheckpoint, head: Head | None) -> None:
    """Decides whether the checkpoint extends what was cosigned. Returns only if it does.

    Args:
        submission: the parsed request, its signatures verified (`authenticate`).
        head: the latest head cosigned for the origin; None on first contact.

    Raises:
        OldSizeTooLarge: the old size is larger than the checkpoint's.
        StaleOldSize: the old size is not the head's.
        WrongEmptyRoot: the tree is empty and the root is not the empty tree's.
        RootMismatch: the head's size and another root.
        InvalidProof: the proof does not verify.
    """
    checkpoint, old_size = submission.checkpoint, submission.old_size
    size = checkpoint.size
    # SPEC tlog-witness: "The old size MUST be equal to or lower than the checkpoint size. Otherwise, the
    # witness MUST respond with a "400 Bad Request"".
    if old_size > size:
        raise OldSizeTooLarge(old_size, size)
    # SPEC tlog-witness: "The witness MUST check that the old size matches the size of the latest checkpoint
    # it cosigned for the checkpoint's origin (or zero if it never cosigned a checkpoint for that origin)."
    # First contact is not special: with nothing stored the known size is zero and every check applies.
    known = head.size if head is not None else 0
    if old_size != known:
        raise StaleOldSize(known)
    # SPEC tlog-witness: "A checkpoint of size zero MUST have the root hash of the empty tree".
    if size == 0 and checkpoint.root != merkle.EMPTY_ROOT:
        raise WrongEmptyRoot(checkpoint.origin)
    # SPEC tlog-witness: "If the old size matches the checkpoint size, the witness MUST check that the root
    # hashes are also identical. If they don't match, the witness MUST respond with a "422"". Before the
    # proof, so that a log's contradiction is named as what it is.
    if contradicts(checkpoint, head):
        raise RootMismatch(checkpoint.origin, size)
    # SPEC tlog-witness: "If the old size is zero, the consistency proof MUST be empty … Otherwise, the
    # consistency proof lines MUST encode a Merkle Consistency Proof from the old size to the checkpoint size
    # according to RFC 6962, Section 2.1.2."
    old_root = head.root if head is not None else merkle.EMPTY_ROOT
    try:
        merkle.verify_consistency(old_size, size, old_root, checkpoint.root, submission.proof)
    except merkle.InvalidProof as error:
        raise InvalidProof(old_size, size, error.reason) from error


def judge_subtree_form(request: SignSubtree) -> None:
    """The checks of a sign-subtree request that need nothing but the request.

    Raises:
        InvalidSubtree: the range is no subtree of the checkpoint's tree.
        InvalidSubtreeProof: the proof does not verify.
    """
    start, end, size = request.start, request.end, request.checkpoint.size
    # SPEC tlog-witness: "The half-open interval [start, end) MUST be a valid subtree per
    # draft-ietf-plants-merkle-tree-certs-03, Section 4.1, and end MUST be less than or equal to the
    # checkpoint size." That revision, which the text pins, has start < end; later ones allow empty subtrees,
    # about which there is nothing to state.
    if start >= end or not merkle.is_valid_subtree(start, end):
        raise InvalidSubtree(start, end, "it is not a valid subtree")
    if end > size:
        raise InvalidSubtree(start, end, f"it ends beyond the checkpoint's size {size}")
    # SPEC tlog-witness: "The consistency proof lines MUST encode a Subtree Consistency Proof from the subtree
    # to the checkpoint according to draft-ietf-plants-merkle-tree-certs-03, Section 4.4."
    try:
        merkle.verify_subtree_consistency(
            start, end, size, request.root, request.checkpoint.root, request.proof
        )
    except merkle.InvalidProof as error:
        raise InvalidSubtreeProof(start, end, size, error.reason) from error


def judge_subtree_reference(request: SignSubtree, own_keys: Sequence[VerifierKey]) -> None:
    """Makes sure that the reference checkpoint carries a cosignature of ours.

    Raises:
        NoOwnCosignature: it does not, or one that names our key does not verify.
    """
    # SPEC tlog-witness: "The witness MUST verify that the checkpoint includes a valid cosignature from one of
    # its own keys. If the witness can't verify the checkpoint, it MUST respond with a "403 Forbidden"".
    try:
        verified = verify_note(request.note, own_keys)
    except InvalidNoteSignature as error:
        raise NoOwnCosignature(request.checkpoint.origin) from error
    if not verified:
        raise NoOwnCosignature(request.checkpoint.origin)
