"""Holds the state against the hardware counter, and moves that on: at a start and at intervals."""

from __future__ import annotations

from typing import Final

from witness.core.continuity.counter import RollbackCounter, judge_counter
from witness.core.continuity.halting import Halting
from witness.core.continuity.records import Records
from witness.core.store.alarms import Kind

COUNTER: Final = "counter"
"""The fact that names the value that the hardware counter is to have."""
_SOURCE: Final = "the hardware counter"


class Counting:
    """The counter of one core, if it has one."""

    def __init__(self, counter: RollbackCounter | None, records: Records, halting: Halting) -> None:
        self._counter = counter
        self._records = records
        self._halting = halting

    async def compare(self, accepted: frozenset[Kind]) -> None:
        """Holds the state against the counter, and moves that on."""
        counter, records = self._counter, self._records
        if counter is None or records.marks is None:
            return
        value = await records.do(counter.read)
        fact = await records.do(records.desk.fact, COUNTER)
        noted = int(fact) if fact is not None else None
        if noted is not None and records.marks.counter:
            noted = min(noted, records.marks.counter)  # whichever of the two is old
        if Kind.COUNTER in accepted:
            noted = None
        verdict = judge_counter(noted, value)
        if verdict.fault:
            await self._halting.plain(Kind.COUNTER, _SOURCE, verdict.fault)
            return
        await self._move(verdict.following, moved=verdict.following == value)

    async def count_on(self) -> None:
        """Moves the counter on, at intervals: a second copy of this state finds its own behind then."""
        counter, marks = self._counter, self._records.marks
        if counter is None or marks is None or self._halting.whole:
            return
        value = await self._records.do(counter.read)
        if value != marks.counter:
            fault = f"the counter stands at {value}, not at {marks.counter}: a second copy moves it"
            await self._halting.plain(Kind.COUNTER, _SOURCE, fault)
            return
        await self._move(value + 1)

    async def _move(self, following: int, *, moved: bool = False) -> None:
        counter, records = self._counter, self._records
        if counter is None or not records.writable or self._halting.whole:
            return
        # First what the state is to say, durably; only then the counter.
        await records.do(records.desk.set_fact, COUNTER, str(following))
        await records.do(records.append_counter, following)
        if not moved and (value := await records.do(counter.increment)) != following:
            fault = f"the counter moved to {value}, not to {following}: something else moves it"
            await self._halting.plain(Kind.COUNTER, _SOURCE, fault)
