"""All logs as the core remembers them, and the order in which their heads moved."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator

from witness.core.request import LogState, digest_of_keys
from witness.core.store.base import Head, LogRecord
from witness.core.wire import Changes, Cursor

CHANGES_PAGE = 5000
"""Origins in one answer about changes, at most."""


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
        """Origins whose head moved after the cursor, oldest move first.

        A log that an alarm has stopped is left out: what we hold of it may be older than what others have.
        """
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
            origins=tuple(origin for _, origin in page if self._logs[origin].stopped is None),
        )


def _newer(head: Head | None, known: Head | None) -> bool:
    """Whether a stored head came after the one in memory (sizes and timestamps never shrink in the store)."""
    if head is None or known is None:
        return head is not None
    return (head.size, head.timestamp) > (known.size, known.timestamp)
