"""Random histories of restores, lost databases, crashes, clones and recoveries: the one promise holds.

The log has two tales that share their first leaves. Whatever happens to the state, and whichever tale is told
at whatever moment, no two cosignatures are released that cannot both be true. The hardware counter is a file
that no restore brings back; the high-water record is written before each harm, as its lag is documented
(docs/decisions/0006).
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.core.state import IDENTITY, NAME, make_state, trust
from tests.drills.test_counter import FileCounter, counts, guarded
from tests.simulated_log import SimulatedLog
from witness.core.continuity import recover
from witness.core.continuity.recover import CannotRecover
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.store import schema
from witness.core.store.base import StoreError
from witness.core.store.desk import Desk
from witness.tlog.submission import parse_add_checkpoint

SHARED, SIZE, NOW = 6, 24, 1_800_000_000


class History:
    """One witness's life."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.layout = make_state(folder / "s", algorithms=("ed25519",))
        honest = SimulatedLog("history.example", size=SIZE)
        lying = honest.fork(SHARED)
        lying.append(SIZE - SHARED)
        self.tales = (honest, lying)
        trust(self.layout, honest)
        counts(self.layout)
        self.counter = FileCounter(folder / "counter")
        self.copies: list[Path] = []
        self.told: set[str] = set()
        self.released = self.refused = self.alarmed = 0

    def known(self) -> int:
        with Desk(self.layout.database) as desk:
            row = desk.one("SELECT size FROM heads")
        return row[0] if row else 0

    async def live(self) -> None:
        """A run of the witness: requests by either tale, and a clean stop."""
        async with guarded(self.layout, self.counter) as (running, guard):
            for _ in range(self.random.randint(1, 4)):
                which = self.random.randrange(2)
                old = self.known()
                new = self.random.randint(old, min(SIZE, old + 7))
                try:
                    await running.witness.add_checkpoint(self.tales[which].add_checkpoint(old, new))
                except CoreError:
                    self.refused += 1
                else:
                    self.released += 1
                    if new > SHARED:
                        self.told.add(self.tales[which].branch)
                assert len(self.told) <= 1, "two cosignatures that cannot both be true"
            self.alarmed += bool(guard.alarms)

    def copy(self) -> None:
        """The whole folder is copied, by somebody who takes that for a backup."""
        place = self.folder / f"copy{len(self.copies)}"
        shutil.copytree(self.layout.root, place)
        self.copies.append(place)

    def restore_all(self) -> None:
        if self.copies:
            shutil.rmtree(self.layout.root)
            shutil.copytree(self.random.choice(self.copies), self.layout.root)

    def restore_database(self) -> None:
        if self.copies:
            copy = StateLayout(self.random.choice(self.copies))
            for suffix in ("", "-wal", "-shm"):
                target = self.layout.database.with_name(self.layout.database.name + suffix)
                target.unlink(missing_ok=True)
                source = copy.database.with_name(copy.database.name + suffix)
                if source.exists():
                    shutil.copy(source, target)

    def lose_database(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.layout.database.with_name(self.layout.database.name + suffix).unlink(missing_ok=True)
        schema.create(self.layout.database, name=NAME, identity=IDENTITY, now=NOW)
        trust(self.layout, self.tales[0])

    def lose_record(self) -> None:
        for file in self.layout.root.glob("high-water*"):
            file.unlink()

    def wipe_counter(self) -> None:
        self.counter.path.write_text(str(self.random.randint(0, 3)))

    def recover(self) -> None:
        """An operator brings forward what can be, by whichever tale is told at that moment."""
        told = self.tales[self.random.randrange(2)]
        with Desk(self.layout.database) as desk:
            for behind in recover.plan(desk).behind:
                sizes = {behind.size} | ({behind.head.size} if behind.head else set())
                new = self.random.randint(max(sizes), SIZE)
                bodies = [parse_add_checkpoint(told.add_checkpoint(size, new)) for size in sorted(sizes)]
                try:
                    recover.bring_forward(desk, behind, bodies, NOW)
                except CannotRecover:
                    continue
            recover.settle_what_is_over(desk, NOW)


async def play(folder: Path, seed: int, *, steps: int, honest_after_loss: bool) -> History:
    """One history. Where the record is gone, only a log that is honest from then on makes recovery safe."""
    history = History(folder, seed)
    harms = [
        history.copy,
        history.restore_all,
        history.restore_database,
        history.lose_database,
        history.recover,
    ]
    if honest_after_loss:
        harms += [history.lose_record, history.wipe_counter]
    for _ in range(steps):
        await history.live()
        harm = history.random.choice(harms)
        if harm in (history.restore_all, history.lose_record, history.wipe_counter):
            # From here on the counter alone knows, and not what: the operator recovers with an honest log.
            (first, other) = history.tales
            telling = other if other.branch in history.told else first
            history.tales = (telling, telling)
        try:
            harm()
        except StoreError:
            continue
    return history


async def histories(folder: Path, seeds: range, steps: int) -> None:
    released = refused = alarmed = 0
    for seed in seeds:
        history = await play(folder / str(seed), seed, steps=steps, honest_after_loss=seed % 2 == 0)
        released, refused = released + history.released, refused + history.refused
        alarmed += history.alarmed
        shutil.rmtree(folder / str(seed))
    assert released > len(seeds)
    assert alarmed > len(seeds) / 4, "the histories were harmless"
    assert refused


@pytest.mark.slow
async def test_a_hundred_random_histories(tmp_path: Path) -> None:
    await histories(tmp_path, range(100), 5)


@pytest.mark.campaign
async def test_five_thousand_random_histories(tmp_path: Path) -> None:
    await histories(tmp_path, range(10_000, 15_000), 8)
