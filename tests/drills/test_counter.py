"""Drills with a hardware counter: an old folder, a clone, a wiped device. Here it is a file outside."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.core.state import IDENTITY, NAME, Running, core, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.continuity import recover
from witness.core.continuity.counter import COUNTER, judge_counter
from witness.core.continuity.guard import Guard
from witness.core.continuity.settings import ContinuitySettings
from witness.core.keystore import softkey
from witness.core.keystore.base import DeviceLost, KeyAbsent, KeystoreError
from witness.core.layout import StateLayout
from witness.core.refusals import NotCompared, SigningStopped
from witness.core.store.alarms import Kind
from witness.core.store.base import Identity
from witness.core.store.desk import Desk
from witness.tlog.submission import parse_add_checkpoint


class FileCounter:
    """Counts in a file that is no part of the state."""

    name = "a file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dies = False
        self.away: KeystoreError | None = None

    def read(self) -> int:
        if self.away is not None:
            raise self.away
        return int(self.path.read_text()) if self.path.exists() else 7

    def increment(self) -> int:
        if self.dies:
            raise OSError("power cut")
        self.path.write_text(str(self.read() + 1))
        return self.read()

    def close(self) -> None:
        pass


def counts(layout: StateLayout) -> None:
    """Has a new state name its counter's value, as `witness init` does."""
    with Desk(layout.database) as desk:
        desk.set_fact(COUNTER, "7")


@contextlib.asynccontextmanager
async def guarded(layout: StateLayout, counter: FileCounter) -> AsyncIterator[tuple[Running, Guard]]:
    keystore = softkey.open_keystore(layout.softkey, None)
    guard = Guard(
        database=layout.database,
        record=layout.high_water,
        fallback_key=layout.records_key,
        settings=ContinuitySettings(),
        identity=Identity(NAME, IDENTITY),
        signers=keystore.signers(),
        vkeys=keystore.public.vkeys,
        counter=counter,
    )
    async with core(layout) as running:
        try:
            await guard.start(running.witness, {})
            yield running, guard
        finally:
            await guard.stop()


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    layout = make_state(tmp_path / "s")
    trust(layout, SimulatedLog("counter.example", size=3))
    counts(layout)
    return layout


async def test_a_folder_from_before_the_last_start_signs_nothing(layout: StateLayout, tmp_path: Path) -> None:
    """All of the folder is old, record and all: only the counter knows."""
    log, counter = SimulatedLog("counter.example", size=3), FileCounter(tmp_path / "counter")
    async with guarded(layout, counter) as (running, _):
        assert isinstance(await running.witness.add_checkpoint(log.add_checkpoint(0)), bytes)
    shutil.copytree(layout.root, tmp_path / "old")
    for _ in range(2):
        async with guarded(layout, counter) as (_, guard):
            assert guard.alarms == ()
    shutil.rmtree(layout.root)
    shutil.copytree(tmp_path / "old", layout.root)
    async with guarded(layout, counter) as (running, guard):
        assert [alarm.kind for alarm in guard.alarms] == [Kind.COUNTER]
        with pytest.raises(SigningStopped):
            await running.witness.add_checkpoint(log.add_checkpoint(3))
    # Recovered while nothing runs; a copy of what was recovered is old again as soon as the counter moves.
    log.append(1)
    with Desk(layout.database) as desk:
        (behind,) = recover.plan(desk).behind
        recover.bring_forward(desk, behind, [parse_add_checkpoint(log.add_checkpoint(3))], 1)
        assert recover.settle_what_is_over(desk, 1)
    shutil.copytree(layout.root, tmp_path / "recovered")
    async with guarded(layout, counter) as (running, guard):
        assert guard.alarms == ()
        assert isinstance(await running.witness.add_checkpoint(log.add_checkpoint(4)), bytes)
    shutil.rmtree(layout.root)
    shutil.copytree(tmp_path / "recovered", layout.root)
    async with guarded(layout, counter) as (_, guard):
        assert [alarm.kind for alarm in guard.alarms] == [Kind.COUNTER]


async def test_a_clone_finds_the_counter_moved(layout: StateLayout, tmp_path: Path) -> None:
    counter = FileCounter(tmp_path / "counter")
    async with guarded(layout, counter) as (_, guard):
        pass
    shutil.copytree(layout.root, tmp_path / "clone")
    async with guarded(layout, counter) as (_, guard):
        async with guarded(StateLayout(tmp_path / "clone"), counter) as (_, clone):
            assert [alarm.kind for alarm in clone.alarms] == [Kind.COUNTER]
        assert guard.alarms == ()
        counter.increment()  # a clone that was faster
        await guard._parts.counting.keep()
        assert [alarm.kind for alarm in guard.alarms] == [Kind.COUNTER]


async def test_a_wiped_device_stops_signing(layout: StateLayout, tmp_path: Path) -> None:
    counter = FileCounter(tmp_path / "counter")
    for _ in range(4):
        async with guarded(layout, counter) as (_, guard):
            assert guard.alarms == ()
    counter.path.write_text("1")
    async with guarded(layout, counter) as (_, guard):
        assert "wiped or exchanged" in guard.alarms[0].detail


async def test_a_crash_before_the_counter_moves_is_no_alarm(layout: StateLayout, tmp_path: Path) -> None:
    counter = FileCounter(tmp_path / "counter")
    counter.dies = True
    with pytest.raises(OSError, match="power cut"):
        async with guarded(layout, counter):
            pass
    counter.dies = False
    async with guarded(layout, counter) as (_, guard):
        assert guard.alarms == ()
        assert counter.read() == 8


async def test_a_state_that_never_counted_is_old(layout: StateLayout, tmp_path: Path) -> None:
    """From before the counter was made: as an operator finds it who restores the folder's first minute."""
    counter = FileCounter(tmp_path / "counter")
    with sqlite3.connect(layout.database) as connection:
        connection.execute("DELETE FROM facts")
    async with guarded(layout, counter) as (_, guard):
        assert [alarm.kind for alarm in guard.alarms] == [Kind.COUNTER]


async def test_an_old_database_under_a_current_record_is_no_matter_of_the_counter(
    layout: StateLayout, tmp_path: Path
) -> None:
    """The record says which logs are behind; the counter would have every log brought forward."""
    counter = FileCounter(tmp_path / "counter")
    shutil.copy(layout.database, tmp_path / "old.db")
    async with guarded(layout, counter):
        pass
    for file in layout.root.glob("witness.db*"):
        file.unlink()
    shutil.copy(tmp_path / "old.db", layout.database)
    async with guarded(layout, counter) as (_, guard):
        assert [alarm.kind for alarm in guard.alarms] == [Kind.AUDIT_BEHIND]


async def test_a_counter_that_is_away_keeps_the_state_from_being_compared(
    layout: StateLayout, tmp_path: Path
) -> None:
    log, counter = SimulatedLog("counter.example", size=3), FileCounter(tmp_path / "counter")
    counter.away = KeyAbsent("no TPM answers")
    async with guarded(layout, counter) as (running, guard):
        with pytest.raises(NotCompared, match="no TPM answers"):
            await running.witness.add_checkpoint(log.add_checkpoint(0))
        assert guard.alarms == ()
        guard._next_try = 0.0
        await guard._turn()
        assert any("no TPM answers" in reason for reason in running.witness.unready())
        counter.away, guard._next_try = None, 0.0
        await guard._turn()
        assert isinstance(await running.witness.add_checkpoint(log.add_checkpoint(0)), bytes)
        assert counter.read() == 8
        # What was compared stays compared while the device is away, and that is told.
        counter.away = KeyAbsent("no TPM answers")
        await guard._parts.counting.keep()
        assert any("no TPM answers" in warning for warning in guard.warnings)
        assert isinstance(await running.witness.add_checkpoint(log.add_checkpoint(3)), bytes)
        counter.away = None
        await guard._parts.counting.keep()
        assert guard.warnings == ()


async def test_a_device_that_was_wiped_is_an_alarm_of_its_own(layout: StateLayout, tmp_path: Path) -> None:
    counter = FileCounter(tmp_path / "counter")
    counter.away = DeviceLost("the TPM has no counter any more")
    async with guarded(layout, counter) as (running, guard):
        assert [alarm.kind for alarm in guard.alarms] == [Kind.DEVICE]
        assert isinstance(running.witness.halted, SigningStopped)
        with Desk(layout.database) as desk:
            assert recover.settle_what_is_over(desk, 1)
        await guard._turn()
        assert [alarm.kind for alarm in guard.alarms] == [Kind.DEVICE], "nothing was put right"
        counter.away = None  # the right device is back
        with Desk(layout.database) as desk:
            assert recover.settle_what_is_over(desk, 1)
        await guard._turn()
        assert guard.alarms == ()
        assert running.witness.unready() == ()


async def test_the_counter_moves_at_intervals_and_is_looked_at_in_between(
    layout: StateLayout, tmp_path: Path
) -> None:
    counter = FileCounter(tmp_path / "counter")
    async with guarded(layout, counter) as (_, guard):
        assert counter.read() == 8
        counting = guard._parts.counting
        await counting.keep()
        assert counter.read() == 8
        counting._last_move -= 3601
        await counting.keep()
        assert counter.read() == 9
        assert guard.counter.startswith("a file: 9, moved ")
        # Power was cut between the state and the counter: the next look completes it.
        counter.dies, counting._last_move = True, 0.0
        with pytest.raises(OSError, match="power cut"):
            await counting.keep()
        counter.dies = False
        await counting.keep()
        assert (counter.read(), guard.alarms) == (10, ())


@pytest.mark.parametrize(
    ("noted", "value", "fault", "following"),
    [(None, 7, True, 0), (7, 7, False, 8), (8, 7, False, 8), (6, 7, True, 0), (9, 7, True, 0)],
)
def test_the_verdict(noted: int | None, value: int, *, fault: bool, following: int) -> None:
    verdict = judge_counter(noted, value)
    assert (bool(verdict.fault), verdict.following) == (fault, following)
