"""Tiles: coordinates, paths, and nodes out of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.merkle import (
    MAX_TREE_SIZE,
    MemoryTree,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    root_nodes,
    tree_root,
)
from witness.tlog.tiles import (
    TILE_WIDTH,
    MalformedTile,
    Tile,
    index_path,
    node_from_tile,
    parse_tile_path,
    tile_for_node,
    tiles_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from witness.tlog.merkle import Node, NodeLookup

# Around every boundary that trees of up to ~700 leaves have, and where a second level begins to fill.
SIZES = (*range(1, 20), 127, 128, 129, *range(254, 260), 300, 383, 511, 512, 513, 600, 699, 700)


@pytest.fixture(scope="module")
def tree() -> MemoryTree:
    tree = MemoryTree()
    for i in range(700):
        tree.append(b"entry %d" % i)
    return tree


def published(tree: MemoryTree, size: int) -> dict[str, bytes]:
    """The tiles of a log of this size, by the specification's own words; only those it must serve."""
    tiles = {}
    level = 0
    while size >> 8 * level:
        hashes = [tree.node(8 * level, i) for i in range(size // 256**level)]
        full, width = divmod(len(hashes), 256)
        for n in range(full):
            tiles[f"tile/{level}/{n:03d}"] = b"".join(hashes[256 * n : 256 * (n + 1)])
        if width:
            tiles[f"tile/{level}/{full:03d}.p/{width}"] = b"".join(hashes[256 * full :])
        level += 1
    return tiles


def lookup_in(read: Callable[[Tile], bytes], size: int) -> NodeLookup:
    def lookup(level: int, index: int) -> bytes:
        tile = tile_for_node(level, index, size)
        return node_from_tile(tile, read(tile), level, index)

    return lookup


class TestPaths:
    def test_the_specification_s_examples(self) -> None:
        assert Tile(0, 1234067).path() == "tile/0/x001/x234/067"
        assert Tile(0, 1234067, 17).path() == "tile/0/x001/x234/067.p/17"
        assert parse_tile_path("tile/0/x001/x234/067.p/17") == Tile(0, 1234067, 17)

    def test_all_tiles_of_a_tree_of_70_000(self) -> None:
        # "273 full level 0 tiles, one partial level 0 tile of width 112, one full level 1 tile, one
        # partial level 1 tile of width 17, and one partial level 2 tile of width 1"
        size = 70_000
        nodes = [(8 * level, i) for level in range(3) for i in range(size >> 8 * level)]
        tiles = tiles_for(nodes, size)
        assert tiles == (
            *(Tile(0, i) for i in range(273)),
            Tile(0, 273, 112),
            Tile(1, 0),
            Tile(1, 1, 17),
            Tile(2, 0, 1),
        )

    def test_all_tiles_of_a_tree_of_256(self) -> None:
        # "a full level 0 tile and a partial level 1 tile of width 1"
        nodes = [(level, i) for level in range(9) for i in range(256 >> level)]
        assert set(tiles_for(nodes, 256)) == {Tile(0, 0), Tile(1, 0, 1)}

    @pytest.mark.parametrize(
        ("index", "path"),
        [
            (0, "000"),
            (7, "007"),
            (999, "999"),
            (1000, "x001/000"),
            (999_999, "x999/999"),
            (1_000_000, "x001/x000/000"),
            (MAX_TREE_SIZE, "x009/x223/x372/x036/x854/x775/807"),
        ],
    )
    def test_indices(self, index: int, path: str) -> None:
        assert index_path(index) == path
        assert parse_tile_path(f"tile/3/{path}") == Tile(3, index)

    def test_every_index_to_three_elements(self) -> None:
        indices = [*range(2100), *range(998_000, 1_002_100)]
        paths = [Tile(0, index).path() for index in indices]
        assert [parse_tile_path(path).index for path in paths] == indices
        assert len(set(paths)) == len(paths)

    def test_every_level_and_width(self) -> None:
        for level in range(64):
            for width in range(1, TILE_WIDTH + 1):
                tile = Tile(level, 5, width)
                assert parse_tile_path(tile.path()) == tile
                assert tile.data_length == 32 * width
                assert tile.is_full == (width == TILE_WIDTH) == (".p/" not in tile.path())
                assert tile.full() == Tile(level, 5) == parse_tile_path(tile.full().path())

    @given(st.integers(0, 63), st.integers(0, MAX_TREE_SIZE), st.integers(1, TILE_WIDTH))
    def test_round_trip(self, level: int, index: int, width: int) -> None:
        tile = Tile(level, index, width)
        assert parse_tile_path(tile.path()) == tile

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/0/000/",
            "tile/0/000\n",
            "tile/0/000 ",
            "Tile/0/000",
            "tiles/0/000",
            "tile/00/000",
            "tile/01/000",
            "tile/64/000",
            "tile/100/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/ 1/000",
            "tile/entries/000",
            "tile/data/000",
            "tile/8/0/000",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/001/000",
            "tile/0/x000/000",
            "tile/0/x000/x001/000",
            "tile/0/x001/x000",
            "tile/0/x1/000",
            "tile/0/X001/000",
            "tile/0/x001//000",
            "tile/0/../000",
            "tile/0/x009/x223/x372/x036/x854/x775/808",
            "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/000.p/1000",
            "tile/0/000.p/-1",
            "tile/0/000.p/1/",
            "tile/0/000.p/1\n",
            "tile/0/000p/1",
            "tile/0/000%2ep/1",
            "tile/٠/000",
            "tile/0/٠٠٠",
            "tile/0/000.p/١",
        ],
    )
    def test_what_is_no_path(self, path: str) -> None:
        with pytest.raises(MalformedTile):
            parse_tile_path(path)

    @given(st.one_of(st.text(), st.from_regex(r"tile/\d{1,3}/(x?\d{2,4}/){0,7}\d{2,4}(\.p/\d{0,4})?")))
    def test_any_text_gives_a_tile_or_malformed_tile(self, path: str) -> None:
        try:
            tile = parse_tile_path(path)
        except MalformedTile:
            return
        assert tile.path() == path

    @pytest.mark.parametrize(
        ("level", "index", "width"),
        [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, MAX_TREE_SIZE + 1, 1), (0, 0, 0), (0, 0, 257), (0, 0, -1)],
    )
    def test_what_is_no_tile(self, level: int, index: int, width: int) -> None:
        with pytest.raises(ValueError, match="no tile has"):
            Tile(level, index, width)

    def test_negative_index_path(self) -> None:
        with pytest.raises(ValueError, match="no tile has"):
            index_path(-1)


class TestNodes:
    @pytest.mark.parametrize("size", SIZES)
    def test_every_node_of_a_tree(self, tree: MemoryTree, size: int) -> None:
        tiles = published(tree, size)
        for level in range(size.bit_length()):
            for index in range(size >> level):
                tile = tile_for_node(level, index, size)
                data = tiles[tile.path()]
                assert len(data) == tile.data_length
                assert node_from_tile(tile, data, level, index) == tree.node(level, index)
            for index in (-1, size >> level, (size >> level) + 1):
                with pytest.raises(ValueError, match="no node"):
                    tile_for_node(level, index, size)

    @pytest.mark.parametrize("size", SIZES)
    def test_every_root_and_proof_from_tiles_alone(self, tree: MemoryTree, size: int) -> None:
        tiles = published(tree, size)
        lookup = lookup_in(lambda tile: tiles[tile.path()], size)
        assert tree_root(size, lookup) == tree.root(size)
        for old in {1, size // 3 + 1, size // 2 + 1, max(size - 1, 1), size}:
            assert consistency_proof(old, size, lookup) == consistency_proof(old, size, tree.node)
            assert inclusion_proof(old - 1, size, lookup) == inclusion_proof(old - 1, size, tree.node)

    def test_tile_sets_are_exact_and_minimal(self) -> None:
        for size in SIZES:
            for old in range(1, size + 1, 7):
                for nodes in (consistency_nodes(old, size), inclusion_nodes(old - 1, size), root_nodes(size)):
                    tiles = tiles_for(nodes, size)
                    assert len(set(tiles)) == len(tiles)
                    homes = [{tile for tile in tiles if _has(tile, node)} for node in nodes]
                    # Each node is in exactly one of the tiles, and no tile is there for nothing.
                    assert all(len(home) == 1 for home in homes)
                    assert set().union(*homes) == set(tiles)

    def test_a_full_tile_s_root_stands_one_level_up(self) -> None:
        assert tile_for_node(7, 1, 512) == Tile(0, 0)
        assert tile_for_node(8, 1, 512) == Tile(1, 0, 2)
        assert tile_for_node(16, 0, 65536) == Tile(2, 0, 1)
        with pytest.raises(ValueError, match="not in"):
            node_from_tile(Tile(0, 1), bytes(8192), 8, 1)

    def test_the_largest_trees(self) -> None:
        for size in (2**62, MAX_TREE_SIZE):
            tiles = tiles_for(root_nodes(size), size)
            assert len(tiles) <= 8
            assert all(tile == parse_tile_path(tile.path()) for tile in tiles)
        assert tile_for_node(0, MAX_TREE_SIZE - 1, MAX_TREE_SIZE) == Tile(0, (MAX_TREE_SIZE - 1) >> 8, 255)

    def test_a_partial_tile_and_the_full_one_give_the_same(self, tree: MemoryTree) -> None:
        data = published(tree, 700)["tile/0/000"]
        for width in (1, 2, 3, 17, 128, 200, 255):
            partial = Tile(0, 0, width)
            for level in range(8):
                for index in range(width >> level):
                    node = node_from_tile(partial, data[: 32 * width], level, index)
                    assert node == node_from_tile(partial.full(), data, level, index)
                with pytest.raises(ValueError, match="not in"):
                    node_from_tile(partial, data[: 32 * width], level, width >> level)

    def test_nodes_of_other_tiles(self, tree: MemoryTree) -> None:
        data = published(tree, 700)["tile/0/001"]
        for level, index in (
            (0, 255),
            (0, 512),
            (1, 127),
            (1, 256),
            (7, 1),
            (7, 4),
            (8, 1),
            (-1, 512),
            (0, -1),
        ):
            with pytest.raises(ValueError, match="not in"):
                node_from_tile(Tile(0, 1), data, level, index)
        for level, index in ((7, 0), (0, 0), (8, 256), (16, 0), (15, 2)):
            with pytest.raises(ValueError, match="not in"):
                node_from_tile(Tile(1, 0), bytes(8192), level, index)

    @pytest.mark.parametrize("length", [0, 31, 32, 33, 8191, 8193, 16384])
    def test_data_of_another_length(self, length: int) -> None:
        with pytest.raises(MalformedTile, match=f"{length} bytes where"):
            node_from_tile(Tile(0, 0), bytes(length), 0, 0)


def _has(tile: Tile, node: Node) -> bool:
    """Whether one of the tile's own hashes, or one hashed together from them below its root, is the node."""
    level, index = node
    above = level - 8 * tile.level
    return 0 <= above < 8 and any(
        index << above == 256 * tile.index + first and first + (1 << above) <= tile.width
        for first in range(0, 256, 1 << above)
    )
