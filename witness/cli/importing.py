"""Bringing a list of logs into the database: only ever adding.

A log that is new is added with all the keys that the list gives for it. A log that is known is left as it
is: a list cannot give it a key, take one away, or switch it on. Where the list shows a key that is not
trusted for a known log, that is told, and an operator may add it by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from witness.cli.log_lists import ListedLog
from witness.core.store.logs import LogBook
from witness.tlog.note import VerifierKey


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key that the list gives for a known log, and that is not trusted for it."""

    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class Clash:
    """A key that was not taken: another of the same name and key ID stands beside it in the list."""

    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: origins added, how many were known and unchanged, and what was not taken."""

    added: tuple[str, ...]
    known: int
    changed: tuple[ChangedKey, ...]
    clashes: tuple[Clash, ...]


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
    merged, clashes = _merge(logs)
    added: list[str] = []
    changed: list[ChangedKey] = []
    known = 0
    with book.transaction():
        # Read inside the transaction: nobody adds a log between the look and the leap.
        trusted = {record.origin: record.vkeys for record, _ in book.all()}
        for log in merged:
            if log.origin not in trusted:
                book.add(log.origin, log.vkeys, log.settings, source=source, now=now)
                added.append(log.origin)
                continue
            others = [str(key) for key in log.vkeys if str(key) not in trusted[log.origin]]
            changed += [ChangedKey(log.origin, vkey) for vkey in others]
            known += not others
    return Imported(tuple(added), known, tuple(changed), tuple(clashes))


def _merge(logs: Iterable[ListedLog]) -> tuple[list[ListedLog], list[Clash]]:
    """One entry an origin, in the list's order: lists name a log once for each of its keys."""
    merged: dict[str, ListedLog] = {}
    labels: dict[tuple[str, str, bytes], VerifierKey] = {}
    clashes: list[Clash] = []
    for log in logs:
        keys = []
        for key in log.vkeys:
            # Two keys of one name and key ID could not be told apart in a signature line; the first holds.
            first = labels.setdefault((log.origin, key.name, key.key_id), key)
            if first is key:
                keys.append(key)
            elif first != key:
                clashes.append(Clash(log.origin, str(key)))
        if log.origin in merged:
            before = merged[log.origin]
            merged[log.origin] = replace(before, vkeys=before.vkeys + tuple(keys))
        else:
            merged[log.origin] = replace(log, vkeys=tuple(keys))
    return list(merged.values()), clashes
