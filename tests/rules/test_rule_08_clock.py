"""Rule 8: a clock that runs behind an already issued timestamp stops signing.

The guard: `Ground.timestamp` (witness/core/ground.py); after a restart the largest timestamp comes out of
the store (`Store.last_timestamp`). The database's own fence is the `timestamp <= ?` of `SQLiteStore.advance`
and the trigger `heads_grow`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.state import START, Clock, core
from tests.rules.support import answer, state
from tests.simulated_log import SimulatedLog
from witness.core.refusals import ClockBehind
from witness.core.store.base import Advance, CosignedHead, Head
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.checkpoint import origin_hash
from witness.tlog.cosignature import parse_timestamped
from witness.tlog.note import SignatureType, parse_signature_lines


def time_of(lines: bytes) -> int:
    (signature,) = parse_signature_lines(lines)
    return parse_timestamped(signature.value, SignatureType.COSIGNATURE_ED25519).timestamp


async def test_a_clock_set_back_stops_all_logs_and_goes_on_when_it_has_caught_up(tmp_path: Path) -> None:
    logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(3)]
    layout = state(tmp_path, *logs)
    clock = Clock(START)
    async with core(layout, clock=clock) as running:
        lines = await answer(running, logs[0].add_checkpoint(0))
        assert isinstance(lines, bytes)
        assert time_of(lines) == START
        clock.now = START - 1
        behind = ClockBehind(START - 1, START)
        for log in logs:  # also those that were never signed
            assert await answer(running, log.add_checkpoint(5 if log is logs[0] else 0)) == behind
            assert (running.store.cosigned(origin_hash(log.origin)) is None) == (log is not logs[0])
        assert any("clock" in reason for reason in running.witness.unready())
        clock.now = START
        for log in logs:
            lines = await answer(running, log.add_checkpoint(5 if log is logs[0] else 0))
            assert isinstance(lines, bytes)
            assert time_of(lines) == START
        assert running.witness.unready() == ()


async def test_also_after_a_restart(tmp_path: Path) -> None:
    logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(2)]
    layout = state(tmp_path, *logs)
    async with core(layout, clock=Clock(START + 1000)) as running:
        assert isinstance(await answer(running, logs[0].add_checkpoint(0)), bytes)
    clock = Clock(START + 999)
    async with core(layout, clock=clock) as running:
        for log in logs:
            assert await answer(running, log.add_checkpoint(0)) == ClockBehind(START + 999, START + 1000)
        assert running.witness.unready()
        clock.now = START + 1000
        assert isinstance(await answer(running, logs[1].add_checkpoint(0)), bytes)


async def test_a_refusal_leaves_no_trace(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/8", size=5)
    layout = state(tmp_path, log)
    clock = Clock(START)
    async with core(layout, clock=clock) as running:
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
        before = running.store.cosigned(origin_hash(log.origin))
        log.append(3)
        clock.now = START - 50
        assert isinstance(await answer(running, log.add_checkpoint(5)), ClockBehind)
        assert running.store.cosigned(origin_hash(log.origin)) == before
        assert running.witness.pending == 0
        clock.now = START + 1
        assert isinstance(await answer(running, log.add_checkpoint(5)), bytes)


@settings(max_examples=15, deadline=None)
@given(times=st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_timestamps_never_shrink_however_the_clock_jumps(
    tmp_path_factory: pytest.TempPathFactory, times: list[int]
) -> None:
    async def run() -> None:
        logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(2)]
        layout = state(tmp_path_factory.mktemp("clock"), *logs)
        clock, known, issued = Clock(START), [0, 0], []
        async with core(layout, clock=clock) as running:
            for turn, jump in enumerate(times):
                clock.now += jump
                got = await answer(running, logs[turn % 2].add_checkpoint(known[turn % 2]))
                if isinstance(got, bytes):
                    known[turn % 2] = 5
                    issued.append(time_of(got))
                    assert issued[-1] == clock.now
                else:
                    assert got == ClockBehind(int(clock.now), issued[-1])
        assert issued == sorted(issued)

    asyncio.run(run())


def test_the_store_refuses_an_earlier_time_too(tmp_path: Path) -> None:
    """Should another process have signed with a later time, ours is thrown away."""
    log = SimulatedLog("rule.example/8", size=5)
    layout = state(tmp_path, log)
    store = SQLiteStore(layout.database)
    first = CosignedHead(Head(5, log.root(), START), b"", b"")
    earlier = CosignedHead(Head(5, log.root(), START - 1), b"", b"")
    assert store.advance([Advance(1, None, first)]) == [True]
    assert store.advance([Advance(1, first.head, earlier)]) == [False]
    assert store.head(1) == first.head
    store.close()
