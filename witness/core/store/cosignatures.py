"""Cosignatures kept beside the heads, where the operator wants them: what was signed, and when.

Of all cosignatures, each is written by the transaction that moves its head (`sqlite.py`); of heads, here.
Nothing but age ever takes a row out, and no row is changed. Each proves itself: it holds the log's signature
and ours. The rows follow each other as they were signed, and their timestamps never go back, so that there is
no index, whose upkeep every commit would pay for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from witness.core.store.desk import Desk

_AT_ONCE: Final = 200
"""Rows in one transaction, so that no commit of the hot path waits long for it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded cosignature.

    Attributes:
        origin: the log.
        size: the tree size.
        root: its root hash, 32 bytes.
        timestamp: when it was cosigned, POSIX seconds.
        checkpoint: the log's checkpoint with our cosignatures, a signed note.
    """

    origin: str
    size: int
    root: bytes
    timestamp: int
    checkpoint: bytes


def record_heads(desk: Desk, log_ids: Sequence[int]) -> None:
    """Records what stands as the heads of some logs now."""
    for at in range(0, len(log_ids), _AT_ONCE):
        with desk.transaction() as connection:
            connection.executemany(
                "INSERT INTO cosignatures (log_id, size, root, timestamp, note, cosignatures)"
                " SELECT log_id, size, root, timestamp, note, cosignatures FROM heads"
                " WHERE log_id = ? AND cosignatures <> x''",
                [(log_id,) for log_id in log_ids[at : at + _AT_ONCE]],
            )


def prune(desk: Desk, before: int) -> bool:
    """Deletes some of the rows that are older than a time (POSIX seconds); whether there may be more."""
    oldest = desk.one("SELECT timestamp FROM cosignatures ORDER BY id LIMIT 1")
    if oldest is None or oldest[0] >= before:
        return False
    with desk.transaction() as connection:
        cursor = connection.execute(
            "DELETE FROM cosignatures WHERE timestamp < ?"
            " AND id IN (SELECT id FROM cosignatures ORDER BY id LIMIT ?)",
            (before, _AT_ONCE),
        )
    return cursor.rowcount == _AT_ONCE


def recorded(desk: Desk, origin: str | None = None, since: int = 0) -> Iterator[Recorded]:
    """What is recorded, of one log or of all, from a time on (POSIX seconds); oldest first."""
    rows = desk.connection.execute(
        "SELECT l.origin, c.size, c.root, c.timestamp, c.note, c.cosignatures"
        " FROM cosignatures c JOIN logs l ON l.id = c.log_id"
        " WHERE c.timestamp >= ? AND (?2 IS NULL OR l.origin = ?2) ORDER BY c.id",
        (since, origin),
    )
    for name, size, root, timestamp, note, lines in rows:
        yield Recorded(name, size, root, timestamp, note + lines)
