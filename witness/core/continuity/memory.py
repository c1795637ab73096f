"""What is remembered of logs beside their heads: earlier heads, and which keys an operator gave them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from witness.core.store.desk import Desk

_AT_ONCE: Final = 200
"""Logs in one transaction, so that no commit of the hot path waits long for it."""
KEYS: Final = "log-keys:"
"""The fact, with the log's origin after it, that names the keys an operator last gave the log."""

MADE_ANEW: Final = "made-anew"
"""The fact that says that this database was made in place of a lost one, until it holds what was signed."""


def remember_heads(desk: Desk, log_ids: Sequence[int], most: int) -> None:
    """Remembers the present heads of some logs, and forgets the oldest beyond `most` a log."""
    for at in range(0, len(log_ids), _AT_ONCE):
        some = [(log_id,) for log_id in log_ids[at : at + _AT_ONCE]]
        with desk.transaction() as connection:
            connection.executemany(
                "INSERT INTO recent_heads SELECT log_id, size, root, timestamp, note FROM heads"
                " WHERE log_id = ? ON CONFLICT DO NOTHING",
                some,
            )
            connection.executemany(
                "DELETE FROM recent_heads WHERE log_id = ?1 AND size <= (SELECT size FROM recent_heads"
                " WHERE log_id = ?1 ORDER BY size DESC LIMIT 1 OFFSET ?2)",
                [(log_id, most) for (log_id,) in some],
            )


def recall(desk: Desk, log_id: int, size: int) -> tuple[bytes, bytes] | None:
    """A remembered head of a log: its root hash and the note, or None. From any thread."""
    row = desk.one("SELECT root, note FROM recent_heads WHERE log_id = ? AND size = ?", (log_id, size))
    return (bytes(row[0]), bytes(row[1])) if row else None


def sanction_keys(connection: sqlite3.Connection, origin: str, digest: str) -> None:
    """Notes, in the transaction that changes a known log's keys, that an operator's command did it."""
    connection.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (KEYS + origin, digest),
    )


def keys_sanctioned(desk: Desk, origin: str, digest: str) -> bool:
    """Whether an operator's command gave a log the keys of this digest."""
    return desk.fact(KEYS + origin) == digest
