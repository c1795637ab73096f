"""The generations of a witness's keys: which are staged, which sign, which never sign again.

A rotation keeps name, identity, heads and records, and makes a new generation of keys. Its life:

    staged     its keys were made and stated; it signs nothing yet
    active     it signs, and is the newest that does
    retiring   it signs beside the active one until its time is over
    retired    it never signs again

A state without rows was never rotated: all of its keys sign. Retired rows stay as they are (a trigger), and
the high-water record names the retired keys too, so that an old database brings none of them back.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from witness.core.store.base import StoreError

_COLUMNS: Final = "number, state, vkeys, since, until, overlap, statement"


class Stage(StrEnum):
    """Where a generation is in its life."""

    STAGED = "staged"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


class NotInOrder(StoreError):
    """A rotation step that does not follow from where the generations are."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation.

    Attributes:
        number: counts from 0, the keys that the witness was made with.
        stage: where it is.
        vkeys: its keys, as text.
        since: when it came to this stage, POSIX seconds.
        until: of a retiring one, when it stops signing, POSIX seconds; None for when somebody says so.
        overlap: of a staged one, seconds for which the one before signs beside it.
        statement: the succession statement that names its keys; None for the first.
    """

    number: int
    stage: Stage
    vkeys: tuple[str, ...]
    since: int
    until: int | None = None
    overlap: int | None = None
    statement: bytes | None = None


@dataclass(frozen=True, slots=True)
class Generations:
    """All generations, in order; none where the witness was never rotated."""

    rows: tuple[Generation, ...] = ()

    def __iter__(self) -> Iterator[Generation]:
        return iter(self.rows)

    @property
    def retired(self) -> frozenset[str]:
        """The vkeys that never sign again."""
        return frozenset(vkey for row in self.rows if row.stage is Stage.RETIRED for vkey in row.vkeys)

    @property
    def staged(self) -> Generation | None:
        """The generation that waits to be taken up."""
        return self._last(Stage.STAGED)

    @property
    def active(self) -> Generation | None:
        """The newest that signs."""
        return self._last(Stage.ACTIVE)

    @property
    def retiring(self) -> tuple[Generation, ...]:
        """Those that sign beside it for a time."""
        return tuple(row for row in self.rows if row.stage is Stage.RETIRING)

    def due(self, now: int) -> tuple[Generation, ...]:
        """Those whose time is over."""
        return tuple(row for row in self.retiring if row.until is not None and row.until <= now)

    def stage_of(self, vkey: str) -> Stage:
        """Where a key's generation is. A key that no row knows signs: no rotation concerned it."""
        for row in self.rows:
            if vkey in row.vkeys:
                return row.stage
        return Stage.ACTIVE

    def generation_of(self, vkey: str) -> int | None:
        """The number of a key's generation; None where no row knows it."""
        return next((row.number for row in self.rows if vkey in row.vkeys), None)

    def describe(self) -> tuple[str, ...]:
        """A rotation that is under way, for people, a line each; empty for none."""
        lines = []
        if self.staged is not None:
            lines.append(f"generation {self.staged.number} is staged: the next start takes it up")
        for row in self.retiring:
            end = "until witness keys rotate --finish"
            if row.until is not None:
                end = time.strftime("until %Y-%m-%d %H:%M:%SZ", time.gmtime(row.until))
            newest = f"generation {self.active.number}" if self.active is not None else "another generation"
            lines.append(f"{newest} signs, and generation {row.number} beside it {end}")
        return tuple(lines)

    def _last(self, stage: Stage) -> Generation | None:
        return next((row for row in reversed(self.rows) if row.stage is stage), None)


def read(connection: sqlite3.Connection) -> Generations:
    """All generations."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM generations ORDER BY number").fetchall()  # noqa: S608
    return Generations(
        tuple(Generation(row[0], Stage(row[1]), tuple(json.loads(row[2])), *row[3:]) for row in rows)
    )


def begin(connection: sqlite3.Connection, number: int, vkeys: Sequence[str], now: int) -> None:
    """Writes down the generation that signs, before the first rotation; nothing where there is one."""
    connection.execute(
        "INSERT INTO generations (number, state, vkeys, since) SELECT ?, 'active', ?, ?"
        " WHERE NOT EXISTS (SELECT 1 FROM generations)",
        (number, json.dumps(list(vkeys)), now),
    )


def stage(connection: sqlite3.Connection, new: Generation) -> None:
    """Writes down a staged generation. One that was never taken up makes way: it has signed nothing.

    Raises:
        NotInOrder: its number is not beyond all others', or a rotation is under way.
    """
    found = read(connection)
    if any(row.number >= new.number for row in found):
        raise NotInOrder(f"generation {new.number} is not the next one")
    if found.retiring:
        raise NotInOrder(
            f"generation {found.retiring[0].number} is still retiring",
            "witness keys rotate --finish ends its time",
        )
    _move(connection, (row for row in found if row.stage is Stage.STAGED), Stage.RETIRED, new.since)
    connection.execute(
        f"INSERT INTO generations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - fixed texts
        (
            new.number,
            new.stage,
            json.dumps(list(new.vkeys)),
            new.since,
            new.until,
            new.overlap,
            new.statement,
        ),
    )


def take_up(connection: sqlite3.Connection, now: int) -> None:
    """The staged generation becomes the active one, and the active one retires when the overlap is over."""
    found = read(connection)
    staged = found.staged
    if staged is None:
        return
    before = (row for row in found if row.stage is Stage.ACTIVE)
    _move(connection, before, Stage.RETIRING, now, until=now + (staged.overlap or 0))
    _move(connection, (staged,), Stage.ACTIVE, now)


def refuse(connection: sqlite3.Connection, number: int, now: int) -> None:
    """A staged generation that is not to be: it has signed nothing, and never will."""
    _move(connection, (row for row in read(connection) if row.number == number), Stage.RETIRED, now)


def finish(connection: sqlite3.Connection, now: int) -> tuple[Generation, ...]:
    """Ends the time of every retiring generation now; returns them."""
    retiring = read(connection).retiring
    _move(connection, retiring, Stage.RETIRING, now, until=now)
    return retiring


def retire(connection: sqlite3.Connection, numbers: Iterable[int], now: int) -> None:
    """From here on these generations never sign."""
    wanted = set(numbers)
    rows = (row for row in read(connection) if row.number in wanted and row.stage is not Stage.RETIRED)
    _move(connection, rows, Stage.RETIRED, now)


def learn(
    connection: sqlite3.Connection,
    found: Sequence[tuple[int, tuple[str, ...]]],
    retired: frozenset[str],
    now: int,
) -> bool:
    """Takes over what keys and high-water record know and an older database does not; whether there was any.

    Args:
        connection: within a transaction.
        found: generations among the registered keys, by number, in order.
        retired: vkeys that the high-water record names as retired.
        now: POSIX seconds.
    """
    known = read(connection)
    changed = False
    unknown = [(number, vkeys) for number, vkeys in found if all(row.number != number for row in known)]
    # Keys that were never rotated need no row; but what the record says of them is not to hang on it alone.
    ended = any(not retired.isdisjoint(vkeys) for _, vkeys in found)
    if (known.rows or len(found) > 1 or ended) and unknown:
        newest = max(number for number, _ in found)
        for number, vkeys in unknown:
            # When an older one was to retire, only the newer database knew: it waits for a word.
            stage_ = Stage.ACTIVE if number == newest else Stage.RETIRING
            connection.execute(
                "INSERT INTO generations (number, state, vkeys, since) VALUES (?, ?, ?, ?)",
                (number, stage_, json.dumps(list(vkeys)), now),
            )
        if newest in {number for number, _ in unknown}:
            older = (row for row in known if row.stage in (Stage.ACTIVE, Stage.STAGED))
            _move(connection, older, Stage.RETIRING, now)
        changed = True
    for row in known:  # a key was imported into a generation meanwhile
        more = next((vkeys for number, vkeys in found if number == row.number), ())
        if row.stage is not Stage.RETIRED and not set(more) <= set(row.vkeys):
            together = json.dumps(list(dict.fromkeys([*row.vkeys, *more])))
            connection.execute("UPDATE generations SET vkeys = ? WHERE number = ?", (together, row.number))
            changed = True
    over = [
        row
        for row in read(connection)
        if row.stage is not Stage.RETIRED and not retired.isdisjoint(row.vkeys)
    ]
    _move(connection, over, Stage.RETIRED, now)
    return changed or bool(over)


def _move(
    connection: sqlite3.Connection,
    rows: Iterable[Generation],
    stage_: Stage,
    now: int,
    until: int | None = None,
) -> None:
    for row in rows:
        connection.execute(
            "UPDATE generations SET state = ?, since = ?, until = ? WHERE number = ?",
            (stage_, now, until, row.number),
        )
