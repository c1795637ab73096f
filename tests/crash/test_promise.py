"""The checker of the promise: it lets an honest witness through, and notices each way to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.state import make_state, trust
from tests.crash.promise import Cosigned, Ledger, PromiseBroken
from tests.simulated_log import SimulatedLog
from witness.core.cosigner import Cosigner
from witness.core.keystore import softkey
from witness.core.layout import StateLayout
from witness.core.store.base import Advance, CosignedHead, Head
from witness.core.store.sqlite import SQLiteStore

ORIGIN = "promise.example/log"


class World:
    def __init__(self, folder: Path) -> None:
        self.log = SimulatedLog(ORIGIN, size=20)
        self.fork = self.log.fork(6)
        self.fork.append(14)
        self.layout: StateLayout = make_state(folder, algorithms=("ed25519",))
        trust(self.layout, self.log)
        self.cosigner = Cosigner(softkey.open_keystore(self.layout.softkey, None).signers())
        self.ledger = Ledger(self.cosigner.vkeys, {ORIGIN: [self.log, self.fork]})

    def sign(self, log: SimulatedLog, size: int, at: int = 1000) -> bytes:
        checkpoint = log.value(size)
        return log.checkpoint(size) + self.cosigner.cosign(checkpoint, checkpoint.text(), at)

    def store(self, log: SimulatedLog, size: int, at: int = 1000) -> None:
        checkpoint = log.value(size)
        lines = self.cosigner.cosign(checkpoint, checkpoint.text(), at)
        head = CosignedHead(Head(size, checkpoint.root, at), log.checkpoint(size), lines)
        store = SQLiteStore(self.layout.database)
        assert store.advance([Advance(1, store.head(1), head)]) == [True]
        store.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_honest_life_passes(world: World) -> None:
    for size in (0, 3, 3, 9, 20):
        world.store(world.log, size, at=1000 + size)
        assert world.ledger.served(world.sign(world.log, size, at=1000 + size)).size == size
        world.ledger.check_state(world.layout.database)
    assert world.ledger.disk[ORIGIN] == Cosigned(20, world.log.root(20), 1020)


def test_a_fork_of_what_was_never_cosigned_passes(world: World) -> None:
    world.ledger.served(world.sign(world.log, 5))
    world.ledger.served(world.sign(world.fork, 20))


@pytest.mark.parametrize(("first", "second"), [(9, 9), (9, 20), (20, 9), (7, 8)])
def test_two_histories_are_noticed(world: World, first: int, second: int) -> None:
    world.ledger.served(world.sign(world.log, first))
    with pytest.raises(PromiseBroken):
        world.ledger.served(world.sign(world.fork, second))


def test_a_root_of_no_history_is_noticed(world: World) -> None:
    world.ledger.served(world.sign(world.log, 5))
    world.log.wrong_root = True
    with pytest.raises(PromiseBroken):
        world.ledger.served(world.sign(world.log, 9))


def _forgotten(world: World) -> None:
    world.ledger.served(world.sign(world.log, 5))


def _smaller(world: World) -> None:
    world.store(world.log, 5)
    world.ledger.served(world.sign(world.log, 9))


def _earlier(world: World) -> None:
    world.store(world.log, 5, at=1000)
    world.ledger.served(world.sign(world.log, 5, at=1001))


def _rolled_back(world: World) -> None:
    world.store(world.log, 9)
    world.ledger.check_state(world.layout.database)
    world.ledger.seen.clear()  # even if no client saw it
    world.ledger.disk[ORIGIN] = Cosigned(10, world.log.root(10), 1000)


@pytest.mark.parametrize("breaking", [_forgotten, _smaller, _earlier, _rolled_back])
def test_a_state_that_lost_what_was_seen_is_noticed(world: World, breaking: Callable[[World], None]) -> None:
    breaking(world)
    with pytest.raises(PromiseBroken):
        world.ledger.check_state(world.layout.database)
