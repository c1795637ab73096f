"""Rule 2: state moves by compare-and-swap on the size and root that were checked, inside one transaction.

The guard: `SQLiteStore.advance` (witness/core/store/sqlite.py): every UPDATE names the size and root it
starts from, the INSERT of a first head yields to one that is there, and all of a batch stands between
BEGIN IMMEDIATE and COMMIT. `Witness._committed` throws away what lost and answers 409.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.core.state import Running, core
from tests.rules.support import RecordingSigner, StoreAround, all_of, answer, state
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.refusals import StaleOldSize
from witness.core.request import Limits
from witness.core.store.base import Advance, CosignedHead, Head, Store, StoreBroken
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.checkpoint import origin_hash

START = 1_800_000_000


class Raced(StoreAround):
    """Another process moves heads between our judgement and our commit."""

    def __init__(self, store: Store, race: Callable[[Sequence[Advance]], None]) -> None:
        super().__init__(store)
        self._race = race
        self.batches: list[int] = []

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        self.batches.append(len(moves))
        self._race(moves)
        return self.store.advance(moves)


def theirs(log: SimulatedLog, at: int = START) -> CosignedHead:
    return CosignedHead(Head(log.size, log.root(), at), log.checkpoint(), b"their lines\n")


def mover(layout: StateLayout, log_id: int, to: CosignedHead) -> Callable[[Sequence[Advance]], None]:
    """Moves one head once, through a connection of its own."""
    done = []

    def race(moves: Sequence[Advance]) -> None:
        if not done and any(move.log_id == log_id for move in moves):
            done.append(True)
            other = SQLiteStore(layout.database)
            assert other.advance([Advance(log_id, other.head(log_id), to)]) == [True]
            other.close()

    return race


def stored(running: Running, log: SimulatedLog) -> CosignedHead | None:
    return running.store.cosigned(origin_hash(log.origin))


async def test_a_lost_race_is_409_and_overwrites_nothing(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/2", size=5)
    layout = state(tmp_path, log)
    async with core(layout) as running:
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
    log.append(4)
    further = theirs(log)
    body = log.add_checkpoint(5, 8)
    signed: list[object] = []
    async with core(
        layout,
        wrap_store=lambda store: Raced(store, mover(layout, 1, further)),
        wrap_signer=lambda signer: RecordingSigner(signer, signed),
    ) as running:
        assert await answer(running, body) == StaleOldSize(9)
        assert signed, "it was judged good and signed, and the signature thrown away"
        assert stored(running, log) == further
        assert running.witness.accepted == 0
        # Memory has learnt it: the next request is judged from the head that stands.
        log.append(1)
        assert isinstance(await answer(running, log.add_checkpoint(9)), bytes)


@pytest.mark.parametrize("first", [True, False], ids=["first contact", "a later head"])
async def test_a_fork_that_won_the_race_is_not_overwritten(tmp_path: Path, *, first: bool) -> None:
    """Same size, another root: only the root tells them apart."""
    log = SimulatedLog("rule.example/2", size=5)
    layout = state(tmp_path, log)
    old = 0
    if not first:
        async with core(layout) as running:
            assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
        old = 5
    fork = log.fork(2 if first else 5)
    fork.append(8 - fork.size)
    log.append(8 - log.size)
    body = log.add_checkpoint(old)
    async with core(layout, wrap_store=lambda s: Raced(s, mover(layout, 1, theirs(fork)))) as running:
        assert await answer(running, body) == StaleOldSize(8)
        found = stored(running, log)
        assert found is not None
        assert found.head.root == fork.root() != log.root()


def test_the_root_is_compared_and_not_the_size_alone(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/2", size=5)
    layout = state(tmp_path, log)
    fork = log.fork(2)
    fork.append(3)
    store = SQLiteStore(layout.database)
    assert store.advance([Advance(1, None, theirs(fork))]) == [True]
    judged = Head(5, log.root(), START)
    log.append(3)
    assert store.advance([Advance(1, judged, theirs(log))]) == [False]
    assert store.head(1) == theirs(fork).head
    store.close()


def test_the_size_is_compared_and_not_the_root_alone(tmp_path: Path) -> None:
    """No honest tree has one root at two sizes; the swap does not rest on that."""
    log = SimulatedLog("rule.example/2", size=5)
    layout = state(tmp_path, log)
    store = SQLiteStore(layout.database)
    assert store.advance([Advance(1, None, theirs(log))]) == [True]
    judged = Head(4, log.root(), START)
    log.append(3)
    assert store.advance([Advance(1, judged, theirs(log))]) == [False]
    store.close()


async def test_a_batch_with_one_lost_race_commits_the_others(tmp_path: Path) -> None:
    logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(5)]
    layout = state(tmp_path, *logs)
    fork = logs[2].fork(3)
    fork.append(4)
    raced: list[Raced] = []

    def wrap(store: Store) -> Raced:
        raced.append(Raced(store, mover(layout, 3, theirs(fork))))
        return raced[0]

    async with core(layout, wrap_store=wrap, limits=Limits(judge_threads=1)) as running:
        answers = await all_of(*(answer(running, log.add_checkpoint(0)) for log in logs))
        assert raced[0].batches == [5], "all of them were one batch"
        assert answers[2] == StaleOldSize(7)
        assert all(isinstance(answers[n], bytes) for n in (0, 1, 3, 4))
        heads = [stored(running, log) for log in logs]
        assert [h.head.size for h in heads if h is not None] == [5, 5, 7, 5, 5]


def test_a_batch_is_one_transaction(tmp_path: Path) -> None:
    """One move that the database refuses takes the others back with it."""
    logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(2)]
    layout = state(tmp_path, *logs)
    store = SQLiteStore(layout.database)
    unknown = 99
    with pytest.raises(StoreBroken):
        store.advance([Advance(log_id, None, theirs(logs[0])) for log_id in (1, 2, unknown)])
    assert [store.head(log_id) for log_id in (1, 2)] == [None, None]
    other = SQLiteStore(layout.database)
    assert other.head(1) is None
    other.close()
    store.close()


def test_the_transaction_takes_the_write_lock_before_it_reads(tmp_path: Path) -> None:
    """BEGIN IMMEDIATE: what is compared cannot move before it is swapped."""
    log = SimulatedLog("rule.example/2", size=5)
    layout = state(tmp_path, log)
    store = SQLiteStore(layout.database)
    statements: list[str] = []
    store._writer.set_trace_callback(statements.append)
    store.advance([Advance(1, None, theirs(log))])
    store._writer.set_trace_callback(None)
    store.close()
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    assert len([s for s in statements if s in ("COMMIT", "BEGIN IMMEDIATE")]) == 2
