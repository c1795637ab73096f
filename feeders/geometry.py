"""Which tile holds which node, for tiles of any height.

tlog-tiles fixes the height at 8 (`witness.tlog.tiles`). The tiles of the Go checksum database, from which it
was made, have a height that the log chooses (https://research.swtch.com/tlog, "Tiling a Log"), and the first
Pixel logs chose 1. The geometry is the same: tile `(level, index)` of height h holds the nodes
`(h * level, index << h)` to `(h * level, (index + 1 << h) - 1)`, and the h - 1 levels above them are hashed
together from those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from witness.tlog.merkle import HASH_SIZE, Node, node_hash
from witness.tlog.tiles import MalformedTile


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's coordinates.

    Attributes:
        height: tree levels from its hashes up to its root; a full tile has `1 << height` hashes.
        level: tile level, 0 for leaf hashes.
        index: position within the level.
        width: hashes in it.
    """

    height: int
    level: int
    index: int
    width: int

    @property
    def is_full(self) -> bool:
        """Whether it has all its hashes."""
        return self.width == 1 << self.height

    @property
    def data_length(self) -> int:
        """Bytes of its raw hashes."""
        return HASH_SIZE * self.width

    def full(self) -> Tile:
        """The full tile of the same place: what replaces a partial one once the log has grown."""
        return replace(self, width=1 << self.height)


def tile_for_node(height: int, level: int, index: int, size: int) -> Tile:
    """The tile that stores the node `(level, index)` of a tree of `size`, or has it among its inner levels.

    A full tile's root is stored in the level above, and is taken from there. The tile's width is the one it
    has at this size.

    Raises:
        ValueError: the tree has no such node.
    """
    if level < 0 or index < 0 or (index + 1) << level > size:
        raise ValueError(f"a tree of size {size} has no node ({level}, {index})")
    tile_level, above = divmod(level, height)
    tile_index = index << above >> height
    hashes = size >> height * tile_level
    return Tile(height, tile_level, tile_index, min(hashes - (tile_index << height), 1 << height))


def tiles_for(height: int, nodes: Iterable[Node], size: int) -> tuple[Tile, ...]:
    """The tiles of these nodes in a tree of `size`: each once, in order of need.

    Raises:
        ValueError: the tree has not all of the nodes.
    """
    return tuple(dict.fromkeys(tile_for_node(height, level, index, size) for level, index in nodes))


def node_from_tile(tile: Tile, data: bytes, level: int, index: int) -> bytes:
    """The hash of the node `(level, index)`, out of the tile's raw hashes.

    Raises:
        MalformedTile: the data has not 32 bytes for each of the tile's hashes.
        ValueError: the node is not in this tile.
    """
    if len(data) != tile.data_length:
        raise MalformedTile(f"{len(data)} bytes where a tile of width {tile.width} has {tile.data_length}")
    above = level - tile.height * tile.level
    first = (index << above) - (tile.index << tile.height) if 0 <= above < tile.height else -1
    if not 0 <= first <= tile.width - (1 << above):
        raise ValueError(f"the node ({level}, {index}) is not in {tile}")
    hashes = [data[HASH_SIZE * i : HASH_SIZE * (i + 1)] for i in range(first, first + (1 << above))]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]
