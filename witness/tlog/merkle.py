"""Merkle trees of transparency logs: hashes, proofs, and the nodes they are made of.

Specifications: RFC 6962, section 2.1 (tree hash, inclusion and consistency proofs);
draft-ietf-plants-merkle-tree-certs, section 4 (subtrees, and their proofs). SHA-256 throughout.

A tree of size n has the leaves 0 to n - 1. A *node* `(level, index)` is the root of the complete
subtree over the leaves `[index << level, (index + 1) << level)`; level 0 are the leaf hashes. Nodes
never change while the tree grows, so whoever can look up nodes can make every proof and every root.

Verification trusts none of its arguments. It raises `InvalidProof` and has no other answer than that
or `None`: there is no Boolean that a caller could forget to look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

HASH_SIZE: Final = 32
"""Bytes of a SHA-256 hash."""

MAX_TREE_SIZE: Final = 2**63 - 1
"""The largest tree size that a checkpoint may carry here; a proof then has at most 63 hashes."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root hash of the tree of size zero: the hash of the empty string (RFC 6962, section 2.1)."""

Node = tuple[int, int]
"""`(level, index)`: the complete subtree over the leaves `[index << level, (index + 1) << level)`."""

NodeLookup = Callable[[int, int], bytes]
"""Gives the 32-byte hash of the node `(level, index)`. What it raises passes through generation."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


class InvalidProof(Exception):
    """A proof does not show what it should, or its sizes and indices make no sense."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: SHA-256(0x00 || data) (RFC 6962, section 2.1)."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an interior node: SHA-256(0x01 || left || right) (RFC 6962, section 2.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


# --- Verification ---


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Checks that the tree of `new_size` and `new_root` extends that of `old_size` and `old_root`.

    The algorithm is that of the draft's section 4.4.3 for `[0, old_size)` (RFC 9162, section 2.1.4.2,
    is the same), with its branches worked out beforehand: how the paths of the two last leaves part
    fixes the number of hashes and the side on which each stands, so what remains is the hashing.

    Args:
        old_size: leaves of the older tree.
        new_size: leaves of the newer tree.
        old_root: 32 bytes, the older tree's root hash.
        new_root: 32 bytes, the newer tree's root hash.
        proof: 32-byte hashes, in RFC 6962's order; empty when `old_size` is 0 or equals `new_size`.

    Raises:
        InvalidProof: the proof does not verify, or does not belong to these sizes.
    """
    if not 0 < old_size < new_size:
        _verify_trivial_consistency(old_size, new_size, old_root, new_root, proof)
        return
    # Start at the highest complete subtree that ends with the old tree's last leaf.
    skipped = (old_size & -old_size).bit_length() - 1
    last_old = (old_size - 1) >> skipped
    last_new = (new_size - 1) >> skipped
    # Below `inner` the two paths differ, and the old tree's path says on which side a hash stands;
    # above it they are one path along the right edge, which takes hashes on the left only.
    inner = (last_old ^ last_new).bit_length()
    border = (last_old >> inner).bit_count()
    expected = inner + border + (last_old != 0)
    if len(proof) != expected:
        raise InvalidProof(f"{len(proof)} hashes where {expected} belong")
    _check_hashes(old_root, new_root, proof)
    on_left = last_old & ((1 << inner) - 1) | ((1 << border) - 1) << inner
    hashes = iter(proof)
    # Only a whole old tree that is itself a node of the new one starts from its own root.
    old = new = next(hashes) if last_old else old_root
    sha256 = hashlib.sha256
    for sibling in hashes:
        if on_left & 1:
            left = _NODE + sibling
            old = sha256(left + old).digest()
            new = sha256(left + new).digest()
        else:
            new = sha256(_NODE + new + sibling).digest()
        on_left >>= 1
    if old != old_root:
        raise InvalidProof("the proof does not give the old root hash")
    if new != new_root:
        raise InvalidProof("the proof does not give the new root hash")


def _verify_trivial_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """The cases in which there is nothing to prove: equal sizes, and the empty old tree."""
    if not 0 <= old_size <= new_size:
        raise InvalidProof(f"size {new_size} cannot extend size {old_size}")
    if len(proof) != 0:
        raise InvalidProof(f"{len(proof)} hashes where none belongs")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise InvalidProof("the old root hash is not that of the empty tree")
    if old_size == new_size and old_root != new_root:
        raise InvalidProof("the root hashes differ at the same size")


def verify_inclusion(index: int, size: int, leaf_hash: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the tree of `size` and `root` has the leaf `leaf_hash` at `index`.

    RFC 6962, section 2.1.1; hashes are 32 bytes each.

    Raises:
        InvalidProof: it does not, or the proof does not belong to this index and size.
    """
    verify_subtree_inclusion(index, 0, size, leaf_hash, root, proof)


def is_valid_subtree(start: int, end: int) -> bool:
    """Whether `[start, end)` is a subtree: `start` a multiple of BIT_CEIL(`end - start`).

    Draft, section 4.1. The empty `[x, x)` is one; whether `end` lies within a tree is another question.
    """
    if not 0 <= start <= end:
        return False
    if start == end:
        return True
    return start & ((1 << (end - start - 1).bit_length()) - 1) == 0


def verify_subtree_inclusion(  # noqa: PLR0917 - the draft's six inputs, in its order
    index: int, start: int, end: int, leaf_hash: bytes, subtree_root: bytes, proof: Sequence[bytes]
) -> None:
    """Checks that the subtree `[start, end)` of `subtree_root` has the leaf `leaf_hash` at `index`.

    Draft, section 4.3.2; `index` counts from the tree's first leaf, not from the subtree's.

    Raises:
        InvalidProof: it does not, or the proof does not belong to these indices.
    """
    if not is_valid_subtree(start, end):
        raise InvalidProof(f"[{start}, {end}) is not a valid subtree")
    if not start <= index < end:
        raise InvalidProof(f"index {index} is outside of [{start}, {end})")
    _check_hashes(leaf_hash, subtree_root, proof)
    # The proof of a leaf is that of the subtree of one leaf: section 4.4.1 has
    # SUBTREE_PROOF(start, start + 1, D_n) = PATH(start, D_n), and the two evaluations are one.
    _, found = _evaluate(index - start, index - start + 1, end - start, leaf_hash, proof)
    if found != subtree_root:
        raise InvalidProof("the proof does not give the root hash")


def verify_subtree_consistency(  # noqa: PLR0917 - the draft's six inputs, in its order
    start: int, end: int, size: int, subtree_root: bytes, root: bytes, proof: Sequence[bytes]
) -> None:
    """Checks that `subtree_root` is the hash of the subtree `[start, end)` of the tree of `size` and `root`.

    Draft, section 4.4.3. An empty subtree needs no proof, and says nothing about `root`.

    Raises:
        InvalidProof: it is not, or the proof does not belong to these indices.
    """
    if not is_valid_subtree(start, end):
        raise InvalidProof(f"[{start}, {end}) is not a valid subtree")
    if end > size:
        raise InvalidProof(f"[{start}, {end}) ends beyond size {size}")
    if start == end:
        if len(proof) != 0:
            raise InvalidProof(f"{len(proof)} hashes where none belongs")
        if subtree_root != EMPTY_ROOT:
            raise InvalidProof("the subtree's hash is not that of the empty tree")
        return
    _check_hashes(subtree_root, root, proof)
    found_subtree, found = _evaluate(start, end, size, subtree_root, proof)
    if found_subtree != subtree_root:
        raise InvalidProof("the proof does not give the subtree's hash")
    if found != root:
        raise InvalidProof("the proof does not give the root hash")


def _evaluate(
    start: int, end: int, size: int, subtree_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The hashes of `[start, end)` and of the tree that a proof leads to: section 4.4.3, steps 3 to 7.

    The caller has checked that `start < end <= size` and that the subtree is valid.
    """
    fn, sn, tn = start, end - 1, size - 1
    # Steps 4 and 5: to where the paths to the subtree's first and last leaf meet, but, unless the tree
    # ends there too, no further than the run of ones in sn (the highest complete subtree at its edge).
    skipped = (fn ^ sn).bit_length()
    if sn != tn:
        skipped = min(skipped, (~sn & (sn + 1)).bit_length() - 1)
    fn, sn, tn = fn >> skipped, sn >> skipped, tn >> skipped
    hashes = iter(proof)
    fr = subtree_root if fn == sn else next(hashes, None)
    if fr is None:
        raise InvalidProof("no hashes where some belong")
    sr = fr
    for sibling in hashes:
        if tn == 0:
            raise InvalidProof("more hashes than belong")
        if sn & 1 or sn == tn:
            if fn < sn:
                fr = node_hash(sibling, fr)
            sr = node_hash(sibling, sr)
            # sn is not 0: it is odd, or it is tn.
            skipped = (sn & -sn).bit_length() - 1
            fn, sn, tn = fn >> skipped, sn >> skipped, tn >> skipped
        else:
            sr = node_hash(sr, sibling)
        fn, sn, tn = fn >> 1, sn >> 1, tn >> 1
    if tn != 0:
        raise InvalidProof("fewer hashes than belong")
    return fr, sr


def _check_hashes(one: bytes, other: bytes, proof: Sequence[bytes]) -> None:
    """Refuses what is not a hash by its length: hashing would let a long one eat into its neighbour."""
    if len(one) != HASH_SIZE or len(other) != HASH_SIZE or not {HASH_SIZE}.issuperset(map(len, proof)):
        raise InvalidProof(f"a hash is not {HASH_SIZE} bytes long")


# --- Generation ---


def root_nodes(size: int) -> tuple[Node, ...]:
    """The nodes whose hashes make the root of a tree of `size`, left to right; none for size 0.

    Raises:
        ValueError: `size` is negative.
    """
    return _range_nodes(0, size)


def tree_root(size: int, lookup: NodeLookup) -> bytes:
    """The root hash of the tree of `size` (RFC 6962, section 2.1), from at most 63 nodes.

    Raises:
        ValueError: `size` is negative.
    """
    return subtree_root(0, size, lookup)


def subtree_root(start: int, end: int, lookup: NodeLookup) -> bytes:
    """The hash of the subtree `[start, end)` (draft, section 4.1), from at most 63 nodes.

    Raises:
        ValueError: `[start, end)` is not a valid subtree.
    """
    nodes = _range_nodes(start, end)
    if not nodes:
        return EMPTY_ROOT
    found = lookup(*nodes[-1])
    for node in reversed(nodes[:-1]):
        found = node_hash(lookup(*node), found)
    return found


def consistency_nodes(old: int, new: int) -> tuple[Node, ...]:
    """The nodes that `consistency_proof(old, new, …)` looks up, each once.

    Raises:
        ValueError: not `0 <= old <= new`.
    """
    return _nodes_of(_proof_ranges(0, old, new))


def consistency_proof(old: int, new: int, lookup: NodeLookup) -> list[bytes]:
    """The consistency proof from size `old` to size `new` (RFC 6962, section 2.1.2), 32 bytes a hash.

    It is empty when `old` is 0 or equals `new`.

    Raises:
        ValueError: not `0 <= old <= new`.
    """
    return subtree_consistency_proof(0, old, new, lookup)


def inclusion_nodes(index: int, size: int) -> tuple[Node, ...]:
    """The nodes that `inclusion_proof(index, size, …)` looks up, each once.

    Raises:
        ValueError: not `0 <= index < size`.
    """
    return _nodes_of(_proof_ranges(index, index + 1, size))


def inclusion_proof(index: int, size: int, lookup: NodeLookup) -> list[bytes]:
    """The inclusion proof of leaf `index` in the tree of `size` (RFC 6962, section 2.1.1).

    Raises:
        ValueError: not `0 <= index < size`.
    """
    return subtree_consistency_proof(index, index + 1, size, lookup)


def subtree_consistency_proof(start: int, end: int, size: int, lookup: NodeLookup) -> list[bytes]:
    """The proof that `[start, end)` is a subtree of the tree of `size` (draft, section 4.4.1).

    Raises:
        ValueError: `[start, end)` is not a valid subtree, or ends beyond `size`.
    """
    return [subtree_root(first, last, lookup) for first, last in _proof_ranges(start, end, size)]


def _proof_ranges(start: int, end: int, size: int) -> list[tuple[int, int]]:
    """The subtrees whose hashes are SUBTREE_PROOF(start, end, D_size), in the proof's order.

    The draft's recursion (section 4.4.1), walked from the root of the tree down and turned round.
    """
    if not is_valid_subtree(start, end) or end > size:
        raise ValueError(f"[{start}, {end}) is not a subtree of a tree of size {size}")
    if start == end:
        return []
    ranges = []
    # [left, right) is the subtree at hand, [first, end) what is left to prove within it; `whole` says
    # that it is still all of [start, end), whose hash the verifier knows.
    left, right, first, whole = 0, size, start, True
    while (left, right) != (first, end):
        middle = left + (1 << (right - left - 1).bit_length() - 1)
        if end <= middle:
            ranges.append((middle, right))
            right = middle
        else:
            ranges.append((left, middle))
            if first < middle:
                first, whole = middle, False
            left = middle
    if not whole:
        ranges.append((left, right))
    ranges.reverse()
    return ranges


def _range_nodes(start: int, end: int) -> tuple[Node, ...]:
    """The complete subtrees that the subtree `[start, end)` is made of, left to right."""
    if not is_valid_subtree(start, end):
        raise ValueError(f"[{start}, {end}) is not a valid subtree")
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return tuple(nodes)


def _nodes_of(ranges: Iterable[tuple[int, int]]) -> tuple[Node, ...]:
    return tuple(dict.fromkeys(node for start, end in ranges for node in _range_nodes(start, end)))


class MemoryTree:
    """A Merkle tree that keeps all its nodes in memory, about 64 bytes a leaf besides Python's own."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Appends the leaf of these bytes and returns its index."""
        return self.append_hash(leaf_hash(data))

    def append_hash(self, leaf_hash: bytes) -> int:
        """Appends a leaf by its 32-byte hash and returns its index.

        Raises:
            ValueError: it is not 32 bytes long.
        """
        if len(leaf_hash) != HASH_SIZE:
            raise ValueError(f"a leaf hash has {HASH_SIZE} bytes, not {len(leaf_hash)}")
        index = self.size
        self._levels[0].append(leaf_hash)
        level = 0
        while len(self._levels[level]) % 2 == 0:
            left, right = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(left, right))
        return index

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; the tree's `NodeLookup`.

        Raises:
            KeyError: the tree has no such node (yet).
        """
        if not (0 <= level < len(self._levels) and 0 <= index < len(self._levels[level])):
            raise KeyError((level, index))
        return self._levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        """The root hash, at the present size or at an earlier one.

        Raises:
            ValueError: `size` is negative or larger than the tree.
        """
        if size is None:
            size = self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves, not {size}")
        return tree_root(size, self.node)
