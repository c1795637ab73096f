"""The table of generations: steps that follow each other, and what an older database does not know."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.state import make_state
from witness.core.store import generations
from witness.core.store.desk import Desk
from witness.core.store.generations import Generation, NotInOrder, Stage

NOW = 1_800_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(make_state(tmp_path / "s").database) as desk:
        yield desk


def staged(number: int, overlap: int = 60) -> Generation:
    return Generation(number, Stage.STAGED, (f"key {number}",), NOW, overlap=overlap, statement=b"stated")


def stages(desk: Desk) -> dict[int, str]:
    return {row.number: row.stage.value for row in generations.read(desk.connection)}


def rotated(desk: Desk, overlap: int = 60) -> None:
    with desk.transaction() as connection:
        generations.begin(connection, 0, ["key 0"], NOW)
        generations.stage(connection, staged(1, overlap))
        generations.take_up(connection, NOW)


def test_a_life(desk: Desk) -> None:
    connection = desk.connection
    assert generations.read(connection).rows == ()
    generations.begin(connection, 0, ["key 0"], NOW)
    generations.begin(connection, 5, ["another"], NOW)
    generations.stage(connection, staged(1))
    assert stages(desk) == {0: "active", 1: "staged"}
    generations.take_up(connection, NOW + 5)
    found = generations.read(connection)
    assert stages(desk) == {0: "retiring", 1: "active"}
    assert found.retiring[0].until == NOW + 65
    assert found.due(NOW + 64) == ()
    assert [row.number for row in found.due(NOW + 65)] == [0]
    generations.retire(connection, [0], NOW + 65)
    found = generations.read(connection)
    assert found.retired == {"key 0"}
    assert found.stage_of("key 0") is Stage.RETIRED
    assert found.stage_of("a key that no rotation concerned") is Stage.ACTIVE
    assert found.active is not None
    assert found.active.statement == b"stated"


def test_one_rotation_at_a_time(desk: Desk) -> None:
    rotated(desk)
    with pytest.raises(NotInOrder, match="still retiring"):
        generations.stage(desk.connection, staged(2))
    generations.retire(desk.connection, [0], NOW)
    for number in (0, 1):
        with pytest.raises(NotInOrder, match="not the next"):
            generations.stage(desk.connection, staged(number))
    generations.stage(desk.connection, staged(2))


def test_a_finish_is_due_at_once(desk: Desk) -> None:
    rotated(desk, overlap=10_000)
    assert [row.number for row in generations.finish(desk.connection, NOW)] == [0]
    assert generations.read(desk.connection).due(NOW)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE generations SET state = 'active' WHERE number = 0",
        "UPDATE generations SET vkeys = '[]' WHERE number = 0",
        "DELETE FROM generations WHERE number = 0",
        "INSERT OR REPLACE INTO generations (number, state, vkeys, since) VALUES (0, 'active', '[]', 1)",
    ],
)
def test_what_is_retired_stays_so_even_for_sql_by_hand(desk: Desk, sql: str) -> None:
    rotated(desk)
    generations.retire(desk.connection, [0], NOW)
    with pytest.raises(sqlite3.IntegrityError):
        desk.connection.execute(sql)
    assert stages(desk)[0] == "retired"


NONE: frozenset[str] = frozenset()
BOTH = ((0, ("key 0",)), (1, ("key 1",)))


def test_a_database_that_was_never_rotated_learns_nothing_of_one_generation(desk: Desk) -> None:
    assert not generations.learn(desk.connection, BOTH[:1], NONE, NOW)
    assert stages(desk) == {}


def test_a_database_from_before_the_rotation_learns_of_it_from_the_ring(desk: Desk) -> None:
    assert generations.learn(desk.connection, BOTH, NONE, NOW)
    assert stages(desk) == {0: "retiring", 1: "active"}
    assert generations.read(desk.connection).due(NOW * 2) == (), "it waits for a word"
    assert not generations.learn(desk.connection, BOTH, NONE, NOW)


def test_what_the_record_says_is_retired_is(desk: Desk) -> None:
    assert generations.learn(desk.connection, BOTH, frozenset({"key 0"}), NOW)
    assert stages(desk) == {0: "retired", 1: "active"}


def test_an_old_database_whose_old_generation_was_active(desk: Desk) -> None:
    generations.begin(desk.connection, 0, ["key 0"], NOW)
    assert generations.learn(desk.connection, BOTH, frozenset({"key 0"}), NOW)
    assert stages(desk) == {0: "retired", 1: "active"}


def test_a_staged_generation_is_not_taken_up_by_learning(desk: Desk) -> None:
    generations.begin(desk.connection, 0, ["key 0"], NOW)
    generations.stage(desk.connection, staged(1))
    assert not generations.learn(desk.connection, BOTH, NONE, NOW)
    assert stages(desk) == {0: "active", 1: "staged"}


def test_an_imported_key_belongs_to_its_generation(desk: Desk) -> None:
    rotated(desk)
    assert generations.learn(desk.connection, (*BOTH[:1], (1, ("key 1", "imported"))), NONE, NOW)
    assert generations.read(desk.connection).stage_of("imported") is Stage.ACTIVE
    assert generations.read(desk.connection).generation_of("imported") == 1


def test_that_keys_which_were_never_rotated_here_were_retired_is_learnt(desk: Desk) -> None:
    """An old folder with its old keys: what the record says of them must not hang on the record alone."""
    with desk.transaction() as connection:
        assert not generations.learn(connection, [(0, ("a", "b"))], frozenset(), NOW)
        assert generations.read(connection).rows == ()
        assert generations.learn(connection, [(0, ("a", "b"))], frozenset({"a", "b"}), NOW)
    (row,) = generations.read(desk.connection)
    assert (row.stage, row.vkeys) == (Stage.RETIRED, ("a", "b"))
