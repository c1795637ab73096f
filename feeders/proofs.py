"""Judging a consistency proof that a log's API hands out, as far as it can be judged.

Tiles show the whole right edge of a tree; a proof shows only itself. For most old sizes it leads to both
roots, the old one too. Only where the old size is a power of two does it leave the old root out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from feeders.protocol import BadLogData, WrongProof
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import node_hash

Ask = Callable[[int], Awaitable[tuple[bytes, ...]]]
"""`ask(old_size)`: the log's proof from a size to the checkpoint; raises `FetchFailed` and `BadLogData`."""


def implied_old_root(old_size: int, size: int, proof: Sequence[bytes], root: bytes) -> bytes | None:
    """The root hash at `old_size` that a proof claims; None where it does not lead to `root`.

    RFC 9162, section 2.1.4.2. Not for old sizes that are powers of two, whose root is no part of a proof.

    Args:
        old_size: 1 <= old_size < size.
        size: the new tree size.
        proof: 32-byte hashes.
        root: the root hash at `size`.
    """
    if not proof or not {merkle.HASH_SIZE}.issuperset(map(len, proof)):
        return None
    old, new = old_size - 1, size - 1
    while old & 1:
        old, new = old >> 1, new >> 1
    old_root = new_root = proof[0]
    for sibling in proof[1:]:
        if new == 0:
            return None
        if old & 1 or old == new:
            old_root, new_root = node_hash(sibling, old_root), node_hash(sibling, new_root)
            while not old & 1 and old:
                old, new = old >> 1, new >> 1
        else:
            new_root = node_hash(new_root, sibling)
        old, new = old >> 1, new >> 1
    return old_root if new == 0 and new_root == root else None


async def checked_proof(
    url: str, old_size: int, checkpoint: Checkpoint, old_root: bytes | None, ask: Ask
) -> tuple[bytes, ...]:
    """A proof that leads to the checkpoint's root hash, from whatever old root the log claims.

    A proof that fits the checkpoint and not `old_root` is returned: it proves a fork, and the core must see
    it. Where the old size is a power of two, the log is asked once more, for a proof that shows its old root.

    Args:
        url: the log's, for errors.
        old_size: 1 <= old_size < checkpoint.size.
        checkpoint: its signature was verified.
        old_root: what was cosigned at `old_size`, where known.
        ask: the log's API.

    Raises:
        ValueError: the sizes are not as above.
        WrongProof: the log's answers do not lead to the checkpoint's root hash.
        FetchFailed: the world failed.
        BadLogData: an answer is malformed.
    """
    size = checkpoint.size
    if not 1 <= old_size < size:
        raise ValueError(f"no consistency proof leads from size {old_size} to size {size}")
    proof = await ask(old_size)
    reason = f"the proof from size {old_size} does not lead to the root hash of the checkpoint of size {size}"
    if old_size & (old_size - 1):
        if implied_old_root(old_size, size, proof, checkpoint.root) is None:
            raise WrongProof(url, reason)
        return proof
    if old_root is None:
        return proof  # it cannot be judged here, and the core knows the root
    try:
        merkle.verify_consistency(old_size, size, old_root, checkpoint.root, proof)
    except merkle.InvalidProof as error:
        if await _shows_a_fork(old_size, checkpoint, old_root, ask):
            return proof
        raise WrongProof(url, reason) from error
    return proof


async def _shows_a_fork(old_size: int, checkpoint: Checkpoint, old_root: bytes, ask: Ask) -> bool:
    """Whether the log's own next proof shows another root at `old_size`, a power of two.

    The proof from `old_size + 1` has exactly one hash that stands left of a leaf: the root at `old_size`.
    """
    # Of two leaves a proof shows nothing either: 2 is a power of two as well.
    if old_size == 1 or old_size + 1 >= checkpoint.size:
        return False
    try:
        proof = await ask(old_size + 1)
    except BadLogData:
        return False
    implied = implied_old_root(old_size + 1, checkpoint.size, proof, checkpoint.root)
    return implied is not None and node_hash(old_root, proof[0]) != implied
