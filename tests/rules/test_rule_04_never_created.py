"""Rule 4: an unknown or lost database is never created silently: `witness init` creates, `witness run` opens.

The guard: `schema.check` (witness/core/store/schema.py) before every opening, SQLite's mode=rw in
`sqlite.connect`, and `process.serve` (witness/core/process.py), which refuses keys beside another witness's
database. (Evidence from outside that state has gone back is an issue of its own.)
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.processes import CoreProcess, SocketClient, clean_environ, short_folder
from tests.core.state import NAME, START, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.store import schema
from witness.core.store.base import MissingStore, StoreError, UnknownSchema
from witness.core.store.logs import LogBook
from witness.core.store.sqlite import SQLiteStore, connect


@pytest.fixture
def layout() -> Iterator[StateLayout]:
    with short_folder() as folder:
        made = make_state(folder, algorithms=("ed25519",))
        yield made


def _databases(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("witness.db*"))


def _lose(layout: StateLayout) -> None:
    for file in layout.root.glob("witness.db*"):
        file.unlink()


@pytest.mark.parametrize("opening", [SQLiteStore, LogBook, schema.check])
def test_nothing_opens_what_is_not_there(layout: StateLayout, opening: type) -> None:
    _lose(layout)
    with pytest.raises(MissingStore):
        opening(layout.database)
    assert _databases(layout.root) == []


def test_even_the_bare_connection_creates_nothing(layout: StateLayout) -> None:
    """For the moment between the check and the opening."""
    _lose(layout)
    with pytest.raises(sqlite3.OperationalError):
        connect(layout.database)
    assert _databases(layout.root) == []


def test_an_empty_file_is_not_taken_for_an_empty_state(layout: StateLayout) -> None:
    _lose(layout)
    layout.database.touch()
    for opening in (SQLiteStore, LogBook):
        with pytest.raises(UnknownSchema):
            opening(layout.database)
    assert layout.database.stat().st_size == 0


def test_the_core_does_not_start_without_its_database(layout: StateLayout) -> None:
    _lose(layout)
    process = CoreProcess(layout)
    assert process.first_line["error"].startswith("there is no database at")
    assert "witness init" in process.first_line["hint"]
    assert process.wait() == 3
    process.kill()
    assert _databases(layout.root) == []
    assert not layout.core_socket.exists()


def _witness(layout: StateLayout, *arguments: str) -> subprocess.CompletedProcess[str]:
    entry = "from witness.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", entry, "--state", str(layout.root), *arguments],
        cwd=ROOT, env=clean_environ(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", [("run", "--listen", "127.0.0.1:0"), ("logs", "list"), ("status",)], ids=lambda c: c[0]
)
def test_no_command_but_init_creates(layout: StateLayout, command: tuple[str, ...]) -> None:
    layout.config.write_text(f"name: {NAME}\n")
    _lose(layout)
    ran = _witness(layout, *command)
    assert ran.returncode != 0, ran.stdout
    assert "no database" in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr
    assert _databases(layout.root) == []


def test_init_does_not_replace_what_is_there(layout: StateLayout) -> None:
    log = SimulatedLog("rule.example/4", size=5)
    trust(layout, log)
    layout.config.write_text(f"name: {NAME}\n")
    before = layout.database.read_bytes(), layout.softkey.read_bytes()
    ran = _witness(layout, "init", "--name", "another.example")
    assert ran.returncode != 0
    assert "error:" in ran.stderr
    assert (layout.database.read_bytes(), layout.softkey.read_bytes()) == before


def test_creation_is_for_an_empty_place(layout: StateLayout) -> None:
    before = layout.database.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        schema.create(layout.database, name=NAME, identity="another", now=START)
    assert layout.database.read_bytes() == before


def test_a_fresh_database_beside_old_keys_is_refused(layout: StateLayout, tmp_path: Path) -> None:
    """What an operator in a hurry does with a lost database: init elsewhere, and copy."""
    log = SimulatedLog("rule.example/4", size=5)
    trust(layout, log)
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
    elsewhere = tmp_path / "witness.db"
    schema.create(elsewhere, name=NAME, identity="a fresh one", now=START)
    _lose(layout)
    shutil.copy(elsewhere, layout.database)
    process = CoreProcess(layout)
    assert "a fresh one" in process.first_line["error"]
    assert process.wait() == 3
    process.kill()
