"""The sequence verify, cosign, persist, release: queueing, batching, shedding, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.core.state import core, trust
from tests.rules.support import Gate, RecordingSigner, StoreAround, all_of, answer, state, turns, until
from tests.simulated_log import SimulatedLog
from witness.core.keystore.base import Signer
from witness.core.refusals import InternalError, Overloaded, Stopping, UnknownOrigin
from witness.core.request import Limits
from witness.core.store.base import Advance, Store


def some(count: int) -> list[SimulatedLog]:
    return [SimulatedLog(f"witness.example/{n}", size=30) for n in range(count)]


class Batches(StoreAround):
    """Notes the batches; holds the first until the gate opens."""

    def __init__(self, store: Store, gate: Gate | None, into: list[int]) -> None:
        super().__init__(store)
        self._gate, self._into = gate, into

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        self._into.append(len(moves))
        if self._gate is not None:
            self._gate()
        return self.store.advance(moves)


async def test_requests_for_one_log_follow_each_other(tmp_path: Path) -> None:
    """Each is judged against the state that the one before has left; none fails for having come early."""
    (log,) = some(1)
    async with core(state(tmp_path, log)) as running:
        bodies = [log.add_checkpoint(old, old + 1) for old in range(30)]
        answers = await all_of(*(answer(running, body) for body in bodies))
        assert all(isinstance(got, bytes) for got in answers)
        assert running.store.head(1) is not None
        again = await all_of(*(answer(running, log.add_checkpoint(30)) for _ in range(20)))
        assert all(isinstance(got, bytes) for got in again)


async def test_what_arrives_during_a_commit_shares_the_next(tmp_path: Path) -> None:
    logs, gate, batches = some(9), Gate(), []
    async with core(state(tmp_path, *logs), wrap_store=lambda s: Batches(s, gate, batches)) as running:
        first = asyncio.create_task(answer(running, logs[0].add_checkpoint(0)))
        await until(gate.reached.is_set)
        rest = [asyncio.create_task(answer(running, log.add_checkpoint(0))) for log in logs[1:]]
        await until(lambda: len(running.witness._signed) == 8)
        gate.open()
        assert all(isinstance(got, bytes) for got in await all_of(first, *rest))
        assert batches == [1, 8]
        assert running.witness.commits == 2


@pytest.mark.parametrize("most", [1, 3])
async def test_no_batch_is_larger_than_allowed(tmp_path: Path, most: int) -> None:
    logs, batches = some(7), []
    limits = Limits(max_batch=most)
    wrapped = core(state(tmp_path, *logs), limits=limits, wrap_store=lambda s: Batches(s, None, batches))
    async with wrapped as running:
        answers = await all_of(*(answer(running, log.add_checkpoint(0)) for log in logs))
        assert all(isinstance(got, bytes) for got in answers)
        assert sum(batches) == 7
        assert max(batches) <= most


async def test_what_is_too_much_is_shed_at_once_and_the_rest_is_answered(tmp_path: Path) -> None:
    logs, gate = some(5), Gate()
    limits = Limits(max_pending=3)
    wrapped = core(state(tmp_path, *logs), limits=limits, wrap_store=lambda s: Batches(s, gate, []))
    async with wrapped as running:
        tasks = [asyncio.create_task(answer(running, log.add_checkpoint(0))) for log in logs]
        await until(gate.reached.is_set)
        shed = [task for task in tasks if task.done()]
        assert [await task for task in shed] == [Overloaded(retry_after=1)] * 2
        gate.open()
        assert sum(isinstance(got, bytes) for got in await all_of(*tasks)) == 3
        assert running.witness.pending == 0
        assert isinstance(await answer(running, logs[4].add_checkpoint(0)), bytes)


async def test_a_caller_that_goes_away_holds_up_nobody(tmp_path: Path) -> None:
    (log,), gate = some(1), Gate()
    async with core(state(tmp_path, log), wrap_store=lambda s: Batches(s, gate, [])) as running:
        gone = asyncio.create_task(running.witness.add_checkpoint(log.add_checkpoint(0)))
        waiting = asyncio.create_task(answer(running, log.add_checkpoint(30)))
        await until(gate.reached.is_set)
        gone.cancel()
        await turns()
        gate.open()
        assert isinstance(await waiting, bytes)
        assert running.witness.pending == 0


async def test_stopping_answers_what_is_inside_and_takes_nothing_new(tmp_path: Path) -> None:
    logs, gate = some(3), Gate()
    async with core(state(tmp_path, *logs), wrap_store=lambda s: Batches(s, gate, [])) as running:
        bodies = [logs[0].add_checkpoint(0), logs[0].add_checkpoint(30), logs[1].add_checkpoint(0)]
        inside = [asyncio.create_task(answer(running, body)) for body in bodies]
        await until(gate.reached.is_set)
        stopping = asyncio.create_task(running.witness.stop())
        await turns()
        assert not stopping.done()
        assert await answer(running, logs[2].add_checkpoint(0)) == Stopping()
        gate.open()
        assert all(isinstance(got, bytes) for got in await all_of(*inside))
        await stopping
        assert running.store.head(3) is None


class Buggy(RecordingSigner):
    def __init__(self, signer: Signer, bugs: list[Exception]) -> None:
        super().__init__(signer, [])
        self._bugs = bugs

    def sign(self, message: bytes) -> bytes:
        if self._bugs:
            raise self._bugs.pop()
        return super().sign(message)


async def test_a_bug_while_judging_is_answered_and_leaves_nothing_stuck(tmp_path: Path) -> None:
    (log,) = some(1)
    bugs: list[Exception] = [RuntimeError("a bug")]
    async with core(state(tmp_path, log), wrap_signer=lambda s: Buggy(s, bugs)) as running:
        assert await answer(running, log.add_checkpoint(0)) == InternalError()
        assert running.store.head(1) is None
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)


async def test_refresh_takes_over_what_the_operator_changed(tmp_path: Path) -> None:
    first, second = some(2)
    layout = state(tmp_path, first)
    async with core(layout) as running:
        assert await running.witness.refresh() == 0
        assert await answer(running, second.add_checkpoint(0)) == UnknownOrigin(second.origin)
        trust(layout, second)
        assert await running.witness.refresh() == 1
        assert isinstance(await answer(running, second.add_checkpoint(0)), bytes)
        assert await running.witness.refresh() == 0, "our own commits are no news to us"


async def test_what_was_counted(tmp_path: Path) -> None:
    (log,) = some(1)
    async with core(state(tmp_path, log)) as running:
        await answer(running, log.add_checkpoint(0))
        await answer(running, log.add_checkpoint(0))
        await answer(running, b"")
        assert running.witness.accepted == 1
        assert running.witness.commits == 1
        assert dict(running.witness.refusals) == {"stale-old-size": 1, "malformed": 1}
