"""A log as its readers see it: checkpoint, proofs out of tiles, entries.

Nothing that is returned here is to be believed by itself: proofs and leaf hashes count once they lead to the
root hash of a signed checkpoint, which the callers check.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from feeders.protocol import MAX_CHECKPOINT_SIZE, BadLogData, FeedError, Fetch, NotFound
from witness.reading.edge import Edge
from witness.reading.families import Family, MalformedEntries
from witness.tlog import merkle
from witness.tlog.merkle import HASH_SIZE, Node, NodeLookup
from witness.tlog.tiles import MalformedTile, Tile, node_from_tile, tile_for_node, tiles_for

_KEPT_TILES: Final = 128  # 8 KiB each
_AT_A_TIME: Final = 8
_MAX_LOOKUP: Final = 1 << 20

_T = TypeVar("_T")


class NotInLog(Exception):
    """An entry was looked for and not found; `reason` says how far the search went."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LogReader:
    """Reads one log. Keeps the 128 tiles used last, at most 1 MiB.

    Args:
        url: the log's prefix, with or without a final slash.
        family: how it is laid out.
        fetch: the bounded GET.
        latest: the same for the checkpoint, which is asked for again and again; without it, `fetch` is used.
    """

    def __init__(self, url: str, family: Family, fetch: Fetch, latest: Fetch | None = None) -> None:
        self.url = url.rstrip("/") + "/"
        self.family = family
        self._fetch = fetch
        self._latest = latest if latest is not None else fetch
        self._kept: OrderedDict[Tile, bytes] = OrderedDict()

    async def checkpoint(self) -> bytes:
        """The latest checkpoint, as served.

        Raises:
            FetchFailed, BadLogData: as the GET.
        """
        return await self._latest(self.url + self.family.layout.checkpoint_path, MAX_CHECKPOINT_SIZE)

    # --- Proofs ---

    async def inclusion(self, index: int, size: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The leaf hash at `index` and its inclusion proof in the tree of `size`, as the tiles have them.

        Raises:
            ValueError: not `0 <= index < size`.
            FetchFailed, BadLogData: as the GET; a malformed tile too.
        """
        nodes = ((0, index), *merkle.inclusion_nodes(index, size))
        node = await self.nodes(nodes, size)
        return node(0, index), tuple(merkle.inclusion_proof(index, size, node))

    async def consistency(self, old: int, new: int) -> tuple[Edge, tuple[bytes, ...]]:
        """The edge at `old` and the consistency proof from it to `new`, as the tiles of size `new` have them.

        Raises:
            ValueError: not `0 <= old <= new`.
            FetchFailed, BadLogData: as the GET; a malformed tile too.
        """
        places = merkle.root_nodes(old)
        node = await self.nodes((*places, *merkle.consistency_nodes(old, new)), new)
        edge = Edge(old, tuple([node(*place) for place in places]))
        return edge, tuple(merkle.consistency_proof(old, new, node))

    async def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        """The consistency proof alone: without the tiles of the tree's past."""
        node = await self.nodes(merkle.consistency_nodes(old, new), new)
        return tuple(merkle.consistency_proof(old, new, node))

    async def nodes(self, nodes: Iterable[Node], size: int) -> NodeLookup:
        """Fetches the tiles that hold these nodes in a tree of `size`; looks the nodes up."""
        wanted = tiles_for(nodes, size)
        bodies = await _together([self._tile_getter(tile) for tile in wanted])
        tiles = dict(zip(wanted, bodies, strict=True))

        def node(level: int, index: int) -> bytes:
            tile = tile_for_node(level, index, size)
            return node_from_tile(tile, tiles[tile], level, index)

        return node

    def forget(self) -> None:
        """Drops the kept tiles: after something did not fit, nothing old is used again."""
        self._kept.clear()

    def _tile_getter(self, tile: Tile) -> Callable[[], Awaitable[bytes]]:
        return lambda: self._tile(tile)

    async def _tile(self, tile: Tile) -> bytes:
        full = tile.full()
        for place in (full, tile):
            kept = self._kept.get(place)
            if kept is not None:
                self._kept.move_to_end(place)
                return kept[: tile.data_length]
        try:
            data = await self._fetch_tile(tile)
        except NotFound:
            # SPEC tlog-tiles: logs "MAY delete any partial tile once the corresponding full tile is […]
            # available".
            if tile.is_full:
                raise
            data = await self._fetch_tile(full)
            self._keep(full, data)
            return data[: tile.data_length]
        self._keep(tile, data)
        return data

    def _keep(self, tile: Tile, data: bytes) -> None:
        self._kept[tile] = data
        if len(self._kept) > _KEPT_TILES:
            self._kept.popitem(last=False)

    async def _fetch_tile(self, tile: Tile) -> bytes:
        url = self.url + self.family.tile_path(tile)
        body = await self._fetch(url, self.family.tile_limit(tile))
        try:
            return self.family.tile_hashes(tile, body)
        except MalformedTile as error:
            raise BadLogData(url, f"malformed tile: {error.reason}") from error

    # --- Entries ---

    async def entries(self, start: int, size: int, most: int) -> tuple[bytes, ...]:
        """Some entries from `start` on, at least one: those of its bundle, or a few that lie alone.

        Args:
            start: index of the first, less than `size`.
            size: of the tree; its right edge names the partial bundle.
            most: how many, at most.

        Raises:
            FetchFailed, BadLogData: as the GET; a malformed bundle too.
        """
        span = self.family.span
        if span == 1:
            numbers = range(start, min(size, start + most, start + _AT_A_TIME))
            each = await _together([self._bundle_getter(number, 1) for number in numbers])
            return tuple([entry for (entry,) in each])
        number, skipped = divmod(start, span)
        entries = await self._bundle(number, min(span, size - number * span))
        return entries[skipped : skipped + most]

    def _bundle_getter(self, number: int, width: int) -> Callable[[], Awaitable[tuple[bytes, ...]]]:
        return lambda: self._bundle(number, width)

    async def _bundle(self, number: int, width: int) -> tuple[bytes, ...]:
        span = self.family.span
        try:
            return await self._fetch_bundle(number, width, width)
        except NotFound:
            if width == span:
                raise
        return (await self._fetch_bundle(number, span, span))[:width]

    async def _fetch_bundle(self, number: int, width: int, count: int) -> tuple[bytes, ...]:
        url = self.url + self.family.entries_path(number, width)
        body = await self._fetch(url, self.family.entries_limit)
        try:
            return self.family.split(body, count)
        except MalformedEntries as error:
            raise BadLogData(url, f"malformed entries: {error.reason}") from error

    async def find(self, entry: bytes | None, leaf_hash: bytes, size: int, search: int) -> int:
        """The index of an entry, as the log itself names it, else among the newest leaves.

        Args:
            entry: its content, where known: a checksum database is asked by it.
            leaf_hash: its leaf hash.
            size: of the tree to search.
            search: how many leaves, from the newest back, are looked through; 32 bytes each are fetched.

        Raises:
            NotInLog: it was not found.
            FetchFailed, BadLogData: as the GET.
        """
        named = await self._named_index(entry, leaf_hash)
        if named is not None and named < size:
            return named
        end = size
        while end > max(0, size - search):
            tile = tile_for_node(0, end - 1, size)
            hashes = await self._tile(tile)
            start = end - tile.width
            # From the back: of equal entries, the newest.
            for position in reversed(range(tile.width)):
                if hashes[HASH_SIZE * position : HASH_SIZE * (position + 1)] == leaf_hash:
                    return start + position
            end = start
        where = f"the {size - end} newest of {size} entries" if end else f"all {size} entries"
        raise NotInLog(f"no entry with leaf hash {leaf_hash.hex()} among {where}")

    async def _named_index(self, entry: bytes | None, leaf_hash: bytes) -> int | None:
        path = self.family.finder(entry, leaf_hash)
        if path is None:
            return None
        try:
            return self.family.found(await self._fetch(self.url + path, _MAX_LOOKUP))
        except NotFound:
            return None
        except MalformedEntries as error:
            raise BadLogData(self.url + path, error.reason) from error


async def _together(tasks: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """Runs a few at a time; the first failure ends the others and is raised."""
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def one(task: Callable[[], Awaitable[_T]]) -> _T:
        async with gate:
            return await task()

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(task)) for task in tasks]
    except ExceptionGroup as failures:
        expected, bugs = failures.split(FeedError)
        if expected is None or bugs is not None:
            raise
        raise expected.exceptions[0] from failures
    return [task.result() for task in running]
