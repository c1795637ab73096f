"""Logs that serve their Merkle tree as tiles.

Specification: https://c2sp.org/tlog-tiles. `TiledLog` is what all tiled families share: which tiles a
proof needs, fetching them side by side, and checking them against the checkpoint. A `TileLayout` is what
they differ in: where the checkpoint and the tiles lie, and how a tile is encoded.

Rules of this file:

- What was proved at the last poll is kept (`feeders.edge`), so that only tiles with new leaves are fetched.
- A full tile is kept, and fetched at most once while there is room. A partial one is asked for only where
  the tile is partial at the checkpoint's size and its full successor is not kept.
- What is kept is never the reason for a verdict: a proof that fails is made anew from fresh tiles.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from feeders.edge import Edge, edge_of
from feeders.geometry import Tile, node_from_tile, tile_for_node, tiles_for
from feeders.protocol import (
    MAX_CHECKPOINT_SIZE,
    BadLogData,
    FeedError,
    FeedLog,
    LogSource,
    NotFound,
    WrongProof,
)
from witness.tlog import merkle
from witness.tlog.tiles import TILE_HEIGHT, MalformedTile, index_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from feeders.tools import Tools
    from witness.tlog.checkpoint import Checkpoint


class TileLayout(Protocol):
    """Where a family's resources lie below the log's URL, and how its tiles are encoded."""

    @property
    def checkpoint_path(self) -> str:
        """The path of the latest checkpoint."""

    @property
    def height(self) -> int:
        """Tree levels in a tile."""

    def tile_path(self, tile: Tile) -> str:
        """The path of a tile."""

    def tile_limit(self, tile: Tile) -> int:
        """The most bytes that the resource of this tile may have."""

    def tile_hashes(self, tile: Tile, body: bytes) -> bytes:
        """The tile's raw hashes, 32 * tile.width bytes, out of the resource's body.

        Raises:
            MalformedTile: the body is no such tile.
        """


@dataclass(frozen=True, slots=True)
class RawTileLayout:
    """Tiles of raw hashes, named as tlog-tiles names them, under a prefix of `tile/`."""

    checkpoint_path: str = "checkpoint"
    prefix: str = "tile/"
    height: int = TILE_HEIGHT

    def tile_path(self, tile: Tile) -> str:
        """See `TileLayout`."""
        suffix = "" if tile.is_full else f".p/{tile.width}"
        return f"{self.prefix}{tile.level}/{index_path(tile.index)}{suffix}"

    def tile_limit(self, tile: Tile) -> int:
        """See `TileLayout`."""
        return tile.data_length

    def tile_hashes(self, tile: Tile, body: bytes) -> bytes:
        """See `TileLayout`."""
        if len(body) != tile.data_length:
            raise MalformedTile(f"{len(body)} bytes instead of {tile.data_length}")
        return body


@dataclass(slots=True)
class _Tiles:
    """The tiles of one proof: from the log, and from what was kept of earlier proofs."""

    fresh: dict[Tile, bytes]
    kept: dict[Tile, bytes]

    def hash_of(self, tile: Tile, level: int, index: int) -> bytes:
        return node_from_tile(tile, self.fresh[tile] if tile in self.fresh else self.kept[tile], level, index)

    def __contains__(self, tile: Tile) -> bool:
        return tile in self.fresh or tile in self.kept


class TiledLog:
    """A `LogSource` that makes its proofs from tiles.

    Args:
        url: the log's prefix, with or without a final slash.
        tools: the GET and the kept tiles.
        layout: the family's.
    """

    def __init__(self, url: str, tools: Tools, layout: TileLayout) -> None:
        self._prefix = url.rstrip("/") + "/"
        self._tools = tools
        self._layout = layout
        self._edge: Edge | None = None

    async def fetch_checkpoint(self) -> bytes:
        """See `LogSource.fetch_checkpoint`."""
        return await self._tools.latest(self._prefix + self._layout.checkpoint_path, MAX_CHECKPOINT_SIZE)

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """See `LogSource.fetch_consistency_proof`."""
        if not 1 <= old_size < checkpoint.size:
            raise ValueError(f"no consistency proof leads from size {old_size} to size {checkpoint.size}")
        tiles = _Tiles({}, {})
        known = self._known(old_size, old_root)
        proof = await self._prove(old_size, checkpoint, known, tiles)
        if proof is None and (known or tiles.kept):
            # Either the log has forked or what was kept is damaged: its own tiles alone tell.
            for tile in tiles.kept:
                await self._tools.tiles.drop(self._url(tile))
            tiles.kept.clear()
            proof = await self._prove(old_size, checkpoint, {}, tiles, fresh=True)
        if proof is None:
            reason = f"the tiles do not lead to the root hash of the checkpoint of size {checkpoint.size}"
            raise WrongProof(self._prefix, reason)
        for tile, data in tiles.fresh.items():
            if tile.is_full:
                await self._tools.tiles.put(self._url(tile), data)
        return proof

    def _known(self, old_size: int, old_root: bytes | None) -> dict[merkle.Node, bytes]:
        """The nodes that make the old root, as far as they need not be fetched."""
        edge = self._edge
        if edge is not None and edge.size == old_size and old_root in (None, edge.root):
            return edge.nodes()
        nodes = merkle.root_nodes(old_size)
        # The root of a tree that is full is its only node.
        return {nodes[0]: old_root} if len(nodes) == 1 and old_root is not None else {}

    async def _prove(
        self,
        old_size: int,
        checkpoint: Checkpoint,
        known: Mapping[merkle.Node, bytes],
        tiles: _Tiles,
        *,
        fresh: bool = False,
    ) -> tuple[bytes, ...] | None:
        """The proof, if it leads from some old root to the checkpoint's; the edge moves with it."""
        size, height = checkpoint.size, self._layout.height
        # The old root's nodes are wanted too, so that a proof can be told from a damaged one.
        wanted = (*merkle.consistency_nodes(old_size, size), *merkle.root_nodes(old_size))
        missing = tiles_for(height, (node for node in wanted if node not in known), size)
        await self._fetch_tiles([tile for tile in missing if tile not in tiles], tiles, fresh=fresh)

        def lookup(level: int, index: int) -> bytes:
            found = known.get((level, index))
            if found is not None:
                return found
            return tiles.hash_of(tile_for_node(height, level, index, size), level, index)

        def if_known(node: merkle.Node) -> bytes | None:
            level, index = node
            if node in known or tile_for_node(height, level, index, size) in tiles:
                return lookup(level, index)
            return None

        proof = tuple(merkle.consistency_proof(old_size, size, lookup))
        old_root = merkle.tree_root(old_size, lookup)
        try:
            merkle.verify_consistency(old_size, size, old_root, checkpoint.root, proof)
        except merkle.InvalidProof:
            return None
        self._edge = edge_of(size, checkpoint.root, if_known)
        return proof

    async def _fetch_tiles(self, missing: Iterable[Tile], tiles: _Tiles, *, fresh: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for tile in missing:
                    group.create_task(self._fetch_tile(tile, tiles, fresh=fresh))
        except ExceptionGroup as failures:
            # The first failure cancelled its siblings and speaks for all; a bug among them passes as it is.
            expected, bugs = failures.split(FeedError)
            if expected is None or bugs is not None:
                raise
            raise expected.exceptions[0] from failures

    async def _fetch_tile(self, tile: Tile, tiles: _Tiles, *, fresh: bool) -> None:
        full = tile.full()
        kept = None if fresh else await self._tools.tiles.get(self._url(full))
        if kept is not None and len(kept) == full.data_length:
            tiles.kept[full] = kept
            tiles.kept[tile] = kept[: tile.data_length]
            return
        try:
            tiles.fresh[tile] = await self._fetch_exactly(tile)
        except NotFound:
            if tile.is_full:
                raise
            # SPEC tlog-tiles: logs "MAY delete any partial tile once the corresponding full tile is […]
            # available". Asked for only now: most partial tiles are there, and a full one costs 8 KiB.
            tiles.fresh[full] = await self._fetch_exactly(full)
            tiles.fresh[tile] = tiles.fresh[full][: tile.data_length]

    async def _fetch_exactly(self, tile: Tile) -> bytes:
        url = self._url(tile)
        body = await self._tools.fetch(url, self._layout.tile_limit(tile))
        try:
            return self._layout.tile_hashes(tile, body)
        except MalformedTile as error:
            raise BadLogData(url, f"malformed tile: {error.reason}") from error

    def _url(self, tile: Tile) -> str:
        return self._prefix + self._layout.tile_path(tile)


TLOG_TILES: Final = RawTileLayout()
"""`checkpoint` and `tile/<L>/<N>[.p/<W>]`."""


def tiles_source(log: FeedLog, tools: Tools) -> LogSource:
    """A log that follows tlog-tiles: Tessera's, Rekor v2 and others."""
    return TiledLog(log.url, tools, TLOG_TILES)
