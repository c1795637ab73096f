"""What stands between a core and the past: compares, records, remembers, and stops signing.

This is the whole of it for the core; the parts are `records.py` (what is written), `halting.py` (alarms and
what they stop), `comparing.py` and `counting.py` (is the state old?) and `chores.py`. Rules of them all:

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
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from witness.core.clock import ACCEPTED, ClockCheck
from witness.core.continuity import compare, memory
from witness.core.continuity.attested import HeadKeeper
from witness.core.continuity.authority import Authority
from witness.core.continuity.chores import Chores
from witness.core.continuity.comparing import Comparison
from witness.core.continuity.counter import RollbackCounter
from witness.core.continuity.counting import Counting
from witness.core.continuity.halting import Halting
from witness.core.continuity.recording import Recording
from witness.core.continuity.records import Records
from witness.core.continuity.rotating import Keys, Rotating
from witness.core.continuity.secret import Source, source
from witness.core.continuity.settings import ContinuitySettings
from witness.core.continuity.sshsig import parse_operator
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.base import DeviceLost, KeyInvalid, KeyRefused, KeystoreError
from witness.core.refusals import NotCompared
from witness.core.store import audit
from witness.core.store.alarms import Alarm, Kind
from witness.core.store.audit import Event
from witness.core.store.base import Identity, StoreError
from witness.core.witness import Witness
from witness.tlog.note import VerifierKey

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
"""How often the guard looks for what an operator settled."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to compare, while what it takes is away."""
_PAUSE: Final = 4.0
"""Between two tries, as a multiple of what the last one took: a device is asked seldom, a lock often."""
REMEMBER_SECONDS: Final = 60.0
"""How often the heads that moved are remembered."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What there is once the witness has started."""

    witness: Witness
    halting: Halting
    counting: Counting
    rotating: Rotating
    comparison: Comparison
    chores: Chores
    recording: Recording


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
        attestation: Callable[[], AttestationKey | None] = lambda: None,
        now: Callable[[], float] = time.time,
        sources: Sequence[Source] = (),
        keys: Keys | None = None,
    ) -> None:
        """Opens what can only be opened now.

        Args:
            database: the witness's.
            record: the high-water record, without its suffixes.
            fallback_key: the file that the records' keys come from where all witness keys are in devices.
            settings: what the operator wishes.
            identity: whose state it is.
            signers: the witness's keys; the records' keys come from the first whose secret is here.
            vkeys: all keys of the identity, present and past.
            counter: the hardware counter, if there is one.
            attestation: gives the attestation key, once it is there.
            now: the clock.
            sources: what the records' keys come from, instead of `signers`, where there are generations.
            keys: the generations of the keys, to be taken up and retired.

        Raises:
            RecordHeld: another process has the high-water record: a second copy of this witness runs.
            StoreError, KeystoreError, OSError: something cannot be opened.
        """
        self._warning = ""
        self._settings = settings
        self._authority = Authority(settings.needed, tuple(map(parse_operator, settings.operators)))
        self._vkeys = tuple(vkeys)
        self._counter = counter
        self._now = now
        self._records = Records(
            database=database,
            record=record,
            identity=identity,
            sources=sources or (source(signers, fallback_key),),
            now=now,
        )
        self._head = HeadKeeper(identity, attestation, now)
        self._keys = keys
        self._started: _Parts | None = None
        self._start_facts: dict[str, Any] | None = None
        self._due: frozenset[Kind] | None = frozenset()
        """While a comparison is due: the kinds of alarms that an operator has settled since the last one."""
        self._next_try = 0.0
        self._changed = False
        self._last_flush = self._last_remember = time.monotonic()

    @property
    def _parts(self) -> _Parts:
        if self._started is None:
            raise RuntimeError("start() comes first")
        return self._started

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms that stand."""
        return self._started.halting.standing if self._started is not None else ()

    @property
    def audit_head(self) -> tuple[int, str]:
        """Number and hash of the last entry of the record of events; (0, "") for none."""
        return self._records.audit_head

    @property
    def counter(self) -> str:
        """How the hardware counter stands, one line; empty where there is none."""
        return str(self._started.counting) if self._started is not None else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What keeps the guard from its work, one line each."""
        trouble = self._started.counting.trouble if self._started is not None else ""
        return tuple(line for line in (self._warning, trouble) if line)

    @property
    def attested_head(self) -> bytes:
        """The latest attested head of the record of events, a signed note; empty where there is none."""
        return self._head.note

    @property
    def rotation(self) -> str:
        """The rotation of keys that is under way, for people; empty for none."""
        return self._started.rotating.describe() if self._started is not None else ""

    # --- start and stop -------------------------------------------------------------------------------------

    async def start(self, witness: Witness, facts: dict[str, Any]) -> None:
        """Compares, before the first request. `facts` go into the record with the start."""
        settings, records, now = self._settings, self._records, self._now
        witness.clock = ClockCheck()
        if settings.recent:
            witness.judge.recall = functools.partial(memory.recall, records.desk)
        halting = Halting(records, witness, self._authority, now, settings.wait)
        witness.halted = NotCompared(halting.comparing)
        counting = Counting(
            self._counter, records, halting, interval=settings.counter_interval, now=now
        )  # fmt: skip
        rotating = Rotating(self._keys, records, halting, self._authority, now)
        comparison = Comparison(records, halting, counting, rotating, witness=witness, now=now)
        chores = Chores(records, halting, witness, settings.recent, now)
        recording = Recording(records, witness, settings, now)
        self._started = _Parts(witness, halting, counting, rotating, comparison, chores, recording)
        witness.book.on_rekeyed = halting.on_rekeyed
        self._start_facts = facts
        halting.load()
        await self._accept_clock()
        await self._try_compare()

    async def stop(self) -> None:
        """Writes what moved last, and lets everything go. The witness has stopped."""
        records = self._records
        if records.writable and not self._parts.witness.broken.is_set():
            try:
                await self._parts.chores.flush()
                await self._parts.recording.heads()
                await self._tell(Event("stop", {"issued": self._parts.witness.last_issued}))
                await self._attest_head(at_once=True)
            except (OSError, sqlite3.Error) as error:
                log.error("the high-water record was not brought up to date: %s", error)  # noqa: TRY400
        if self._started is not None:
            self._started.counting.close()
        records.close()

    async def run(self) -> None:
        """The chores, for ever. What cannot be written is tried again, and told until it is."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._unless_written(self._chores))
            group.create_task(self._unless_written(self._parts.counting.run))

    async def _unless_written(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does what is done for ever, and begins again when something cannot be written."""
        done = False
        while not done:
            try:
                await work()
                done = True
            except (OSError, sqlite3.Error, StoreError, KeystoreError) as error:
                if not self._warning:
                    log.error(  # noqa: TRY400 - told in a line
                        "the high-water record or the record of events cannot be written: %s", error
                    )
                self._warning = f"the high-water record stays behind, it cannot be written: {error}"

    async def _chores(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._turn()

    async def _turn(self) -> None:
        records, halting, chores = self._records, self._parts.halting, self._parts.chores
        # A change is told once: it counts until it was looked at, whatever goes wrong in between.
        self._changed = await records.do(records.desk.changed) or self._changed
        if self._changed or halting.rekeyed:
            await self._look_again()
            self._changed = False
        # Before the first comparison nothing is known; later, what else stands is settled first.
        able = self._start_facts is not None or not halting.whole
        if self._due is not None and able and time.monotonic() >= self._next_try:
            await self._try_compare()
        if not halting.comparing and self._parts.rotating.has_work:
            await self._tend()
        halting.apply()
        now = time.monotonic()
        if now - self._last_flush >= self._settings.interval:
            await chores.flush()
            await self._parts.recording.heads()
            await self._parts.recording.prune()
            await chores.note_clock()
            await chores.note_evidence()
            self._last_flush, self._warning = now, ""
        await self._attest_head()
        if now - self._last_remember >= REMEMBER_SECONDS:
            self._last_remember = now
            await chores.remember()
            await chores.note_suspicious()

    # --- comparing ------------------------------------------------------------------------------------------

    async def _try_compare(self) -> None:
        """Compares, if all that it takes is there: the keys of the records, and the counter."""
        halting, counting = self._parts.halting, self._parts.counting
        began = time.monotonic()
        try:
            await self._find_keys()
            await counting.reach()
            await self._parts.witness.refresh()  # what was brought forward
            await self._compare(self._due or frozenset())
        except DeviceLost as error:
            await halting.plain(Kind.DEVICE, counting.device, error.reason)
        except KeystoreError as error:
            # Without what it is to be compared with, it is not compared; and it is not signed.
            halting.comparing = f"its state cannot be compared: {error.reason}"
            now = time.monotonic()
            self._next_try = now + min(_PAUSE * (now - began), LONGEST_PAUSE)
            halting.apply()
            return
        finally:
            await counting.let_go()
        if self._start_facts is not None:
            await self._tell(Event("start", self._start_facts))
            self._start_facts = None
        await self._tend()  # a key whose time is over signs nothing first
        self._due, halting.comparing = None, ""
        halting.apply()

    async def _find_keys(self) -> None:
        if self._records.readable:
            return
        try:
            self._records.find_keys()
        except (KeyRefused, KeyInvalid):
            await self._parts.counting.reach()  # a device that was wiped is told as that
            raise

    async def _compare(self, accepted: frozenset[Kind]) -> None:
        sequence = self._parts.witness.book.sequence
        if await self._parts.comparison.compare(accepted):
            self._parts.chores.all_written(sequence)

    async def _tend(self) -> None:
        """Sees to the generations of the keys."""
        rotating = self._parts.rotating
        if rotating.has_work:
            await self._tell(*await rotating.tend())

    async def _look_again(self) -> None:
        """Takes over what an operator did to alarms, log keys and the inbox."""
        records, halting = self._records, self._parts.halting
        kinds = await halting.take_over_settled()
        if kinds is not None:
            self._due = kinds | (self._due or frozenset())
            self._next_try = 0.0
        await self._parts.rotating.reload()
        if any(each.kind is Kind.RETIRED for each in halting.standing):
            await self._parts.rotating.identity_retired()
        await halting.judge_rekeyed()
        await self._accept_clock()
        if records.writable:
            await records.do(records.append_ended, halting.ended)
        if await records.do(audit.waiting, records.desk):
            await self._tell()

    async def _accept_clock(self) -> None:
        """Takes over an operator's word that the clock is right."""
        clock, fact = self._parts.witness.clock, await self._records.do(self._records.desk.fact, ACCEPTED)
        if clock is not None and fact is not None and await self._parts.halting.approved_since(int(fact)):
            clock.accept(int(fact))

    async def _tell(self, *events: Event) -> None:
        await self._records.tell(list(events), self._parts.witness)

    async def _attest_head(self, *, at_once: bool = False) -> None:
        # A record that is known to be behind itself is vouched for by nobody.
        behind = any(alarm.kind is Kind.AUDIT_BEHIND for alarm in self.alarms)
        if not behind and self._head.due(self.audit_head, at_once=at_once):
            await self._records.do(self._head.attest, self._records.desk, self.audit_head)

    # --- what the world has of us ---------------------------------------------------------------------------

    async def seen(self, source: str, note: bytes) -> bool:
        """Takes a cosigned checkpoint that was found in the world; whether it is one of ours.

        A front can only stop signing with it, and only by what this identity itself has signed.
        """
        halting = self._parts.halting
        keys = tuple(dict.fromkeys([*self._vkeys, *self._parts.rotating.past]))
        own = await self._records.do(compare.own_cosignature, note, keys)
        if own is None:
            return False
        found = compare.with_own(self._parts.witness.book, own, source, int(self._now()), note)
        if found is not None and own.checkpoint.origin not in halting.given_up:
            await halting.alarm(found)
        return True

    def world_compared(self) -> None:
        """The front has asked everybody it was told to ask."""
        self._parts.halting.world_compared()
