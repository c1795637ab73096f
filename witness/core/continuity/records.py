"""What the guard writes and reads back: the high-water record, the record of events, facts of the state.

All of it on one thread of its own, in the order asked, so that nothing here is in a request's path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from witness.core.continuity import compare
from witness.core.continuity.highwater import HighWater, Mark, Marks, fresh
from witness.core.continuity.secret import AUDIT, HIGH_WATER, MacKey, Source, record_keys
from witness.core.store import audit, generations
from witness.core.store.audit import Event
from witness.core.store.base import Identity
from witness.core.store.desk import Desk
from witness.core.witness import Witness

RECORD: Final = "high-water"
"""The fact that names the high-water record this database goes with."""
_T = TypeVar("_T")


class Records:
    """The records of one core. Made before the lock-down; used by the guard alone.

    Attributes:
        water: the high-water record's files.
        desk: a connection to the database.
        marks: what the high-water record says, once it was taken up; its heads only while they are compared.
        audit_head: number and hash of the last entry of the record of events.
    """

    def __init__(
        self,
        *,
        database: Path,
        record: Path,
        identity: Identity,
        sources: Sequence[Source],
        now: Callable[[], float],
    ) -> None:
        """Opens what can only be opened now. Raises what `Guard` raises."""
        self.marks: Marks | None = None
        self.audit_head: tuple[int, str] = (0, "")
        self.identity = identity
        self._sources = sources
        self._now = now
        self._keys: tuple[MacKey, MacKey] | None = None
        self.water = HighWater(record, create=True)
        self.desk = Desk(database)
        self._thread = ThreadPoolExecutor(1, "guard")

    def close(self) -> None:
        """Lets everything go, after what was asked for is done."""
        self._thread.shutdown()
        self.water.close()
        self.desk.close()

    async def do(self, function: Callable[..., _T], *args: Any) -> _T:
        """Runs something on the guard's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # --- keys -----------------------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether the keys of the records are there."""
        return self._keys is not None

    @property
    def writable(self) -> bool:
        """Whether the high-water record was taken up, so that more may be written to it."""
        return self._keys is not None and self.marks is not None

    @property
    def water_key(self) -> MacKey:
        """The high-water record's key."""
        assert self._keys is not None
        return self._keys[0]

    def find_keys(self) -> None:
        """Has the keys made. Raises KeystoreError where the witness's keys are not there yet."""
        keys = record_keys(self._sources, self.identity.identity.encode())
        self._keys = MacKey(keys[HIGH_WATER]), MacKey(keys[AUDIT])

    # --- on the guard's thread ------------------------------------------------------------------------------

    def begin_anew(self, witness: Witness, before: Marks | None) -> Marks:
        """Writes a new high-water record of what the state is now.

        Args:
            witness: the state, which holds all that `before` does.
            before: what an earlier record says, where there is one: what ended for good stays so.
        """
        marks = fresh(self.identity.identity, int(self._now()))
        if before is not None:
            marks.retired, marks.ended, marks.counter = before.retired, before.ended, before.counter
        marks.heads = _all_marks(witness)
        marks.issued = witness.last_issued
        marks.audit = audit.head(self.desk)
        marks.retired = tuple(sorted({*marks.retired, *generations.read(self.desk.connection).retired}))
        self.water.begin(self.water_key, marks)
        # Only now: a record without its name in the database is taken up, a name without record is an alarm.
        self.desk.set_fact(RECORD, marks.record)
        self.marks = marks
        return marks

    def append_heads(self, witness: Witness, origins: list[str]) -> None:
        """Writes the durable heads of some logs into the high-water record."""
        now = int(self._now())
        if self.water.grown and self.marks is not None:
            marks = self.marks
            marks.heads = _all_marks(witness)
            marks.issued, marks.written, marks.audit = witness.last_issued, now, self.audit_head
            self.water.begin(self.water_key, marks)
            marks.heads = {}
            return
        found = compare.marks_of(witness.book, origins)
        if found:
            self.water.append(self.water_key, found, issued=witness.last_issued, written=now)

    def append_ended(self, ended: Iterable[str]) -> None:
        """Writes what an operator ended for good, so that no older database brings it back."""
        assert self.marks is not None
        together = tuple(sorted({*self.marks.ended, *ended}))
        if together != self.marks.ended:
            self.marks.ended = together
            self.water.append(self.water_key, ended=list(together))

    def append_counter(self, value: int) -> None:
        """Writes the value that the hardware counter is to have."""
        assert self.marks is not None
        self.marks.counter = value
        self.water.append(self.water_key, counter=value)

    def append_retired(self, vkeys: Sequence[str]) -> None:
        """Writes keys that never sign again."""
        assert self.marks is not None
        self.marks.retired = tuple(sorted({*self.marks.retired, *vkeys}))
        self.water.append(self.water_key, retired=list(self.marks.retired))

    # --- the record of events -------------------------------------------------------------------------------

    async def tell(self, events: list[Event], witness: Witness) -> None:
        """Writes events, and what others left for the record; without the keys they are left for it too."""
        if self._keys is not None:
            self.audit_head = await self.do(self._write, events, witness)
        elif events:
            await self.do(self._leave, events)

    def _leave(self, events: list[Event]) -> None:
        with self.desk.transaction() as connection:
            for event in events:
                audit.leave(connection, event, int(self._now()))

    def _write(self, events: list[Event], witness: Witness) -> tuple[int, str]:
        assert self._keys is not None
        water_key, audit_key = self._keys
        head = audit.append(self.desk, audit_key, events, int(self._now()))
        if self.marks is not None:
            self.marks.audit = head
            self.water.append(water_key, audit=list(head), issued=witness.last_issued)
        return head


def _all_marks(witness: Witness) -> dict[str, Mark]:
    book = witness.book
    return {mark.origin: mark for mark in compare.marks_of(book, book.moved_since(0))}
