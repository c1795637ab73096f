"""A store that fails: what is told, and what may be tried again."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.state import IDENTITY, NAME, START, add_logs
from tests.core.test_store_contract import cosigned
from tests.simulated_log import SimulatedKey
from witness.core.layout import StateLayout
from witness.core.store import schema, sqlite
from witness.core.store.base import Advance, Contradiction, CosignedHead, Head, StoreBroken
from witness.core.store.sqlite import SQLiteStore

ORIGIN = "failing.example/log"


def make(folder: Path) -> Path:
    layout = StateLayout(folder)
    schema.create(layout.database, name=NAME, identity=IDENTITY, now=START)
    add_logs(layout, [(ORIGIN, (SimulatedKey(ORIGIN).vkey,))])
    return layout.database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True, timeout=20).returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True, timeout=20)


def _large(size: int) -> CosignedHead:
    head = cosigned(size).head
    return CosignedHead(head, b"n" * 60_000, b"c" * 60_000)


def test_a_full_disk_loses_nothing_and_is_worth_another_try(tiny_disk: Path) -> None:
    path = make(tiny_disk)
    store = SQLiteStore(path)
    stored = cosigned(1)
    assert store.advance([Advance(1, None, stored)]) == [True]
    ballast = tiny_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\x00" * 4096)
            except OSError:
                break
    met: StoreBroken | None = None
    size = 1
    while met is None:  # what the log has allocated already may hold some
        size += 1
        assert size < 40, "the disk does not fill"
        after = _large(size)
        try:
            store.advance([Advance(1, stored.head, after)])
            stored = after
        except StoreBroken as error:
            met = error
    assert not met.lasting
    assert "full" in met.reason
    assert store.cosigned_by_id(1) == stored
    with pytest.raises(StoreBroken):
        store.keep_contradiction(Contradiction(1, "root-mismatch", START, 3, b"a" * 90_000, b"b", b""))
    assert store.contradictions() == 0
    ballast.unlink()
    # With room again the same store goes on, from the head that was durable.
    assert store.advance([Advance(1, stored.head, cosigned(99))]) == [True]
    store.close()
    store = SQLiteStore(path)
    assert store.cosigned_by_id(1) == cosigned(99)
    store.close()


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.core.test_store_contract import cosigned
from witness.core.store.base import Advance, StoreBroken
from witness.core.store.sqlite import SQLiteStore
store = SQLiteStore(Path(sys.argv[1]))
first = cosigned(1)
assert store.advance([Advance(1, None, first)]) == [True]
resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
for attempt in range(2):
    try:
        store.advance([Advance(1, first.head, cosigned(2))])
    except StoreBroken as error:
        assert error.lasting, error
    else:
        sys.exit("a write beyond the limit was made")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for write in (lambda: store.advance([Advance(1, first.head, cosigned(2))]), lambda: store.advance([])):
    try:
        write()
    except StoreBroken as error:
        assert error.lasting
    else:
        sys.exit("a store that met an I/O error was trusted again")
store = SQLiteStore(Path(sys.argv[1]))
assert store.cosigned_by_id(1) == first
assert store.advance([Advance(1, first.head, cosigned(2))]) == [True]
print("held")
"""


def test_after_an_io_error_the_store_is_not_trusted_until_opened_anew(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "held\n"), ran.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1
    assert signal.getsignal(signal.SIGXFSZ) is not None


_HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE logs SET contact = 'somebody'")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def test_another_processs_long_transaction_is_worth_another_try(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    store = SQLiteStore(path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreBroken, match="locked") as caught:
            store.advance([Advance(1, None, cosigned(3))])
        assert not caught.value.lasting
        assert store.head(1) is None, "reading goes on beside it"
        holder.stdin.close()
        assert holder.wait(20) == 0
    assert store.advance([Advance(1, None, cosigned(3))]) == [True]
    store.close()


def test_a_move_that_breaks_the_schema_spoils_its_batch_alone(path: Path) -> None:
    store = SQLiteStore(path)
    nobody = 99
    with pytest.raises(StoreBroken, match="FOREIGN KEY") as caught:
        store.advance([Advance(1, None, cosigned(3)), Advance(nobody, None, cosigned(3))])
    assert not caught.value.lasting
    assert store.head(1) is None
    with pytest.raises(StoreBroken):
        store.advance([Advance(1, None, CosignedHead(Head(3, b"short", START), b"", b""))])
    assert store.advance([Advance(1, None, cosigned(3))]) == [True]
    store.close()


class FailingConnection:
    """A connection on which one statement fails as the disk would make it fail."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if statement.startswith(self._statement):
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(statement, parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(
    ("code", "lasting"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_READONLY, True),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, False),
    ],
)
def test_which_failures_last(path: Path, statement: str, code: int, *, lasting: bool) -> None:
    store = SQLiteStore(path)
    whole = store._writer
    store._writer = FailingConnection(whole, statement, code)  # type: ignore[assignment]
    move = Advance(1 if statement != "ROLLBACK" else 99, None, cosigned(3))
    with pytest.raises(StoreBroken) as caught:
        store.advance([move])
    lasting = lasting or statement == "ROLLBACK"  # a transaction that cannot be left is no ground to build on
    assert caught.value.lasting == lasting
    store._writer = whole
    if lasting:
        with pytest.raises(StoreBroken) as again:
            store.advance([Advance(1, None, cosigned(3))])
        assert again.value.lasting
        with pytest.raises(StoreBroken):
            store.keep_contradiction(Contradiction(1, "root-mismatch", START, 3, b"a", b"b", b""))
    else:
        assert store.advance([Advance(1, None, cosigned(3))]) == [True]
    store.close()
    again_open = SQLiteStore(path)
    assert again_open.head(1) == (None if lasting else cosigned(3).head)
    again_open.close()
