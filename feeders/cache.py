"""Full tiles that were fetched, kept for as long as there is room: they never change.

In memory, the least recently used go first; on disk, where a folder is given, those written longest ago.
Nothing here is trusted: a proof made from kept tiles is checked like any other, and one that fails is made
again from fresh ones. So a damaged file costs a request, and never a log.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_log: Final = logging.getLogger("witness.feeders")
_MEGA: Final = 1024 * 1024
_SLACK: Final = 0.9
"""The part of the disk's share that is left after it was exceeded: not every tile sweeps the folder."""


class TileCache:
    """Tiles by URL.

    Args:
        memory: bytes of tiles in memory, at most; 0 keeps none.
        folder: where they are kept on disk too; None for nowhere.
        disk: bytes of files there, at most.
    """

    def __init__(
        self, memory: int = 32 * _MEGA, folder: Path | None = None, disk: int = 1024 * _MEGA
    ) -> None:
        self._memory = memory
        self._folder = folder
        self._disk = disk
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._on_disk: int | None = None
        self.hits = 0
        self.misses = 0

    async def get(self, url: str) -> bytes | None:
        """The tile of this URL, if it is kept."""
        found = self._kept.get(url)
        if found is not None:
            self._kept.move_to_end(url)
        elif self._folder is not None:
            found = await asyncio.to_thread(self._read, url)
            if found is not None:
                self._remember(url, found)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    async def put(self, url: str, tile: bytes) -> None:
        """Keeps a full tile."""
        self._remember(url, tile)
        if self._folder is not None:
            await asyncio.to_thread(self._write, url, tile)

    async def drop(self, url: str) -> None:
        """Forgets a tile that proved to be wrong."""
        self._size -= len(self._kept.pop(url, b""))
        if self._folder is not None:
            await asyncio.to_thread(self._path(self._folder, url).unlink, missing_ok=True)

    def _remember(self, url: str, tile: bytes) -> None:
        self._size += len(tile) - len(self._kept.pop(url, b""))
        self._kept[url] = tile
        while self._size > self._memory:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    # --- on a thread ---

    def _path(self, folder: Path, url: str) -> Path:
        name = hashlib.sha256(url.encode()).hexdigest()
        return folder / name[:2] / name[2:]

    def _read(self, url: str) -> bytes | None:
        assert self._folder is not None
        try:
            return self._path(self._folder, url).read_bytes()
        except OSError:
            return None

    def _write(self, url: str, tile: bytes) -> None:
        """Whole or not at all; a disk that fails is told of, and the cache is only smaller."""
        assert self._folder is not None
        path = self._path(self._folder, url)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            if self._on_disk is None:
                self._on_disk = sum(size for _, size, _ in self._files())
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(tile)
            scratch.replace(path)
            self._on_disk += len(tile)
            if self._on_disk > self._disk:
                self._on_disk = self._sweep()
        except OSError as error:
            _log.warning("a tile cannot be kept on disk: %s", error)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        assert self._folder is not None
        for path in self._folder.glob("??/*"):
            try:
                facts = path.stat()
            except OSError:  # another process swept it
                continue
            yield facts.st_mtime, facts.st_size, path

    def _sweep(self) -> int:
        """Removes the oldest files; returns the bytes that are left."""
        files = sorted(self._files(), key=lambda each: each[0])
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._disk * _SLACK:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total
