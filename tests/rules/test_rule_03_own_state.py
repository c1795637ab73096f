"""Rule 3: the core judges from its own stored state; nothing that the caller says about state is believed.

The guard: `verifier.judge` (witness/core/verifier.py) compares the caller's old size with the stored
head, and takes the root that the proof starts from out of the stored head, never out of the request.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.state import core
from tests.rules.support import answer, state
from tests.simulated_log import SimulatedLog
from witness.core.refusals import InvalidProof, Refusal, RootMismatch, StaleOldSize
from witness.core.store.base import Head
from witness.core.verifier import judge
from witness.tlog.merkle import EMPTY_ROOT
from witness.tlog.submission import parse_add_checkpoint

KNOWN = 5
LOG = SimulatedLog("rule.example/3", size=9)
FORK = LOG.fork(3)
FORK.append(6)
HEAD = Head(KNOWN, LOG.root(KNOWN), 1_800_000_000)


@pytest.mark.parametrize("claimed", [0, 1, 3, 4, 6, 8, 9])
def test_an_old_size_that_is_not_ours_is_refused_whatever_it_proves(claimed: int) -> None:
    submission = parse_add_checkpoint(LOG.add_checkpoint(claimed))  # with a proof that is good from there
    with pytest.raises(StaleOldSize) as caught:
        judge(submission, HEAD)
    assert caught.value.known == KNOWN


@pytest.mark.parametrize("claimed", [1, 3, 9])
def test_first_contact_knows_size_zero_and_no_other(claimed: int) -> None:
    with pytest.raises(StaleOldSize) as caught:
        judge(parse_add_checkpoint(LOG.add_checkpoint(claimed)), None)
    assert caught.value.known == 0


def test_a_proof_from_the_callers_tree_is_not_one_from_ours() -> None:
    """The fork's own proof from size 5 is good: from the fork's root, which is not the one we signed."""
    with pytest.raises(InvalidProof):
        judge(parse_add_checkpoint(FORK.add_checkpoint(KNOWN)), HEAD)
    judge(parse_add_checkpoint(FORK.add_checkpoint(KNOWN)), Head(KNOWN, FORK.root(KNOWN), 1))
    judge(parse_add_checkpoint(LOG.add_checkpoint(KNOWN)), HEAD)


def test_the_same_size_with_the_callers_root_is_a_contradiction() -> None:
    with pytest.raises(RootMismatch):
        judge(parse_add_checkpoint(FORK.add_checkpoint(KNOWN, KNOWN)), HEAD)


@given(old=st.integers(0, 9), new=st.integers(0, 9), known=st.integers(-1, 9), lying=st.booleans())
def test_only_what_extends_the_stored_head_is_let_through(
    *, old: int, new: int, known: int, lying: bool
) -> None:
    """For every old size, new size and stored head: accepted exactly if it continues what is stored."""
    log = FORK if lying else LOG
    head = Head(known, LOG.root(known), 1) if known >= 0 else None
    from_size = max(known, 0)
    shared = 3  # the first leaves that both histories have in common
    extends = old == from_size <= new and (
        not lying or from_size == 0 or from_size <= shared or (new == from_size and new <= shared)
    )
    submission = parse_add_checkpoint(log.add_checkpoint(old, new, proof=log.proof(min(old, new), new)))
    accepted = True
    try:
        judge(submission, head)
    except Refusal:
        accepted = False
    assert accepted == extends
    if accepted:
        assert log.root(from_size) == (head.root if head else EMPTY_ROOT)


async def test_what_counts_is_what_is_stored_also_after_a_restart(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/3", size=5)
    layout = state(tmp_path, log)
    async with core(layout) as running:
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
        assert await answer(running, log.add_checkpoint(0)) == StaleOldSize(5)
    log.append(4)
    async with core(layout) as running:
        assert await answer(running, log.add_checkpoint(0)) == StaleOldSize(5)
        assert await answer(running, log.add_checkpoint(9, 9)) == StaleOldSize(5)
        assert isinstance(await answer(running, log.add_checkpoint(5)), bytes)


async def test_our_own_cosignature_in_a_callers_note_proves_nothing_about_state(tmp_path: Path) -> None:
    """A note that carries our cosignature of a later size does not move an older state forward."""
    log = SimulatedLog("rule.example/3", size=5)
    ahead, behind = state(tmp_path / "ahead", log), state(tmp_path / "behind", log)
    async with core(ahead) as running:
        lines = await answer(running, log.add_checkpoint(0))
        assert isinstance(lines, bytes)
    async with core(behind) as running:
        claim = log.add_checkpoint(5) + lines
        assert await answer(running, claim) == StaleOldSize(0)
