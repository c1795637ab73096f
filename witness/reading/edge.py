"""The right edge of a tree that grows leaf by leaf: what is kept of all entries seen so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from witness.tlog.merkle import EMPTY_ROOT, HASH_SIZE, node_hash, root_nodes


@dataclass(frozen=True, slots=True)
class Edge:
    """A tree by the nodes that make its root (`merkle.root_nodes`), at most 63 hashes.

    Attributes:
        size: its leaves.
        hashes: the nodes' hashes, left to right.

    Raises:
        ValueError: as many hashes do not belong to the size, or one is not 32 bytes long.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.hashes) != len(root_nodes(self.size)):
            raise ValueError(f"{len(self.hashes)} hashes are no edge of a tree of size {self.size}")
        if any(len(each) != HASH_SIZE for each in self.hashes):
            raise ValueError(f"a hash is not {HASH_SIZE} bytes long")

    def grown(self, leaf_hashes: Iterable[bytes]) -> Edge:
        """The edge after these leaves were added."""
        size, hashes = self.size, list(self.hashes)
        for leaf in leaf_hashes:
            node, full = leaf, size
            while full & 1:
                node = node_hash(hashes.pop(), node)
                full >>= 1
            hashes.append(node)
            size += 1
        return Edge(size, tuple(hashes))

    def root(self) -> bytes:
        """The root hash (RFC 6962, section 2.1)."""
        if not self.hashes:
            return EMPTY_ROOT
        found = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            found = node_hash(left, found)
        return found
