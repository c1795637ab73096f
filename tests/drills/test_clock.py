"""Drills: the clock goes back, jumps ahead, and returns."""

from __future__ import annotations

from pathlib import Path

from tests.core.state import START, Clock, core, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.clock import EARLIEST, MAX_GAP, TOLERANCE, ClockCheck
from witness.core.refusals import ClockBehind, ClockWrong, CoreError, StaleOldSize
from witness.core.witness import Witness

YEAR = 365 * 86400


async def ask(witness: Witness, log: SimulatedLog, old: int) -> bytes | CoreError:
    try:
        return await witness.add_checkpoint(log.add_checkpoint(old))
    except CoreError as error:
        return error


async def test_back_an_hour_and_a_year_ahead_and_right_again(tmp_path: Path) -> None:
    log = SimulatedLog("clock.example", size=3)
    layout = make_state(tmp_path)
    trust(layout, log)
    clock, boot = Clock(), Clock(50.0)
    async with core(layout, clock=clock) as running:
        witness = running.witness
        witness.clock = ClockCheck(elapsed=boot)
        assert isinstance(await ask(witness, log, 0), bytes)
        clock.now = START - 3600
        assert isinstance(await ask(witness, log, 3), ClockBehind)
        clock.now, boot.now = START + YEAR, 60.0
        assert isinstance(await ask(witness, log, 3), ClockWrong)
        assert witness.unready()
        assert witness.last_issued == START, "the year's jump left no trace"
        clock.now = START + 10
        assert witness.unready() == ()
        assert isinstance(await ask(witness, log, 3), bytes)


async def test_a_standstill_that_the_other_clock_counts_is_no_jump(tmp_path: Path) -> None:
    log = SimulatedLog("clock.example", size=3)
    layout = make_state(tmp_path)
    trust(layout, log)
    clock, boot = Clock(), Clock(50.0)
    async with core(layout, clock=clock) as running:
        running.witness.clock = ClockCheck(elapsed=boot)
        assert isinstance(await ask(running.witness, log, 0), bytes)
        clock.now, boot.now = START + YEAR, 50.0 + YEAR
        assert isinstance(await ask(running.witness, log, 3), bytes)


async def test_a_refused_request_while_the_clock_is_wrong_leaves_no_trace(tmp_path: Path) -> None:
    """At a start nothing shows that the clock is months ahead; what was not signed then must not count."""
    log = SimulatedLog("clock.example", size=3)
    layout = make_state(tmp_path)
    trust(layout, log)
    clock = Clock()
    async with core(layout, clock=clock) as running:
        assert isinstance(await ask(running.witness, log, 0), bytes)
    async with core(layout, clock=clock) as running:
        running.witness.clock = ClockCheck(elapsed=Clock(50.0))
        clock.now = START + YEAR // 2
        assert isinstance(await ask(running.witness, log, 2), StaleOldSize)
        assert running.witness.last_issued == START
        clock.now = START + 10
        assert running.witness.unready() == ()
        assert isinstance(await ask(running.witness, log, 3), bytes)


def test_the_bounds() -> None:
    boot = Clock(0.0)
    check = ClockCheck(elapsed=boot)
    assert check.wrong(EARLIEST - 1, 0) is not None
    assert check.wrong(EARLIEST, 0) is None
    assert check.wrong(START + MAX_GAP, START) is None
    assert check.wrong(START + MAX_GAP + 1, START) is not None
    check.check(START, 0)
    boot.now = 100.0
    assert check.wrong(START + 100 + TOLERANCE, START) is None
    assert check.wrong(START + 101 + TOLERANCE, START) is not None
