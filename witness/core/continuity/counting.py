"""Holds the state against the hardware counter, and moves that on: at a start and at intervals.

In between it only looks whether something else has moved it: a second copy of this state, on the same device.
The counter is asked on a thread of its own: a device may take its time, and the records may not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from witness.core.continuity.counter import ACCEPTED, COUNTER, SEEN, RollbackCounter, judge_counter
from witness.core.continuity.halting import Halting
from witness.core.continuity.records import Records
from witness.core.keystore.base import DeviceLost, KeystoreError
from witness.core.store.alarms import Kind

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""How often the counter is looked at. Looking wears nothing; it costs a process and a little of the TPM."""
RETRY_SECONDS: Final = 10.0
"""Until a device is asked again that was away when its counter was to be looked at."""
_T = TypeVar("_T")


class Counting:
    """The counter of one core, if it has one."""

    def __init__(
        self,
        counter: RollbackCounter | None,
        records: Records,
        halting: Halting,
        *,
        interval: float,
        look: float = LOOK_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Takes the counter, and the seconds between two moves and between two looks."""
        self.trouble = ""
        """Why the counter could not be looked at or moved the last time, or empty."""
        self._counter = counter
        self._records = records
        self._halting = halting
        self._interval = interval
        self._look = min(look, interval)
        self._now = now
        self._value = 0
        self._moved_at = 0
        self._last_move = self._next_look = time.monotonic()
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "counter")

    def __str__(self) -> str:
        """One line for the operator: device, value, when it was moved last; empty where there is none."""
        if self._counter is None:
            return ""
        if not self._moved_at:
            return f"{self._counter.name}: not compared yet"
        return f"{self._counter.name}: {self._value}, moved {self._moved_at}"

    def close(self) -> None:
        """Asks for nothing more. What a device that hangs still owes is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def reach(self) -> None:
        """Makes sure that the counter can be had, if there is one.

        Raises:
            DeviceLost: the device is another, or was wiped.
            KeystoreError: it cannot be had now.
        """
        if self._counter is not None:
            await self._do(self._counter.read)

    async def compare(self) -> None:
        """Holds the state against the counter, and moves that on.

        Raises:
            KeystoreError: it cannot be had or moved now. The comparison is to be made again.
        """
        counter, records = self._counter, self._records
        if counter is None or records.marks is None:
            return
        async with self._turn:
            value = await self._do(counter.read)
            # The high-water record tells how old it is; a database older than the record, the record tells.
            noted = records.marks.counter or await self._noted()
            verdict = judge_counter(noted, value)
            if not verdict.fault:
                await self._move(verdict.following)
            elif await self._accepted(value):
                await self._move(value + 1)
            else:
                await self._alarm(verdict.fault, value)

    async def let_go(self) -> None:
        """Lets the device go."""
        if self._counter is not None:
            await self._do(self._counter.close)

    async def run(self) -> None:
        """Looks and moves, for ever; in a task of its own."""
        while self._counter is not None:
            await asyncio.sleep(max(0.05, self._next_look - time.monotonic()))
            await self.keep()

    async def keep(self) -> None:
        """Looks whether the counter stands where this state left it, and moves it on when it is time."""
        self._next_look = time.monotonic() + self._look
        async with self._turn:
            try:
                await self._keep()
            except DeviceLost as error:
                await self._halting.plain(Kind.DEVICE, self.device, error.reason)
            except KeystoreError as error:
                # What was compared at the start stays compared: only a copy made since goes unseen meanwhile.
                self._next_look = time.monotonic() + min(RETRY_SECONDS, self._look)
                if not self.trouble:
                    log.warning("the hardware counter of %s cannot be had: %s", self.device, error.reason)
                self.trouble = f"the hardware counter cannot be looked at or moved: {error.reason}"
            else:
                self.trouble = ""
            await self.let_go()

    async def _keep(self) -> None:
        counter, records, halting = self._counter, self._records, self._halting
        if counter is None or not records.writable or halting.comparing or halting.whole:
            return
        noted, value = self._value, await self._do(counter.read)
        if not records.writable or halting.comparing or halting.whole:
            return
        if value not in (noted, noted - 1):  # one less where a move was cut off
            fault = f"it stands at {value}, and was left at {noted}: a second copy of this state runs"
            await self._alarm(fault, value)
        elif value != noted or time.monotonic() - self._last_move >= self._interval:
            await self._move(noted if value != noted else value + 1)

    async def _move(self, following: int) -> None:
        counter, records = self._counter, self._records
        if counter is None or not records.writable or self._halting.whole:
            return
        # First what the state is to say, durably; only then the counter.
        await records.do(records.desk.set_fact, COUNTER, str(following))
        await records.do(records.append_counter, following)
        self._value = following
        value = await self._do(counter.increment)
        if value != following:
            await self._alarm(f"it moved to {value}, not to {following}: something else moves it", value)
            return
        self._last_move, self._moved_at = time.monotonic(), int(self._now())
        self._next_look = self._last_move + self._look

    async def _noted(self) -> int | None:
        fact = await self._records.do(self._records.desk.fact, COUNTER)
        return int(fact) if fact is not None else None

    async def _accepted(self, value: int) -> bool:
        """Whether an operator's recovery, approved where that is needed, settled an alarm over this value."""
        fact = await self._records.do(self._records.desk.fact, ACCEPTED)
        if fact is None:
            return False
        settled, raised = fact.split()
        return int(settled) == value and await self._halting.approved_since(int(raised))

    async def _alarm(self, fault: str, value: int) -> None:
        await self._records.do(self._records.desk.set_fact, SEEN, str(value))
        await self._halting.plain(Kind.COUNTER, self.device, fault)

    @property
    def device(self) -> str:
        """The counter, as alarms name it."""
        return f"the counter of {self._counter.name}" if self._counter is not None else "no counter"

    async def _do(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
