"""A connection of its own for what is rare: alarms, the audit record, proposals, remembered heads.

The core's hot path never waits for it, and the command line uses the same one. SQLite arbitrates.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from witness.core.store import schema
from witness.core.store.sqlite import connect


class Desk:
    """One connection, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opens the database at `path`, which must exist.

        Raises:
            MissingStore: there is none.
            UnknownSchema: it is not ours, or a newer program's.
        """
        schema.check(path)
        self.path = path
        self.connection = connect(path)
        self._lock = threading.RLock()
        self._version = -1

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the database go."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """`BEGIN IMMEDIATE … COMMIT`, or ROLLBACK when the block raises; it may stand within another."""
        with self._lock:
            if self.connection.in_transaction:
                yield self.connection
                return
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self.connection.in_transaction:  # SQLite may have done so itself
            self.connection.execute("ROLLBACK")

    def one(self, sql: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None. From any thread."""
        with self._lock:
            row: tuple[Any, ...] | None = self.connection.execute(sql, values).fetchone()
        return row

    def fact(self, name: str) -> str | None:
        """A small fact of the state, or None."""
        with self._lock:
            row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_fact(self, name: str, value: str) -> None:
        """Sets one, durably."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )

    def drop_fact(self, name: str) -> None:
        """Takes one away; nothing where there is none."""
        if self.fact(name) is not None:
            with self.transaction() as connection:
                connection.execute("DELETE FROM facts WHERE name = ?", (name,))

    def changed(self) -> bool:
        """Whether anybody else has written since the last call; True at the first."""
        with self._lock:
            version = int(self.connection.execute("PRAGMA data_version").fetchone()[0])
        seen, self._version = self._version, version
        return version != seen
