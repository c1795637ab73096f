"""What stops signing stops sign-subtree too, before a key is used and before its signature is let go.

A cosignature over a subtree carries no timestamp and needs no state, so that nothing but `Ground.check` and
`SubtreeSigner` (witness/core/subtree.py) would notice.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.state import START, Running, core, make_state, trust
from tests.rules.support import RecordingSigner, StoreAround
from tests.simulated_log import SimulatedLog
from witness.core.clock import EARLIEST, TOLERANCE, ClockCheck
from witness.core.keystore.base import Signer
from witness.core.refusals import ClockBehind, ClockWrong, CoreError, SigningStopped, StoreUnavailable
from witness.core.store.base import Store, StoreBroken
from witness.tlog.note import VerifierKey

ALARM = SigningStopped("clone", "a test")


class Failing(StoreAround):
    """A disk that fails from some time on."""

    error: StoreBroken | None = None

    def advance(self, moves):
        if self.error is not None:
            raise self.error
        return super().advance(moves)

    def try_write(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Scene:
    running: Running
    store: Failing
    log: SimulatedLog
    body: bytes
    """A sign-subtree body that is signed while nothing stands against it."""
    signed: list[tuple[VerifierKey, bytes]]
    """What reached a key since."""
    meanwhile: list[Callable[[], None]]
    """Done while a key signs."""

    async def fail(self, *, lasting: bool) -> None:
        self.store.error = StoreBroken("the disk says no", lasting=lasting)
        self.log.append(1)
        with pytest.raises(StoreUnavailable):
            await self.running.witness.add_checkpoint(self.log.add_checkpoint(8))
        self.signed.clear()


class _Meanwhile(RecordingSigner):
    def __init__(self, signer: Signer, signed: list[tuple[VerifierKey, bytes]], jobs: list) -> None:
        super().__init__(signer, signed)
        self._jobs = jobs

    def sign(self, message: bytes) -> bytes:
        signature = super().sign(message)
        for job in self._jobs:
            job()
        return signature


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    layout = make_state(folder)
    log = SimulatedLog("stops.example/log", size=8)
    trust(layout, log)
    signed: list[tuple[VerifierKey, bytes]] = []
    jobs: list[Callable[[], None]] = []
    stores: list[Failing] = []

    def around(store: Store) -> Store:
        stores.append(Failing(store))
        return stores[0]  # type: ignore[return-value]

    async with core(layout, wrap_store=around, wrap_signer=lambda s: _Meanwhile(s, signed, jobs)) as running:
        lines = await running.witness.add_checkpoint(log.add_checkpoint(0))
        body = log.sign_subtree(4, 8, log.value().text() + b"\n" + lines)
        signed.clear()
        assert await running.witness.sign_subtree(body)
        assert len(signed) == 1
        signed.clear()
        yield Scene(running, stores[0], log, body, signed, jobs)


async def refused(it: Scene) -> CoreError:
    with pytest.raises(CoreError) as caught:
        await it.running.witness.sign_subtree(it.body)
    assert it.running.witness.pending == 0
    return caught.value


async def test_a_clock_that_is_behind(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        it.running.clock.now = START - 1
        assert await refused(it) == ClockBehind(START - 1, START)
        assert it.signed == []
        it.running.clock.now = START
        assert await it.running.witness.sign_subtree(it.body)


async def test_a_clock_that_cannot_be_right(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        clock = it.running.witness.clock = ClockCheck(elapsed=lambda: 0.0)
        clock.check(START, START)
        it.running.clock.now = START + TOLERANCE + 1
        assert isinstance(await refused(it), ClockWrong)
        assert it.signed == []
        assert START > EARLIEST
        assert it.running.witness.last_issued == START, "a subtree issues no timestamp"


async def test_a_store_that_failed_for_good(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.fail(lasting=True)
        assert isinstance(await refused(it), StoreUnavailable)
        assert it.signed == []


async def test_a_store_that_fails_until_it_is_well_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.fail(lasting=False)
        assert isinstance(await refused(it), StoreUnavailable)
        assert it.signed == []
        it.store.error = None
        await it.running.witness.refresh()
        assert await it.running.witness.sign_subtree(it.body)


async def test_an_alarm(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        it.running.witness.halted = ALARM
        assert await refused(it) == ALARM
        assert it.signed == []


async def test_an_alarm_about_this_log_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        state = it.running.witness.book.get(it.log.origin)
        assert state is not None
        state.stopped = ALARM
        assert await refused(it) == ALARM
        assert it.signed == []
        state.stopped = None
        assert await it.running.witness.sign_subtree(it.body)


@pytest.mark.parametrize("of_this_log", [False, True])
async def test_an_alarm_while_it_is_signed(tmp_path: Path, *, of_this_log: bool) -> None:
    async with scene(tmp_path) as it:

        def alarm() -> None:
            state = it.running.witness.book.get(it.log.origin)
            assert state is not None
            if of_this_log:
                state.stopped = ALARM
            else:
                it.running.witness.halted = ALARM

        it.meanwhile.append(alarm)
        assert await refused(it) == ALARM
        assert len(it.signed) == 1, "it was made, and is thrown away"
