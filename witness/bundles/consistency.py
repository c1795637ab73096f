"""Whether a checkpoint extends the one that was trusted before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from witness.bundles.report import Check, Learned
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.merkle import InvalidProof
from witness.tlog.note import MalformedNote, encode_base64, parse_note

OldRoot = Callable[[int], bytes]
"""The root that the newer tree had at an earlier size, as its leaves show; raises InvalidProof."""

PREVIOUS: Final = "consistency"


def compare(new: Checkpoint, trusted: Learned, *, vouched: bool, old_root: OldRoot | None) -> Check | None:
    """Judges a checkpoint by what was trusted of its log.

    Args:
        new: the checkpoint.
        trusted: what was trusted.
        vouched: whether a known log signed the checkpoint and a quorum of witnesses saw it.
        old_root: gives earlier roots where the bundle shows all leaves.

    Returns:
        None when nothing was trusted of this log.
    """
    for data in trusted.checkpoints:
        try:
            old = parse_checkpoint(parse_note(data).text)
        except (MalformedNote, MalformedCheckpoint) as error:
            # Whoever hands us what cannot be read must not be told that it was compared.
            return Check(PREVIOUS, False, f"the trusted checkpoint cannot be read: {error.reason}")
        if old.origin == new.origin:
            return _compare(old, new, vouched=vouched, old_root=old_root)
    return None


def _compare(old: Checkpoint, new: Checkpoint, *, vouched: bool, old_root: OldRoot | None) -> Check:
    if new.size < old.size:
        detail = f"expected size {old.size} or more, found {new.size}: the log has been rolled back"
        return Check(PREVIOUS, False, detail)
    if new.size == old.size:
        return _same_root(old, new.root, f"the same tree of size {old.size} as before")
    if old.size == 0:
        return Check(PREVIOUS, True, "every tree extends the empty one")
    if old_root is not None:
        try:
            found = old_root(old.size)
        except InvalidProof as error:
            return Check(PREVIOUS, False, f"the tree of size {old.size} cannot be recomputed: {error.reason}")
        return _same_root(
            old, found, f"extends the trusted tree of size {old.size}, recomputed from the leaves"
        )
    detail = (
        f"size {new.size} extends the trusted size {old.size}, by the word of the witnesses' quorum"
        if vouched
        else f"expected proof that size {new.size} extends the trusted size {old.size}; the bundle has none,"
        " and no quorum of witnesses vouches for it"
    )
    return Check(PREVIOUS, vouched, detail)


def _same_root(old: Checkpoint, found: bytes, good: str) -> Check:
    if found == old.root:
        return Check(PREVIOUS, True, good)
    expected = encode_base64(old.root)
    detail = f"expected root {expected} at size {old.size}, found {encode_base64(found)}: the log has forked"
    return Check(PREVIOUS, False, detail)
