"""The turnstiles: how many a second, each host by itself. Time is moved by hand."""

from __future__ import annotations

import asyncio

import pytest

from feeders import hosts
from feeders.hosts import HostLimits, Hosts
from tests.feeders.world import Clock


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    turnstiles = Hosts(HostLimits(connections=100, rate=10, burst=5), clock.now, clock.sleep)
    served: list[str] = []

    async def ask(host: str) -> None:
        async with turnstiles.turn(host):
            served.append(host)

    tasks = [asyncio.create_task(ask("a")) for _ in range(12)]
    await clock.asleep(7)
    assert served == ["a"] * 5
    assert [round(each, 6) for each in clock.slept] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    other = [asyncio.create_task(ask("b")) for _ in range(5)]
    await asyncio.gather(*other)  # another host does not wait for the first
    clock.advance(0.71)
    await asyncio.gather(*tasks)
    assert served.count("a") == 12
    clock.slept.clear()
    clock.advance(10)  # a quiet time fills the bucket, and no more than that
    tasks = [asyncio.create_task(ask("a")) for _ in range(6)]
    await clock.asleep(1)
    clock.advance(1)
    await asyncio.gather(*tasks)
    assert [round(each, 6) for each in clock.slept] == [0.1]


async def test_idle_hosts_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "MOST_HOSTS", 10)
    clock = Clock()
    turnstiles = Hosts(HostLimits(), clock.now, clock.sleep)
    async with turnstiles.turn("busy"):
        for n in range(100):
            async with turnstiles.turn(f"host {n}"):
                pass
            clock.advance(1)
        assert "busy" in turnstiles._hosts
    assert len(turnstiles._hosts) <= 10
