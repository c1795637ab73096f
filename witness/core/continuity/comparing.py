"""Holds the state against the records, before anything is signed and after every settlement."""

from __future__ import annotations

from collections.abc import Callable

from witness.core.continuity import compare
from witness.core.continuity.counting import Counting
from witness.core.continuity.halting import Halting
from witness.core.continuity.highwater import Marks, RecordInvalid
from witness.core.continuity.records import RECORD, Records
from witness.core.store import audit
from witness.core.store.alarms import Kind
from witness.core.store.desk import Desk
from witness.core.witness import Witness


class Comparison:
    """Compares; raises alarms, or takes the high-water record up."""

    def __init__(
        self,
        records: Records,
        halting: Halting,
        counting: Counting,
        witness: Witness,
        now: Callable[[], float],
    ) -> None:
        self._records = records
        self._halting = halting
        self._counting = counting
        self._witness = witness
        self._now = now

    async def compare(self, counter: int | None, accepted: frozenset[Kind]) -> bool:
        """Holds the state against the high-water record, the record of events and the counter.

        Args:
            counter: what the hardware counter shows, where there is one.
            accepted: kinds of alarms that an operator has just settled: these say no more than was known.

        Returns:
            Whether nothing stops the witness, so that all that the record lacked has been written to it.

        Raises:
            KeystoreError: the counter cannot be moved. All of it is to be done again.
        """
        witness, records, halting = self._witness, self._records, self._halting
        made = records.desk.fact("restored")
        if made is not None and Kind.RESTORED not in accepted:
            await halting.plain(Kind.RESTORED, "a backup", f"made at {made}")
        if not await self._take_record(accepted):
            return False
        marks = records.marks
        assert marks is not None
        witness.last_issued = max(witness.last_issued, marks.issued)
        # Before any alarm: each is an entry of the record, and would be noted as its head.
        audit_fault = await self._audit_fault(marks, accepted)
        given_up = halting.given_up
        survey = compare.survey(witness.book, marks, int(self._now()))
        behind = [each for each in survey.behind if each.origin not in given_up]
        if behind:
            await halting.alarm_of_many(behind)
        halting.rekeyed.update(survey.rekeyed)
        if audit_fault:
            await halting.plain(Kind.AUDIT_BEHIND, compare.HIGH_WATER, audit_fault)
        await self._counting.compare(counter)
        await halting.judge_rekeyed()
        if halting.whole:
            return False
        # Kept only while it is compared: 100,000 marks are some tens of megabytes.
        marks.heads = {}
        await records.do(records.append_heads, witness, survey.ahead)
        return True

    async def _take_record(self, accepted: frozenset[Kind]) -> bool:
        """Reads the record, or begins it; False where it is not what it must be, and that is an alarm."""
        records = self._records
        known = records.desk.fact(RECORD)
        anew = bool(accepted & {Kind.RECORD_LOST, Kind.RECORD_INVALID})
        if anew or (records.water.empty and known is None):
            await records.do(records.begin_anew, self._witness)
            return True
        kind, fault = Kind.RECORD_LOST, "the record is gone"
        if not records.water.empty:
            try:
                marks = await records.do(records.water.read, records.water_key)
            except RecordInvalid as error:
                kind, fault = Kind.RECORD_INVALID, error.reason
            else:
                fault = self._wrong_record(marks, known)
                if not fault:
                    records.marks = marks
                    if known is None:
                        await records.do(records.desk.set_fact, RECORD, marks.record)
                    return True
        records.marks = None
        await self._halting.plain(kind, str(records.water.path), fault)
        return False

    def _wrong_record(self, marks: Marks, known: str | None) -> str:
        if marks.identity != self._records.identity.identity:
            return "the record is another identity's"
        if known is not None and marks.record != known:
            return f"the database goes with record {known}, and this is {marks.record}"
        return ""

    async def _audit_fault(self, marks: Marks, accepted: frozenset[Kind]) -> str:
        """What is wrong with the record of events, by the high-water record; empty where nothing is."""
        records = self._records
        number, digest = await records.do(audit.head, records.desk)
        records.audit_head = number, digest
        noted, noted_digest = marks.audit
        if Kind.AUDIT_BEHIND in accepted:
            return ""
        if number < noted:
            return f"the record of events ends at entry {number}, and entry {noted} was written before"
        if noted and not await records.do(_has_entry, records.desk, noted, noted_digest):
            return f"entry {noted} of the record of events is another one"
        return ""


def _has_entry(desk: Desk, number: int, digest: str) -> bool:
    return any(
        entry.number == number and entry.digest == digest for entry in audit.entries(desk, number - 1, 1)
    )
