"""Kept tiles: bounded in memory and on disk, and worth nothing more than the request they spare."""

from __future__ import annotations

from pathlib import Path

from feeders.cache import TileCache


async def test_the_least_recently_used_go_first() -> None:
    cache = TileCache(memory=30)
    for name in "abc":
        await cache.put(name, name.encode() * 10)
    assert await cache.get("a") == b"a" * 10
    await cache.put("d", b"d" * 10)
    assert await cache.get("b") is None
    assert [await cache.get(name) is not None for name in "acd"] == [True] * 3
    assert (cache.hits, cache.misses) == (4, 1)
    await cache.put("e", b"e" * 31)
    assert await cache.get("e") is None, "larger than all the room there is"


async def test_putting_a_tile_again_and_dropping_it_keep_the_sum_right() -> None:
    cache = TileCache(memory=20)
    await cache.put("a", b"1" * 10)
    await cache.put("a", b"2" * 10)
    await cache.put("b", b"3" * 10)
    assert await cache.get("a") == b"2" * 10
    await cache.drop("a")
    await cache.drop("a")
    await cache.put("c", b"4" * 10)
    assert (await cache.get("b"), await cache.get("a")) == (b"3" * 10, None)


async def test_the_disk_outlives_the_process_and_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    cache = TileCache(memory=0, folder=folder, disk=100)
    for n in range(9):
        await cache.put(f"http://x/{n}", bytes([n]) * 10)
    again = TileCache(folder=folder, disk=100)
    assert await again.get("http://x/0") == bytes(10)
    for n in range(9, 40):
        await again.put(f"http://x/{n}", bytes([n]) * 10)
        assert sum(path.stat().st_size for path in folder.glob("??/*")) <= 100
    assert await again.get("http://x/39") == bytes([39]) * 10
    await again.drop("http://x/39")
    assert await TileCache(folder=folder).get("http://x/39") is None
    assert not list(folder.glob("??/*.tmp"))


async def test_a_disk_that_fails_only_makes_the_cache_smaller(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = TileCache(folder=tmp_path / "file" / "folder")
    await cache.put("a", b"tile")
    assert await cache.get("a") == b"tile"
    assert await cache.get("b") is None
