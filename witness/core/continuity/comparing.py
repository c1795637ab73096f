"""Holds the state against the records, before anything is signed and after every settlement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from witness.core.continuity import compare
from witness.core.continuity.compare import Survey
from witness.core.continuity.counting import Counting
from witness.core.continuity.halting import Halting
from witness.core.continuity.highwater import Marks, RecordInvalid
from witness.core.continuity.memory import MADE_ANEW
from witness.core.continuity.records import RECORD, Records
from witness.core.continuity.rotating import Rotating
from witness.core.store import audit
from witness.core.store.alarms import Kind
from witness.core.store.desk import Desk
from witness.core.witness import Witness

_ABOUT_RECORD: Final = frozenset({Kind.RECORD_LOST, Kind.RECORD_INVALID})


@dataclass(frozen=True, slots=True)
class Reading:
    """The high-water record as it was read: what it says, if it is ours, and what is wrong with it."""

    marks: Marks | None
    kind: Kind = Kind.RECORD_LOST
    fault: str = ""


class Comparison:
    """Compares; raises alarms, or takes the high-water record up."""

    def __init__(
        self,
        records: Records,
        halting: Halting,
        counting: Counting,
        rotating: Rotating,
        *,
        witness: Witness,
        now: Callable[[], float],
    ) -> None:
        self._records = records
        self._halting = halting
        self._counting = counting
        self._rotating = rotating
        self._witness = witness
        self._now = now

    async def compare(self, accepted: frozenset[Kind]) -> bool:
        """Holds the state against the high-water record, the record of events and the counter.

        Args:
            accepted: kinds of alarms that an operator has just settled: these say no more than was known.

        Returns:
            Whether nothing stops the witness, so that all that the record lacked has been written to it.

        Raises:
            KeystoreError: the counter cannot be had or moved. All of it is to be done again.
        """
        witness, records, halting = self._witness, self._records, self._halting
        made = records.desk.fact("restored")
        if made is not None and Kind.RESTORED not in accepted:
            await halting.plain(Kind.RESTORED, "a backup", f"made at {made}")
        if records.water.empty and await self._is_first():
            marks = await records.do(records.begin_anew, witness, None)
            reading, survey = Reading(marks), Survey()
        else:
            reading = await self._read_record()
            survey = await self._compare_marks(reading.marks, accepted)
        if reading.fault and (not accepted & _ABOUT_RECORD or survey.behind):
            records.marks = None
            await halting.plain(reading.kind, str(records.water.path), reading.fault)
            return False
        if reading.fault or reading.marks is None:
            marks, survey = await records.do(records.begin_anew, witness, reading.marks), Survey()
        else:
            marks = records.marks = reading.marks
            if records.desk.fact(RECORD) is None:
                await records.do(records.desk.set_fact, RECORD, marks.record)
        await self._rotating.compare(marks, accepted)
        await self._counting.compare()
        await halting.judge_rekeyed()
        await records.do(records.append_ended, halting.ended)
        if halting.whole:
            return False
        # Kept only while it is compared: 100,000 marks are some tens of megabytes.
        marks.heads = {}
        await records.do(records.append_heads, witness, survey.ahead)
        await records.do(records.desk.drop_fact, MADE_ANEW)
        return True

    async def _is_first(self) -> bool:
        """Whether no record was ever begun for this state, nor for the one that it was made in place of."""
        desk = self._records.desk
        return desk.fact(RECORD) is None and desk.fact(MADE_ANEW) is None

    async def _read_record(self) -> Reading:
        """Reads the record.

        One of ours that this database does not go with is one that it is older than, or one that is older
        than it. Either way, what it says we have signed, we have signed.
        """
        records = self._records
        if records.water.empty:
            return Reading(None, Kind.RECORD_LOST, "the record is gone")
        try:
            marks = await records.do(records.water.read, records.water_key)
        except RecordInvalid as error:
            return Reading(None, Kind.RECORD_INVALID, error.reason)
        if marks.identity != records.identity.identity:
            return Reading(None, Kind.RECORD_LOST, "the record is another identity's")
        known = records.desk.fact(RECORD)
        if known is not None and marks.record != known:
            fault = f"the database goes with record {known}, and this is {marks.record}"
            return Reading(marks, Kind.RECORD_LOST, fault)
        return Reading(marks)

    async def _compare_marks(self, marks: Marks | None, accepted: frozenset[Kind]) -> Survey:
        """Holds the state against what a record says, and raises the alarms."""
        witness, halting = self._witness, self._halting
        if marks is None:
            return Survey()
        witness.last_issued = max(witness.last_issued, marks.issued)
        # Before any alarm: each is an entry of the record, and would be noted as its head.
        audit_fault = await self._audit_fault(marks, accepted)
        for origin in set(marks.ended) - halting.ended:
            kind = Kind.ABANDONED if origin else Kind.RETIRED
            await halting.plain(kind, compare.HIGH_WATER, "an operator said so", origin)
        survey = compare.survey(witness.book, marks, int(self._now()))
        survey.behind = [each for each in survey.behind if each.origin not in halting.given_up]
        if survey.behind:
            await halting.alarm_of_many(survey.behind)
        if not audit_fault:
            halting.rekeyed.update(survey.rekeyed)
        for origin in survey.rekeyed if audit_fault else ():
            # What an older database says that an operator did to keys may have been undone since.
            detail = "its keys are others than they were, and this database is older"
            await halting.plain(Kind.LOG_KEY, compare.HIGH_WATER, detail, origin)
        if audit_fault:
            await halting.plain(Kind.AUDIT_BEHIND, compare.HIGH_WATER, audit_fault)
        return survey

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
