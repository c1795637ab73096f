"""A pinned start: the first contact must extend it, whoever says what, and until then nothing is cosigned."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.core.state import START, add_logs, core, make_state
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.refusals import InvalidProof, OldSizeTooLarge, RootMismatch, StaleOldSize
from witness.core.store.base import StoreError
from witness.core.store.logs import LogBook, LogSettings
from witness.core.wire import Cursor
from witness.tlog.checkpoint import origin_hash

LOG = SimulatedLog("pinned.example/log", size=20)
FORK = LOG.fork(3)
FORK.append(17)
PIN = 8


def pin(layout: StateLayout, log: SimulatedLog = LOG, size: int = PIN) -> None:
    with LogBook(layout.database) as book, book.transaction():
        book.add(log.origin, log.vkeys, LogSettings(), source="test", now=START)
        book.pin(log.origin, log.value(size), log.checkpoint(size), source="test", now=START)


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    layout = make_state(tmp_path / "state", algorithms=("ed25519",))
    pin(layout)
    return layout


async def test_the_first_contact_extends_the_pin(layout: StateLayout) -> None:
    async with core(layout) as running:
        witness = running.witness
        with pytest.raises(StaleOldSize) as caught:
            await witness.add_checkpoint(LOG.add_checkpoint(0))
        assert caught.value.known == PIN
        for old in (0, 5, 9, 20):
            with pytest.raises((StaleOldSize, OldSizeTooLarge)):
                await witness.add_checkpoint(LOG.add_checkpoint(old, 20))
        with pytest.raises(OldSizeTooLarge):
            await witness.add_checkpoint(LOG.add_checkpoint(PIN, 7, proof=()))
        with pytest.raises(InvalidProof):
            await witness.add_checkpoint(FORK.add_checkpoint(PIN))
        assert running.store.cosigned(origin_hash(LOG.origin)) is None, "nothing is cosigned yet"
        assert witness.book.heads == 0
        assert witness.book.changes(None).origins == ()
        assert await witness.add_checkpoint(LOG.add_checkpoint(PIN, 15))
        assert running.store.cosigned(origin_hash(LOG.origin)).head.size == 15
        with pytest.raises(StaleOldSize) as caught:
            await witness.add_checkpoint(LOG.add_checkpoint(PIN, 20))
        assert caught.value.known == 15
        assert await witness.add_checkpoint(LOG.add_checkpoint(15, 20))
    async with core(layout) as running:
        with pytest.raises(StaleOldSize) as caught:
            await running.witness.add_checkpoint(LOG.add_checkpoint(PIN))
        assert caught.value.known == 20


async def test_the_pinned_checkpoint_itself_may_be_the_first(layout: StateLayout) -> None:
    async with core(layout) as running:
        assert await running.witness.add_checkpoint(LOG.add_checkpoint(PIN, PIN))


async def test_what_contradicts_the_pin_is_refused_and_kept(layout: StateLayout) -> None:
    async with core(layout) as running:
        for old in (PIN, 0):
            with pytest.raises((RootMismatch, StaleOldSize)):
                await running.witness.add_checkpoint(FORK.add_checkpoint(old, PIN, proof=()))
        assert running.witness.contradictions == 1
        with closing(sqlite3.connect(layout.database)) as connection:
            kept = connection.execute("SELECT stored, offered, size FROM contradictions").fetchall()
        assert kept == [(LOG.checkpoint(PIN), FORK.checkpoint(PIN), PIN)]
        assert running.store.cosigned(origin_hash(LOG.origin)) is None


async def test_a_running_core_knows_the_pin_with_the_log(tmp_path: Path) -> None:
    layout = make_state(tmp_path / "state", algorithms=("ed25519",))
    async with core(layout) as running:
        pin(layout)
        await running.witness.refresh()
        with pytest.raises(StaleOldSize) as caught:
            await running.witness.add_checkpoint(LOG.add_checkpoint(0))
        assert caught.value.known == PIN
        assert isinstance(running.witness.book.changes(None).cursor, Cursor)


def test_a_start_is_pinned_once_and_before_the_first_contact(layout: StateLayout, tmp_path: Path) -> None:
    with LogBook(layout.database) as book, book.transaction():
        with pytest.raises(StoreError, match="has a start already"):
            book.pin(LOG.origin, LOG.value(9), LOG.checkpoint(9), source="test", now=START)
        record, head = book.get(LOG.origin)
        assert record.pin is not None
        assert (record.pin.size, record.pin.root, head) == (PIN, LOG.root(PIN), None)


async def test_a_cosigned_log_takes_no_pin(tmp_path: Path) -> None:
    layout = make_state(tmp_path / "state", algorithms=("ed25519",))
    add_logs(layout, [(LOG.origin, LOG.vkeys)])
    async with core(layout) as running:
        await running.witness.add_checkpoint(LOG.add_checkpoint(0, 5))
    with LogBook(layout.database) as book, book.transaction(), pytest.raises(StoreError):
        book.pin(LOG.origin, LOG.value(9), LOG.checkpoint(9), source="test", now=START)


LATE_PIN = """
    INSERT INTO heads VALUES (1, 9, zeroblob(32), 1, x'', x'');
    INSERT INTO logs SELECT 2, 'x', zeroblob(32), 0, 'none', NULL, NULL, NULL, NULL, 's', 1, 99;
    INSERT INTO heads VALUES (2, 9, zeroblob(32), 1, x'', x'');
    INSERT INTO pins VALUES (2, 9, zeroblob(32), x'', 's', 1)
"""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM pins", "a pinned start stays"),
        ("UPDATE pins SET size = 1", "stays as it is"),
        ("INSERT INTO heads VALUES (1, 7, zeroblob(32), 1, x'', x'')", "extends the pinned start"),
        ("INSERT INTO heads VALUES (1, 8, zeroblob(32), 1, x'', x'')", "extends the pinned start"),
        (LATE_PIN, "before the first contact"),
    ],
)  # fmt: skip
def test_the_database_itself_keeps_the_pin(layout: StateLayout, statement: str, words: str) -> None:
    with (
        closing(sqlite3.connect(layout.database)) as connection,
        pytest.raises(sqlite3.IntegrityError, match=words),
    ):
        connection.executescript(statement)
