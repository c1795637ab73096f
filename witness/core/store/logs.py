"""Managing the logs: what `witness logs` does, daemon running or not.

The command line opens the database itself; SQLite arbitrates, and a running core notices within a second.
Logs are never deleted, and neither are their keys: a key is withdrawn. A known log's keys change by an
operator's hand alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from witness.core.continuity.memory import sanction_keys
from witness.core.request import digest_of_keys
from witness.core.store import schema
from witness.core.store.audit import Event, leave
from witness.core.store.base import CosignedHead, Head, LogRecord, StoreError
from witness.core.store.sqlite import connect, load_logs
from witness.tlog.checkpoint import Checkpoint, origin_hash
from witness.tlog.note import SignatureType, VerifierKey
from witness.tlog.signature import is_usable_key

LOG_KEY_TYPES = frozenset(
    {SignatureType.ED25519, SignatureType.ECDSA, SignatureType.RFC6962, SignatureType.COSIGNATURE_MLDSA44}
)
"""Types a log may sign its checkpoints with (0x01, 0x02, 0x05, 0x06)."""


class LogKeyRefused(StoreError):
    """A key that cannot be trusted for a log."""


class UnknownLog(StoreError):
    """No log of this origin is configured."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What may be set about a log besides its keys; None leaves what is there."""

    feeder: str | None = None
    url: str | None = None
    interval: float | None = None
    qpd: int | None = None
    contact: str | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What `LogBook.add` did: `new` if the log was unknown; the keys it did not have before."""

    origin: str
    new: bool
    new_keys: tuple[VerifierKey, ...]
    changed: bool


class LogBook:
    """The logs table, for the command line."""

    def __init__(self, path: Path) -> None:
        """Opens the database at `path`, which must exist.

        Raises:
            MissingStore: there is none.
            UnknownSchema: it is not ours, or a newer program's.
        """
        schema.check(path)
        self._connection = connect(path)

    def __enter__(self) -> LogBook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def transaction(self) -> Transaction:
        """Several changes as one; rolled back if the block raises."""
        return Transaction(self._connection)

    def add(
        self, origin: str, keys: tuple[VerifierKey, ...], settings: LogSettings, *, source: str, now: int
    ) -> Added:
        """Adds a log, or further keys and settings of a known one. Call it inside `transaction()`.

        Args:
            origin: the checkpoint origin, 1 to 255 bytes.
            keys: keys to trust for it; a new log needs one at least.
            settings: its feeder and the like.
            source: who adds it, for the record.
            now: POSIX seconds.

        Raises:
            LogKeyRefused: a key's type is not one that logs sign with, or the name and key ID are taken.
        """
        for key in keys:
            _check_key(origin, key)
        execute = self._connection.execute
        row = execute("SELECT id FROM logs WHERE origin = ?", (origin,)).fetchone()
        new = row is None
        if new:
            if not keys:
                raise LogKeyRefused(f"no key is given for the new log {origin!r}")
            row = execute(
                "INSERT INTO logs (origin, origin_hash, source, added, change)"
                " VALUES (?, ?, ?, ?, (SELECT coalesce(max(change), 0) + 1 FROM logs))"
                " RETURNING id",
                (origin, origin_hash(origin), source, now),
            ).fetchone()
        log_id: int = row[0]
        new_keys = self._trust(log_id, origin, keys, source, now)
        if not new and new_keys:
            self._sanction(log_id, origin, Event("log-keys-added", {
                "origin": origin, "added": [str(key) for key in new_keys], "source": source,
            }), now)  # fmt: skip
        changed = self._apply(log_id, settings)
        if not new and changed:  # a trigger does it for keys
            self._touch(log_id)
        return Added(origin, new, new_keys, changed)

    def change_keys(
        self, origin: str, add: Sequence[VerifierKey], withdraw: Sequence[str], *, source: str, now: int
    ) -> bool:
        """Changes the keys of a known log; whether anything changed. Call it inside `transaction()`.

        What a withdrawn key has signed stays: the head, the evidence. It can be added again.

        Args:
            origin: the log's.
            add: keys to trust from now on.
            withdraw: vkeys, as text, to trust no longer.
            source: who does it, for the record.
            now: POSIX seconds.

        Raises:
            UnknownLog: there is no such log.
            LogKeyRefused: a key cannot be trusted, is not there to be withdrawn, or is the last one.
        """
        record = self.check_keys(origin, add, withdraw)
        added = self._trust(record.log_id, origin, add, source, now)
        for vkey in withdraw:
            self._connection.execute(
                "UPDATE log_keys SET withdrawn = ? WHERE log_id = ? AND vkey = ?", (now, record.log_id, vkey)
            )
        if not added and not withdraw:
            return False
        facts = {
            "origin": origin,
            "added": [str(key) for key in added],
            "withdrawn": list(withdraw),
            "source": source,
        }
        self._sanction(record.log_id, origin, Event("log-keys-changed", facts), now)
        return True

    def check_keys(self, origin: str, add: Sequence[VerifierKey], withdraw: Sequence[str]) -> LogRecord:
        """Whether `change_keys` would do it; the log as it is. Raises what that raises."""
        record, _ = self.get(origin)
        for key in add:
            _check_key(origin, key)
        strange = [vkey for vkey in withdraw if vkey not in record.vkeys]
        if strange:
            raise LogKeyRefused(
                f"{strange[0]} is no key of {origin!r}", "witness logs keys ORIGIN lists them"
            )
        if not {*record.vkeys, *map(str, add)} - set(withdraw) and not record.disabled:
            raise LogKeyRefused(
                f"{origin!r} would have no key left", "add its new key in the same step, or disable it first"
            )
        return record

    def withdrawn(self, origin: str) -> tuple[tuple[str, int], ...]:
        """The keys that are trusted no longer, each with when it was withdrawn (POSIX seconds)."""
        rows = self._connection.execute(
            "SELECT k.vkey, k.withdrawn FROM log_keys k JOIN logs l ON l.id = k.log_id"
            " WHERE l.origin = ? AND k.withdrawn IS NOT NULL ORDER BY k.id",
            (origin,),
        ).fetchall()
        return tuple((vkey, when) for vkey, when in rows)

    def _trust(
        self, log_id: int, origin: str, keys: Sequence[VerifierKey], source: str, now: int
    ) -> tuple[VerifierKey, ...]:
        """Trusts keys; returns those that were not trusted before."""
        rows = self._connection.execute(
            "SELECT vkey, withdrawn IS NULL FROM log_keys WHERE log_id = ?", (log_id,)
        ).fetchall()
        known = {vkey for vkey, trusted in rows if trusted}
        before = {vkey for vkey, trusted in rows if not trusted}
        new = tuple(key for key in dict.fromkeys(keys) if str(key) not in known)
        # Two keys of one name and key ID could not be told apart in a signature line.
        taken = {"+".join(text.split("+")[:2]) for text in known}
        for key in new:
            label = f"{key.name}+{key.key_id.hex()}"
            if label in taken:
                raise LogKeyRefused(f"another key {label} is trusted for {origin!r} already")
            taken.add(label)
            if str(key) in before:
                self._connection.execute(
                    "UPDATE log_keys SET withdrawn = NULL WHERE log_id = ? AND vkey = ?", (log_id, str(key))
                )
            else:
                self._connection.execute(
                    "INSERT INTO log_keys (log_id, vkey, source, added) VALUES (?, ?, ?, ?)",
                    (log_id, str(key), source, now),
                )
        return new

    def _sanction(self, log_id: int, origin: str, event: Event, now: int) -> None:
        """Says that it was an operator: a running core stops a log whose keys change without this."""
        rows = self._connection.execute(
            "SELECT vkey FROM log_keys WHERE log_id = ? AND withdrawn IS NULL", (log_id,)
        )
        sanction_keys(self._connection, origin, digest_of_keys(vkey for (vkey,) in rows.fetchall()))
        leave(self._connection, event, now)

    def note(self, event: Event, now: int) -> None:
        """Leaves something for the record. Call it inside `transaction()`."""
        leave(self._connection, event, now)

    def pin(self, origin: str, checkpoint: Checkpoint, note: bytes, *, source: str, now: int) -> None:
        """Pins the checkpoint that a new log's first contact must extend. Call it in `add`'s transaction.

        In the same transaction, so that no core knows the log without its pin.

        Args:
            origin: the log's.
            checkpoint: its tree size is 1 or more.
            note: the checkpoint as signed by the log, with verified lines only: evidence, if the log departs.
            source: who pins it, for the record.
            now: POSIX seconds.

        Raises:
            UnknownLog: there is no such log.
            StoreError: it has been cosigned, or has a pin.
        """
        record, head = self.get(origin)
        if head is not None or record.pin is not None:
            raise StoreError(
                f"{origin!r} has a start already", "a start is pinned when a log is added, and stays"
            )
        self._connection.execute(
            "INSERT INTO pins (log_id, size, root, note, source, added) VALUES (?, ?, ?, ?, ?, ?)",
            (record.log_id, checkpoint.size, checkpoint.root, note, source, now),
        )

    def set_disabled(self, origin: str, *, disabled: bool) -> bool:
        """Switches a log off or on; False if it was so already. Call it inside `transaction()`.

        Raises:
            UnknownLog: there is no such log.
            LogKeyRefused: it has no key, and is to be switched on.
        """
        record, _ = self.get(origin)
        if record.disabled == disabled:
            return False
        if not disabled and not record.vkeys:
            raise LogKeyRefused(f"{origin!r} has no key", "witness logs keys ORIGIN --add VKEY gives it one")
        self._connection.execute("UPDATE logs SET disabled = ? WHERE id = ?", (disabled, record.log_id))
        self._touch(record.log_id)
        event = Event("log-disabled" if disabled else "log-enabled", {"origin": origin})
        leave(self._connection, event, int(time.time()))
        return True

    def get(self, origin: str) -> tuple[LogRecord, Head | None]:
        """One log and its head.

        Raises:
            UnknownLog: there is no such log.
        """
        for found in load_logs(self._connection, "l.origin = ?", (origin,)):
            return found
        raise UnknownLog(f"no log has the origin {origin!r}", "witness logs list shows the origins")

    def vkeys(self, origin: str) -> tuple[str, ...] | None:
        """The keys trusted for an origin, or None where there is no such log."""
        rows = self._connection.execute(
            "SELECT k.vkey FROM logs l LEFT JOIN log_keys k ON k.log_id = l.id AND k.withdrawn IS NULL"
            " WHERE l.origin = ? ORDER BY k.id",
            (origin,),
        ).fetchall()
        return tuple(vkey for (vkey,) in rows if vkey is not None) if rows else None

    def all(self) -> Iterator[tuple[LogRecord, Head | None]]:
        """Every log with its head, by origin."""
        return load_logs(self._connection, "1 ORDER BY l.origin", ())

    def cosigned(self, origin: str) -> CosignedHead | None:
        """A log's latest cosigned checkpoint, if it was ever cosigned.

        Raises:
            UnknownLog: there is no such log.
        """
        record, head = self.get(origin)
        if head is None:
            return None
        note, cosignatures, *fields = self._connection.execute(
            "SELECT note, cosignatures, size, root, timestamp FROM heads WHERE log_id = ?", (record.log_id,)
        ).fetchone()
        return CosignedHead(Head(*fields), note, cosignatures)

    def count(self) -> int:
        """How many logs are configured."""
        return int(self._connection.execute("SELECT count(*) FROM logs").fetchone()[0])

    def _apply(self, log_id: int, settings: LogSettings) -> bool:
        changed = False
        for column in ("feeder", "url", "interval", "qpd", "contact", "disabled"):
            value = getattr(settings, column)
            if value is None:
                continue
            cursor = self._connection.execute(
                f"UPDATE logs SET {column} = ? WHERE id = ? AND {column} IS NOT ?",  # noqa: S608 - fixed names
                (value, log_id, value),
            )
            changed = changed or cursor.rowcount == 1
        return changed

    def _touch(self, log_id: int) -> None:
        self._connection.execute(
            "UPDATE logs SET change = (SELECT max(change) + 1 FROM logs) WHERE id = ?", (log_id,)
        )


class Transaction:
    """`BEGIN IMMEDIATE … COMMIT`, or ROLLBACK when the block raises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _check_key(origin: str, key: VerifierKey) -> None:
    """Refuses a key that could never be a log's, or never this one's.

    Raises:
        LogKeyRefused: it is one.
    """
    if key.type not in LOG_KEY_TYPES:
        raise LogKeyRefused(
            f"{key.name}+{key.key_id.hex()} has type 0x{key.type:02x}, which logs do not sign with",
            "a type 0x04 key is a witness's; a log's vkey has type 0x01, 0x02, 0x05 or 0x06",
        )
    if key.type == SignatureType.RFC6962 and key.name != origin:
        # SPEC static-ct-api: "The key name of the signature line MUST match the checkpoint origin line."
        raise LogKeyRefused(
            f"{key.name}+{key.key_id.hex()} has type 0x05, whose name must be the origin, {origin!r}",
            "give the origin that the key's name says",
        )
    if not is_usable_key(key):
        raise LogKeyRefused(
            f"{key.name}+{key.key_id.hex()} is no key that could ever verify a signature",
            "copy the vkey again from where the log publishes it",
        )
