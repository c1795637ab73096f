"""Bringing a list of logs into the database: only ever adding.

A log that is new is added with all the keys that the list gives for it. A log that is known is left as it
is: a list cannot give it a key, take one away, or switch it on. Where the list shows a key that is not
trusted for a known log, that is told, and an operator may add it by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from witness.cli.log_lists import ListedLog
from witness.core.store.logs import LogBook, LogKeyRefused


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
class Imported:
    """What an import did: origins added, how many were known and unchanged, and what was not taken."""

    added: tuple[str, ...]
    known: int
    changed: tuple[ChangedKey, ...]
    refused: tuple[RefusedKey, ...]


def import_logs(book: LogBook, logs: Iterable[ListedLog], *, source: str, now: int) -> Imported:
    """Adds what is new, in one transaction: all of the list or, where that fails, nothing of it.

    Args:
        book: the logs table.
        logs: the list.
        source: where the list is from, for the record.
        now: POSIX seconds.

    Raises:
        sqlite3.Error: the database failed; nothing was added.
    """
    added: list[str] = []
    changed: list[ChangedKey] = []
    refused: list[RefusedKey] = []
    known = 0
    with book.transaction():
        for log in _merge(logs):
            # Looked up inside the transaction: nobody adds a log between the look and the leap.
            trusted = book.vkeys(log.origin)
            if trusted is None:
                refusals = _add(book, log, source, now)
                if len(refusals) < len(log.vkeys):
                    added.append(log.origin)
                refused += refusals
                continue
            others = [str(key) for key in log.vkeys if str(key) not in trusted]
            changed += [ChangedKey(log.origin, vkey) for vkey in others]
            known += not others
    return Imported(tuple(added), known, tuple(changed), tuple(refused))


def _merge(logs: Iterable[ListedLog]) -> Iterable[ListedLog]:
    """One entry an origin, in the list's order: lists name a log once for each of its keys."""
    merged: dict[str, ListedLog] = {}
    for log in logs:
        before = merged.get(log.origin)
        merged[log.origin] = log if before is None else replace(before, vkeys=before.vkeys + log.vkeys)
    return merged.values()


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
