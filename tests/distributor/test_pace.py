"""Back-off and the system's clock."""

from __future__ import annotations

import asyncio
import random

from distributor.pace import SystemClock, exponential


def test_doubles_up_to_the_longest() -> None:
    backoff = exponential(lambda: 0.0, first=1.0, longest=300.0)
    assert [backoff.seconds(n) for n in (1, 2, 3, 9, 10, 10**9)] == [1, 2, 4, 256, 300, 300]


def test_chance_takes_away_up_to_a_half() -> None:
    backoff = exponential(random.Random(7).random, first=1.0, longest=300.0)
    waits = [backoff.seconds(4) for _ in range(200)]
    assert 4 <= min(waits) < 5
    assert 7 < max(waits) <= 8


async def test_clock_waits_for_whichever_is_first() -> None:
    clock = SystemClock()
    event = asyncio.Event()
    await clock.wait(event, 0.001)
    assert not event.is_set()
    asyncio.get_running_loop().call_later(0.001, event.set)
    async with asyncio.timeout(10):
        await clock.wait(event, None)
        await clock.wait(event, 1000)
