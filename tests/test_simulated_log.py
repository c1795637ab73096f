"""The simulated log is believed by many tests: here its honest side is checked, and that its lies show."""

from __future__ import annotations

import pytest

from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.tlog import merkle
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import SignatureType, parse_note
from witness.tlog.signature import InvalidNoteSignature, verify_note
from witness.tlog.submission import parse_add_checkpoint, parse_sign_subtree


@pytest.mark.parametrize("type_", list(SignatureType))
def test_signs_with_every_type_of_key(type_: SignatureType) -> None:
    log = SimulatedLog("log.example", size=5, keys=[SimulatedKey("log.example", type_, n) for n in (0, 1)])
    note = parse_note(log.checkpoint())
    assert [verified.key for verified in verify_note(note, log.vkeys)] == list(log.vkeys)
    assert parse_checkpoint(note.text) == log.value()

    log.sign_wrongly = True
    with pytest.raises(InvalidNoteSignature):
        verify_note(parse_note(log.checkpoint()), log.vkeys)


def test_keys_repeat_and_differ() -> None:
    first, again, other = SimulatedKey("k"), SimulatedKey("k"), SimulatedKey("k", number=1)
    assert first.vkey == again.vkey
    assert first.vkey != other.vkey


@pytest.mark.parametrize("huge", [False, True])
def test_proofs_verify_between_all_small_sizes(*, huge: bool) -> None:
    log = SimulatedLog(size=20, huge=huge)
    for new in range(21):
        for old in range(new + 1):
            submission = parse_add_checkpoint(log.add_checkpoint(old, new))
            assert submission.old_size == old
            merkle.verify_consistency(old, new, log.root(old), submission.checkpoint.root, submission.proof)


def test_huge_trees_cost_little_and_are_the_trees_they_say() -> None:
    log = SimulatedLog(size=1_000_000_007, huge=True)
    old_root = log.root()
    log.append(123_456_789)
    merkle.verify_consistency(1_000_000_007, log.size, old_root, log.root(), log.proof(1_000_000_007))

    small = SimulatedLog("x", size=0, huge=True)
    small.append(11)
    leaf = merkle.leaf_hash(b"leaf of x")
    tree = merkle.MemoryTree()
    for _ in range(11):
        tree.append_hash(leaf)
    assert small.root() == tree.root()


@pytest.mark.parametrize("huge", [False, True])
def test_a_fork_shares_the_past_and_not_the_future(*, huge: bool) -> None:
    log = SimulatedLog(size=13, huge=huge)
    fork = log.fork(9)
    assert (fork.size, fork.root()) == (9, log.root(9))
    assert fork.vkeys == log.vkeys
    fork.append(4)
    assert fork.root() != log.root()
    merkle.verify_consistency(9, 13, log.root(9), fork.root(), fork.proof(9))
    with pytest.raises(merkle.InvalidProof):
        merkle.verify_consistency(11, 13, log.root(11), fork.root(), fork.proof(11))


@pytest.mark.parametrize("huge", [False, True])
def test_rolls_back_and_grows_the_same_leaves_again(*, huge: bool) -> None:
    log = SimulatedLog(size=13, huge=huge)
    root = log.root()
    log.roll_back(6)
    assert log.value().size == 6
    log.append(7)
    assert log.root() == root


def test_a_stalled_log_publishes_nothing_new() -> None:
    log = SimulatedLog(size=3)
    log.stalled = True
    assert log.append(4) == 3
    assert log.value().size == 3
    assert log.resume() == 7


def test_lies_show() -> None:
    log = SimulatedLog(size=3)
    log.wrong_root = True
    assert log.value().root != log.root()
    log.extensions = ("an extension line",)
    assert b"\nan extension line\n\n" in log.checkpoint()


def test_subtree_bodies_verify() -> None:
    log = SimulatedLog(size=14)
    body = parse_sign_subtree(log.sign_subtree(8, 13, log.checkpoint()))
    merkle.verify_subtree_consistency(8, 13, 14, body.root, log.root(), body.proof)
