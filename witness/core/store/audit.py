"""The record: what matters for trust, in order, each entry bound to the one before it and MACed.

An entry is a JSON object in canonical form (sorted names, no spaces) with the members

    number    counts from 1 without gaps
    seen      POSIX seconds, by our clock, whatever that was worth
    kind      what happened
    facts     an object
    previous  SHA-256 of the entry before, in hexadecimal; 64 zeroes for the first
    key       which MAC key

beside it stands HMAC-SHA256 of the entry. Only the core has the key, and only the core appends. What the
command line did lies in an inbox until the core, running or at its next start, takes it into the record. The
number and hash of the last entry also stand in the high-water record, so that a record cut short is noticed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from witness.core.store.desk import Desk

_START: Final = "00" * 32


class Mac(Protocol):
    """What MACs an entry."""

    label: str

    def mac(self, *parts: bytes) -> bytes:
        """32 bytes."""
        ...

    def fits(self, mac: bytes, *parts: bytes) -> bool:
        """Whether it is right."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be recorded."""

    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it stands."""

    number: int
    record: bytes
    mac: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the entry in hexadecimal: what the next one names as previous."""
        return hashlib.sha256(self.record).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        faults: what is wrong, one line each; empty where all is well.
        entries: how many there are.
        head: number and hash of the last one.
        maced: entries whose MAC was checked; the others are covered by the chain of hashes.
    """

    faults: tuple[str, ...]
    entries: int
    head: tuple[int, str]
    maced: int


def append(desk: Desk, key: Mac, events: Sequence[Event], now: int) -> tuple[int, str]:
    """Appends events, and before them what lies in the inbox; returns the head."""
    with desk.transaction() as connection:
        number, previous = head(desk)
        inbox = connection.execute("SELECT id, seen, kind, facts FROM audit_inbox ORDER BY id").fetchall()
        pending = [(seen, Event(kind, json.loads(facts))) for _, seen, kind, facts in inbox]
        for seen, event in [*pending, *((now, event) for event in events)]:
            number += 1
            record = _canonical(
                {
                    "number": number,
                    "seen": seen,
                    "kind": event.kind,
                    "facts": event.facts,
                    "previous": previous,
                    "key": key.label,
                }
            )
            connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (number, record, key.mac(record)))
            previous = hashlib.sha256(record).hexdigest()
        if inbox:
            connection.execute("DELETE FROM audit_inbox WHERE id <= ?", (inbox[-1][0],))
    return number, previous


def leave(connection: sqlite3.Connection, event: Event, now: int) -> None:
    """Leaves something for the core to record; in the transaction of what is done."""
    connection.execute(
        "INSERT INTO audit_inbox (seen, kind, facts) VALUES (?, ?, ?)",
        (now, event.kind, json.dumps(event.facts, ensure_ascii=False)),
    )


def waiting(desk: Desk) -> bool:
    """Whether something lies in the inbox."""
    return desk.connection.execute("SELECT 1 FROM audit_inbox LIMIT 1").fetchone() is not None


def head(desk: Desk) -> tuple[int, str]:
    """Number and hash of the last entry; (0, zeroes) where there is none."""
    row = desk.connection.execute("SELECT number, record FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return (int(row[0]), hashlib.sha256(row[1]).hexdigest()) if row else (0, _START)


def entries(desk: Desk, after: int | None = None, most: int = -1) -> Iterator[Entry]:
    """The entries after a number, in order; at most `most` of them, or all.

    Without a number they are all that stand in the table, be their numbers what they may: `verify` wants to
    see also what somebody put before the first.
    """
    columns = "SELECT number, record, mac FROM audit"
    if after is None:
        found = desk.connection.execute(f"{columns} ORDER BY number LIMIT ?", (most,))
    else:
        found = desk.connection.execute(f"{columns} WHERE number > ? ORDER BY number LIMIT ?", (after, most))
    for row in found:
        yield Entry(*row)


def verify(
    found: Iterable[Entry], key: Mac | None, anchor: tuple[int, str] = (0, ""), *, signed: bool = True
) -> Verdict:
    """Holds a record against itself, its key, and the head that was noted elsewhere.

    Args:
        found: all entries, in the order in which they stand.
        key: the MAC key; None checks the chain of hashes alone.
        anchor: number and hash of the last entry known elsewhere; number 0 for none.
        signed: whether a last entry under another key is a fault (it is, unless keys were rotated).
    """
    faults: list[str] = []
    previous, number, maced, last_known = _START, 0, 0, True
    anchored = anchor[0] == 0
    for entry in found:
        number += 1
        fault, content = _fault(entry, number, previous)
        if fault:
            faults.append(fault)
            break
        last_known = key is None
        if key is not None and content["key"] == key.label:
            maced, last_known = maced + 1, True
            if not key.fits(entry.mac, entry.record):
                faults.append(f"entry {number}: its MAC is not this witness's")
                break
        previous = entry.digest
        if number == anchor[0]:
            anchored = True
            if previous != anchor[1]:
                faults.append(f"entry {number}: not the one that the high-water record knows")
                break
    if not faults and not anchored:
        faults.append(f"the record ends at entry {number}, and entry {anchor[0]} was written before")
    if not faults and number and not last_known and signed:
        faults.append(f"entry {number}: its MAC is by a key that is not this witness's")
    return Verdict(tuple(faults), number, (number, previous if number else _START), maced)


def _fault(entry: Entry, number: int, previous: str) -> tuple[str, dict[str, Any]]:
    fault = ""
    content: Any = None
    try:
        content = json.loads(entry.record)
        canonical = isinstance(content, dict) and _canonical(content) == entry.record
    except (ValueError, RecursionError):
        canonical = False
    if entry.number != number:
        fault = f"entry {number} is missing: {entry.number} follows {number - 1}"
    elif not canonical:
        fault = f"entry {number}: not in canonical form"
    elif content.get("number") != number:
        fault = f"entry {number}: it says that it is entry {content.get('number')}"
    elif content.get("previous") != previous:
        fault = f"entry {number}: it does not follow the entry before it"
    elif not isinstance(content.get("key"), str):
        fault = f"entry {number}: it names no key"
    return (fault, {}) if fault else ("", content)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
