"""The SQLite store: WAL, synchronous=FULL, one writer, heads moved by compare-and-swap.

Rules of this file:

- A transaction's COMMIT returns only after the write-ahead log is fsync'd; `advance` returns after COMMIT.
- Every UPDATE names the size and root it starts from. What another process changed meanwhile is not
  overwritten; the caller is told.
- After a failed COMMIT the connection is not trusted: `StoreBroken` is raised from then on, until the store
  is opened anew. (A failed fsync may have dropped pages that later fsyncs report as written.)
- Opening copies the whole write-ahead log into the database and fsyncs that, before anything is signed.
- The automatic WAL checkpoint is off: it would run inside some request's COMMIT. `checkpoint_wal` runs it
  from a thread of its own.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from witness.core.store import schema
from witness.core.store.base import (
    Advance,
    Contradiction,
    CosignedHead,
    Head,
    Identity,
    LogRecord,
    StoreBroken,
    StoreError,
)

BUSY_TIMEOUT_MS = 5000
"""How long a write waits for another process's transaction (the command line's are short)."""
MAX_CONTRADICTIONS_PER_LOG = 256
"""A log that contradicts itself endlessly does not fill the disk; these many convince anybody."""
WAL_CHECKPOINT_PAGES = 2000
"""Pages in the write-ahead log after which it is worth copying back."""

_LOG_COLUMNS = """
    l.id, l.origin, l.disabled, l.feeder, l.url, l.interval, l.qpd, l.contact, l.source, l.added, l.change
"""
_RECORD = (
    "INSERT INTO cosignatures (log_id, size, root, timestamp, note, cosignatures) VALUES (?, ?, ?, ?, ?, ?)"
)


class SQLiteStore:
    """One open database. Methods may be called from any thread, one at a time for writes."""

    def __init__(self, path: Path, *, record_all: bool = False) -> None:
        """Opens the database at `path`, which must exist.

        Args:
            path: where it is.
            record_all: record every cosignature, in the transaction that makes its head durable.

        Raises:
            MissingStore: there is none.
            UnknownSchema: it is not ours, or a newer program's.
            StoreError: it cannot be opened or recovered.
        """
        schema.check(path)
        self._path = path
        self._files: dict[str, tuple[int, int]] = {}
        self._broken: str | None = None
        self._record_all = record_all
        try:
            self._writer = connect(path)
            # Everything that an earlier run committed goes into the database file, and is fsync'd there,
            # before this run builds on it.
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            del busy  # another process's reader may keep the log from being truncated; copying suffices
            self._writer.execute("PRAGMA wal_autocheckpoint = 0")
            self._reader = connect(path)
            self._reader.execute("PRAGMA query_only = ON")
            self._checkpointer = connect(path)
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot open the database {path}: {error}", "free space on the disk, or see docs/backups.md"
            ) from error
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._data_version = self._read_data_version()
        self._check_whole()

    def close(self) -> None:
        """Releases the database; the write-ahead log is copied back by SQLite."""
        for connection in (self._checkpointer, self._reader, self._writer):
            connection.close()

    def identity(self) -> Identity:
        """Whose state this is."""
        with self._read_lock:
            row = self._reader.execute("SELECT name, identity FROM identity").fetchone()
        if row is None:
            raise StoreError(f"{self._path} names no witness", "it was not made by witness init")
        return Identity(*row)

    def load(self, since: int = 0, limit: int = -1) -> Iterator[tuple[LogRecord, Head | None]]:
        """Logs changed after change number `since`, with their heads, oldest change first."""
        with self._read_lock:
            # One read transaction: logs, keys and heads as they stood at one moment.
            self._reader.execute("BEGIN")
            try:
                yield from load_logs(self._reader, "l.change > ? ORDER BY l.change LIMIT ?", (since, limit))
            finally:
                self._reader.execute("COMMIT")

    def head(self, log_id: int) -> Head | None:
        """One log's head as it stands on disk."""
        with self._read_lock:
            row = self._reader.execute(
                "SELECT size, root, timestamp FROM heads WHERE log_id = ?", (log_id,)
            ).fetchone()
        return Head(*row) if row else None

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        """Makes the moves durable in one transaction; True for each that was made (see `Store.advance`)."""
        with self._write_lock:
            self._check_whole()
            execute = self._writer.execute
            made = []
            try:
                execute("BEGIN IMMEDIATE")
                for move in moves:
                    after, head = move.after, move.after.head
                    if move.before is None:
                        cursor = execute(
                            "INSERT INTO heads (log_id, size, root, timestamp, note, cosignatures)"
                            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                            (
                                move.log_id,
                                head.size,
                                head.root,
                                head.timestamp,
                                after.note,
                                after.cosignatures,
                            ),
                        )
                    else:
                        cursor = execute(
                            "UPDATE heads SET size = ?, root = ?, timestamp = ?, note = ?, cosignatures = ?"
                            " WHERE log_id = ? AND size = ? AND root = ? AND timestamp <= ?",
                            (
                                head.size, head.root, head.timestamp, after.note, after.cosignatures,
                                move.log_id, move.before.size, move.before.root, head.timestamp,
                            ),
                        )  # fmt: skip
                    made.append(cursor.rowcount == 1)
                if self._record_all:
                    kept = (move for move, done in zip(moves, made, strict=True) if done)
                    self._writer.executemany(_RECORD, map(_row, kept))
                execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return made

    def cosigned(self, origin_hash: bytes) -> CosignedHead | None:
        """The latest cosigned checkpoint by the SHA-256 of its origin (32 bytes)."""
        return self._cosigned("(SELECT id FROM logs WHERE origin_hash = ?)", origin_hash)

    def cosigned_by_id(self, log_id: int) -> CosignedHead | None:
        """The latest cosigned checkpoint by its log's row."""
        return self._cosigned("?", log_id)

    def _cosigned(self, which: str, value: object) -> CosignedHead | None:
        with self._read_lock:
            row = self._reader.execute(
                "SELECT size, root, timestamp, note, cosignatures FROM heads"  # noqa: S608 - fixed texts
                f" WHERE log_id = {which}",
                (value,),
            ).fetchone()
        return CosignedHead(Head(*row[:3]), row[3], row[4]) if row else None

    def pinned_note(self, log_id: int) -> bytes | None:
        """The signed checkpoint that a log's first contact must extend, if one is pinned."""
        with self._read_lock:
            row = self._reader.execute("SELECT note FROM pins WHERE log_id = ?", (log_id,)).fetchone()
        return row[0] if row else None

    def last_timestamp(self) -> int:
        """The largest timestamp of any head; 0 if there is none."""
        with self._read_lock:
            row = self._reader.execute("SELECT coalesce(max(timestamp), 0) FROM heads").fetchone()
        return int(row[0])

    def keep_contradiction(self, contradiction: Contradiction) -> bool:
        """Stores it durably; False if it was known or the log's share of the space is used up."""
        c = contradiction
        digest = hashlib.sha256(len(c.stored).to_bytes(8, "big") + c.stored + c.offered).digest()
        with self._write_lock:
            self._check_whole()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                cursor = self._writer.execute(
                    "INSERT INTO contradictions (log_id, kind, seen, size, stored, offered, proof, digest)"
                    " SELECT ?, ?, ?, ?, ?, ?, ?, ?"
                    " WHERE (SELECT count(*) FROM contradictions WHERE log_id = ?) < ?"
                    " ON CONFLICT DO NOTHING",
                    (
                        c.log_id, c.kind, c.seen, c.size, c.stored, c.offered, c.proof, digest,
                        c.log_id, MAX_CONTRADICTIONS_PER_LOG,
                    ),
                )  # fmt: skip
                kept = cursor.rowcount == 1
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return kept

    def contradictions(self) -> int:
        """How many are kept."""
        with self._read_lock:
            return int(self._reader.execute("SELECT count(*) FROM contradictions").fetchone()[0])

    def changed(self) -> bool:
        """Whether another process has written since the last call."""
        with self._write_lock:
            self._check_whole()
        version = self._read_data_version()
        seen, self._data_version = self._data_version, version
        return version != seen

    def try_write(self) -> None:
        """Makes a transaction that changes nothing durable, to learn whether writing works (again).

        Raises:
            StoreBroken: it does not.
        """
        with self._write_lock:
            self._check_whole()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._writer.execute("UPDATE identity SET created = created")
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def checkpoint_wal(self) -> int:
        """Copies what is committed from the write-ahead log into the database, beside running requests.

        Returns:
            Pages that are still only in the log.
        """
        _, in_log, copied = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return max(0, int(in_log) - int(copied))

    def wal_pages(self) -> int:
        """About how many pages the write-ahead log holds, by its size."""
        try:
            return (self._path.parent / (self._path.name + "-wal")).stat().st_size // 4120
        except FileNotFoundError:
            return 0

    def _read_data_version(self) -> int:
        # On the writer's connection: its own commits do not count, only other connections'.
        with self._write_lock:
            return int(self._writer.execute("PRAGMA data_version").fetchone()[0])

    def _check_whole(self) -> None:
        """Makes sure that what is written will be found again by whoever opens the database next.

        A file that was removed or replaced under us goes on taking writes; only nobody will ever read them.
        """
        for name in ("", "-wal"):
            path = f"{self._path}{name}"
            try:
                stat = os.stat(path)  # noqa: PTH116 - asked before every commit; a Path costs three times as much
            except OSError:
                if path not in self._files:
                    continue  # no write-ahead log yet
                file = None
            else:
                file = (stat.st_dev, stat.st_ino)
                self._files.setdefault(path, file)
            if self._files[path] != file:
                self._broken = self._broken or f"{path} was removed or replaced while it was in use"
        if self._broken is not None:
            raise StoreBroken(self._broken, lasting=True)

    def _failed(self, error: sqlite3.Error) -> StoreBroken:
        """A write failed. Whether later ones may be tried depends on how."""
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.Error as rollback_error:
                self._broken = f"{error}; and rolling back: {rollback_error}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT):
            # An I/O error: an fsync may have failed, and the next would not report it again.
            self._broken = str(error)
        return StoreBroken(str(error), lasting=self._broken is not None)


def _row(move: Advance) -> tuple[object, ...]:
    after, head = move.after, move.after.head
    return move.log_id, head.size, head.root, head.timestamp, after.note, after.cosignatures


def connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing database with our pragmas; transactions are begun by hand."""
    connection = sqlite3.connect(
        f"file:{path}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=64,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def load_logs(
    connection: sqlite3.Connection, where: str, parameters: tuple[object, ...]
) -> Iterator[tuple[LogRecord, Head | None]]:
    """Logs that fit a condition on `l` (the logs table), with their keys and heads."""
    rows = connection.execute(
        f"SELECT {_LOG_COLUMNS}, h.size, h.root, h.timestamp, p.size, p.root,"  # noqa: S608 - `where` is ours, values are bound
        " (SELECT group_concat(vkey, char(10)) FROM"
        "   (SELECT vkey FROM log_keys WHERE log_id = l.id AND withdrawn IS NULL ORDER BY id))"
        " FROM logs l LEFT JOIN heads h ON h.log_id = l.id LEFT JOIN pins p ON p.log_id = l.id"
        f" WHERE {where}",
        parameters,
    )
    for row in rows:
        log_id, origin, disabled, feeder, url, interval, qpd, contact, source, added, change = row[:11]
        size, root, timestamp, pinned_size, pinned_root, vkeys = row[11:]
        record = LogRecord(
            log_id=log_id, origin=origin, vkeys=tuple(vkeys.split("\n")) if vkeys else (),
            disabled=bool(disabled), feeder=feeder, url=url, interval=interval, qpd=qpd, contact=contact,
            source=source, added=added, change=change,
            pin=Head(pinned_size, pinned_root, 0) if pinned_size is not None else None,
        )  # fmt: skip
        yield record, Head(size, root, timestamp) if size is not None else None
