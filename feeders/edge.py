"""What is kept of a tiled log between two polls: the right edge of its tree at the size last proved.

The nodes that make the root at the old size (at most 63 hashes) are the whole left side of every later
consistency proof. Kept, they leave only the tiles with new leaves to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from witness.tlog import merkle
from witness.tlog.merkle import HASH_SIZE, Node, node_hash


@dataclass(frozen=True, slots=True)
class Edge:
    """The nodes of a root, packed: ten thousand logs keep some 300 bytes each.

    Attributes:
        size: the tree size.
        root: its root hash.
        hashes: the hashes of `merkle.root_nodes(size)`, one after the other.
    """

    size: int
    root: bytes
    hashes: bytes

    def nodes(self) -> dict[Node, bytes]:
        """The nodes by their place."""
        places = merkle.root_nodes(self.size)
        return {node: self.hashes[HASH_SIZE * i : HASH_SIZE * (i + 1)] for i, node in enumerate(places)}


def edge_of(size: int, root: bytes, known: Callable[[Node], bytes | None]) -> Edge | None:
    """The edge at `size`, out of what is known of the tree; None if that does not make the root hash.

    Args:
        size: the tree size.
        root: the root hash that the edge must make.
        known: the hash of a node, or None. It need not be trustworthy: the root hash judges.
    """
    try:
        nodes = {node: _find(known, *node) for node in merkle.root_nodes(size)}
    except KeyError:
        return None
    if merkle.tree_root(size, lambda level, index: nodes[level, index]) != root:
        return None
    return Edge(size, root, b"".join(nodes.values()))


def _find(known: Callable[[Node], bytes | None], level: int, index: int) -> bytes:
    """The hash of a node, made of those below it where it is not known itself.

    Not a function within `edge_of`: one that calls itself would hold its tiles until a garbage collection.

    Raises:
        KeyError: it cannot be made.
    """
    found = known((level, index))
    if found is not None:
        return found
    if level == 0:
        raise KeyError(index)
    return node_hash(_find(known, level - 1, 2 * index), _find(known, level - 1, 2 * index + 1))
