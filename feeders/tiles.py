"""Logs that serve their Merkle tree as tiles.

Specification: https://c2sp.org/tlog-tiles. `TiledLog` is what all tiled families share: which tiles a
proof needs, fetching them side by side, and checking them against the checkpoint. A `TileLayout` is what
they differ in: where the checkpoint and the tiles lie, and how a tile is encoded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from feeders.protocol import MAX_CHECKPOINT_SIZE, BadLogData, FeedError, Fetch, LogSource, NotFound
from witness.tlog import merkle
from witness.tlog.tiles import MalformedTile, Tile, node_from_tile, tile_for_node, tiles_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from witness.tlog.checkpoint import Checkpoint


class TileLayout(Protocol):
    """Where a family's resources lie below the log's URL, and how its tiles are encoded."""

    @property
    def checkpoint_path(self) -> str:
        """The path of the latest checkpoint."""

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

    def tile_path(self, tile: Tile) -> str:
        """See `TileLayout`."""
        return self.prefix + tile.path().removeprefix("tile/")

    def tile_limit(self, tile: Tile) -> int:
        """See `TileLayout`."""
        return tile.data_length

    def tile_hashes(self, tile: Tile, body: bytes) -> bytes:
        """See `TileLayout`."""
        if len(body) != tile.data_length:
            raise MalformedTile(f"{len(body)} bytes instead of {tile.data_length}")
        return body


class TiledLog:
    """A `LogSource` that makes its proofs from tiles.

    Args:
        url: the log's prefix, with or without a final slash.
        fetch: the bounded GET.
        layout: the family's.
    """

    def __init__(self, url: str, fetch: Fetch, layout: TileLayout) -> None:
        self._prefix = url.rstrip("/") + "/"
        self._fetch = fetch
        self._layout = layout

    async def fetch_checkpoint(self) -> bytes:
        """See `LogSource.fetch_checkpoint`."""
        return await self._fetch(self._prefix + self._layout.checkpoint_path, MAX_CHECKPOINT_SIZE)

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """See `LogSource.fetch_consistency_proof`."""
        size = checkpoint.size
        if not 1 <= old_size < size:
            raise ValueError(f"no consistency proof leads from size {old_size} to size {size}")
        nodes = merkle.consistency_nodes(old_size, size)
        old_nodes = merkle.root_nodes(old_size)
        tiles: dict[Tile, bytes] = {}

        # The nodes of the old root are among those of the proof, except where the old size is a power of
        # two: then the proof leaves the old root out, for the verifier knows it.
        if old_root is not None and not set(old_nodes) <= set(nodes):
            proof = await self._proof(old_size, size, nodes, tiles)
            if _leads_to(proof, old_size, old_root, checkpoint):
                return proof
            # Either the tiles are wrong or the log has forked; the old root as the tiles have it tells.
        proof = await self._proof(old_size, size, (*nodes, *old_nodes), tiles)
        tiles_old_root = merkle.tree_root(old_size, _lookup(tiles, size))
        if not _leads_to(proof, old_size, tiles_old_root, checkpoint):
            reason = f"the tiles do not lead to the root hash of the checkpoint of size {size}"
            raise BadLogData(self._prefix, reason)
        return proof

    async def _proof(
        self, old_size: int, size: int, nodes: Iterable[merkle.Node], tiles: dict[Tile, bytes]
    ) -> tuple[bytes, ...]:
        """The proof, after fetching into `tiles` those that `nodes` need and that are not there yet."""
        missing = [tile for tile in tiles_for(nodes, size) if tile not in tiles]
        tiles.update(zip(missing, await self._fetch_tiles(missing), strict=True))
        return tuple(merkle.consistency_proof(old_size, size, _lookup(tiles, size)))

    async def _fetch_tiles(self, tiles: Iterable[Tile]) -> list[bytes]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch_tile(tile)) for tile in tiles]
        except ExceptionGroup as failures:
            # The first failure cancelled its siblings and speaks for all; a bug among them passes as it is.
            expected, bugs = failures.split(FeedError)
            if expected is None or bugs is not None:
                raise
            raise expected.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _fetch_tile(self, tile: Tile) -> bytes:
        try:
            return await self._fetch_exactly(tile)
        except NotFound:
            if tile.is_full:
                raise
        # SPEC tlog-tiles: logs "MAY delete any partial tile once the corresponding full tile is […]
        # available". Asked for only now: most partial tiles are there, and a full one costs 8 KiB.
        full = await self._fetch_exactly(tile.full())
        return full[: tile.data_length]

    async def _fetch_exactly(self, tile: Tile) -> bytes:
        url = self._prefix + self._layout.tile_path(tile)
        body = await self._fetch(url, self._layout.tile_limit(tile))
        try:
            return self._layout.tile_hashes(tile, body)
        except MalformedTile as error:
            raise BadLogData(url, f"malformed tile: {error.reason}") from error


def _lookup(tiles: Mapping[Tile, bytes], size: int) -> merkle.NodeLookup:
    def node(level: int, index: int) -> bytes:
        tile = tile_for_node(level, index, size)
        return node_from_tile(tile, tiles[tile], level, index)

    return node


def _leads_to(proof: tuple[bytes, ...], old_size: int, old_root: bytes, checkpoint: Checkpoint) -> bool:
    try:
        merkle.verify_consistency(old_size, checkpoint.size, old_root, checkpoint.root, proof)
    except merkle.InvalidProof:
        return False
    return True


TLOG_TILES: Final = RawTileLayout()
"""`checkpoint` and `tile/<L>/<N>[.p/<W>]`."""


def tiles_source(url: str, fetch: Fetch) -> LogSource:
    """A log that follows tlog-tiles: Tessera's, Rekor v2 and others."""
    return TiledLog(url, fetch, TLOG_TILES)
