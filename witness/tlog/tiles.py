"""Tiles: a log's Merkle tree as static resources.

Specification: https://c2sp.org/tlog-tiles, section "Merkle Tree". The Go checksum database's tiles of
height 8 hold the same hashes under another prefix.

A tile holds up to 256 neighbouring hashes of one tree level: the tile `(level, index)` has the nodes
`(8 * level, 256 * index)` to `(8 * level, 256 * index + 255)`, and the seven levels above them are
hashed together from those. A tile that the tree does not fill is *partial*, and its name says its width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from witness.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE, Node, node_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

TILE_HEIGHT: Final = 8
"""Tree levels from a tile's hashes up to its root."""

TILE_WIDTH: Final = 1 << TILE_HEIGHT
"""Hashes in a full tile."""

MAX_TILE_LEVEL: Final = 63
"""The highest level that a path may name; a tree of less than 2**63 leaves has nothing above 7."""

# tlog-tiles: L and W "with no additional leading zeroes"; N "zero-padded 3-digit path elements", all but
# the last of which begin with an x. [0-9] and fullmatch, for \d takes other scripts' digits and $ a
# newline. The tree's size bounds N at 19 digits, so at seven elements.
_PATH: Final = re.compile(r"tile/(0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class MalformedTile(Exception):
    """A tile's path or data is not what the specification gives."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's coordinates.

    Attributes:
        level: tile level, 0 for leaf hashes.
        index: position within the level.
        width: hashes in the tile, 1 to 256; less than 256 makes it partial.

    Raises:
        ValueError: a number is out of its range.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_TILE_LEVEL:
            raise ValueError(f"no tile has level {self.level}")
        if not 0 <= self.index <= MAX_TREE_SIZE:
            raise ValueError(f"no tile has index {self.index}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise ValueError(f"no tile has width {self.width}")

    @property
    def is_full(self) -> bool:
        """Whether the tile has all its 256 hashes."""
        return self.width == TILE_WIDTH

    @property
    def data_length(self) -> int:
        """Bytes of the tile's data: 32 a hash."""
        return HASH_SIZE * self.width

    def path(self) -> str:
        """The resource's path below the log's prefix, such as `tile/0/x001/234/067.p/17`."""
        suffix = "" if self.is_full else f".p/{self.width}"
        return f"tile/{self.level}/{index_path(self.index)}{suffix}"

    def full(self) -> Tile:
        """The full tile of the same place: what replaces a partial one once the log has grown."""
        return Tile(self.level, self.index)


def index_path(index: int) -> str:
    """A tile's or bundle's index as path elements: 1234067 is `x001/x234/067`.

    Raises:
        ValueError: `index` is negative.
    """
    if index < 0:
        raise ValueError(f"no tile has index {index}")
    path = f"{index % 1000:03d}"
    while index >= 1000:  # noqa: PLR2004 - three digits an element
        index //= 1000
        path = f"x{index % 1000:03d}/{path}"
    return path


def parse_tile_path(path: str) -> Tile:
    """The tile of a path of the form that `Tile.path` gives; no other form is taken.

    Raises:
        MalformedTile: it is no tile's path.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedTile("not a tile's path")
    elements, width = match[2], match[3]
    if elements.startswith("x000/"):
        raise MalformedTile("the tile's index has leading zeroes")
    try:
        tile = Tile(int(match[1]), int(elements.replace("/", "").replace("x", "")), int(width or TILE_WIDTH))
    except ValueError as error:
        raise MalformedTile(str(error)) from error
    if width is not None and tile.is_full:
        raise MalformedTile("a full tile is named as a partial one")
    return tile


def tile_for_node(level: int, index: int, size: int) -> Tile:
    """The tile that stores the node `(level, index)` of a tree of `size`, or has it among its inner levels.

    A full tile's root is stored in the level above, and is taken from there. The tile's width is the one
    it has at this size: it is partial where the tree's right edge runs through it.

    Raises:
        ValueError: the tree has no such node.
    """
    if level < 0 or index < 0 or (index + 1) << level > size:
        raise ValueError(f"a tree of size {size} has no node ({level}, {index})")
    tile_level, above = divmod(level, TILE_HEIGHT)
    tile_index = index << above >> TILE_HEIGHT
    hashes = size >> TILE_HEIGHT * tile_level
    return Tile(tile_level, tile_index, min(hashes - tile_index * TILE_WIDTH, TILE_WIDTH))


def tiles_for(nodes: Iterable[Node], size: int) -> tuple[Tile, ...]:
    """The tiles of these nodes in a tree of `size`, as `tile_for_node` has them: each once, in order of need.

    Raises:
        ValueError: the tree has not all of the nodes.
    """
    return tuple(dict.fromkeys(tile_for_node(level, index, size) for level, index in nodes))


def node_from_tile(tile: Tile, data: bytes, level: int, index: int) -> bytes:
    """The hash of the node `(level, index)`, out of the tile's data.

    Nothing here says that the data is the log's: only a proof or root made from it, checked against a
    signed checkpoint, does.

    Raises:
        MalformedTile: the data has not 32 bytes for each of the tile's hashes.
        ValueError: the node is not in this tile.
    """
    if len(data) != tile.data_length:
        raise MalformedTile(f"{len(data)} bytes where a tile of width {tile.width} has {tile.data_length}")
    above = level - TILE_HEIGHT * tile.level
    first = (index << above) - TILE_WIDTH * tile.index if 0 <= above < TILE_HEIGHT else -1
    if not 0 <= first <= tile.width - (1 << above):
        raise ValueError(f"the node ({level}, {index}) is not in {tile.path()}")
    hashes = [
        data[HASH_SIZE * position : HASH_SIZE * (position + 1)]
        for position in range(first, first + (1 << above))
    ]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]
