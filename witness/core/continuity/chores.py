"""What a guard does now and then: heads into the high-water record, and events that nobody else tells of."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from witness.core.continuity import memory
from witness.core.continuity.halting import Halting
from witness.core.continuity.records import Records
from witness.core.refusals import ClockBehind, CoreError
from witness.core.store.audit import Event
from witness.core.witness import Witness

log = logging.getLogger(__name__)

SUSPICIOUS: Final = ("invalid-signature", "root-mismatch", "invalid-proof")
"""Refusals that smell of attack; what came of each in a minute is one entry of the record."""


class Chores:
    """The chores of one core. None of them does anything while signing is stopped but tell of it."""

    def __init__(
        self, records: Records, halting: Halting, witness: Witness, recent: int, now: Callable[[], float]
    ) -> None:
        self._records = records
        self._halting = halting
        self._witness = witness
        self._recent = recent
        self._now = now
        self._flushed = 0
        self._remembered = 0
        self._contradictions = witness.contradictions
        self._trouble = ""
        self._counted: Counter[str] = Counter()

    def all_written(self, sequence: int) -> None:
        """The high-water record has all heads as they were at this number of the book's."""
        self._flushed = self._remembered = sequence

    async def flush(self) -> None:
        """Writes the heads that moved into the high-water record; none while signing is stopped."""
        if not self._records.writable or self._halting.whole:
            return
        book = self._witness.book
        moved, sequence = book.moved_since(self._flushed), book.sequence
        if moved:
            await self._records.do(self._records.append_heads, self._witness, moved)
            self._flushed = sequence

    async def remember(self) -> None:
        """Remembers the heads that moved, so that a fork at an earlier size is recognised."""
        if self._recent and not self._halting.whole:
            book, desk = self._witness.book, self._records.desk
            origins, sequence = book.moved_since(self._remembered), book.sequence
            numbers = [state.log_id for origin in origins if (state := book.get(origin)) is not None]
            await self._records.do(memory.remember_heads, desk, numbers, self._recent)
            self._remembered = sequence

    async def note_clock(self) -> None:
        """Records that the clock is wrong, and that it is right again."""
        witness = self._witness
        now = int(self._now())
        wrong: CoreError | None = None
        if now < witness.last_issued:
            wrong = ClockBehind(now, witness.last_issued)
        elif witness.clock is not None:
            wrong = witness.clock.wrong(now, witness.last_issued)
        code = wrong.code if wrong is not None else ""
        if code != self._trouble:
            self._trouble = code
            await self._tell(Event("clock", {"trouble": str(wrong) if wrong else "over"}))

    async def note_evidence(self) -> None:
        """Records that a log contradicted itself."""
        count = self._witness.contradictions
        if count > self._contradictions:
            log.error(
                "a log contradicts itself: witness evidence list (%d new)", count - self._contradictions
            )
            await self._tell(Event("evidence", {"new": count - self._contradictions, "kept": count}))
            self._contradictions = count

    async def note_suspicious(self) -> None:
        """Records how often what smells of attack was refused."""
        refusals = self._witness.refusals
        counts = {code: refusals[code] - self._counted[code] for code in SUSPICIOUS}
        self._counted = Counter({code: refusals[code] for code in SUSPICIOUS})
        if any(counts.values()):
            await self._tell(Event("refusals", {code: count for code, count in counts.items() if count}))

    async def _tell(self, event: Event) -> None:
        await self._records.tell([event], self._witness)
