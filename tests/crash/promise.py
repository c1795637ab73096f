"""The one promise, as something that can be checked from outside.

A `Ledger` notes every cosignature that any client ever saw, over restarts and kills, and holds them against
the true histories of the simulated logs: no two cosigned checkpoints of one origin may be inconsistent, sizes
and timestamps never go back, and what was seen is in the state.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulated_log import SimulatedLog
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.note import VerifierKey, parse_note
from witness.tlog.signature import cosignature_timestamp, verify_note


class PromiseBroken(AssertionError):
    """The witness did what it must never do."""


@dataclass(frozen=True)
class Cosigned:
    """One cosigned checkpoint that somebody has seen."""

    size: int
    root: bytes
    timestamp: int


@dataclass
class Chain:
    """What was seen of one origin: it must all lie in one history."""

    sizes: list[int] = field(default_factory=list)  # in order
    roots: dict[int, bytes] = field(default_factory=dict)
    latest: int = 0  # the largest timestamp


@dataclass
class Ledger:
    """All that was ever seen of a witness. Threads may report to it.

    Attributes:
        vkeys: the witness's keys.
        histories: for each origin every history that the log may tell: its honest one and its lies.
    """

    vkeys: tuple[VerifierKey, ...]
    histories: dict[str, list[SimulatedLog]]
    seen: dict[str, Chain] = field(default_factory=dict)
    disk: dict[str, Cosigned] = field(default_factory=dict)
    answers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, body: bytes, lines: bytes) -> Cosigned:
        """A client was answered an add-checkpoint with these lines."""
        return self.served(body.partition(b"\n\n")[2] + lines)

    def served(self, note_bytes: bytes) -> Cosigned:
        """Somebody was given this cosigned checkpoint."""
        note = parse_note(note_bytes)
        verified = verify_note(note, self.vkeys)
        if len({v.key for v in verified}) != len(self.vkeys):
            raise PromiseBroken("an answer without a cosignature by every key")
        times = {cosignature_timestamp(v.key, v.signature.value) for v in verified}
        checkpoint = parse_checkpoint(note.text)
        (timestamp,) = times
        if timestamp is None or timestamp <= 0:
            raise PromiseBroken("a cosignature without a time")
        found = Cosigned(checkpoint.size, checkpoint.root, timestamp)
        with self.lock:
            self.answers += 1
            self._add(self.seen.setdefault(checkpoint.origin, Chain()), checkpoint)
            chain = self.seen[checkpoint.origin]
            chain.latest = max(chain.latest, timestamp)
        return found

    def _add(self, chain: Chain, checkpoint: Checkpoint) -> None:
        """Consistency is transitive: who agrees with both neighbours agrees with all."""
        size, root = checkpoint.size, checkpoint.root
        if size in chain.roots:
            if chain.roots[size] != root:
                raise PromiseBroken(f"two roots of {checkpoint.origin} at size {size} are cosigned")
            return
        at = bisect(chain.sizes, size)
        for neighbour in chain.sizes[max(0, at - 1) : at + 1]:
            self._consistent(checkpoint.origin, (size, root), (neighbour, chain.roots[neighbour]))
        chain.sizes.insert(at, size)
        chain.roots[size] = root

    def _consistent(self, origin: str, one: tuple[int, bytes], other: tuple[int, bytes]) -> None:
        (old_size, old_root), (size, root) = sorted([one, other])
        for history in self.histories[origin]:
            # If anybody can prove it, it is consistent, whosever history it is.
            if history.size >= size and history.root(size) == root:
                proof = history.proof(old_size, size)
                try:
                    merkle.verify_consistency(
                        old_size, size, old_root if old_size else merkle.EMPTY_ROOT, root, proof
                    )
                except merkle.InvalidProof:
                    continue
                return
        raise PromiseBroken(f"{origin}: sizes {old_size} and {size} are inconsistent")

    def check_state(self, database: Path) -> None:
        """Reads the state as it stands on disk: it never goes back, and holds all that was seen."""
        with self.lock:  # what was seen before we look: clients may go on meanwhile
            due = [
                (origin, Cosigned(chain.sizes[-1], chain.roots[chain.sizes[-1]], chain.latest))
                for origin, chain in self.seen.items()
            ]
            due += list(self.disk.items())
        reader = sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=20)
        try:
            rows = reader.execute(
                "SELECT l.origin, h.size, h.root, h.timestamp, h.note, h.cosignatures"
                " FROM heads h JOIN logs l ON l.id = h.log_id"
            ).fetchall()
            (integrity,) = reader.execute("PRAGMA integrity_check").fetchone()
        finally:
            reader.close()
        if integrity != "ok":
            raise PromiseBroken(f"the database is damaged: {integrity}")
        stored = {}
        for origin, size, root, timestamp, note, cosignatures in rows:
            head = Cosigned(size, root, timestamp)
            if self.served(note + cosignatures) != head:
                raise PromiseBroken(f"{origin}: what is stored is not what was signed")
            stored[origin] = head
        for origin, before in due:
            self._not_back(origin, before, stored.get(origin))
        with self.lock:
            self.disk = stored

    @staticmethod
    def _not_back(origin: str, before: Cosigned, now: Cosigned | None) -> None:
        if now is None:
            raise PromiseBroken(f"{origin}: cosigned at {before.size}, and the state has forgotten it")
        if now.size < before.size or now.timestamp < before.timestamp:
            raise PromiseBroken(f"{origin}: the state went back from {before} to {now}")
        if now.size == before.size and now.root != before.root:
            raise PromiseBroken(f"{origin}: another root than the one seen at size {now.size}")
