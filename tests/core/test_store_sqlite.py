"""What is particular to the SQLite store: its file, its pragmas, its triggers, its recovery."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.state import IDENTITY, NAME, START, add_logs
from tests.core.test_store_contract import cosigned, root
from tests.simulated_log import SimulatedKey
from witness.core.layout import StateLayout
from witness.core.store import schema
from witness.core.store.base import (
    Advance,
    Contradiction,
    CosignedHead,
    MissingStore,
    StoreError,
    UnknownSchema,
)
from witness.core.store.logs import LogBook
from witness.core.store.sqlite import SQLiteStore

ORIGIN = "sqlite.example/log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    layout = StateLayout(tmp_path)
    schema.create(layout.database, name=NAME, identity=IDENTITY, now=START)
    add_logs(layout, [(ORIGIN, (SimulatedKey(ORIGIN).vkey,))])
    return layout.database


def test_a_missing_database_is_never_created(tmp_path: Path) -> None:
    missing = tmp_path / "witness.db"
    for opening in (SQLiteStore, LogBook, schema.check):
        with pytest.raises(MissingStore) as caught:
            opening(missing)
        assert str(missing) in caught.value.reason
        assert caught.value.hint
    with pytest.raises(MissingStore):
        SQLiteStore(tmp_path)  # a folder
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_made_once(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        schema.create(path, name="another.example", identity="x", now=START)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database\n" * 1000, b"SQLite format 3\x00", b"\x00" * 4096],
    ids=["empty", "text", "torn header", "zeros"],
)
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "witness.db"
    file.write_bytes(content)
    for opening in (SQLiteStore, LogBook):
        with pytest.raises(UnknownSchema):
            opening(file)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "witness.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE heads (log_id INTEGER)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(UnknownSchema, match="not a witness's database"):
        SQLiteStore(file)
    assert file.read_bytes() == before


def test_a_newer_schema_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(UnknownSchema, match="this program knows") as caught:
        SQLiteStore(path)
    assert "newer program" in caught.value.hint


def test_a_database_without_identity_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM identity")
    connection.close()
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="names no witness"):
        store.identity()
    store.close()


def test_nobody_else_may_read_the_files(path: Path) -> None:
    store = SQLiteStore(path)
    store.advance([Advance(1, None, cosigned(3))])
    files = sorted(path.parent.glob("witness.db*"))
    assert [file.name for file in files] == ["witness.db", "witness.db-shm", "witness.db-wal"]
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * 3
    store.close()


FORBIDDEN = {
    "delete a log": "DELETE FROM logs",
    "delete a head": "DELETE FROM heads",
    "delete evidence": "DELETE FROM contradictions",
    "shrink a head": "UPDATE heads SET size = size - 1",
    "set a head's time back": "UPDATE heads SET timestamp = timestamp - 1",
    "change a root": f"UPDATE heads SET root = x'{root('another').hex()}'",
    "give a head to another log": "UPDATE heads SET log_id = 2",
    "a root of another length": "UPDATE heads SET size = size + 1, root = x'00'",
    "a head of no log": f"INSERT INTO heads VALUES (99, 1, x'{root(1).hex()}', 1, x'', x'')",
    "a time of zero": f"INSERT INTO heads VALUES (2, 1, x'{root(1).hex()}', 0, x'', x'')",
    "an origin twice": "INSERT INTO logs (origin, origin_hash, source, added, change)"
    f" VALUES ('{ORIGIN}', x'{root(9).hex()}', 't', 1, 99)",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_database_itself_forbids(path: Path, statement: str) -> None:
    add_logs(StateLayout(path.parent), [("second.example", (SimulatedKey("second.example").vkey,))])
    store = SQLiteStore(path)
    store.advance([Advance(1, None, cosigned(3))])
    store.keep_contradiction(Contradiction(1, "root-mismatch", START, 3, b"a", b"b", b""))
    before = list(store.load()), store.cosigned_by_id(1), store.contradictions()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    assert (list(store.load()), store.cosigned_by_id(1), store.contradictions()) == before
    store.close()


def _step(path: Path, steps: int, start: Barrier, into: multiprocessing.Queue[list[int]]) -> None:
    store = SQLiteStore(path)
    won = []
    start.wait(30)
    for step in range(steps):
        # Each step is one move from a known head; another process may have made it already.
        before = cosigned(step).head if step else None
        branch_of_none = cosigned(step + 1)
        if store.advance([Advance(1, before, branch_of_none)]) == [True]:
            won.append(step)
    store.close()
    into.put(won)


def test_processes_that_race_make_each_move_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, into = context.Barrier(2), context.Queue()
    steps = 60
    racers = [context.Process(target=_step, args=(path, steps, start, into)) for _ in range(2)]
    for racer in racers:
        racer.start()
    won = [into.get(timeout=20) for _ in racers]
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert sorted(won[0] + won[1]) == list(range(steps))
    store = SQLiteStore(path)
    assert store.cosigned_by_id(1) == cosigned(steps)
    store.close()


_DIES = """
import os, signal, sys
from pathlib import Path
from tests.core.test_store_contract import cosigned
from witness.core.store.base import Advance
from witness.core.store.sqlite import SQLiteStore
store = SQLiteStore(Path(sys.argv[1]))
before = None
for size in range(1, 40):
    after = cosigned(size)
    assert store.advance([Advance(1, before, after)]) == [True]
    before = after.head
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_before_a_sigkill_is_there(path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", _DIES, str(path)], cwd=ROOT, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    wal = path.with_name(path.name + "-wal")
    assert wal.stat().st_size > 0, "nothing was left to recover"
    store = SQLiteStore(path)
    assert store.cosigned_by_id(1) == cosigned(39)
    # Opening has copied it into the database proper, before anything builds on it.
    assert wal.stat().st_size == 0
    store.close()


def test_a_torn_end_of_the_log_is_what_was_never_committed(path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", _DIES, str(path)], cwd=ROOT, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    wal = path.with_name(path.name + "-wal")
    os.truncate(wal, wal.stat().st_size - 100)  # the last frame's commit is torn
    store = SQLiteStore(path)
    found = store.cosigned_by_id(1)
    assert found is not None
    assert found == cosigned(38)
    assert store.advance([Advance(1, found.head, cosigned(50))]) == [True]
    store.close()


def test_copying_the_log_back_beside_readers_and_writers(path: Path) -> None:
    store = SQLiteStore(path)
    before = None
    for size in range(1, 200):
        after = cosigned(size)
        assert store.advance([Advance(1, before, after)]) == [True]
        before = after.head
    wal = path.with_name(path.name + "-wal")
    assert store.wal_pages() > 100
    assert wal.stat().st_size > 0, "the automatic copying back is off"
    assert store.checkpoint_wal() == 0
    assert store.cosigned_by_id(1) == cosigned(199)
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM heads").fetchall()
    assert store.advance([Advance(1, before, cosigned(200))]) == [True]
    assert store.checkpoint_wal() >= 0
    reader.close()
    store.close()
    assert not wal.exists()


def test_commits_never_copy_the_log_back(path: Path) -> None:
    store = SQLiteStore(path)
    before = None
    size = 0
    while store.wal_pages() <= 1100:  # SQLite itself would copy back at 1000
        size += 1
        head = cosigned(size).head
        assert store.advance([Advance(1, before, CosignedHead(head, b"n" * 60_000, b""))]) == [True]
        before = head
    in_database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    assert in_database.execute("SELECT count(*) FROM heads").fetchone() == (0,)
    in_database.close()
    store.close()
