"""What the core asks of a store, and the values it stores.

The store is small on purpose: it moves heads by compare-and-swap, keeps what contradicts them, and never
deletes either. Judgement stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """The store cannot do what was asked; `hint` tells the operator what to do next."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class MissingStore(StoreError):
    """There is no database where one must be. Never created in passing: see DESIGN.md, rule 4."""


class UnknownSchema(StoreError):
    """The database was written by a newer program, or is none of ours."""


class StoreBroken(StoreError):
    """A transaction failed; nothing of it may be taken as made.

    `lasting`: what is on disk is unknown, and every later write fails too until the store is opened anew.
    """

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A configured log.

    Attributes:
        log_id: the row's number.
        origin: the checkpoint origin.
        vkeys: the keys trusted for the origin, as text, oldest first.
        disabled: switched off by an operator; its head stays.
        feeder: the family to poll, or "none".
        url: where to poll, if at all.
        interval: seconds between polls, if not the default.
        qpd: add-checkpoint requests a day the log may make, if declared.
        contact: how people reach the log's operator.
        source: who added it: "cli", "list FILE", …
        added: POSIX seconds.
        change: number of the last change to this row or its keys; grows over the whole store.
        pin: the checkpoint that the first contact must extend, as a head without a timestamp (0), or None.
    """

    log_id: int
    origin: str
    vkeys: tuple[str, ...]
    disabled: bool
    feeder: str
    url: str | None
    interval: float | None
    qpd: int | None
    contact: str | None
    source: str
    added: int
    change: int
    pin: Head | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The latest checkpoint cosigned for a log: tree size, root hash, our timestamp (POSIX seconds)."""

    size: int
    root: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class CosignedHead:
    """A head with the note that was signed and what we signed it with.

    Attributes:
        note: the checkpoint's text, a blank line, and the log's verified signature lines.
        cosignatures: our signature lines.
    """

    head: Head
    note: bytes
    cosignatures: bytes


@dataclass(frozen=True, slots=True)
class Advance:
    """One head's move: from what was checked to what was signed.

    `before` is None on first contact, when no head may stand in the store.
    """

    log_id: int
    before: Head | None
    after: CosignedHead


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two notes a log signed that cannot both be true, kept whole.

    Attributes:
        log_id: the log's row.
        kind: "root-mismatch": same size, another root.
        seen: POSIX seconds.
        size: the tree size at which they differ.
        stored: the note we cosigned.
        offered: the note that contradicts it, with the log's verified signature lines.
        proof: the hashes offered as a consistency proof, if any, 32 bytes each.
    """

    log_id: int
    kind: str
    seen: int
    size: int
    stored: bytes
    offered: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose state this is: the witness's name and a random identifier shared with its key file."""

    name: str
    identity: str


class Store(Protocol):
    """Durable state. Every method may block; the core calls them from threads of its own."""

    def identity(self) -> Identity:
        """Whose state this is."""
        ...

    def load(self, since: int = 0, limit: int = -1) -> Iterator[tuple[LogRecord, Head | None]]:
        """Logs changed after change number `since`, with their heads, oldest change first.

        At most `limit` of them, or all if that is negative.
        """
        ...

    def head(self, log_id: int) -> Head | None:
        """One log's head as it stands on disk."""
        ...

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        """Makes the moves durable in one transaction; True for each that was made.

        A move is made only where the stored head is still the one it starts from (compare-and-swap). On
        return every True is on disk (fsync'd).

        Raises:
            StoreBroken: the transaction failed; none of the moves may be taken as made or unmade.
        """
        ...

    def cosigned(self, origin_hash: bytes) -> CosignedHead | None:
        """The latest cosigned checkpoint by the SHA-256 of its origin (32 bytes)."""
        ...

    def cosigned_by_id(self, log_id: int) -> CosignedHead | None:
        """The latest cosigned checkpoint by its log's row."""
        ...

    def pinned_note(self, log_id: int) -> bytes | None:
        """The signed checkpoint that a log's first contact must extend, if one is pinned."""
        ...

    def last_timestamp(self) -> int:
        """The largest timestamp of any head; 0 if there is none."""
        ...

    def keep_contradiction(self, contradiction: Contradiction) -> bool:
        """Stores it durably; False if it was known or the log's share of the space is used up."""
        ...

    def contradictions(self) -> int:
        """How many are kept."""
        ...

    def changed(self) -> bool:
        """Whether another process has written since the last call.

        Raises:
            StoreBroken: the database was removed or replaced while it was in use.
        """
        ...

    def try_write(self) -> None:
        """Makes a transaction that changes nothing, to learn whether writing works (again).

        Raises:
            StoreBroken: it does not.
        """
        ...

    def close(self) -> None:
        """Releases the store."""
        ...
