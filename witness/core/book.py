"""What the core remembers of its logs in memory: keys, head, and who is waiting.

One `LogState` a log, about 700 bytes. Only the event loop's thread changes them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from witness.core.refusals import CoreError
from witness.core.request import Request
from witness.core.store.base import Head, LogRecord
from witness.core.wire import Changes, Cursor
from witness.tlog.note import VerifierKey, parse_vkey

CHANGES_PAGE = 5000
"""Origins in one answer about changes, at most."""


class LogState:
    """One log as the core knows it.

    `busy` is set from the moment a request for it is taken up until its answer; others wait in `waiting`, so
    that each is judged against the state the one before it left. `stopped` is why nothing of this log is
    signed, where an alarm is about it alone.
    """

    __slots__ = (
        "_digest",
        "_keys",
        "_vkeys",
        "busy",
        "disabled",
        "head",
        "log_id",
        "origin",
        "pin",
        "stopped",
        "waiting",
    )

    def __init__(self, log_id: int, origin: str) -> None:
        self.log_id = log_id
        self.origin = origin
        self._vkeys: tuple[str, ...] = ()
        self._keys: tuple[VerifierKey, ...] | None = ()
        self._digest: str | None = None
        self.disabled = False
        self.stopped: CoreError | None = None
        self.head: Head | None = None
        self.pin: Head | None = None
        self.busy = False
        self.waiting: deque[Request] | None = None

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The keys trusted for the log. Parsed when first needed: most logs of a long list are quiet."""
        keys = self._keys
        if keys is None:
            keys = self._keys = tuple(parse_vkey(text) for text in self._vkeys)
            self._vkeys = ()
        return keys

    @property
    def start(self) -> Head | None:
        """What the next checkpoint must extend: our head, or before the first contact what is pinned."""
        return self.head if self.head is not None else self.pin

    def trust(self, vkeys: tuple[str, ...]) -> None:
        """Sets the keys trusted for the log, as text that was parsed once when it was stored."""
        self._vkeys, self._keys, self._digest = vkeys, None, None

    @property
    def keys_digest(self) -> str:
        """Names the set of keys trusted for the log (`digest_of_keys`)."""
        if self._digest is None:
            vkeys = self._vkeys if self._keys is None else tuple(str(key) for key in self._keys)
            self._digest = digest_of_keys(vkeys)
        return self._digest


def digest_of_keys(vkeys: Iterable[str]) -> str:
    """A short name for a set of vkeys: 16 hexadecimal digits of the SHA-256 of their texts, sorted."""
    return hashlib.sha256("\n".join(sorted(vkeys)).encode()).hexdigest()[:16]


class LogBook:
    """All logs by origin, and the sequence in which their heads moved in this run."""

    def __init__(self) -> None:
        self._logs: dict[str, LogState] = {}
        self._epoch = secrets.token_hex(8)
        self._sequence = 0
        # Insertion order is the order of the latest move: a log that moves is taken out and put at the end.
        self._moved: dict[str, int] = {}
        self.change = 0
        self.on_rekeyed: Callable[[LogState], None] | None = None
        """Told at once of a known log whose keys are others than before."""

    def __len__(self) -> int:
        return len(self._logs)

    def __iter__(self) -> Iterator[LogState]:
        return iter(self._logs.values())

    def get(self, origin: str) -> LogState | None:
        """The log of this origin, if it is configured."""
        return self._logs.get(origin)

    @property
    def heads(self) -> int:
        """How many logs have been cosigned."""
        return len(self._moved)

    def apply(self, records: Iterable[tuple[LogRecord, Head | None]]) -> int:
        """Takes over configuration as it stands in the store; returns how many logs that were.

        A log whose request is under way keeps its head: the request will set it. And heads only grow: what
        was read before our own latest commit, and arrives here after it, does not set memory back.
        """
        count = 0
        for record, head in records:
            log = self._logs.get(record.origin)
            if log is None:
                log = self._logs[record.origin] = LogState(record.log_id, record.origin)
                log.trust(record.vkeys)
            elif log.keys_digest != digest_of_keys(record.vkeys):
                log.trust(record.vkeys)
                if self.on_rekeyed is not None:
                    self.on_rekeyed(log)
            log.disabled = record.disabled
            log.pin = record.pin
            if not log.busy and _newer(head, log.head):
                self.moved(log, head)
            self.change = max(self.change, record.change)
            count += 1
        return count

    def moved(self, log: LogState, head: Head | None) -> None:
        """Sets a log's head to what is durable, and notes that it moved."""
        log.head = head
        if head is None:
            return
        self._sequence += 1
        self._moved.pop(log.origin, None)
        self._moved[log.origin] = self._sequence

    @property
    def sequence(self) -> int:
        """Counts the moves of heads in this run."""
        return self._sequence

    def moved_since(self, sequence: int) -> list[str]:
        """Origins whose head moved after a sequence number, the latest first."""
        found = []
        for origin, number in reversed(self._moved.items()):
            if number <= sequence:
                break
            found.append(origin)
        return found

    def changes(self, cursor: Cursor | None) -> Changes:
        """Origins whose head moved after the cursor, oldest move first."""
        after = cursor.sequence if cursor is not None and cursor.epoch == self._epoch else 0
        newest_first = []
        for origin, sequence in reversed(self._moved.items()):
            if sequence <= after:
                break
            newest_first.append((sequence, origin))
        page = newest_first[::-1][:CHANGES_PAGE]
        last = page[-1][0] if page else self._sequence
        return Changes(
            cursor=Cursor(self._epoch, last),
            more=len(newest_first) > len(page),
            origins=tuple(origin for _, origin in page),
        )


def _newer(head: Head | None, known: Head | None) -> bool:
    """Whether a stored head came after the one in memory (sizes and timestamps never shrink in the store)."""
    if head is None or known is None:
        return head is not None
    return (head.size, head.timestamp) > (known.size, known.timestamp)
