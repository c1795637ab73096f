"""How the world is asked what it has of us: everybody, about everything, and never in a burst."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace

import pytest

from feeders.fetch import HttpFetch, open_session
from feeders.protocol import FeedError
from tests.front.fake_core import LOG
from tests.simulated_log_server import LoopbackServer
from witness.core.refusals import CoreUnreachable
from witness.core.wire import LogPage
from witness.front.looking import AT_ONCE, PER_SECOND, Get, Looker, Pace, Source, monitoring

PAGE = 1000
SOURCES = tuple(Source(name, lambda origin, name=name: f"{name} {origin}") for name in ("one", "two"))


class VirtualTime:
    """A clock that moves when somebody sleeps, and by nothing else."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds
        await asyncio.sleep(0)


class Core:
    """The core, as a looker asks it. It counts rounds, and ends the test after some."""

    def __init__(self, count: int, rounds: int) -> None:
        self.logs_ = tuple(replace(LOG, origin=f"{number}.example") for number in range(count))
        self.rounds = rounds
        self.compared_ = 0
        self.shown: list[tuple[str, bytes]] = []
        self.away = False

    async def logs(self, since: int = 0) -> LogPage:
        if self.away:
            self.away = False
            raise CoreUnreachable("it starts")
        end = min(since + PAGE, len(self.logs_))
        return LogPage(end, end < len(self.logs_), self.logs_[since:end])

    async def seen(self, source: str, note: bytes) -> bool:
        self.shown.append((source, note))
        return True

    async def compared(self) -> None:
        self.compared_ += 1
        if self.compared_ == self.rounds:
            raise asyncio.CancelledError


async def run(core: Core, get: Get, time: VirtualTime, interval: float) -> Looker:
    looker = Looker(SOURCES, core, get, interval=interval, pace=Pace(time.now, time.sleep))
    with contextlib.suppress(asyncio.CancelledError):
        await looker.run()
    return looker


@pytest.mark.parametrize(("count", "interval"), [(30, 3600.0), (2500, 3600.0), (5000, 60.0), (40, 20.0)])
async def test_each_place_is_asked_for_everything_and_never_in_a_burst(count: int, interval: float) -> None:
    time = VirtualTime()
    asked: dict[str, list[float]] = {"one": [], "two": []}
    under_way = most = 0

    async def get(url: str) -> bytes | None:
        nonlocal under_way, most
        asked[url.split(maxsplit=1)[0]].append(time.seconds)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return None

    rounds = 3
    await run(Core(count, rounds), get, time, interval)
    for times in asked.values():
        assert len(times) == rounds * count
        # In no second more than the bound; a question is asked a moment after its turn.
        seconds = Counter(int(at) for at in times)
        assert max(seconds.values()) <= PER_SECOND + 2
        # The second round takes the interval, where that is long enough: the same number in each tenth of it.
        second = times[count : 2 * count]
        length = max(interval, count / PER_SECOND)
        tenths = Counter(int((at - second[0]) / length * 10) for at in second)
        assert max(tenths.values()) <= count / 10 + 2
    assert most <= AT_ONCE


async def test_what_a_slow_place_delayed_is_not_made_up_for() -> None:
    time = VirtualTime()
    pace = Pace(time.now, time.sleep)
    turns = []
    for number in range(6):
        await pace.turn(1.0)
        turns.append(time.seconds)
        if number == 2:
            time.seconds += 10.0
    assert turns == [0.0, 1.0, 2.0, 12.0, 13.0, 14.0]


async def test_a_core_that_is_away_is_asked_again() -> None:
    async def get(url: str) -> bytes | None:
        return url.encode()

    core = Core(3, 1)
    core.away = True
    looker = await run(core, get, VirtualTime(), 60.0)
    assert len(core.shown) == 6
    assert looker.copies == 6


async def test_before_a_log_is_published_it_was_asked_for_once() -> None:
    asked = []

    async def get(url: str) -> bytes | None:
        asked.append(url)
        return None

    time = VirtualTime()
    looker = Looker(SOURCES, Core(1, 1), get, interval=60.0, pace=Pace(time.now, time.sleep))
    for _ in range(3):
        await looker.look_at("0.example")
    assert asked == ["one 0.example", "two 0.example"]
    await looker.round(1.0)
    assert len(asked) == 4


async def test_a_server_that_counts() -> None:
    """Over HTTP, with the fetch that the front has: as many questions as there are logs, and no more."""
    core = Core(12, 2)
    async with LoopbackServer(lambda _: None) as server, open_session(AT_ONCE) as session:
        fetch = HttpFetch(session, "test")

        async def get(url: str) -> bytes | None:
            with contextlib.suppress(FeedError):
                return await fetch(url, 1000)
            return None

        time = VirtualTime()
        looker = Looker(
            (monitoring(server.base),), core, get, interval=60.0, pace=Pace(time.now, time.sleep)
        )  # fmt: skip
        with contextlib.suppress(asyncio.CancelledError):
            await looker.run()
        assert len(server.requests) == 24
        assert len(set(server.requests)) == 12
