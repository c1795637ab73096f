"""Ways to break the witness, each of which the histories must find: what finds nothing shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from witness.core import ground
from witness.core.continuity import comparing, guard, halting, highwater, records, recover
from witness.core.continuity.compare import Survey
from witness.core.store.alarms import Kind


def _record_not_compared() -> None:
    comparing.compare.survey = lambda *_: Survey()


def _world_not_heard() -> None:
    guard.compare.with_own = lambda *_: None


def _restored_in_silence() -> None:
    plain = halting.Halting.plain

    async def silent(self: halting.Halting, kind: Kind, *args: Any) -> None:
        if kind is not Kind.RESTORED:
            await plain(self, kind, *args)

    halting.Halting.plain = silent


def _lost_record_begun_anew() -> None:
    plain = halting.Halting.plain

    async def silent(self: halting.Halting, kind: Kind, *args: Any) -> None:
        if kind not in (Kind.RECORD_LOST, Kind.RECORD_INVALID):
            await plain(self, kind, *args)

    halting.Halting.plain = silent


def _record_not_locked() -> None:
    highwater.fcntl.flock = lambda *_: None


def _brought_forward_without_proof() -> None:
    recover._prove = lambda *_: None


def _end_forgotten() -> None:
    records.Records.append_ended = lambda *_: None


def _retired_keys_forgotten() -> None:
    records.Records.append_retired = lambda *_: None


def _clock_not_looked_at() -> None:
    ground.Ground._known = property(lambda _: 0)


def _settled_without_comparing() -> None:
    real = guard.Guard._compare

    async def once(self: guard.Guard, accepted: frozenset[Kind]) -> None:
        if not accepted:
            await real(self, accepted)

    guard.Guard._compare = once


SABOTAGE: dict[str, Callable[[], None]] = {
    "the record is not compared": _record_not_compared,
    "the world is not heard": _world_not_heard,
    "a backup is restored in silence": _restored_in_silence,
    "a lost record is no alarm": _lost_record_begun_anew,
    "the record is not locked": _record_not_locked,
    "logs are brought forward without proof": _brought_forward_without_proof,
    "what ended is forgotten": _end_forgotten,
    "retired keys are forgotten": _retired_keys_forgotten,
    "the clock is not looked at": _clock_not_looked_at,
    "what was settled is not compared": _settled_without_comparing,
}
"""By name; each changes the process it is called in."""
