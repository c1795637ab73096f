"""What a consistency proof says about the smaller tree, without knowing its root.

A proof that fails against the root we know, and leads to the new root all the same, proves a fork: the log
signed both the root we know and a tree that holds another at that size.

RFC 9162, section 2.1.4.2; the proofs are those of RFC 6962, section 2.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from witness.tlog.merkle import InvalidProof, node_hash, verify_consistency


def contained_root(old_size: int, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bytes | None:
    """The root at `old_size` that the proof shows the tree of `new_size` and `new_root` to have.

    Args:
        old_size: the smaller tree's size.
        new_size: the larger tree's.
        new_root: its root hash, 32 bytes.
        proof: a consistency proof between the two, of 32-byte hashes.

    Returns:
        None where the proof leads to another new root, or does not tell: where the smaller tree is complete
        (its size a power of two) the proof leaves its root out.
    """
    if not 0 < old_size < new_size or not proof or old_size & (old_size - 1) == 0:
        return None
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    root = proof[0]
    for sibling in proof[1:]:
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    try:
        verify_consistency(old_size, new_size, root, new_root, proof)
    except InvalidProof:
        return None
    return root
