"""The tiled families against a log that grows, fails and lies: proofs, requests and named errors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from feeders.protocol import BadLogData, FetchFailed, LogSource, NotFound, TooLong, WrongProof
from feeders.tools import Tools
from tests.feeders.world import source_of
from tests.simulated_log import SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.tlog import merkle

if TYPE_CHECKING:
    from feeders.fetch import HttpFetch

FAMILIES = ["pixel8", "serverless", "static-ct", "sumdb", "tiles"]
TILED = [*FAMILIES, "pixel"]
HEIGHTS = {"pixel": 1}
SIZES = [1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 600, 1000]

# Worked out by hand from tlog-tiles: (old size, new size, whether the old root is known, the tiles).
BY_HAND = [
    (1, 2, True, ["0/000.p/2"]),
    (5, 9, True, ["0/000.p/9"]),
    # 256 -> 257: the proof is the new leaf alone; without the old root, also the first full tile's hash.
    (256, 257, True, ["0/001.p/1"]),
    (256, 257, False, ["0/001.p/1", "1/000.p/1"]),
    # 255 -> 256: the inner nodes of the first tile, which is full now.
    (255, 256, True, ["0/000"]),
    # 256 -> 512: the root of the second full tile, read from the level above.
    (256, 512, True, ["1/000.p/2"]),
    # tlog-tiles' own example of a tree: 70,000 leaves.
    (69_999, 70_000, True, ["0/273.p/112", "1/001.p/17", "2/000.p/1"]),
    (69_888, 70_000, True, ["0/273.p/112", "1/001.p/17", "2/000.p/1"]),
    (1, 70_000, True, ["0/000", "0/273.p/112", "1/000", "1/001.p/17"]),
]


def tile_paths(server: SimulatedLogServer) -> list[str]:
    return sorted(path.removeprefix("tiles/tile/") for path in server.requests)


def least_tiles(old: int, new: int, *, height: int = 8, edge_known: bool = False) -> set[tuple[int, int]]:
    """The tiles that hold the proof's nodes, straight from RFC 6962, section 2.1.2.

    `edge_known`: the nodes left of the old size need not be fetched.
    """
    ranges: list[tuple[int, int]] = []

    def subproof(m: int, start: int, end: int, *, complete: bool) -> None:
        if m == end:
            if not complete:
                ranges.append((start, end))
            return
        k = 1
        while 2 * k < end - start:
            k *= 2
        if m <= start + k:
            subproof(m, start, start + k, complete=complete)
            ranges.append((start + k, end))
        else:
            subproof(m, start + k, end, complete=False)
            ranges.append((start, start + k))

    subproof(old, 0, new, complete=True)
    tiles = set()
    for first, end in ranges:
        start = first
        while start < end:
            level = (end - start).bit_length() - 1
            if not edge_known or start >= old:
                tiles.add((level // height, (start >> level) >> (height - level % height)))
            start += 1 << level
    return tiles


@pytest.mark.parametrize("family", TILED)
async def test_proves_between_all_sizes_with_the_fewest_requests(family: str, fetch: HttpFetch) -> None:
    log = SimulatedLog()
    async with SimulatedLogServer(log) as server:
        for new in SIZES:
            log.append(new - log.size)
            for old in (size for size in SIZES if size < new):
                source = source_of(family, server.url(family), fetch)  # it knows nothing yet
                assert await source.fetch_checkpoint() == log.checkpoint()
                server.forget()
                proof = await source.fetch_consistency_proof(old, log.value(), log.root(old))
                assert proof == log.proof(old)
                least = least_tiles(old, new, height=HEIGHTS.get(family, 8))
                assert len(server.requests) == len(set(server.requests)) == len(least)


@pytest.mark.parametrize("family", TILED)
async def test_a_followed_log_costs_only_the_tiles_with_new_leaves(family: str, fetch: HttpFetch) -> None:
    """And each full tile once: what was fetched when it was full is kept."""
    rng = random.Random(2009)
    log = SimulatedLog(size=1)
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        tools_kept: set[str] = set()
        for _ in range(60):
            old, old_root = log.size, log.root()
            log.append(rng.choice([1, 1, 2, 3, 17, 100, 300]))
            server.forget()
            proof = await source.fetch_consistency_proof(old, log.value(), old_root)
            assert proof == log.proof(old)
            least = least_tiles(old, log.size, height=HEIGHTS.get(family, 8), edge_known=True)
            assert len(server.requests) <= len(least)
            full = {path for path in server.requests if ".p/" not in path and "." not in path.split("/")[-1]}
            assert not full & tools_kept, "a full tile was fetched twice"
            tools_kept |= full


@pytest.mark.parametrize(("old", "new", "root_known", "paths"), BY_HAND)
async def test_asks_for_the_tiles_worked_out_by_hand(
    fetch: HttpFetch, *, old: int, new: int, root_known: bool, paths: list[str]
) -> None:
    log = SimulatedLog(size=new, huge=True)
    async with SimulatedLogServer(log) as server:
        source = source_of("tiles", server.url("tiles"), fetch)
        proof = await source.fetch_consistency_proof(old, log.value(), log.root(old) if root_known else None)
        assert proof == log.proof(old)
        assert tile_paths(server) == sorted(paths)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_log_of_a_billion_leaves_costs_a_handful_of_tiles(family: str, fetch: HttpFetch) -> None:
    rng = random.Random(6962)
    log = SimulatedLog(size=1_000_000_007, huge=True)
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        for growth in (1, 1_000, 1_000_000, rng.randrange(10**9)):
            old, old_root = log.size, log.root()
            log.append(growth)
            server.forget()
            proof = await source.fetch_consistency_proof(old, log.value(), old_root)
            merkle.verify_consistency(old, log.size, old_root, log.root(), proof)
            least = least_tiles(old, log.size, edge_known=growth > 1)
            assert len(server.requests) == len(least) <= 8


@pytest.mark.parametrize("family", TILED)
async def test_the_old_root_need_not_be_known(family: str, fetch: HttpFetch) -> None:
    log = SimulatedLog(size=600)
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        for old in (1, 2, 3, 128, 256, 257, 512, 599):
            assert await source.fetch_consistency_proof(old, log.value()) == log.proof(old)


@pytest.mark.parametrize("family", FAMILIES)
async def test_full_tiles_stand_in_for_partial_ones_that_are_gone(family: str, fetch: HttpFetch) -> None:
    log = SimulatedLog(size=600)
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        earlier = log.value(300)  # its partial tile 0/1 of 44 has a full successor now
        server.faults.partials_missing = True
        # 1/000.p/1 has no full successor, so this proof asks for leaves of tile 0/1 and of tile 0/0 only.
        assert await source.fetch_consistency_proof(256, earlier, log.root(256)) == log.proof(256, 300)
        assert len(server.requests) == 2
        with pytest.raises(NotFound):
            await source.fetch_consistency_proof(512, log.value(), log.root(512))


async def test_serverless_takes_a_full_tile_under_a_partial_name(fetch: HttpFetch) -> None:
    """Such logs replace partial tiles by links to the full tile."""
    log = SimulatedLog(size=300)
    async with SimulatedLogServer(log) as server:

        async def linked(url: str, limit: int) -> bytes:
            return await fetch(url.partition("/00/0000/00/00/00.")[0] + "/00/0000/00/00/00", limit)

        source = source_of("serverless", server.url("serverless"), linked)
        assert await source.fetch_consistency_proof(5, log.value(200), log.root(5)) == log.proof(5, 200)


@pytest.mark.parametrize("family", TILED)
async def test_wrong_tiles_are_the_logs_fault(family: str, fetch: HttpFetch) -> None:
    log = SimulatedLog(size=600)
    async with SimulatedLogServer(log) as server:
        server.faults.wrong_tiles = True
        source = source_of(family, server.url(family), fetch)
        for old in (1, 256, 300, 512, 599):
            for old_root in (None, log.root(old)):
                with pytest.raises(WrongProof, match="do not lead to the root hash"):
                    await source.fetch_consistency_proof(old, log.value(), old_root)


@pytest.mark.parametrize("family", TILED)
async def test_a_wrong_root_is_the_logs_fault(family: str, fetch: HttpFetch) -> None:
    log = SimulatedLog(size=600)
    log.wrong_root = True
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        with pytest.raises(BadLogData, match="do not lead to the root hash"):
            await source.fetch_consistency_proof(300, log.value(), log.root(300))


@pytest.mark.parametrize("family", TILED)
@pytest.mark.parametrize("old", [5, 256, 300, 512])
async def test_a_forks_good_proof_is_handed_on(family: str, old: int, fetch: HttpFetch) -> None:
    """Tiles that fit the new checkpoint and not the old root prove a fork: the core must see them."""
    seen = SimulatedLog(size=600)
    fork = seen.fork(3)
    fork.append(597)
    async with SimulatedLogServer(fork) as server:
        source = source_of(family, server.url(family), fetch)
        proof = await source.fetch_consistency_proof(old, fork.value(), seen.root(old))
        assert proof == fork.proof(old)
        assert len(server.requests) == len(set(server.requests)), "a tile was fetched twice"
        with pytest.raises(merkle.InvalidProof):
            merkle.verify_consistency(old, 600, seen.root(old), fork.root(), proof)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"status": 500}, FetchFailed),
        ({"status": 404}, NotFound),
        ({"short_by": 40}, BadLogData),
        ({"endless": True}, TooLong),
        ({"gzip_bomb": True}, TooLong),
        ({"redirect": "http://127.0.0.2:1"}, FetchFailed),
    ],
)
async def test_faulty_servers_have_typed_errors(
    family: str, faults: dict[str, object], error: type[Exception], fetch: HttpFetch
) -> None:
    log = SimulatedLog(size=70_000, huge=True)
    async with SimulatedLogServer(log) as server:
        source: LogSource = source_of(family, server.url(family), fetch)
        for name, value in faults.items():
            setattr(server.faults, name, value)
        with pytest.raises(error):
            await source.fetch_consistency_proof(30_001, log.value(), log.root(30_001))


@pytest.mark.parametrize("old", [-1, 0, 9, 10, 11])
async def test_sizes_without_a_proof_are_the_callers_fault(old: int, fetch: HttpFetch) -> None:
    log = SimulatedLog(size=9)
    source = source_of("tiles", "http://127.0.0.1:1/", fetch)
    with pytest.raises(ValueError, match="no consistency proof"):
        await source.fetch_consistency_proof(old, log.value())


@pytest.mark.parametrize("family", TILED)
async def test_what_is_kept_is_never_the_reason_for_a_verdict(family: str, fetch: HttpFetch) -> None:
    """A kept tile that is damaged costs a request, and the log is followed all the same."""
    log = SimulatedLog(size=700)
    tools = Tools(fetch)
    async with SimulatedLogServer(log) as server:
        first = source_of(family, server.url(family), fetch, tools=tools)
        await first.fetch_consistency_proof(300, log.value(), log.root(300))
        kept = dict(tools.tiles._kept)
        assert kept
        for url, tile in kept.items():
            await tools.tiles.put(url, bytes(len(tile)))
        server.forget()
        second = source_of(family, server.url(family), fetch, tools=tools)
        assert await second.fetch_consistency_proof(300, log.value(), log.root(300)) == log.proof(300)
        assert dict(tools.tiles._kept) == kept, "the fresh ones took their place"


@pytest.mark.parametrize("family", TILED)
async def test_a_followed_log_that_forks_is_proved_to_have_forked(family: str, fetch: HttpFetch) -> None:
    """What is kept is of the history before; the fork's own tiles make the proof that the core must see."""
    log = SimulatedLog(size=600)
    async with SimulatedLogServer(log) as server:
        source = source_of(family, server.url(family), fetch)
        await source.fetch_consistency_proof(500, log.value(), log.root(500))
        fork = log.fork(550)
        fork.append(200)
        server.log = fork
        proof = await source.fetch_consistency_proof(600, fork.value(), log.root(600))
        assert proof == fork.proof(600)
