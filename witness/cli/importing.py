"""Bringing a list of logs into the database: only ever adding, a chunk at a time.

A log that is new is added with all the keys that the list gives for it. A log that is known is left as it
is: a list cannot give it a key, take one away, or switch it on. Where the list shows a key that is not
trusted for a known log, that is told, and an operator may add it by hand.

What is new is added `CHUNK` logs in a transaction, so that the core's own commits wait for milliseconds while
44,000 arrive. An import that fails on the way has added whole chunks, and can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from witness.cli.log_lists import ListedLog
from witness.core.store.logs import LogBook, LogKeyRefused

CHUNK: Final = 200
"""New logs in one transaction: the core's own commits wait for a chunk, not for 44,000 logs."""
PAUSE: Final = 0.01
"""Seconds between two chunks, for those who waited."""


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key that the list gives for a known log, and that is not trusted for it."""

    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A key that was not taken: no log can sign with it, or one of the same name and key ID stands there."""

    origin: str
    vkey: str
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What a list says that the database does not.

    Attributes:
        new: logs that are not known, one entry an origin with all its keys.
        changed: keys that the list gives for known logs and that are not trusted for them.
        known: logs that are known, with no other key.
    """

    new: tuple[ListedLog, ...]
    changed: tuple[ChangedKey, ...]
    known: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: origins added, how many were known and unchanged, and what was not taken."""

    added: tuple[str, ...]
    known: int
    changed: tuple[ChangedKey, ...]
    refused: tuple[RefusedKey, ...]


def difference(trusted: Mapping[str, Sequence[str]], listed: Iterable[ListedLog]) -> Difference:
    """Compares a list with the vkeys that are trusted by origin."""
    new, changed, known = [], [], 0
    for log in _merged(listed):
        if log.origin not in trusted:
            new.append(log)
            continue
        others = _others(log, trusted[log.origin])
        changed += others
        known += not others
    return Difference(tuple(new), tuple(changed), known)


def trusted_keys(book: LogBook) -> dict[str, tuple[str, ...]]:
    """The vkeys trusted for each origin, as text."""
    return {record.origin: record.vkeys for record, _ in book.all()}


def import_logs(
    book: LogBook,
    listed: Iterable[ListedLog],
    *,
    source: str,
    now: int,
    pause: Callable[[float], None] = time.sleep,
) -> Imported:
    """Adds what is new in a list.

    Args:
        book: the logs table.
        listed: the list.
        source: where the list is from, for the record; an entry's own source is added to it.
        now: POSIX seconds.
        pause: waits between two chunks.

    Raises:
        sqlite3.Error: the database failed; chunks before that were added.
    """
    found = difference(trusted_keys(book), listed)
    added: list[str] = []
    changed, known = list(found.changed), found.known
    refused: list[RefusedKey] = []
    for start in range(0, len(found.new), CHUNK):
        with book.transaction():
            for log in found.new[start : start + CHUNK]:
                # Looked up once more inside the transaction: somebody may have added it meanwhile.
                trusted = book.vkeys(log.origin)
                if trusted is not None:
                    others = _others(log, trusted)
                    changed += others
                    known += not others
                    continue
                refusals = _add(book, log, f"{source}: {log.source}" if log.source else source, now)
                if len(refusals) < len(log.vkeys):
                    added.append(log.origin)
                refused += refusals
        pause(PAUSE)
    return Imported(tuple(added), known, tuple(changed), tuple(refused))


def _merged(logs: Iterable[ListedLog]) -> Iterable[ListedLog]:
    """One entry an origin, in the list's order: lists name a log once for each of its keys."""
    merged: dict[str, ListedLog] = {}
    for log in logs:
        before = merged.get(log.origin)
        merged[log.origin] = log if before is None else replace(before, vkeys=before.vkeys + log.vkeys)
    return merged.values()


def _others(log: ListedLog, trusted: Sequence[str]) -> list[ChangedKey]:
    """The keys that a list gives for a known log and that are not trusted for it."""
    return [ChangedKey(log.origin, str(key)) for key in log.vkeys if str(key) not in trusted]


def _add(book: LogBook, log: ListedLog, source: str, now: int) -> list[RefusedKey]:
    """Adds a log; what was refused of its keys, which does not keep the others away."""
    try:
        book.add(log.origin, log.vkeys, log.settings, source=source, now=now)
    except LogKeyRefused:
        refusals = []
        for key in log.vkeys:
            try:
                book.add(log.origin, (key,), log.settings, source=source, now=now)
            except LogKeyRefused as refusal:
                refusals.append(RefusedKey(log.origin, str(key), refusal.reason))
        return refusals
    return []
