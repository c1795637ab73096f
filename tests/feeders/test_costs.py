"""What one poll costs the log, counted by its server, beside the least: the table of docs/feeders.md.

`python -m tests.feeders.test_costs` prints the table as measured now.
"""

from __future__ import annotations

import asyncio
import gc
import re
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import aiohttp
import pytest

from feeders.fetch import HttpFetch
from feeders.kinds import make_source
from feeders.poll import LogPoller
from feeders.protocol import FeedLog
from feeders.states import Status
from feeders.tools import Tools
from tests.feeders.test_tiles import HEIGHTS, least_tiles
from tests.feeders.world import Clock, JudgingCore, kind_of, log_of
from tests.simulated_log import SimulatedLog
from tests.simulated_log_server import SimulatedLogServer

SIZE = 1_000_000_000
GROWTHS = (0, 1, 1_000, 1_000_000)
TILED = ("tiles", "static-ct", "sumdb", "pixel8", "serverless", "pixel")
FAMILIES = (*TILED, "rfc6962", "rekor", "sigsum")
NAMES = {"pixel8": "pixel, height 8", "pixel": "pixel, height 1"}
MOST = 1.2
DOCS = Path(__file__).parents[2] / "docs/feeders.md"

_ROW = re.compile(r"\| ([a-z0-9, -]+) \| (unchanged|\+[0-9,]+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|")


@dataclass(frozen=True)
class Cost:
    requests: int
    least_requests: int
    bytes: int
    least_bytes: int


def _tile_size(family: str, width: int) -> int:
    if family != "serverless":
        return 32 * width
    present = sum(width >> above for above in range(8))
    return len(f"32\n{width}\n") + 2 * width - 1 + 44 * present


def least(family: str, log: SimulatedLog, old: int, checkpoint: int) -> tuple[int, int]:
    """Requests and bytes without which no client of the family's API could do.

    It knows what it proved before, asks for what is new, and cannot have less than a tile, or than a proof.
    """
    if old == log.size:
        return 1, checkpoint
    if family not in TILED:
        lines = len(log.proof(old))
        form = {
            "rfc6962": len('{"consistency": []}') + 48 * lines - 2,
            "rekor": len('{"rootHash": "", "hashes": []}') + 64 + 68 * lines - 2,
            "sigsum": len("node_hash=\n") * lines + 64 * lines,
        }
        return 2, checkpoint + form[family]
    height = HEIGHTS.get(family, 8)
    tiles = least_tiles(old, log.size, height=height, edge_known=True)
    widths = [min((log.size >> height * level) - (index << height), 1 << height) for level, index in tiles]
    return 1 + len(tiles), checkpoint + sum(_tile_size(family, width) for width in widths)


async def costs(family: str, session: aiohttp.ClientSession) -> dict[int, Cost]:
    """By how many leaves the log grew -> what the poll cost."""
    log, core, clock = log_of(family, size=SIZE - 1, huge=True), JudgingCore(), Clock()
    found = {}
    async with SimulatedLogServer(log) as server:
        fetch = HttpFetch(session, "tests")
        feed = FeedLog(log.origin, log.vkeys, kind_of(family), server.url(family), 60)
        tools = Tools(fetch, fetch.latest, now=clock.now)
        poller = LogPoller(feed, make_source(feed, tools), core.submit, clock.now, 1e9)
        await poller.poll()  # first contact
        log.append(1)
        clock.advance(60)
        await poller.poll()  # the first growth after a start learns the tree's edge
        for growth in GROWTHS:
            old = log.size
            log.append(growth)
            clock.advance(60)
            server.forget()
            assert await poller.poll() is Status.CURRENT, poller.state.last_error
            assert core.heads[log.origin] == (log.size, log.root())
            requests, sent = len(server.requests), server.bytes_sent
            # The answer that holds the checkpoint has the size that it has.
            server.forget()
            clock.advance(60)
            await poller.poll()
            least_requests, least_bytes = least(family, log, old, server.bytes_sent)
            found[growth] = Cost(requests, least_requests, sent, least_bytes)
    return found


def row(family: str, growth: int, cost: Cost) -> str:
    what = f"+{growth:,}" if growth else "unchanged"
    return (
        f"| {NAMES.get(family, family)} | {what} | {cost.requests} | {cost.least_requests}"
        f" | {cost.bytes:,} | {cost.least_bytes:,} |"
    )


def documented() -> dict[tuple[str, str], Cost]:
    numbers = {}
    for match in _ROW.finditer(DOCS.read_text()):
        numbers[match[1], match[2]] = Cost(*(int(each.replace(",", "")) for each in match.groups()[2:]))
    return numbers


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_poll_costs_little_more_than_the_least(family: str, session: aiohttp.ClientSession) -> None:
    table = documented()
    for growth, cost in (await costs(family, session)).items():
        assert cost.least_requests <= cost.requests <= MOST * cost.least_requests
        # Signatures of ECDSA keys differ by a few bytes from one to the next.
        assert cost.least_bytes - 8 <= cost.bytes <= MOST * cost.least_bytes
        written = table[NAMES.get(family, family), f"+{growth:,}" if growth else "unchanged"]
        assert (cost.requests, cost.least_requests) == (written.requests, written.least_requests)
        assert abs(cost.bytes - written.bytes) <= 8
        assert abs(cost.least_bytes - written.least_bytes) <= 8


def test_every_family_stands_in_the_table() -> None:
    assert len(documented()) == len(FAMILIES) * len(GROWTHS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("validators", ["etag", "date"])
async def test_an_unchanged_log_with_validators_sends_no_body(
    family: str, validators: str, session: aiohttp.ClientSession
) -> None:
    log, clock = log_of(family, size=300), Clock()
    async with SimulatedLogServer(log) as server:
        server.validators = validators
        fetch = HttpFetch(session, "tests")
        feed = FeedLog(log.origin, log.vkeys, kind_of(family), server.url(family), 60)
        tools = Tools(fetch, fetch.latest, now=clock.now)
        poller = LogPoller(feed, make_source(feed, tools), JudgingCore().submit, clock.now, 1e9)
        # An ECDSA signature made anew is another answer; real servers keep the one that they made.
        server.faults.checkpoint = server._answer(_checkpoint_path(family))
        await poller.poll()
        server.forget()
        for _ in range(3):
            clock.advance(60)
            assert await poller.poll() is Status.CURRENT
        assert (server.bytes_sent, server.answered_304, len(server.requests)) == (0, 3, 3)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_poll_leaves_nothing_to_the_garbage_collector(
    family: str, session: aiohttp.ClientSession
) -> None:
    """Where thousands of logs are polled it comes seldom, and what waits for it holds tiles."""
    log, clock = log_of(family, size=100_000, huge=True), Clock()
    async with SimulatedLogServer(log) as server:
        fetch = HttpFetch(session, "tests")
        feed = FeedLog(log.origin, log.vkeys, kind_of(family), server.url(family), 60)
        tools = Tools(fetch, fetch.latest, now=clock.now)
        poller = LogPoller(feed, make_source(feed, tools), JudgingCore().submit, clock.now, 1e9)
        await poller.poll()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for growth in (0, 1, 1_000, 0):
                log.append(growth)
                clock.advance(60)
                assert await poller.poll() is Status.CURRENT
            gc.collect()
            left = [each for each in gc.garbage if type(each).__module__.startswith(("feeders", "witness"))]
            functions = [each for each in gc.garbage if isinstance(each, FunctionType)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not left
    assert not [each for each in functions if each.__module__.startswith(("feeders", "witness"))]


def _checkpoint_path(family: str) -> str:
    names = {
        "sumdb": "latest", "pixel": "checkpoint.txt", "pixel8": "checkpoint.txt", "rekor": "api/v1/log",
        "sigsum": "get-tree-head", "rfc6962": "ct/v1/get-sth",
    }  # fmt: skip
    return f"{family}/{names.get(family, 'checkpoint')}"


async def _print() -> None:
    async with aiohttp.ClientSession() as session:
        for family in FAMILIES:
            for growth, cost in (await costs(family, session)).items():
                print(row(family, growth, cost))


if __name__ == "__main__":
    asyncio.run(_print())
