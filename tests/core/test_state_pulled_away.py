"""State that is removed, replaced or cannot be written under a running core: nothing is signed on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.core.processes import CoreProcess, short_folder
from tests.core.state import core, make_state, trust
from tests.rules.support import StoreAround
from tests.simulated_log import SimulatedLog
from witness.core.refusals import StoreUnavailable
from witness.core.store.base import StoreBroken
from witness.core.store.sqlite import SQLiteStore


@pytest.mark.parametrize("name", ["witness.db", "witness.db-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_pulled_away_stops_signing(tmp_path: Path, name: str, *, replaced: bool) -> None:
    layout = make_state(tmp_path)
    log = SimulatedLog("pulled.example/log", size=3)
    trust(layout, log)
    async with core(layout) as running:
        await running.witness.add_checkpoint(log.add_checkpoint(0))
        log.append(1)
        file = tmp_path / name
        if replaced:
            shutil.copy(file, tmp_path / "copy")
            (tmp_path / "copy").replace(file)
        else:
            file.unlink()
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await running.witness.add_checkpoint(log.add_checkpoint(3))
        assert running.witness.broken.is_set(), "the process ends, and a fresh one reads what there is"
        assert running.witness.unready()


async def test_it_is_noticed_without_any_request(tmp_path: Path) -> None:
    layout = make_state(tmp_path)
    async with core(layout) as running:
        layout.database.unlink()
        await running.witness.refresh()
        assert running.witness.broken.is_set()


class Full(StoreAround):
    """A disk that is full until it is not."""

    full = True

    def advance(self, moves):
        if self.full:
            raise StoreBroken("database or disk is full", lasting=False)
        return super().advance(moves)

    def try_write(self) -> None:
        if self.full:
            raise StoreBroken("database or disk is full", lasting=False)


async def test_a_full_disk_is_not_ready_until_it_can_be_written_again(tmp_path: Path) -> None:
    layout = make_state(tmp_path)
    log = SimulatedLog("full.example/log", size=3)
    trust(layout, log)
    stores = []

    def wrap(store):
        stores.append(Full(store))
        return stores[0]

    async with core(layout, wrap_store=wrap) as running:
        assert running.witness.unready() == ()
        with pytest.raises(StoreUnavailable):
            await running.witness.add_checkpoint(log.add_checkpoint(0))
        assert any("full" in reason for reason in running.witness.unready())
        await running.witness.refresh()
        assert any("full" in reason for reason in running.witness.unready())
        stores[0].full = False
        await running.witness.refresh()  # without any request: nobody sends one while we are not ready
        assert running.witness.unready() == ()
        assert await running.witness.add_checkpoint(log.add_checkpoint(0))


def test_a_try_changes_nothing(tmp_path: Path) -> None:
    layout = make_state(tmp_path)
    store = SQLiteStore(layout.database)
    before = store.identity()
    store.try_write()
    assert store.identity() == before
    store.close()


def test_a_damaged_database_is_one_line() -> None:
    with short_folder() as folder:
        layout = make_state(folder)
        size = layout.database.stat().st_size
        with layout.database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        process = CoreProcess(layout)
        assert set(process.first_line) == {"error", "hint"}
        assert "database" in process.first_line["error"]
        assert process.first_line["hint"]
        assert process.process.wait(20) == 3
        assert "Traceback" not in process.errors.read_text()
