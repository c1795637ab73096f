"""Rule 5: logs and heads are never deleted; a log is disabled. Lists only add; a known log's keys change by
an operator's hand alone.

The guard: the triggers in witness/core/store/schema.py, and witness/core/store/logs.py, which has no way to
remove. The core writes nothing but heads and contradictions.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.state import core, trust
from tests.rules.support import answer, state
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.layout import StateLayout
from witness.core.refusals import DisabledLog, NoTrustedSignature, StaleOldSize
from witness.core.store.base import Contradiction, Store
from witness.core.store.logs import LogBook, LogSettings
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.checkpoint import origin_hash

ORIGIN = "rule.example/5"


async def _cosigned(folder: Path) -> tuple[StateLayout, SimulatedLog]:
    log = SimulatedLog(ORIGIN, size=5)
    layout = state(folder, log)
    async with core(layout) as running:
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)
        running.store.keep_contradiction(Contradiction(1, "root-mismatch", 1, 5, b"a", b"b", b""))
    return layout, log


STATEMENTS = {
    "DELETE FROM logs": "logs are never deleted",
    "DELETE FROM heads": "heads are never deleted",
    "DELETE FROM contradictions": "evidence is never deleted",
    "UPDATE heads SET size = 4": "a head never goes back",
    "UPDATE heads SET timestamp = timestamp - 1": "a head never goes back",
    "UPDATE heads SET root = zeroblob(32)": "a head never goes back",
    "UPDATE logs SET origin = 'another'": "a log keeps its origin",
    "UPDATE logs SET origin_hash = zeroblob(32)": "a log keeps its origin",
    "UPDATE logs SET id = 7": "a log keeps its origin",
    "REPLACE INTO logs SELECT * FROM logs": "a log is added once",
    "DELETE FROM log_keys": "never deleted",
    "UPDATE log_keys SET vkey = 'another'": "stays as it is",
    "UPDATE log_keys SET log_id = 2": "stays as it is",
    "UPDATE log_keys SET withdrawn = 1": "the last key of an enabled log",
    "REPLACE INTO log_keys SELECT * FROM log_keys": "written down once",
}


@pytest.mark.parametrize(("statement", "why"), STATEMENTS.items(), ids=STATEMENTS.keys())
async def test_the_database_refuses_even_sql_by_hand(tmp_path: Path, statement: str, why: str) -> None:
    layout, _ = await _cosigned(tmp_path)
    by_hand = sqlite3.connect(layout.database)
    with pytest.raises(sqlite3.IntegrityError, match=why):
        by_hand.execute(statement)
    by_hand.close()


async def test_replacing_a_head_by_hand_does_nothing(tmp_path: Path) -> None:
    """REPLACE would delete the row without asking the triggers that guard deletion."""
    layout, _ = await _cosigned(tmp_path)
    by_hand = sqlite3.connect(layout.database)
    before = by_hand.execute("SELECT * FROM heads").fetchall()
    by_hand.execute("REPLACE INTO heads SELECT log_id, 1, root, timestamp, note, cosignatures FROM heads")
    by_hand.commit()
    assert by_hand.execute("SELECT * FROM heads").fetchall() == before
    by_hand.close()


async def test_a_log_that_is_disabled_keeps_its_head_and_goes_on_from_it(tmp_path: Path) -> None:
    layout, log = await _cosigned(tmp_path)
    log.append(4)
    with LogBook(layout.database) as book, book.transaction():
        book.set_disabled(ORIGIN, disabled=True)
    async with core(layout) as running:
        assert await answer(running, log.add_checkpoint(5)) == DisabledLog(ORIGIN)
        stored = running.store.cosigned(origin_hash(ORIGIN))
        assert stored is not None, "monitors are still served what was cosigned"
        assert stored.head.size == 5
        with LogBook(layout.database) as book, book.transaction():
            book.set_disabled(ORIGIN, disabled=False)
        assert await running.witness.refresh() == 1
        assert await answer(running, log.add_checkpoint(0)) == StaleOldSize(5)
        assert isinstance(await answer(running, log.add_checkpoint(5)), bytes)


async def test_adding_a_known_log_again_takes_nothing_away(tmp_path: Path) -> None:
    """As a list does that names the log with another key, or with none that we trust."""
    layout, log = await _cosigned(tmp_path)
    another = SimulatedKey(ORIGIN, number=1)
    with LogBook(layout.database) as book, book.transaction():
        book.add(ORIGIN, (), LogSettings(feeder="tiles"), source="list", now=1)
        book.add(ORIGIN, (another.vkey,), LogSettings(), source="operator", now=1)
    async with core(layout) as running:
        assert await answer(running, log.add_checkpoint(0)) == StaleOldSize(5)
        assert isinstance(await answer(running, log.add_checkpoint(5)), bytes), "the first key is still good"


async def test_no_request_changes_which_keys_are_trusted(tmp_path: Path) -> None:
    layout, log = await _cosigned(tmp_path)
    stranger = SimulatedKey(ORIGIN, number=1)
    async with core(layout) as running:
        before = [record for record, _ in running.store.load()]
        both = log.add_checkpoint(5, keys=[*log.keys, stranger])
        assert isinstance(await answer(running, both), bytes)
        alone = await answer(running, log.add_checkpoint(5, keys=[stranger]))
        assert alone == NoTrustedSignature(ORIGIN)
        assert [record for record, _ in running.store.load()] == before


def test_the_store_and_the_logbook_offer_no_way_to_remove() -> None:
    offered = {
        name for cls in (Store, SQLiteStore, LogBook) for name in vars(cls) if not name.startswith("_")
    }
    assert not [name for name in offered if re.search("delete|remove|drop|purge|forget|clear|reset", name)]


def _sql(tree: ast.AST) -> list[str]:
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [text for text in texts if isinstance(text, str)]


def test_no_statement_of_ours_deletes_or_replaces() -> None:
    """REPLACE would delete without asking the triggers."""
    removing = re.compile(
        r"\b(DELETE\s+FROM\s+(logs|log_keys|heads|contradictions|identity)|DROP\s+(TABLE|TRIGGER)|"
        r"REPLACE\s+INTO|OR\s+REPLACE|TRUNCATE\s+TABLE)\b",
        re.IGNORECASE,
    )
    files = sorted((ROOT / "witness").rglob("*.py"))
    assert len(files) > 20
    texts = [(file.name, text) for file in files for text in _sql(ast.parse(file.read_text()))]
    found = [(name, text) for name, text in texts if removing.search(text)]
    assert len(texts) > 1000
    assert found == []


async def test_the_core_writes_nothing_but_heads_and_contradictions(tmp_path: Path) -> None:
    layout, log = await _cosigned(tmp_path)
    statements: list[str] = []
    async with core(layout) as running:
        store = running.store
        assert isinstance(store, SQLiteStore)
        for connection in (store._writer, store._reader, store._checkpointer):
            connection.set_trace_callback(statements.append)
        fork = log.fork(2)
        fork.append(3)
        await answer(running, log.add_checkpoint(5))
        await answer(running, fork.add_checkpoint(5, proof=()))
        trust(layout, SimulatedLog("rule.example/other", size=1))
        await running.witness.refresh()
    writing = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")
    written = {s.split("(")[0].split(" SET ")[0].strip() for s in statements if s.upper().startswith(writing)}
    assert written == {"UPDATE heads", "INSERT INTO contradictions"}
