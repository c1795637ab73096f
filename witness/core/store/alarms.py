"""Alarms: what stops signing until an operator has decided. They outlive the process that raised them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from witness.core.store.desk import Desk

_COLUMNS: Final = "kind, origin, raised, have, seen, root, stamp, source, detail, note, id, settled, how"


class Kind(StrEnum):
    """Why signing stops."""

    STATE_BEHIND = "state-behind"
    """A log's head is smaller or older than what this identity has signed."""
    OTHER_ROOT = "other-root"
    """This identity has signed another root for the size that our head has: a second copy has run."""
    SECOND_COPY = "second-copy"
    """This identity has signed what this state knows nothing of, at the same size: a second copy runs."""
    RESTORED = "restored"
    """The state comes from a backup and was not brought forward yet."""
    RECORD_LOST = "record-lost"
    """The high-water record that the database knows of is gone, or another's."""
    RECORD_INVALID = "record-invalid"
    """The high-water record is there and was not written by this witness."""
    AUDIT_BEHIND = "audit-behind"
    """The record of events is shorter than it was, or another one: the database is older than it was."""
    COUNTER = "counter"
    """The hardware counter stands elsewhere than this state says."""
    DEVICE = "device"
    """The device that has the counter is another, or was wiped."""
    LOG_KEY = "log-key"
    """A known log's keys were changed by no operator's command. Stops that log alone."""
    ABANDONED = "abandoned"
    """A log that could not be brought forward was given up: it is never signed again. That log alone."""
    RETIRED_KEY = "retired-key"
    """A key that was retired is here again, as if it were not: keys and database are from before that."""
    RETIRED = "retired"
    """The identity was retired by its operator: it never signs again."""


FOR_GOOD: Final = frozenset({Kind.ABANDONED, Kind.RETIRED, Kind.OTHER_ROOT})
"""Kinds that nothing settles."""
ONE_LOG: Final = frozenset({Kind.LOG_KEY, Kind.ABANDONED})
"""Kinds that stop the log they name, and no other."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    Attributes:
        kind: why.
        origin: the log it is about, or empty.
        raised: POSIX seconds.
        have: the tree size that our state has, -1 for no head; None where sizes are not the matter.
        seen: the tree size that was signed.
        root: its root hash, 32 bytes, where known.
        stamp: the timestamp of that signature, 0 where unknown.
        source: where it was seen.
        detail: more words.
        note: the checkpoint with our own cosignature, where that is the evidence.
        number: its row, 0 before it is stored.
        settled: POSIX seconds, None while it stands.
        how: by what it was settled.
    """

    kind: Kind
    origin: str
    raised: int
    have: int | None
    seen: int | None
    root: bytes | None
    stamp: int
    source: str
    detail: str = ""
    note: bytes | None = None
    number: int = 0
    settled: int | None = None
    how: str | None = None

    def __str__(self) -> str:
        """One line that names the log, the two sizes, and where the larger was seen."""
        where = f" {self.origin!r}" if self.origin else ""
        sizes = ""
        if self.seen is not None:
            have = "no checkpoint" if self.have is None or self.have < 0 else f"size {self.have}"
            sizes = f": {have} here, size {self.seen} was cosigned, seen in {self.source}"
        elif self.source:
            sizes = f": seen in {self.source}"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind}{where}{sizes}{detail}"


def raise_alarm(desk: Desk, alarm: Alarm) -> bool:
    """Stores an alarm; False where one of its kind and origin stands that says as much or more."""
    with desk.transaction() as connection:
        row = connection.execute(
            "SELECT id, seen, stamp FROM alarms WHERE kind = ? AND origin = ? AND settled IS NULL",
            (alarm.kind, alarm.origin),
        ).fetchone()
        values = (
            alarm.have, alarm.seen, alarm.root, alarm.stamp, alarm.source, alarm.detail, alarm.note,
        )  # fmt: skip
        if row is None:
            connection.execute(
                "INSERT INTO alarms (kind, origin, raised, have, seen, root, stamp, source, detail, note)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (alarm.kind, alarm.origin, alarm.raised, *values),
            )
            return True
        number, seen, stamp = row
        if (alarm.seen or 0, alarm.stamp) <= (seen or 0, stamp):
            return False
        connection.execute(
            "UPDATE alarms SET have = ?, seen = ?, root = ?, stamp = ?, source = ?, detail = ?, note = ?"
            " WHERE id = ?",
            (*values, number),
        )
        return True


def standing(desk: Desk) -> tuple[Alarm, ...]:
    """The alarms that are not settled, oldest first."""
    return _select(desk, "settled IS NULL ORDER BY id")


def settle(desk: Desk, alarm: Alarm, how: str, now: int) -> None:
    """Marks an alarm as settled."""
    with desk.transaction() as connection:
        connection.execute(
            "UPDATE alarms SET settled = ?, how = ? WHERE id = ? AND settled IS NULL",
            (now, how, alarm.number),
        )


def _select(desk: Desk, where: str) -> tuple[Alarm, ...]:
    rows = desk.connection.execute(f"SELECT {_COLUMNS} FROM alarms WHERE {where}")  # noqa: S608 - fixed texts
    return tuple(Alarm(Kind(row[0]), *row[1:]) for row in rows.fetchall())
