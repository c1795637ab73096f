"""The pool of polling loops: paces, back-off, reconciliation, isolation of bugs. Time is moved by hand."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from feeders.kinds import KINDS, UnknownFeeder, sources
from feeders.loop import FeederPool, FeedLog, LoopSettings, Status
from feeders.protocol import FetchFailed
from feeders.tools import Tools
from tests.feeders.world import Clock, JudgingCore, log_of
from tests.simulated_log import SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.core.refusals import CoreUnreachable, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from feeders.fetch import HttpFetch
    from feeders.protocol import LogSource

DOWN = FetchFailed("http://x/", "status 503")


class Source(SimulatedLog):
    """A simulated log whose server fails while `failure` is set, and waits while `gate` is closed."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin, size=5)
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.polls = 0
        self.under_way = 0
        self.most_under_way = 0

    async def fetch_checkpoint(self) -> bytes:
        self.polls += 1
        self.under_way += 1
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        return self.checkpoint()


class World:
    def __init__(self, settings: LoopSettings | None = None) -> None:
        self.logs: dict[str, Source] = {}
        self.core = JudgingCore()
        self.clock = Clock()
        self.pool = FeederPool(
            self.source,
            self.core.submit,
            settings=settings,
            now=self.clock.now,
            sleep=self.clock.sleep,
            rng=random.Random(42),
        )

    def source(self, log: FeedLog) -> LogSource:
        if log.kind != "tiles":
            raise UnknownFeeder(log.kind)
        return self.logs[log.origin]

    def log(self, origin: str, *, kind: str = "tiles", interval: float = 30) -> FeedLog:
        source = self.logs.setdefault(origin, Source(origin))
        return FeedLog(origin, source.vkeys, kind, "http://x/", interval)

    def status(self, origin: str) -> Status:
        return self.pool.states()[origin].status

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        before = asyncio.all_tasks()
        run = asyncio.create_task(self.pool.run())
        try:
            yield
            assert not run.done()
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run
            assert asyncio.all_tasks() == before, "an orphan task"


async def test_polls_every_log_at_its_own_interval() -> None:
    world = World()
    world.pool.reconcile([world.log("a", interval=30), world.log("b", interval=300)])
    async with world.running():
        await world.clock.asleep(2)  # before the first polls
        assert world.status("a") is Status.WAITING
        for _ in range(10):
            world.clock.advance(33)
            await world.clock.asleep(2)
        assert world.logs["a"].polls == 10
        assert world.logs["b"].polls == 2
        state = world.pool.states()["a"]
        assert (state.status, state.size) == (Status.CURRENT, 5)
        assert state.next_poll is not None
        assert 27 <= state.next_poll - world.clock.now() <= 33
    assert world.core.heads.keys() == {"a", "b"}


async def test_starts_and_intervals_are_jittered() -> None:
    world = World()
    logs = [world.log(f"log {n}", interval=30) for n in range(50)]
    world.pool.reconcile(logs)
    async with world.running():
        await world.clock.asleep(50)
        starts, world.clock.slept = world.clock.slept, []
        assert len(set(starts)) == 50
        assert 0 <= min(starts) < max(starts) <= 0.5  # a hundred a second
        world.clock.advance(1)
        await world.clock.asleep(50)
        assert len(set(world.clock.slept)) == 50
        assert 27 <= min(world.clock.slept) < max(world.clock.slept) <= 33


async def test_many_new_logs_are_spread_over_no_more_than_their_interval() -> None:
    world = World(LoopSettings(starts_per_second=1))
    world.pool.reconcile([world.log(f"log {n}", interval=10) for n in range(50)])
    async with world.running():
        await world.clock.asleep(50)
        assert 5 < max(world.clock.slept) <= 10


async def test_backs_off_from_a_dead_server_and_returns_to_its_interval() -> None:
    world = World(LoopSettings(first_retry=2, longest_retry=100))
    world.pool.reconcile([world.log("a", interval=30)])
    source = world.logs["a"]
    source.failure = DOWN
    async with world.running():
        await world.clock.asleep(1)
        world.clock.slept.clear()
        for failures in range(1, 11):
            world.clock.advance(151)
            await world.clock.asleep(1)
            state = world.pool.states()["a"]
            assert (state.status, state.consecutive_failures) == (Status.UNREACHABLE, failures)
            assert state.next_poll == world.clock.now() + world.clock.slept[-1]
        for waited, base in zip(world.clock.slept, [2, 4, 8, 16, 32, 64, 100, 100, 100, 100], strict=True):
            assert base < waited < 1.5 * base
        assert source.polls == 10

        source.failure = None
        world.clock.advance(151)
        await world.clock.asleep(1)
        state = world.pool.states()["a"]
        assert (state.status, state.consecutive_failures, state.last_error) == (Status.CURRENT, 0, "")
        assert 27 <= world.clock.slept[-1] <= 33
        source.failure = DOWN  # the back-off begins anew
        world.clock.advance(34)
        await world.clock.asleep(1)
        assert 2 <= world.clock.slept[-1] <= 3


async def test_our_own_failures_leave_logs_unfed_no_longer_than_their_interval() -> None:
    world = World(LoopSettings(first_retry=2, longest_retry=900))
    world.pool.reconcile([world.log("a", interval=30)])
    world.core.failures = [CoreUnreachable("no socket")] * 8
    async with world.running():
        await world.clock.asleep(1)
        world.clock.slept.clear()
        for _ in range(8):
            world.clock.advance(46)
            await world.clock.asleep(1)
            assert world.status("a") is Status.WITNESS_UNAVAILABLE
        assert 30 <= world.clock.slept[-1] <= 45
        world.clock.advance(46)
        await world.clock.asleep(1)
        assert world.status("a") is Status.CURRENT


async def test_an_overloaded_core_says_when_to_come_back() -> None:
    world = World()
    world.pool.reconcile([world.log("a")])
    world.core.failures = [Overloaded(17)]
    async with world.running():
        await world.clock.asleep(1)
        world.clock.advance(1)
        await world.clock.asleep(1)
        assert world.status("a") is Status.WITNESS_UNAVAILABLE
        assert 17 <= world.clock.slept[-1] <= 17 * 1.5


async def test_reconcile_adds_and_removes_while_running() -> None:
    world = World()
    async with world.running():
        world.pool.reconcile([world.log("a"), world.log("b")])
        assert world.pool.states()["a"].status is Status.WAITING
        await world.clock.asleep(2)
        world.clock.advance(1)
        await world.clock.asleep(2)
        assert (world.logs["a"].polls, world.logs["b"].polls) == (1, 1)

        world.pool.reconcile([world.log("b"), world.log("c")])
        assert world.pool.states().keys() == {"b", "c"}
        await world.clock.until(lambda: len(world.clock.slept) == 5)
        await world.clock.asleep(2)
        world.clock.advance(1)  # an addition starts within a second
        await world.clock.asleep(2)
        assert (world.logs["b"].polls, world.logs["c"].polls) == (1, 1)
        world.clock.advance(100)
        await world.clock.asleep(2)
        assert [world.logs[origin].polls for origin in "abc"] == [1, 2, 2]

        world.pool.reconcile([])
        await world.clock.asleep(0)
        assert world.pool.states() == {}
        world.clock.advance(1000)
        assert [world.logs[origin].polls for origin in "abc"] == [1, 2, 2]


async def test_unchanged_logs_are_not_disturbed_and_changed_ones_restart() -> None:
    world = World()
    async with world.running():
        world.pool.reconcile([world.log("a", interval=30), world.log("b", interval=30)])
        await world.clock.asleep(2)
        world.clock.advance(1)
        await world.clock.asleep(2)
        before = world.pool.states()["a"]
        world.clock.slept.clear()
        world.pool.reconcile([world.log("a", interval=30), world.log("b", interval=60)])
        await world.clock.until(lambda: len(world.clock.slept) == 1)
        await world.clock.asleep(2)
        assert world.pool.states()["a"] == before
        world.clock.advance(1)
        await world.clock.asleep(2)
        assert (world.logs["a"].polls, world.logs["b"].polls) == (1, 2)
        assert 54 <= world.clock.slept[-1] <= 66


async def test_a_removed_logs_poll_is_cut_short() -> None:
    world = World()
    async with world.running():
        world.pool.reconcile([world.log("a")])
        await world.clock.asleep(1)
        world.logs["a"].gate.clear()
        world.clock.advance(1)
        await world.clock.until(lambda: world.logs["a"].under_way == 1)
        world.pool.reconcile([])
        await world.clock.until(lambda: world.logs["a"].under_way == 0)


async def test_the_same_origin_twice_is_the_callers_mistake() -> None:
    world = World()
    with pytest.raises(ValueError, match="'a'"):
        world.pool.reconcile([world.log("a"), world.log("a", interval=60)])


async def test_runs_once_at_a_time_and_again_later() -> None:
    world = World()
    world.pool.reconcile([world.log("a")])
    async with world.running():
        await world.clock.asleep(1)
        with pytest.raises(RuntimeError, match="runs already"):
            await world.pool.run()
    async with world.running():
        await world.clock.asleep(1)
        world.clock.advance(1)
        await world.clock.asleep(1)
        assert world.status("a") is Status.CURRENT


async def test_logs_that_are_not_polled_say_why(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.pool.reconcile([
        world.log("pushes", kind="none"), world.log("ct", kind="static-ct"), world.log("typo", kind="tile"),
        world.log("a"),
    ])  # fmt: skip
    async with world.running():
        await world.clock.asleep(1)
        states = world.pool.states()
        assert {origin: state.status for origin, state in states.items()} == {
            "pushes": Status.NOT_POLLED,
            "ct": Status.UNKNOWN_FEEDER,
            "typo": Status.UNKNOWN_FEEDER,
            "a": Status.WAITING,
        }
        assert "no feeder is called" in states["ct"].last_error
        assert "no feeder is called" in states["typo"].last_error
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_a_bug_in_one_logs_loop_is_loud_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    world = World(LoopSettings(broken_pause=600))
    world.pool.reconcile([world.log("buggy"), world.log("fine")])
    world.logs["buggy"].failure = ZeroDivisionError("a bug")
    async with world.running():
        await world.clock.asleep(2)
        world.clock.advance(1)
        await world.clock.until(lambda: world.status("buggy") is Status.BROKEN)
        await world.clock.asleep(2)
        state = world.pool.states()["buggy"]
        assert state.last_error == "bug: ZeroDivisionError: a bug"
        assert state.next_poll == world.clock.now() + 600
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "buggy" in errors[0].getMessage()
        assert errors[0].exc_info is not None

        for _ in range(10):
            world.clock.advance(33)
            await world.clock.asleep(2)
        assert (world.logs["fine"].polls, world.logs["buggy"].polls) == (11, 1)
        assert (world.status("fine"), world.status("buggy")) == (Status.CURRENT, Status.BROKEN)

        world.logs["buggy"].failure = None
        world.clock.advance(600)
        await world.clock.asleep(2)
        state = world.pool.states()["buggy"]
        assert (state.status, state.consecutive_failures, state.last_error) == (Status.CURRENT, 0, "")


async def test_polls_under_way_are_limited() -> None:
    world = World(LoopSettings(concurrency=3))
    world.pool.reconcile([world.log(f"log {n}") for n in range(10)])
    sources = list(world.logs.values())
    for source in sources:
        source.gate.clear()
    async with world.running():
        await world.clock.asleep(10)
        world.clock.advance(1)
        await world.clock.until(lambda: sum(source.under_way for source in sources) == 3)
        for _ in range(100):  # every other task has had its turn, many times
            await asyncio.sleep(0)
        assert sum(source.under_way for source in sources) == 3
        for source in sources:
            source.gate.set()
        await world.clock.asleep(10)
        assert [source.polls for source in sources] == [1] * 10


async def test_all_families_together_over_http(fetch: HttpFetch) -> None:
    """As composed in the daemon, with the requests of each poll counted."""
    core, clock = JudgingCore(), Clock()
    tools = Tools(fetch, fetch.latest, now=clock.now)
    pool = FeederPool(sources(tools), core.submit, now=clock.now, sleep=clock.sleep)
    async with AsyncExitStack() as stack:
        servers = {
            kind: await stack.enter_async_context(SimulatedLogServer(log_of(kind, size=700)))
            for kind in KINDS
        }
        pool.reconcile(
            FeedLog(server.log.origin, server.log.vkeys, kind, server.url(kind), 30)
            for kind, server in servers.items()
        )
        run = asyncio.create_task(pool.run())
        try:
            # First contact and an unchanged log cost one request; growth by a leaf, a proof or the tiles of
            # the right edge; and later growth, with the edge known, one tile.
            for growth, requests in ((0, 1), (0, 1), (1, None), (0, 1), (1, 2)):
                await clock.asleep(len(servers))
                for server in servers.values():
                    server.log.append(growth)
                    server.forget()
                clock.advance(34)
                await clock.asleep(len(servers))
                for server in servers.values():
                    state = pool.states()[server.log.origin]
                    assert (state.status, state.size) == (Status.CURRENT, server.log.size), state.last_error
                    assert requests in (None, len(server.requests))
                    assert core.heads[server.log.origin] == (server.log.size, server.log.root())
        finally:
            run.cancel()
            await asyncio.wait([run])


async def test_only_changes_of_status_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.pool.reconcile([world.log("a")])
    async with world.running():
        await world.clock.asleep(1)
        for failure in (None, None, DOWN, DOWN, DOWN, None):
            world.logs["a"].failure = failure
            world.clock.advance(34)
            await world.clock.asleep(1)
        fork = world.logs["a"].fork(2)
        fork.append(9)
        world.logs["a"]._tree, world.logs["a"]._published = fork._tree, fork.size
        world.clock.advance(34)
        await world.clock.asleep(1)
    said = [(record.levelno, record.getMessage().split(" origin")[0]) for record in caplog.records]
    assert said == [
        (logging.INFO, "feeder current"),
        (logging.WARNING, "feeder unreachable"),
        (logging.INFO, "feeder current"),
        (logging.ERROR, "feeder fork"),
    ]


@pytest.fixture(autouse=True)
def _quiet_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that asyncio complains about (tasks destroyed, exceptions never retrieved) goes unseen."""
    yield
    assert [record for record in caplog.records if record.name == "asyncio"] == []
