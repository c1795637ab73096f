"""Logs that fool us, over HTTP, in the pool as the daemon has it: each way has its state and its metric.

A log that behaves is polled beside them all the time, and nothing that the others do harms it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from feeders.cache import TileCache
from feeders.fetch import HttpFetch
from feeders.hosts import HostLimits
from feeders.kinds import sources
from feeders.loop import FeederPool, LoopSettings
from feeders.metrics import FeederMetrics
from feeders.protocol import FeedLog
from feeders.states import Status
from feeders.tools import Tools
from tests.feeders.world import JudgingCore
from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.simulated_log_server import SimulatedLogServer

INTERVAL = 0.05


class World:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.core = JudgingCore()
        self.tiles = TileCache()
        fetch = HttpFetch(session, "tests", timeout=0.3, limits=HostLimits(rate=1e4, burst=10_000))
        settings = LoopSettings(first_retry=0.05, longest_retry=0.1, refresh=1e9)
        tools = Tools(fetch, fetch.latest, self.tiles)
        self.pool = FeederPool(sources(tools), self.core.submit, settings=settings)
        self.registry = CollectorRegistry()
        self.registry.register(FeederMetrics(self.pool, fetch, self.tiles))

    def metric(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(f"witness_feeder_{name}", labels)
        assert found is not None
        return found

    def status(self, log: SimulatedLog) -> Status:
        return self.pool.states()[log.origin].status

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def following(self, *servers: SimulatedLogServer) -> AsyncIterator[None]:
        self.pool.reconcile(
            FeedLog(each.log.origin, each.log.vkeys, "tiles", each.url("tiles"), INTERVAL) for each in servers
        )
        run = asyncio.create_task(self.pool.run())
        try:
            yield
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


def _stale(server: SimulatedLogServer) -> None:
    server.faults.checkpoint = server.log.checkpoint(200)


def _fork(server: SimulatedLogServer) -> None:
    server.log = server.log.fork(250)
    server.log.append(300)


def _wrong_tiles(server: SimulatedLogServer) -> None:
    server.faults.wrong_tiles = True
    server.log.append(5)


def _other_origin(server: SimulatedLogServer) -> None:
    server.faults.checkpoint = SimulatedLog("another.example", size=400).checkpoint()


def _unknown_key(server: SimulatedLogServer) -> None:
    server.faults.checkpoint = server.log.checkpoint(keys=[SimulatedKey("stranger.example")])


def _bad_signature(server: SimulatedLogServer) -> None:
    server.log.sign_wrongly = True


def _endless(server: SimulatedLogServer) -> None:
    server.faults.endless = True


def _trickle(server: SimulatedLogServer) -> None:
    server.faults.trickle = True


def _bomb(server: SimulatedLogServer) -> None:
    server.faults.gzip_bomb = True


def _rubbish(server: SimulatedLogServer) -> None:
    server.faults.checkpoint = b"<html>maintenance</html>"


def _down(server: SimulatedLogServer) -> None:
    server.faults.status = 503


@pytest.mark.parametrize(
    ("fool", "status"),
    [
        (_stale, Status.STALE),
        (_fork, Status.FORK),
        (_wrong_tiles, Status.WRONG_PROOF),
        (_other_origin, Status.OTHER_ORIGIN),
        (_unknown_key, Status.UNKNOWN_KEY),
        (_bad_signature, Status.BAD_SIGNATURE),
        (_endless, Status.TOO_LONG),
        (_bomb, Status.TOO_LONG),
        (_trickle, Status.TOO_SLOW),
        (_rubbish, Status.BAD_DATA),
        (_down, Status.UNREACHABLE),
    ],
)
async def test_each_way_of_being_fooled_has_a_state_and_a_metric(
    session: aiohttp.ClientSession, fool: Callable[[SimulatedLogServer], None], status: Status
) -> None:
    world = World(session)
    good, bad = SimulatedLog("good.example", size=10), SimulatedLog("bad.example", size=300)
    async with SimulatedLogServer(good) as fine, SimulatedLogServer(bad) as foul, world.following(fine, foul):
        await world.until(lambda: {world.status(good), world.status(bad)} == {Status.CURRENT})
        before = dict(world.core.heads)
        fool(foul)
        # The other log may be late on a busy machine, never worse off for good.
        await world.until(lambda: (world.status(bad), world.status(good)) == (status, Status.CURRENT))
        assert world.metric("logs", status=status) == 1
        assert world.metric("logs", status="current") == 1
        assert world.metric("polls_total", outcome=status) >= (3 if status is Status.STALE else 1)
        assert world.pool.states()[bad.origin].last_error
        assert world.core.heads["bad.example"] == before["bad.example"], "nothing of it was cosigned"
        if status is Status.FORK:
            submitted = [each for each in world.core.submissions if each.checkpoint.origin == bad.origin]
            assert submitted[-1].checkpoint.root == foul.log.root()
            assert submitted[-1].proof == foul.log.proof(300), "the core saw what proves the fork"
        good.append(1)
        await world.until(lambda: world.core.heads["good.example"][0] == good.size)


async def test_a_fork_at_the_size_that_was_cosigned_reaches_the_core(session: aiohttp.ClientSession) -> None:
    world = World(session)
    log = SimulatedLog("bad.example", size=30)
    async with SimulatedLogServer(log) as server, world.following(server):
        await world.until(lambda: world.status(log) is Status.CURRENT)
        server.log = log.fork(7)
        server.log.append(23)
        await world.until(lambda: world.status(log) is Status.FORK)
        last = world.core.submissions[-1].checkpoint
        assert (last.size, last.root) == (30, server.log.root())


async def test_many_dead_logs_keep_no_other_waiting(session: aiohttp.ClientSession) -> None:
    """A hundred logs of servers that stall hold some places; the others are polled all the same."""
    world = World(session)
    world.pool._settings = LoopSettings(first_retry=0.01, longest_retry=0.01)
    world.pool._slots = asyncio.Semaphore(4)
    world.pool._suspect_slots = asyncio.Semaphore(1)
    good, bad = SimulatedLog("good.example", size=10), SimulatedLog("bad.example", size=10)
    async with SimulatedLogServer(good) as fine, SimulatedLogServer(bad) as foul:
        foul.faults.trickle = True
        dead = [
            FeedLog(
                f"dead {n}",
                bad.vkeys,
                "tiles",
                f"{foul.base.replace('127.0.0.1', f'127.0.1.{n + 1}')}/x",
                0.05,
            )
            for n in range(20)
        ] + [FeedLog(f"stalls {n}", bad.vkeys, "tiles", foul.url("tiles"), 0.05) for n in range(80)]
        world.pool.reconcile([*dead, FeedLog(good.origin, good.vkeys, "tiles", fine.url("tiles"), INTERVAL)])
        run = asyncio.create_task(world.pool.run())
        try:
            for _ in range(5):
                good.append(1)
                await world.until(lambda: world.core.heads.get("good.example", (0,))[0] == good.size)
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


async def test_polls_that_come_too_late_are_counted(session: aiohttp.ClientSession) -> None:
    world = World(session)
    logs = [SimulatedLog(f"{n}.example", size=3) for n in range(6)]
    async with SimulatedLogServer(logs[0]) as server:
        server.faults.trickle = True  # each poll holds the host's only place for 0.3 s, six intervals
        world.pool._settings = LoopSettings(per_host=1, first_retry=0.01, longest_retry=0.01)
        world.pool.reconcile(
            FeedLog(log.origin, log.vkeys, "tiles", server.url("tiles"), INTERVAL) for log in logs
        )
        run = asyncio.create_task(world.pool.run())
        try:
            await world.until(lambda: world.metric("missed_polls_total") > 0)
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run
