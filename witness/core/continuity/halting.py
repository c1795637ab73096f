"""Alarms and what they stop.

An alarm is durable before signing stops for the caller's eyes, and stops it in memory first. Alarms of one
log stop that log; all others stop the witness.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from witness.core.continuity import memory
from witness.core.continuity.authority import Action, Authority, keys_were_approved, was_used
from witness.core.continuity.records import Records
from witness.core.refusals import CoreError, NotCompared, SigningStopped, StateBehind
from witness.core.request import LogState
from witness.core.store import alarms
from witness.core.store.alarms import ONE_LOG, Alarm, Kind
from witness.core.store.audit import Event
from witness.core.store.desk import Desk
from witness.core.witness import Witness

log = logging.getLogger(__name__)

MOST_TOLD: Final = 10
"""Alarms of one moment that get a line of their own."""


class Halting:
    """The alarms of one core.

    Attributes:
        standing: the alarms that are not settled.
        rekeyed: origins whose keys changed, until it is known who did it.
        comparing: while the state is being compared, why nothing is let through; else empty.
    """

    def __init__(
        self, records: Records, witness: Witness, authority: Authority, now: Callable[[], float], wait: float
    ) -> None:
        self.standing: tuple[Alarm, ...] = ()
        self.rekeyed: set[str] = set()
        self.comparing = "its state is being compared with the high-water record"
        self._records = records
        self._witness = witness
        self._authority = authority
        self._now = now
        self._stopped: set[str] = set()
        self._world = asyncio.Event()
        self._world_deadline = time.monotonic() + wait if wait > 0 else 0.0

    def load(self) -> None:
        """Reads what stands."""
        self.standing = alarms.standing(self._records.desk)

    @property
    def whole(self) -> tuple[Alarm, ...]:
        """The alarms that stop the whole witness."""
        return tuple(each for each in self.standing if each.kind not in ONE_LOG)

    @property
    def given_up(self) -> set[str]:
        """The logs that were given up for good."""
        return {each.origin for each in self.standing if each.kind is Kind.ABANDONED}

    @property
    def ended(self) -> set[str]:
        """What an operator ended for good: the logs given up, and the empty origin for the whole identity."""
        retired = {"" for each in self.standing if each.kind is Kind.RETIRED}
        return self.given_up | retired

    # --- raising --------------------------------------------------------------------------------------------

    async def alarm(self, found: Alarm) -> None:
        """Stops signing, makes the alarm durable, records it."""
        if found.kind not in ONE_LOG:
            self._witness.halted = _error(found)
        desk = self._records.desk
        if await self._records.do(alarms.raise_alarm, desk, found):
            log.error("alarm: %s", found)
            await self._records.tell([Event("alarm", _told(found))], self._witness)
        self.standing = await self._records.do(alarms.standing, desk)
        self.apply()

    async def alarm_of_many(self, found: list[Alarm]) -> None:
        """The same for many at once: a lost database is behind for every log."""
        self._witness.halted = _error(found[0])
        desk = self._records.desk
        new = await self._records.do(_raise_all, desk, found)
        if new:
            for each in new[:MOST_TOLD]:
                log.error("alarm: %s", each)
            if len(new) > MOST_TOLD:
                log.error("alarm: and %d logs more", len(new) - MOST_TOLD)
            await self._records.tell(
                [Event("alarm", {**_told(new[0]), "logs": len(new)})], self._witness
            )  # fmt: skip
        self.standing = await self._records.do(alarms.standing, desk)
        self.apply()

    async def plain(self, kind: Kind, source: str, detail: str, origin: str = "") -> None:
        """An alarm in which sizes are not the matter."""
        await self.alarm(Alarm(kind, origin, int(self._now()), None, None, None, 0, source, detail))

    def world_compared(self) -> None:
        """The front has asked everybody it was told to ask."""
        self._world.set()
        self.apply()

    # --- settling -------------------------------------------------------------------------------------------

    async def take_over_settled(self) -> frozenset[Kind] | None:
        """Takes over which alarms an operator settled.

        Returns:
            The kinds that no longer stand, and `comparing` is set; None where nothing was settled, or without
            the approval that it needs, so that all stand again.
        """
        records = self._records
        before = self.standing
        after = await records.do(alarms.standing, records.desk)
        numbers = {still.number for still in after}
        gone = [each for each in before if each.number not in numbers]
        if not gone:
            self.standing = after
            return None
        # From here on nothing is let through that the comparison to come might still stop.
        before_that, self.comparing = self.comparing, "what was settled is being compared"
        if not await self.approved_since(min(each.raised for each in gone)):
            for each in gone:
                await self.alarm(each)
            self.comparing = before_that
            self.apply()
            return None
        self.standing = after
        return frozenset(each.kind for each in before) - frozenset(each.kind for each in after)

    async def approved_since(self, raised: int) -> bool:
        """Whether enough operators approved to settle what was raised then, where that needs them."""
        if not self._authority.needed:
            return True
        desk = self._records.desk
        return await self._records.do(was_used, desk, self._authority, Action.RECOVER, raised)

    # --- what is stopped ------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Sets what the witness signs by what stands now."""
        witness = self._witness
        whole = self.whole
        waiting = bool(self._world_deadline) and not self._world.is_set()
        halted: CoreError | None = None
        if whole:
            halted = _error(whole[0])
        elif self.comparing or self._records.marks is None:
            halted = NotCompared(self.comparing or "it could not be compared with the high-water record")
        elif waiting and time.monotonic() < self._world_deadline:
            halted = NotCompared("its state is being compared with what distributors and monitors have of it")
        witness.halted = halted
        stopped = {each.origin: each for each in self.standing if each.kind in ONE_LOG}
        for origin in (self._stopped - stopped.keys()) - self.rekeyed:
            state = witness.book.get(origin)
            if state is not None:
                state.stopped = None
        for origin, each in stopped.items():
            state = witness.book.get(origin)
            if state is not None:
                state.stopped = _error(each)
        self._stopped = set(stopped) | self.rekeyed

    # --- logs' keys -----------------------------------------------------------------------------------------

    def on_rekeyed(self, state: LogState) -> None:
        """Stops a log at once; whether an operator changed its keys is found out a moment later."""
        state.stopped = SigningStopped(Kind.LOG_KEY, "its keys were changed")
        self.rekeyed.add(state.origin)
        self._stopped.add(state.origin)

    async def judge_rekeyed(self) -> None:
        """Lets go on what an operator's command changed; the rest is an alarm."""
        records, witness = self._records, self._witness
        for origin in sorted(self.rekeyed):
            state = witness.book.get(origin)
            digest = state.keys_digest if state is not None else ""
            vkeys = state.vkeys if state is not None else ()
            if await records.do(self._sanctioned, origin, digest, vkeys):
                await records.tell([Event("log-keys", {"origin": origin, "keys": digest})], witness)
                if records.writable:
                    await records.do(records.append_heads, witness, [origin])
            else:
                detail = "its keys were changed by no operator's command"
                await self.plain(Kind.LOG_KEY, "the database", detail, origin)
            self.rekeyed.discard(origin)
        self.apply()

    def _sanctioned(self, origin: str, digest: str, vkeys: tuple[str, ...]) -> bool:
        """Whether an operator's command gave a log these keys, with as many approvals as that needs."""
        desk = self._records.desk
        return memory.keys_sanctioned(desk, origin, digest) and keys_were_approved(
            desk, self._authority, origin, vkeys
        )


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
