"""Rule 7: what a log signed and contradicts itself is kept whole, as evidence that convinces a third party
offline.

The guard: `Judge.judge` (witness/core/judging.py) recognises a contradiction before any check of the
caller's claims can end the request; `SQLiteStore.keep_contradiction` (witness/core/store/sqlite.py) makes it
durable before the answer.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.core.state import core
from tests.rules.support import StoreAround, all_of, answer, state
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.layout import StateLayout
from witness.core.refusals import (
    InvalidSignature,
    NoTrustedSignature,
    RootMismatch,
    StaleOldSize,
    StoreUnavailable,
)
from witness.core.store import sqlite
from witness.core.store.base import Contradiction, StoreBroken
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import VerifierKey, parse_note
from witness.tlog.signature import verify_note


class Evidence(NamedTuple):
    kind: str
    size: int
    stored: bytes
    offered: bytes
    proof: bytes


def kept(layout: StateLayout) -> list[Evidence]:
    """What stands in the database, read by somebody else."""
    other = sqlite3.connect(layout.database)
    rows = other.execute(
        "SELECT kind, size, stored, offered, proof FROM contradictions ORDER BY id"
    ).fetchall()
    other.close()
    return [Evidence(*row) for row in rows]


def convinces(evidence: Evidence, keys: tuple[VerifierKey, ...]) -> bool:
    """Whether somebody with the log's public keys alone, and offline, must believe it."""
    notes = [parse_note(data) for data in (evidence.stored, evidence.offered)]
    checkpoints = [parse_checkpoint(note.text) for note in notes]
    return (
        all(verify_note(note, keys) for note in notes)
        and checkpoints[0].origin == checkpoints[1].origin
        and checkpoints[0].size == checkpoints[1].size == evidence.size
        and checkpoints[0].root != checkpoints[1].root
    )


def lying() -> tuple[SimulatedLog, SimulatedLog]:
    log = SimulatedLog("rule.example/7", size=7)
    fork = log.fork(3)
    fork.append(4)
    return log, fork


@pytest.mark.parametrize("old", [7, 0, 3, 6], ids=lambda old: f"old {old}")
async def test_a_fork_is_kept_whatever_old_size_was_claimed(tmp_path: Path, old: int) -> None:
    log, fork = lying()
    layout = state(tmp_path, log)
    async with core(layout) as running:
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
        want = RootMismatch(log.origin, 7) if old == 7 else StaleOldSize(7)
        proof = fork.proof(old)
        assert await answer(running, fork.add_checkpoint(old, proof=proof)) == want
        # It is on disk by the time of the answer, for another connection to read.
        (evidence,) = kept(layout)
        assert evidence == Evidence(
            "root-mismatch", 7, log.checkpoint(), fork.checkpoint(), b"".join(proof)
        )  # fmt: skip
        assert convinces(evidence, log.vkeys)
        assert running.witness.contradictions == 1
        # The head stands, and the log that told the truth first goes on.
        assert isinstance(await answer(running, log.add_checkpoint(7)), bytes)
    async with core(layout) as running:
        assert running.witness.contradictions == 1
    assert len(kept(layout)) == 1


async def test_the_notes_carry_verified_lines_alone(tmp_path: Path) -> None:
    log, fork = lying()
    layout = state(tmp_path, log)
    stranger = SimulatedKey("stranger.example")
    async with core(layout) as running:
        await answer(running, log.add_checkpoint(0, keys=[stranger, *log.keys]))
        await answer(running, fork.add_checkpoint(7, proof=(), keys=[stranger, *log.keys]))
    (evidence,) = kept(layout)
    assert (evidence.stored, evidence.offered) == (log.checkpoint(), fork.checkpoint())
    assert convinces(evidence, log.vkeys)


async def test_what_the_log_did_not_sign_is_no_evidence(tmp_path: Path) -> None:
    log, fork = lying()
    layout = state(tmp_path, log)
    async with core(layout) as running:
        await answer(running, log.add_checkpoint(0))
        stranger = SimulatedKey("stranger.example")
        unsigned = await answer(running, fork.add_checkpoint(7, proof=(), keys=[stranger]))
        assert unsigned == NoTrustedSignature(log.origin)
        fork.sign_wrongly = True
        assert isinstance(await answer(running, fork.add_checkpoint(7, proof=())), InvalidSignature)
    assert kept(layout) == []


async def test_what_can_be_true_is_no_contradiction(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/7", size=7)
    layout = state(tmp_path, log)
    async with core(layout) as running:
        await answer(running, log.add_checkpoint(0))
        for old, new in ((0, 7), (7, 7), (3, 5), (7, 5)):
            await answer(running, log.add_checkpoint(old, new, proof=()))
        log.append(2)
        await answer(running, log.add_checkpoint(7, proof=()))
    assert kept(layout) == []


async def test_the_same_contradiction_is_kept_once(tmp_path: Path) -> None:
    log, fork = lying()
    layout = state(tmp_path, log)
    async with core(layout) as running:
        await answer(running, log.add_checkpoint(0))
        body = fork.add_checkpoint(7, proof=())
        answers = await all_of(*(answer(running, body) for _ in range(8)))
        assert answers == [RootMismatch(log.origin, 7)] * 8
        assert running.witness.contradictions == 1
    assert len(kept(layout)) == 1


async def test_a_log_that_lies_endlessly_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_CONTRADICTIONS_PER_LOG", 5)
    log = SimulatedLog("rule.example/7", size=7)
    layout = state(tmp_path, log)
    async with core(layout) as running:
        await answer(running, log.add_checkpoint(0))
        for number in range(9):
            fork = log.fork(3, branch=f"lie {number}")
            fork.append(4)
            assert await answer(running, fork.add_checkpoint(7, proof=())) == RootMismatch(log.origin, 7)
    found = kept(layout)
    assert len(found) == 5
    assert all(convinces(evidence, log.vkeys) for evidence in found)


class CannotKeep(StoreAround):
    def keep_contradiction(self, contradiction: Contradiction) -> bool:
        raise StoreBroken("the disk is full", lasting=False)


async def test_evidence_that_cannot_be_kept_is_not_passed_over(tmp_path: Path) -> None:
    """The caller is not told 422, after which nobody would ask again: it is told to come back."""
    log, fork = lying()
    layout = state(tmp_path, log)
    async with core(layout, wrap_store=CannotKeep) as running:
        await answer(running, log.add_checkpoint(0))
        again = await answer(running, fork.add_checkpoint(7, proof=()))
        assert again == StoreUnavailable("the disk is full")
    assert kept(layout) == []
    async with core(layout) as running:
        assert await answer(running, fork.add_checkpoint(7, proof=())) == RootMismatch(log.origin, 7)
    assert len(kept(layout)) == 1
