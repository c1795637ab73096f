"""What stands between a core and the past: compares, records, remembers, and stops signing.

Rules of this file:

- Signing starts only after the state was compared with the high-water record.
- An alarm is durable before signing stops for the caller's eyes, and stops it in memory first.
- What an operator settled is compared anew: a state that is still behind raises the alarm again.
- Nothing here runs in a request's path. Everything that touches the disk runs on one thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from witness.core.clock import ClockCheck
from witness.core.continuity import compare, memory
from witness.core.continuity.authority import Action, Authority, was_used
from witness.core.continuity.counter import RollbackCounter, judge_counter
from witness.core.continuity.highwater import HighWater, Marks, RecordInvalid, fresh
from witness.core.continuity.secret import AUDIT, HIGH_WATER, MacKey, SecretSource, mac_key
from witness.core.continuity.settings import ContinuitySettings
from witness.core.continuity.sshsig import parse_operator
from witness.core.keystore.base import KeystoreError
from witness.core.refusals import ClockBehind, CoreError, NotCompared, SigningStopped, StateBehind
from witness.core.request import LogState
from witness.core.store import alarms, audit
from witness.core.store.alarms import ONE_LOG, Alarm, Kind
from witness.core.store.audit import Event
from witness.core.store.base import Identity, StoreError
from witness.core.store.desk import Desk
from witness.core.witness import Witness
from witness.tlog.note import VerifierKey

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
"""How often the guard looks for what an operator settled."""
REMEMBER_SECONDS: Final = 60.0
"""How often the heads that moved are remembered."""
MOST_TOLD: Final = 10
"""Alarms of one moment that get a line of their own."""
SUSPICIOUS: Final = ("invalid-signature", "root-mismatch", "invalid-proof")
"""Refusals that smell of attack; what came of each in a minute is one entry of the record."""
RECORD: Final = "high-water"
"""The fact that names the high-water record this database goes with."""
_T = TypeVar("_T")


class Guard:
    """The continuity of one core. Made before the lock-down, started with the witness."""

    def __init__(
        self,
        *,
        database: Path,
        record: Path,
        fallback_key: Path,
        settings: ContinuitySettings,
        identity: Identity,
        signers: Sequence[object],
        vkeys: Sequence[VerifierKey],
        counter: RollbackCounter | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens what can only be opened now.

        Raises:
            RecordHeld: another process has the high-water record: a second copy of this witness runs.
            StoreError, KeystoreError, OSError: something cannot be opened.
        """
        self.alarms: tuple[Alarm, ...] = ()
        self.audit_head: tuple[int, str] = (0, "")
        self._settings = settings
        self._authority = Authority(settings.needed, tuple(map(parse_operator, settings.operators)))
        self._identity = identity
        self._signers = signers
        self._vkeys = tuple(vkeys)
        self._counter = counter
        self._last_count = time.monotonic()
        self._fallback = fallback_key
        self._now = now
        self._keys: tuple[MacKey, MacKey] | None = None
        if not any(isinstance(signer, SecretSource) for signer in signers):
            self._keys = self._find_keys()  # from a file, while files can be made
        self._water = HighWater(record, create=True)
        self._desk = Desk(database)
        self._thread = ThreadPoolExecutor(1, "guard")
        self._watch: Witness | None = None
        self._marks: Marks | None = None
        self._flushed = 0
        self._remembered = 0
        self._stopped: set[str] = set()
        self._rekeyed: set[str] = set()
        self._world = asyncio.Event()
        self._world_deadline = 0.0
        self._settling = False
        self._contradictions = 0
        self.warning = ""
        self._trouble = ""
        self._last_flush = self._last_remember = time.monotonic()
        self._counted: Counter[str] = Counter()

    @property
    def _witness(self) -> Witness:
        if self._watch is None:
            raise RuntimeError("start() comes first")
        return self._watch

    # --- start and stop -------------------------------------------------------------------------------------

    async def start(self, witness: Witness, facts: dict[str, Any]) -> None:
        """Compares, before the first request. `facts` go into the record with the start."""
        self._watch = witness
        witness.clock = ClockCheck()
        if self._settings.recent:
            witness.judge.recall = functools.partial(memory.recall, self._desk)
        self._contradictions = witness.contradictions
        witness.book.on_rekeyed = self._on_rekeyed
        witness.halted = NotCompared("its state is being compared with the high-water record")
        if self._settings.wait > 0:
            self._world_deadline = time.monotonic() + self._settings.wait
        self._start_facts = facts
        await self._try_compare()

    async def stop(self) -> None:
        """Writes what moved last, and lets everything go. The witness has stopped."""
        if self._keys is not None and self._marks is not None and not self._witness.broken.is_set():
            try:
                await self._flush()
                await self._record([Event("stop", {"issued": self._witness.last_issued})])
            except (OSError, sqlite3.Error) as error:
                log.error("the high-water record was not brought up to date: %s", error)  # noqa: TRY400
        self._thread.shutdown()
        self._water.close()
        self._desk.close()

    async def run(self) -> None:
        """The chores, for ever. What cannot be written is tried again, and told until it is."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._turn()
            except (OSError, sqlite3.Error, StoreError, KeystoreError) as error:
                if not self.warning:
                    log.error(  # noqa: TRY400 - told in a line
                        "the high-water record or the record of events cannot be written: %s", error
                    )
                self.warning = f"the high-water record stays behind, it cannot be written: {error}"

    async def _turn(self) -> None:
        if self._marks is None and not self.alarms:
            await self._try_compare()
        if await self._do(self._desk.changed) or self._rekeyed:
            await self._look_again()
        self._apply()
        now = time.monotonic()
        if now - self._last_flush >= self._settings.interval:
            await self._flush()
            await self._note_clock()
            await self._note_evidence()
            self._last_flush, self.warning = now, ""
        if now - self._last_count >= self._settings.counter_interval:
            self._last_count = now
            await self._count_on()
        if now - self._last_remember >= REMEMBER_SECONDS:
            self._last_remember = now
            await self._remember()
            await self._note_suspicious()

    # --- comparing ------------------------------------------------------------------------------------------

    async def _try_compare(self) -> None:
        """Compares once the keys are there; until then nothing could be signed anyway."""
        if self._keys is None:
            try:
                self._keys = self._find_keys()
            except KeystoreError as error:
                self._witness.halted = NotCompared(f"its records cannot be checked: {error.reason}")
                return
        self.alarms = alarms.standing(self._desk)
        await self._compare(accepted=frozenset())
        await self._record([Event("start", self._start_facts)])
        self._apply()

    async def _compare(self, *, accepted: frozenset[Kind]) -> None:
        """Holds the state against the high-water record; raises alarms, or takes the record up."""
        witness = self._witness
        assert self._keys is not None
        key, _ = self._keys
        now = int(self._now())
        made = self._desk.fact("restored")
        if made is not None and Kind.RESTORED not in accepted:
            await self.alarm(self._plain(Kind.RESTORED, "a backup", f"made at {made}"))
        if not await self._take_record(key, now, accepted):
            return
        assert self._marks is not None
        marks = self._marks
        witness.last_issued = max(witness.last_issued, marks.issued)
        given_up = {each.origin for each in self.alarms if each.kind is Kind.ABANDONED}
        survey = compare.survey(witness.book, marks, now)
        behind = [each for each in survey.behind if each.origin not in given_up]
        if behind:
            await self._alarm_of_many(behind)
        self._rekeyed.update(survey.rekeyed)
        await self._compare_audit(marks, accepted)
        await self._compare_counter(marks, accepted)
        await self._judge_rekeyed()
        if not self._halting():
            # Kept only while it is compared: 100,000 marks are some tens of megabytes.
            marks.heads = {}
            self._flushed = self._remembered = witness.book.sequence
            await self._do(self._append_heads, key, survey.ahead)

    async def _take_record(self, key: MacKey, now: int, accepted: frozenset[Kind]) -> bool:
        """Reads the record, or begins it; False where it is not what it must be, and that is an alarm."""
        known = self._desk.fact(RECORD)
        anew = bool(accepted & {Kind.RECORD_LOST, Kind.RECORD_INVALID})
        if anew or (self._water.empty and known is None):
            await self._do(self._begin_anew, key, now)
            return True
        kind, fault = Kind.RECORD_LOST, "the record is gone"
        if not self._water.empty:
            try:
                marks = await self._do(self._water.read, key)
            except RecordInvalid as error:
                kind, fault = Kind.RECORD_INVALID, error.reason
            else:
                fault = self._wrong_record(marks, known)
                if not fault:
                    self._marks = marks
                    if known is None:
                        await self._do(self._desk.set_fact, RECORD, marks.record)
                    return True
        self._marks = None
        await self.alarm(self._plain(kind, str(self._water.path), fault))
        return False

    def _wrong_record(self, marks: Marks, known: str | None) -> str:
        if marks.identity != self._identity.identity:
            return "the record is another identity's"
        if known is not None and marks.record != known:
            return f"the database goes with record {known}, and this is {marks.record}"
        return ""

    async def _compare_audit(self, marks: Marks, accepted: frozenset[Kind]) -> None:
        number, digest = await self._do(audit.head, self._desk)
        self.audit_head = number, digest
        noted, noted_digest = marks.audit
        if Kind.AUDIT_BEHIND in accepted:
            return
        if number < noted:
            detail = f"the record of events ends at entry {number}, and entry {noted} was written before"
        elif noted and not await self._do(_has_entry, self._desk, noted, noted_digest):
            detail = f"entry {noted} of the record of events is another one"
        else:
            return
        await self.alarm(self._plain(Kind.AUDIT_BEHIND, compare.HIGH_WATER, detail))

    async def _compare_counter(self, marks: Marks, accepted: frozenset[Kind]) -> None:
        """Holds the state against the hardware counter, and moves that on."""
        if self._counter is None:
            return
        value = await self._do(self._counter.read)
        fact = await self._do(self._desk.fact, "counter")
        noted = int(fact) if fact is not None else None
        if noted is not None and marks.counter:
            noted = min(noted, marks.counter)  # whichever of the two is old
        if Kind.COUNTER in accepted:
            noted = None
        verdict = judge_counter(noted, value)
        if verdict.fault:
            await self.alarm(self._plain(Kind.COUNTER, "the hardware counter", verdict.fault))
            return
        await self._move_counter(verdict.following, moved=verdict.following == value)

    async def _move_counter(self, following: int, *, moved: bool = False) -> None:
        counter, marks = self._counter, self._marks
        if counter is None or marks is None or self._keys is None or self._halting():
            return
        # First what the state is to say, durably; only then the counter.
        await self._do(self._desk.set_fact, "counter", str(following))
        marks.counter = following
        key, _ = self._keys
        await self._do(functools.partial(self._water.append, key, counter=following))
        if not moved and (value := await self._do(counter.increment)) != following:
            fault = f"the counter moved to {value}, not to {following}: something else moves it"
            await self.alarm(self._plain(Kind.COUNTER, "the hardware counter", fault))

    async def _count_on(self) -> None:
        """Moves the counter on, at intervals: a second copy of this state finds its own behind then."""
        if self._counter is None or self._marks is None or self._halting():
            return
        value = await self._do(self._counter.read)
        if value != self._marks.counter:
            fault = f"the counter stands at {value}, not at {self._marks.counter}: a second copy moves it"
            await self.alarm(self._plain(Kind.COUNTER, "the hardware counter", fault))
            return
        await self._move_counter(value + 1)

    def _begin_anew(self, key: MacKey, now: int) -> None:
        marks = fresh(self._identity.identity, now)
        marks.heads = {
            mark.origin: mark
            for mark in compare.marks_of(self._witness.book, self._witness.book.moved_since(0))
        }
        marks.issued = self._witness.last_issued
        marks.audit = audit.head(self._desk)
        self._water.begin(key, marks)
        # Only now: a record without its name in the database is taken up, a name without record is an alarm.
        self._desk.set_fact(RECORD, marks.record)
        self._marks = marks

    # --- what the world has of us ---------------------------------------------------------------------------

    async def seen(self, source: str, note: bytes) -> bool:
        """Takes a cosigned checkpoint that was found in the world; whether it is one of ours.

        A front can only stop signing with it, and only by what this identity itself has signed.
        """
        own = await self._do(compare.own_cosignature, note, self._vkeys)
        if own is None:
            return False
        origin = own.checkpoint.origin
        found = compare.with_own(self._witness.book, own, source, int(self._now()), note)
        if found is not None and not any(
            each.kind is Kind.ABANDONED and each.origin == origin for each in self.alarms
        ):
            await self.alarm(found)
        return True

    def world_compared(self) -> None:
        """The front has asked everybody it was told to ask."""
        self._world.set()
        self._apply()

    # --- alarms ---------------------------------------------------------------------------------------------

    async def alarm(self, found: Alarm) -> None:
        """Stops signing, makes the alarm durable, records it."""
        if found.kind not in ONE_LOG:
            self._witness.halted = _error(found)
        if await self._do(alarms.raise_alarm, self._desk, found):
            log.error("alarm: %s", found)
            await self._record([Event("alarm", _told(found))])
        self.alarms = await self._do(alarms.standing, self._desk)
        self._apply()

    async def _alarm_of_many(self, found: list[Alarm]) -> None:
        """The same for many at once: a lost database is behind for every log."""
        self._witness.halted = _error(found[0])
        new = await self._do(_raise_all, self._desk, found)
        if new:
            for each in new[:MOST_TOLD]:
                log.error("alarm: %s", each)
            if len(new) > MOST_TOLD:
                log.error("alarm: and %d logs more", len(new) - MOST_TOLD)
            await self._record([Event("alarm", {**_told(new[0]), "logs": len(new)})])
        self.alarms = await self._do(alarms.standing, self._desk)
        self._apply()

    def _plain(self, kind: Kind, source: str, detail: str, origin: str = "") -> Alarm:
        return Alarm(kind, origin, int(self._now()), None, None, None, 0, source, detail)

    async def _look_again(self) -> None:
        """Takes over what an operator did to alarms, log keys and the inbox."""
        before = self.alarms
        after = await self._do(alarms.standing, self._desk)
        gone = [each for each in before if each.number not in {still.number for still in after}]
        settled = bool(gone)
        # From here on nothing is let through that the comparison below might still stop.
        self._settling = self._settling or settled
        if settled and not await self._do(self._was_approved, gone):
            for each in gone:
                await self.alarm(each)
            self._settling = False
            self._apply()
            return
        self.alarms = after
        await self._judge_rekeyed()
        if await self._do(audit.waiting, self._desk):
            await self._record([])
        if self._settling and not self._halting() and self._keys is not None:
            kinds = frozenset(each.kind for each in before) - frozenset(each.kind for each in after)
            await self._witness.refresh()  # what was brought forward
            await self._compare(accepted=kinds)
        self._settling = False
        self._apply()

    def _was_approved(self, gone: list[Alarm]) -> bool:
        """Whether enough operators approved that alarms be settled, where that needs them."""
        if not self._authority.needed:
            return True
        since = min(each.raised for each in gone)
        return was_used(self._desk, self._authority, Action.RECOVER, since)

    def _halting(self) -> tuple[Alarm, ...]:
        return tuple(each for each in self.alarms if each.kind not in ONE_LOG)

    def _apply(self) -> None:
        """Sets what the witness signs by what stands now."""
        witness = self._witness
        if self._settling:
            return
        halting = self._halting()
        waiting = bool(self._world_deadline) and not self._world.is_set()
        halted: CoreError | None = None
        if halting:
            halted = _error(halting[0])
        elif self._marks is None:
            return  # still comparing, or it could not be
        elif waiting and time.monotonic() < self._world_deadline:
            halted = NotCompared("its state is being compared with what distributors and monitors have of it")
        witness.halted = halted
        stopped = {each.origin: each for each in self.alarms if each.kind in ONE_LOG}
        for origin in (self._stopped - stopped.keys()) - self._rekeyed:
            state = witness.book.get(origin)
            if state is not None:
                state.stopped = None
        for origin, each in stopped.items():
            state = witness.book.get(origin)
            if state is not None:
                state.stopped = _error(each)
        self._stopped = set(stopped) | self._rekeyed

    # --- logs' keys -----------------------------------------------------------------------------------------

    def _on_rekeyed(self, state: LogState) -> None:
        """Stops a log at once; whether an operator changed its keys is found out a moment later."""
        state.stopped = SigningStopped(Kind.LOG_KEY, "its keys were changed")
        self._rekeyed.add(state.origin)
        self._stopped.add(state.origin)

    async def _judge_rekeyed(self) -> None:
        for origin in sorted(self._rekeyed):
            state = self._witness.book.get(origin)
            digest = state.keys_digest if state is not None else ""
            if await self._do(memory.keys_sanctioned, self._desk, origin, digest):
                await self._record([Event("log-keys", {"origin": origin, "keys": digest})])
                if self._keys is not None and self._marks is not None:
                    await self._do(self._append_heads, self._keys[0], [origin])
            else:
                await self.alarm(
                    self._plain(
                        Kind.LOG_KEY, "the database", "its keys were changed by no operator's command", origin
                    )
                )
            self._rekeyed.discard(origin)
        self._apply()

    # --- the chores -----------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Writes the heads that moved into the high-water record; none while signing is stopped."""
        if self._keys is None or self._marks is None or self._halting():
            return
        book = self._witness.book
        moved, sequence = book.moved_since(self._flushed), book.sequence
        if moved:
            await self._do(self._append_heads, self._keys[0], moved)
            self._flushed = sequence

    def _append_heads(self, key: MacKey, origins: list[str]) -> None:
        witness = self._witness
        now = int(self._now())
        if self._water.grown and self._marks is not None:
            book = witness.book
            self._marks.heads = {m.origin: m for m in compare.marks_of(book, book.moved_since(0))}
            self._marks.issued, self._marks.written = witness.last_issued, now
            self._marks.audit = self.audit_head
            self._water.begin(key, self._marks)
            self._marks.heads = {}
            return
        found = compare.marks_of(witness.book, origins)
        if found:
            self._water.append(key, found, issued=witness.last_issued, written=now)

    async def _remember(self) -> None:
        if self._settings.recent and not self._halting():
            book = self._witness.book
            origins, sequence = book.moved_since(self._remembered), book.sequence
            numbers = [state.log_id for origin in origins if (state := book.get(origin)) is not None]
            await self._do(memory.remember_heads, self._desk, numbers, self._settings.recent)
            self._remembered = sequence

    async def _note_clock(self) -> None:
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
            await self._record([Event("clock", {"trouble": str(wrong) if wrong else "over"})])

    async def _note_evidence(self) -> None:
        count = self._witness.contradictions
        if count > self._contradictions:
            log.error(
                "a log contradicts itself: witness evidence list (%d new)", count - self._contradictions
            )
            await self._record([Event("evidence", {"new": count - self._contradictions, "kept": count})])
            self._contradictions = count

    async def _note_suspicious(self) -> None:
        refusals = self._witness.refusals
        counts = {code: refusals[code] - self._counted[code] for code in SUSPICIOUS}
        self._counted = Counter({code: refusals[code] for code in SUSPICIOUS})
        if any(counts.values()):
            await self._record([Event("refusals", {code: count for code, count in counts.items() if count})])

    async def _record(self, events: list[Event]) -> None:
        if self._keys is not None:
            self.audit_head = await self._do(self._write_record, events)

    def _write_record(self, events: list[Event]) -> tuple[int, str]:
        assert self._keys is not None
        water_key, audit_key = self._keys
        head = audit.append(self._desk, audit_key, events, int(self._now()))
        if self._marks is not None:
            self._marks.audit = head
            self._water.append(water_key, audit=list(head), issued=self._witness.last_issued)
        return head

    def _find_keys(self) -> tuple[MacKey, MacKey]:
        signers, fallback = self._signers, self._fallback
        return mac_key(signers, HIGH_WATER, fallback), mac_key(signers, AUDIT, fallback)

    async def _do(self, function: Callable[..., _T], *args: Any) -> _T:
        """Runs something on the guard's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _error(alarm: Alarm) -> CoreError:
    if alarm.kind is Kind.STATE_BEHIND and alarm.seen is not None:
        have = -1 if alarm.have is None else alarm.have
        return StateBehind(alarm.origin, have, alarm.seen, alarm.source)
    return SigningStopped(alarm.kind, str(alarm))


def _told(alarm: Alarm) -> dict[str, Any]:
    return {
        "alarm": alarm.kind,
        "origin": alarm.origin,
        "have": alarm.have,
        "seen": alarm.seen,
        "source": alarm.source,
        "detail": alarm.detail,
    }


def _raise_all(desk: Desk, found: list[Alarm]) -> list[Alarm]:
    with desk.transaction():
        return [each for each in found if alarms.raise_alarm(desk, each)]


def _has_entry(desk: Desk, number: int, digest: str) -> bool:
    return any(
        entry.number == number and entry.digest == digest for entry in audit.entries(desk, number - 1, 1)
    )
