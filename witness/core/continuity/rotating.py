"""The generations of a core's keys: a staged one is taken up, a retiring one retired, a retired one refused.

Retiring goes in steps, in this order, and each finds after a crash what was done before it:

1. The cosigner drops the keys, and whatever it was signing with them ends. No further signature is begun.
2. The database says that they are retired, with the event, in one transaction; then the high-water record
   does. From here on no core signs with them: at a start either of the two is enough to refuse.
3. Their secrets are destroyed, where that can be done, and the record says what was left.

Memory goes first, so that no signature is younger than the durable word that there will be none. A crash
before step 2 leaves keys that sign at the next start again, and are retired there: their time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from witness.core.continuity.authority import Action, Authority, was_used
from witness.core.continuity.halting import Halting
from witness.core.continuity.highwater import Marks
from witness.core.continuity.records import Records
from witness.core.store import generations
from witness.core.store.alarms import Kind
from witness.core.store.audit import Event, leave
from witness.core.store.base import StoreError
from witness.core.store.generations import Generation, Generations, Stage
from witness.tlog.note import VerifierKey, parse_vkey

log = logging.getLogger(__name__)

DESTROYED: Final = "destroyed:"
"""The fact, with a generation's number after it, that says that its secrets are destroyed."""

DESTROYING: Final = "its secrets are being destroyed"


class Keys(Protocol):
    """The keys of one core."""

    @property
    def generations(self) -> tuple[tuple[int, tuple[VerifierKey, ...]], ...]:
        """All registered witness keys by the number of their generation, as they were at the start."""
        ...

    def drop(self, vkeys: Collection[VerifierKey]) -> bool:
        """Signs with keys no more; blocks until none is being used. False where one still is."""
        ...

    def destroy(self, vkeys: Collection[VerifierKey]) -> tuple[str, ...]:
        """Destroys the secrets of keys; what could not be, a line each. Blocks."""
        ...


class Rotating:
    """The generations of one core."""

    def __init__(
        self,
        keys: Keys | None,
        records: Records,
        halting: Halting,
        authority: Authority,
        now: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._records = records
        self._halting = halting
        self._authority = authority
        self._now = now
        self._known = Generations()
        self._to_destroy: dict[int, tuple[str, ...]] = {}
        self._left: dict[int, tuple[str, ...]] = {}

    @property
    def _mine(self) -> dict[int, tuple[VerifierKey, ...]]:
        return dict(self._keys.generations) if self._keys is not None else {}

    @property
    def past(self) -> tuple[VerifierKey, ...]:
        """Every key that this identity has or had, as anything here tells: what it signed was ours."""
        mine = [vkey for vkeys in self._mine.values() for vkey in vkeys]
        marks = self._records.marks
        texts = {vkey for row in self._known for vkey in row.vkeys} | set(marks.retired if marks else ())
        return tuple(dict.fromkeys([*mine, *map(parse_vkey, sorted(texts - set(map(str, mine))))]))

    # --- at a comparison ------------------------------------------------------------------------------------

    async def compare(self, marks: Marks, accepted: frozenset[Kind]) -> None:
        """Refuses what was retired, whoever knows of it: the database, or the high-water record.

        Args:
            marks: what the high-water record says.
            accepted: kinds of alarms that an operator has just settled.
        """
        if self._keys is None:
            return
        self._known = await self._records.do(self._read)
        mine = [vkey for vkeys in self._mine.values() for vkey in vkeys]
        here = {str(vkey) for vkey in mine}
        retired = frozenset(marks.retired)
        if any(alarm.kind is Kind.RETIRED for alarm in self._halting.standing):
            await self._end_identity(marks, here)
            return
        back = sorted((here & retired) - self._known.retired)
        gone = self._known.retired | retired
        none_left = bool(here) and here <= gone
        await self._drop([vkey for vkey in mine if str(vkey) in gone])
        if none_left or (back and Kind.RETIRED_KEY not in accepted):
            which = ", ".join("+".join(vkey.split("+")[:2]) for vkey in (back or sorted(here)))
            words = "and no other key is here" if none_left else "the state is from before that"
            await self._halting.plain(
                Kind.RETIRED_KEY, str(self._records.water.path), f"{which} was retired: {words}"
            )
        # Only now: an alarm that was cut off would not be raised again by a database that knows.
        await self._records.do(self._learn, retired)
        missing = self._known.retired - retired
        if missing:  # a crash came between the database and the record
            await self._records.do(self._records.append_retired, sorted(missing))
        if not self._halting.whole:
            await self._find_to_destroy()

    async def identity_retired(self) -> None:
        """An operator has ended the identity: none of its keys ever signs again."""
        if self._keys is not None and self._records.marks is not None:
            here = {str(vkey) for vkeys in self._mine.values() for vkey in vkeys}
            await self._end_identity(self._records.marks, here)

    async def _end_identity(self, marks: Marks, here: set[str]) -> None:
        await self._drop([vkey for vkeys in self._mine.values() for vkey in vkeys])
        missing = sorted(here - set(marks.retired))
        if missing:
            await self._records.do(self._records.append_retired, missing)

    # --- in its time ----------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Takes over what an operator's command changed."""
        if self._keys is not None:
            self._known = await self._records.do(self._read)
            for number in tuple(self._left):  # the command may delete what a core locked down may not
                if await self._records.do(self._records.desk.fact, f"{DESTROYED}{number}") is not None:
                    del self._left[number]

    async def tend(self) -> tuple[Event, ...]:
        """Takes up what is staged, retires what is due, destroys what is retired; while nothing is stopped.

        Returns:
            What happened and is not on the record yet. Where something is in the inbox an empty event list
            suffices to have it written.
        """
        if self._keys is None or not self._records.writable or self._halting.whole:
            return ()
        await self._take_up()
        now = int(self._now())
        for row in self._known.due(now):
            await self._retire(row)
        return await self._destroy()

    @property
    def has_work(self) -> bool:
        """Whether `tend` has anything to do now."""
        staged = self._known.staged
        mine = staged is not None and staged.number in self._mine
        return mine or bool(self._known.due(int(self._now()))) or bool(self._to_destroy)

    def describe(self) -> str:
        """The rotation under way, or what is left of one, for people; empty for none."""
        words = list(self._known.describe())
        words += [f"generation {number} is retired, and {DESTROYING}" for number in self._to_destroy]
        words += [
            f"generation {number} is retired, and {line}"
            for number, left in self._left.items()
            for line in left
        ]
        return "; ".join(words)

    # --- the steps ------------------------------------------------------------------------------------------

    async def _take_up(self) -> None:
        staged = self._known.staged
        if staged is None or staged.number not in self._mine:
            return
        now = int(self._now())
        if await self._records.do(self._is_approved, staged):
            await self._records.do(self._write, generations.take_up, Event("rotated", _facts(staged)), now)
            log.warning("generation %d of the keys signs from now on", staged.number)
        else:
            await self._drop(self._mine[staged.number])
            event = Event("rotation-refused", _facts(staged))
            await self._records.do(self._write, _refusal(staged.number), event, now)
            log.error(
                "generation %d of the keys was approved by no operators: it signs nothing", staged.number
            )
        self._known = await self._records.do(self._read)
        await self._find_to_destroy()

    async def _retire(self, row: Generation) -> None:
        vkeys = self._mine.get(row.number, ())
        await self._drop(vkeys)
        self._to_destroy[row.number] = tuple(map(str, vkeys))  # told from before it is retired on
        every = sorted({*row.vkeys, *(str(vkey) for vkey in vkeys)})
        await self._records.do(
            self._write, _retirement(row.number), Event("retired-keys", _facts(row)), int(self._now())
        )
        await self._records.do(self._records.append_retired, every)
        self._known = await self._records.do(self._read)
        log.warning("generation %d of the keys is retired", row.number)
        await self._find_to_destroy()

    async def _destroy(self) -> tuple[Event, ...]:
        keys = self._keys
        assert keys is not None
        events = []
        over = {row.number for row in self._known if row.stage is Stage.RETIRED}
        for number in [each for each in self._to_destroy if each in over]:
            wanted = set(self._to_destroy[number])
            mine = [vkey for vkey in self._mine.get(number, ()) if str(vkey) in wanted]
            left = await asyncio.get_running_loop().run_in_executor(None, keys.destroy, mine)
            if left:
                self._left[number] = left
                log.warning("of generation %d of the keys, %s", number, "; ".join(left))
            else:
                self._left.pop(number, None)
                await self._records.do(self._records.desk.set_fact, f"{DESTROYED}{number}", "1")
            del self._to_destroy[number]
            events.append(Event("keys-destroyed", {"generation": number, "left": list(left)}))
        return tuple(events)

    async def _drop(self, vkeys: Collection[VerifierKey]) -> None:
        keys = self._keys
        if keys is None or not vkeys:
            return
        if not await asyncio.get_running_loop().run_in_executor(None, keys.drop, vkeys):
            raise KeysInUse("a key that is to be retired is still signing")

    async def _find_to_destroy(self) -> None:
        """Once for each start: what a device refuses today it may do at the next."""
        known, mine = self._known, self._mine
        for row in known:
            if row.number not in mine or row.number in self._left:
                continue
            if {str(vkey) for vkey in mine[row.number]} <= known.retired:
                fact = await self._records.do(self._records.desk.fact, f"{DESTROYED}{row.number}")
                if fact is None:
                    self._to_destroy[row.number] = tuple(str(vkey) for vkey in mine[row.number])

    # --- on the guard's thread ------------------------------------------------------------------------------

    def _read(self) -> Generations:
        return generations.read(self._records.desk.connection)

    def _learn(self, retired: frozenset[str]) -> None:
        found = tuple((number, tuple(map(str, vkeys))) for number, vkeys in self._mine.items())
        with self._records.desk.transaction() as connection:
            if generations.learn(connection, found, retired, int(self._now())):
                self._known = generations.read(connection)

    def _write(self, step: Callable[..., Any], event: Event, now: int) -> None:
        with self._records.desk.transaction() as connection:
            step(connection, now)
            leave(connection, event, now)

    def _is_approved(self, staged: Generation) -> bool:
        if not self._authority.needed:
            return True
        return was_used(self._records.desk, self._authority, Action.ROTATE, staged.since)


class KeysInUse(StoreError):
    """Keys that are to be dropped are still being used; it is tried again."""


def _refusal(number: int) -> Callable[..., None]:
    return lambda connection, now: generations.refuse(connection, number, now)


def _retirement(number: int) -> Callable[..., None]:
    return lambda connection, now: generations.retire(connection, (number,), now)


def _facts(row: Generation) -> dict[str, Any]:
    return {
        "generation": row.number,
        "vkeys": ["+".join(vkey.split("+")[:2]) for vkey in row.vkeys],
    }
