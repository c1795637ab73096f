"""Drills with a hardware counter: an old folder, a clone, a wiped device. Here it is a file outside."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.core.state import IDENTITY, NAME, Running, core, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.continuity.counter import judge_counter
from witness.core.continuity.guard import Guard
from witness.core.continuity.settings import ContinuitySettings
from witness.core.keystore import softkey
from witness.core.layout import StateLayout
from witness.core.refusals import SigningStopped
from witness.core.store.alarms import Kind
from witness.core.store.base import Identity


class FileCounter:
    """Counts in a file that is no part of the state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dies = False

    def read(self) -> int:
        return int(self.path.read_text()) if self.path.exists() else 7

    def increment(self) -> int:
        if self.dies:
            raise OSError("power cut")
        self.path.write_text(str(self.read() + 1))
        return self.read()


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
        await guard._parts.counting.count_on()
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


@pytest.mark.parametrize(
    ("noted", "value", "fault", "following"),
    [(None, 7, False, 8), (7, 7, False, 8), (8, 7, False, 8), (6, 7, True, 0), (9, 7, True, 0)],
)
def test_the_verdict(noted: int | None, value: int, *, fault: bool, following: int) -> None:
    verdict = judge_counter(noted, value)
    assert (bool(verdict.fault), verdict.following) == (fault, following)
