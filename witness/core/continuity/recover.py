"""The way out of an alarm, for an operator's hand.

Rules of this file:

- A head moves forward only, and only where the log itself proves, by a checkpoint that it signed and by
  consistency proofs, that its tree contains what we have *and* what we are known to have signed.
- What cannot be brought forward is given up for good, or keeps signing stopped. Nothing is waved through.
- A head that was brought forward carries no cosignature of ours until the log asks for one again.

The core holds the settled state against the high-water record once more, so that a settlement by other means
than these lasts only until then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from witness.core.clock import ACCEPTED as ACCEPTED_CLOCK
from witness.core.clock import EARLIEST, MAX_GAP
from witness.core.continuity.counter import ACCEPTED, SEEN
from witness.core.continuity.memory import MADE_ANEW, sanction_keys
from witness.core.refusals import Refusal
from witness.core.store import alarms
from witness.core.store.alarms import FOR_GOOD, Alarm, Kind
from witness.core.store.audit import Event, leave
from witness.core.store.base import Head, LogRecord, StoreError
from witness.core.store.desk import Desk
from witness.core.store.sqlite import load_logs
from witness.core.verifier import authenticate
from witness.tlog.merkle import EMPTY_ROOT, InvalidProof, verify_consistency
from witness.tlog.note import format_note, parse_vkey
from witness.tlog.submission import AddCheckpoint

ABOUT_THE_RECORD: Final = frozenset({Kind.RECORD_LOST, Kind.RECORD_INVALID})
"""Alarms that are over once a core has begun the high-water record anew."""
BLIND: Final = ABOUT_THE_RECORD | {Kind.COUNTER}
"""Alarms that say that state is old without saying which logs: all have to be brought forward."""
BY_ITSELF: Final = BLIND | {Kind.RESTORED, Kind.AUDIT_BEHIND, Kind.DEVICE, Kind.RETIRED_KEY}
"""Alarms that are over once no log is behind."""

ABOUT_A_HEAD: Final = frozenset({Kind.STATE_BEHIND, Kind.SECOND_COPY})
"""Alarms that are over once the log that they name was brought forward, or given up."""


class CannotRecover(StoreError):
    """What was asked would break the one promise, or what was given does not prove what it must."""


@dataclass(frozen=True, slots=True)
class Behind:
    """A log to be brought forward.

    Attributes:
        record: the log as configured; None where it is not.
        origin: its origin.
        head: what our state has.
        size: the tree size up to which this identity is known to have signed.
        root: the root hash there; None where only our own head is known.
        stamp: the timestamp of that signature.
        source: where it was seen.
        copy: whether a second copy of this witness made it.
    """

    record: LogRecord | None
    origin: str
    head: Head | None
    size: int
    root: bytes | None
    stamp: int
    source: str
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What stands, and what has to be brought forward before it is settled."""

    alarms: tuple[Alarm, ...]
    behind: tuple[Behind, ...]
    forgotten: bool = False
    """The database was made in place of a lost one, so that without the record nothing says how far to go."""

    @property
    def for_good(self) -> tuple[Alarm, ...]:
        """Alarms that stop the whole witness and that nothing settles."""
        final = FOR_GOOD - {Kind.ABANDONED} | (BLIND if self.forgotten else frozenset())
        return tuple(each for each in self.alarms if each.kind in final)


def plan(desk: Desk) -> Plan:
    """What there is to do."""
    standing = alarms.standing(desk)
    given_up = {alarm.origin for alarm in standing if alarm.kind is Kind.ABANDONED}
    behind: dict[str, Behind] = {}
    for alarm in standing:
        if alarm.kind in ABOUT_A_HEAD and alarm.seen is not None and alarm.origin not in given_up:
            record, head = _log(desk, alarm.origin)
            behind[alarm.origin] = Behind(
                record, alarm.origin, head, alarm.seen, alarm.root, alarm.stamp, alarm.source,
                copy=alarm.kind is Kind.SECOND_COPY,
            )  # fmt: skip
    if any(alarm.kind in BLIND for alarm in standing):
        for record, head in load_logs(desk.connection, "h.cosignatures <> x'' ORDER BY l.origin", ()):
            if head is not None and record.origin not in behind and record.origin not in given_up:
                behind[record.origin] = Behind(
                    record, record.origin, head, head.size, None, head.timestamp, "nowhere: it is not known"
                )
    return Plan(standing, tuple(behind.values()), desk.fact(MADE_ANEW) is not None)


def bring_forward(desk: Desk, behind: Behind, submissions: Sequence[AddCheckpoint], now: int) -> Head:
    """Moves a log's head to a checkpoint that the log proves to contain all that we signed.

    Args:
        desk: the database.
        behind: what to bring forward.
        submissions: add-checkpoint bodies with one and the same checkpoint: one from the size that was seen,
            and one from our own head's size, where that is another.
        now: POSIX seconds.

    Returns:
        The new head.

    Raises:
        CannotRecover: the log is not configured, or this is not proof.
    """
    record, head = behind.record, behind.head
    if record is None:
        raise CannotRecover(
            f"{behind.origin!r} is not configured, so that its checkpoints cannot be checked",
            "witness logs add it again first, or give it up",
        )
    if not submissions:
        raise CannotRecover(f"nothing was given for {behind.origin!r}")
    checkpoint = submissions[0].checkpoint
    if any(each.checkpoint != checkpoint for each in submissions):
        raise CannotRecover("the proofs are for different checkpoints")
    if checkpoint.origin != behind.origin:
        raise CannotRecover(f"a checkpoint of {checkpoint.origin!r} says nothing about {behind.origin!r}")
    try:
        lines = authenticate(submissions[0], [parse_vkey(text) for text in record.vkeys])
    except Refusal as error:
        raise CannotRecover(f"the checkpoint is not the log's: {error}") from error
    proofs = {each.old_size: each.proof for each in submissions}
    known = [(behind.size, behind.root)] if behind.root is not None else []
    if head is not None:
        known.append((head.size, head.root))
    for size, root in known:
        _prove(checkpoint.size, checkpoint.root, size, root, proofs)
    after = Head(
        checkpoint.size, checkpoint.root, max(behind.stamp, head.timestamp if head else 0, 1)
    )  # fmt: skip
    with desk.transaction() as connection:
        _move(connection, record.log_id, head, after, format_note(checkpoint.text(), lines))
        for alarm in alarms.standing(desk):
            if alarm.origin == behind.origin and alarm.kind in ABOUT_A_HEAD:
                alarms.settle(desk, alarm, f"brought forward to size {after.size}", now)
        event = Event(
            "brought-forward",
            {
                "origin": behind.origin,
                "from": head.size if head else -1,
                "to": after.size,
                "seen": behind.size,
            },
        )
        leave(connection, event, now)
    return after


def give_up(desk: Desk, behind: Behind, now: int) -> None:
    """Gives a log up: this identity never signs it again, and it no longer stops the others."""
    with desk.transaction() as connection:
        for alarm in alarms.standing(desk):
            if alarm.origin == behind.origin and alarm.kind in ABOUT_A_HEAD:
                alarms.settle(desk, alarm, "given up", now)
        have = behind.head.size if behind.head else -1
        alarms.raise_alarm(
            desk,
            Alarm(
                Kind.ABANDONED, behind.origin, now, have, behind.size, behind.root, behind.stamp,
                behind.source, "given up by an operator",
            ),
        )  # fmt: skip
        leave(connection, Event("given-up", {"origin": behind.origin, "seen": behind.size}), now)


def settle_what_is_over(desk: Desk, now: int, *, running: bool = True) -> tuple[Alarm, ...]:
    """Settles the alarms that were about no log, once no log is behind; returns them.

    Args:
        desk: the database.
        now: POSIX seconds.
        running: whether a core runs, which begins a high-water record anew once its loss is settled. One that
            starts later would find it lost again.
    """
    found = plan(desk)
    if found.behind or found.for_good:
        return ()
    kinds = (BY_ITSELF | ABOUT_A_HEAD) - (frozenset() if running else ABOUT_THE_RECORD)
    over = tuple(alarm for alarm in found.alarms if alarm.kind in kinds)
    with desk.transaction() as connection:
        for alarm in over:
            alarms.settle(desk, alarm, "no log is behind any more", now)
            leave(connection, Event("alarm-settled", {"alarm": alarm.kind}), now)
        for alarm in over:
            if alarm.kind is Kind.COUNTER and (seen := desk.fact(SEEN)) is not None:
                desk.set_fact(ACCEPTED, f"{seen} {alarm.raised}")
        if any(alarm.kind is Kind.RESTORED for alarm in over):
            connection.execute("DELETE FROM facts WHERE name = 'restored'")
    return over


def accept_keys(desk: Desk, origin: str, digest: str, now: int) -> None:
    """Accepts a log's changed keys, on an operator's word."""
    with desk.transaction() as connection:
        sanction_keys(connection, origin, digest)
        for alarm in alarms.standing(desk):
            if alarm.origin == origin and alarm.kind is Kind.LOG_KEY:
                alarms.settle(desk, alarm, "an operator accepted the keys", now)
        leave(connection, Event("log-keys-accepted", {"origin": origin, "keys": digest}), now)


@dataclass(frozen=True, slots=True)
class Standstill:
    """How the clock stands beside the last timestamp issued, all POSIX seconds.

    Attributes:
        now: the clock.
        issued: the latest timestamp of any head; 0 where there is none.
        accepted: when an operator last said that the clock is right; 0 for never.
    """

    now: int
    issued: int
    accepted: int

    @property
    def too_long(self) -> bool:
        """Whether a core that starts now takes the clock for wrong."""
        return bool(self.issued) and self.now - max(self.issued, self.accepted) > MAX_GAP


def standstill(desk: Desk, now: int) -> Standstill:
    """How long nothing was signed."""
    row = desk.one("SELECT coalesce(max(timestamp), 0) FROM heads")
    return Standstill(now, int(row[0]) if row else 0, int(desk.fact(ACCEPTED_CLOCK) or 0))


def accept_clock(desk: Desk, now: int) -> None:
    """Takes an operator's word that the clock, which shows `now`, is right.

    Raises:
        CannotRecover: it is not: it is behind what was issued, or before this program was made.
    """
    found = standstill(desk, now)
    if now < found.issued:
        raise CannotRecover(
            f"the clock is {found.issued - now} s behind a timestamp that was issued",
            "set it right; nothing is ever signed with an earlier time than before",
        )
    if now < EARLIEST:
        raise CannotRecover("the clock shows a time before this program was made", "set it right")
    with desk.transaction() as connection:
        desk.set_fact(ACCEPTED_CLOCK, str(now))
        leave(connection, Event("clock-accepted", {"now": now, "issued": found.issued}), now)


def _prove(
    size: int, root: bytes, old_size: int, old_root: bytes, proofs: dict[int, tuple[bytes, ...]]
) -> None:
    if size < old_size:
        raise CannotRecover(
            f"the log's checkpoint has size {size}, and this identity has signed size {old_size}",
            "wait until the log has grown beyond that; a log that lost what it published must explain itself",
        )
    if old_size in (size, 0):
        if size == old_size and root != old_root:
            raise CannotRecover(f"the log shows another root at size {size} than this identity has signed")
        if old_size == 0 and old_root != EMPTY_ROOT:
            raise CannotRecover("the root of an empty tree is wrong")
        return
    if old_size not in proofs:
        raise CannotRecover(f"a consistency proof from size {old_size} is missing")
    try:
        verify_consistency(old_size, size, old_root, root, proofs[old_size])
    except InvalidProof as error:
        raise CannotRecover(
            f"the log does not prove that its tree of size {size} contains that of size {old_size}:"
            f" {error.reason}",
            "if the log's server told the truth, the log has forked: witness evidence list",
        ) from error


def _move(connection: sqlite3.Connection, log_id: int, before: Head | None, after: Head, note: bytes) -> None:
    values = (after.size, after.root, after.timestamp, note)
    if before is None:
        cursor = connection.execute(
            "INSERT INTO heads (size, root, timestamp, note, log_id, cosignatures)"
            " VALUES (?, ?, ?, ?, ?, x'') ON CONFLICT DO NOTHING",
            (*values, log_id),
        )
    else:
        cursor = connection.execute(
            "UPDATE heads SET size = ?, root = ?, timestamp = ?, note = ?, cosignatures = x''"
            " WHERE log_id = ? AND size = ? AND root = ?",
            (*values, log_id, before.size, before.root),
        )
    if cursor.rowcount != 1:
        raise CannotRecover("the log's head has moved meanwhile", "try again")
    connection.execute("UPDATE logs SET change = (SELECT max(change) + 1 FROM logs) WHERE id = ?", (log_id,))


def _log(desk: Desk, origin: str) -> tuple[LogRecord | None, Head | None]:
    found: Iterable[tuple[LogRecord, Head | None]] = load_logs(desk.connection, "l.origin = ?", (origin,))
    for record, head in found:
        return record, head
    return None, None


def retire(desk: Desk, now: int) -> None:
    """Ends this identity: it never signs again."""
    with desk.transaction() as connection:
        alarm = Alarm(Kind.RETIRED, "", now, None, None, None, 0, "an operator", "retired")
        alarms.raise_alarm(desk, alarm)
        leave(connection, Event("retired", {}), now)
