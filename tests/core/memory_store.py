"""A store in a dict that keeps the contract of `Store`, so that the contract is not just what SQLite does."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence

from witness.core.store.base import Advance, Contradiction, CosignedHead, Head, Identity, LogRecord
from witness.core.store.sqlite import MAX_CONTRADICTIONS_PER_LOG
from witness.tlog.checkpoint import origin_hash


class Shared:
    """What several connections of one memory database share."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.lock = threading.RLock()
        self.logs: dict[int, LogRecord] = {}
        self.heads: dict[int, CosignedHead] = {}
        self.contradictions: dict[tuple[bytes, bytes], Contradiction] = {}
        self.writes: list[object] = []  # who wrote, in order


class MemoryStore:
    """One connection to a `Shared`."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._seen = len(shared.writes)

    def configure(self, origin: str, vkeys: tuple[str, ...], *, disabled: bool = False) -> int:
        """Adds a log or changes it, as an operator's hand does."""
        shared = self.shared
        with shared.lock:
            known = next((log for log in shared.logs.values() if log.origin == origin), None)
            log_id = known.log_id if known else len(shared.logs) + 1
            change = 1 + max((log.change for log in shared.logs.values()), default=0)
            shared.logs[log_id] = LogRecord(
                log_id, origin, vkeys, disabled, "none", None, None, None, None, "test", 1, change
            )
            shared.writes.append(self)
            return log_id

    def identity(self) -> Identity:
        return self.shared.identity

    def load(self, since: int = 0, limit: int = -1) -> Iterator[tuple[LogRecord, Head | None]]:
        with self.shared.lock:
            logs = sorted((r for r in self.shared.logs.values() if r.change > since), key=lambda r: r.change)
            for record in logs if limit < 0 else logs[:limit]:
                yield record, self.head(record.log_id)

    def head(self, log_id: int) -> Head | None:
        cosigned = self.cosigned_by_id(log_id)
        return cosigned.head if cosigned else None

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        made = []
        with self.shared.lock:
            for move in moves:
                stored = self.head(move.log_id)
                before, after = move.before, move.after.head
                same = (
                    stored is None
                    if before is None
                    else stored is not None
                    and (stored.size, stored.root) == (before.size, before.root)
                    and stored.timestamp <= after.timestamp
                )
                if same:
                    self.shared.heads[move.log_id] = move.after
                    self.shared.writes.append(self)
                made.append(same)
        return made

    def cosigned(self, origin_hash: bytes) -> CosignedHead | None:
        with self.shared.lock:
            for record in self.shared.logs.values():
                if _hash(record.origin) == origin_hash:
                    return self.cosigned_by_id(record.log_id)
        return None

    def cosigned_by_id(self, log_id: int) -> CosignedHead | None:
        with self.shared.lock:
            return self.shared.heads.get(log_id)

    def last_timestamp(self) -> int:
        with self.shared.lock:
            return max((cosigned.head.timestamp for cosigned in self.shared.heads.values()), default=0)

    def keep_contradiction(self, contradiction: Contradiction) -> bool:
        kept = self.shared.contradictions
        with self.shared.lock:
            share = sum(c.log_id == contradiction.log_id for c in kept.values())
            pair = (contradiction.stored, contradiction.offered)
            if pair in kept or share >= MAX_CONTRADICTIONS_PER_LOG:
                return False
            kept[pair] = dataclasses.replace(contradiction)
            self.shared.writes.append(self)
            return True

    def contradictions(self) -> int:
        with self.shared.lock:
            return len(self.shared.contradictions)

    def try_write(self) -> None:
        pass

    def changed(self) -> bool:
        with self.shared.lock:
            news, self._seen = self.shared.writes[self._seen :], len(self.shared.writes)
            return any(who is not self for who in news)

    def close(self) -> None:
        pass


_hash = origin_hash
