"""How the core is: what `witness status`, readyz and the metrics are made of."""

from __future__ import annotations

import dataclasses
import os

import witness
from witness.core.continuity.guard import Guard
from witness.core.keystore.base import Keystore
from witness.core.wire import CoreStatus, LockdownStep
from witness.core.witness import Witness

MOST_ALARMS = 100
"""Alarms that a status names; a lost database raises one for each log."""


class StatusReporter:
    """Puts a `CoreStatus` together when asked."""

    def __init__(
        self,
        name: str,
        core: Witness,
        keystore: Keystore,
        *,
        selftests: tuple[str, ...],
        started: float,
        lockdown: tuple[LockdownStep, ...] = (),
        guard: Guard | None = None,
        restarts: int = 0,
        hung: int = 0,
    ) -> None:
        self._name = name
        self._core = core
        self._keystore = keystore
        self._selftests = selftests
        self._started = started
        self._lockdown = lockdown
        self._guard = guard
        self._restarts = restarts
        self._hung = hung

    def status(self) -> CoreStatus:
        """The core at this moment."""
        core = self._core
        keys = self._keystore.states()
        reasons = [
            *core.unready(),
            *(f"key {'+'.join(key.vkey.split('+')[:2])} is {key.state}: {key.detail}" for key in keys
              if key.state != "ready"),
        ]  # fmt: skip
        warnings = self._guard.warnings if self._guard else ()
        number, digest = self._guard.audit_head if self._guard else (0, "")
        return CoreStatus(
            name=self._name,
            version=witness.__version__,
            pid=os.getpid(),
            started=self._started,
            ready=not reasons,
            reasons=tuple(reasons),
            warnings=(*self._keystore.warnings(), *warnings),
            keys=keys,
            logs=len(core.book),
            heads=core.book.heads,
            pending=core.pending,
            last_issued=core.last_issued,
            accepted=core.accepted,
            commits=core.commits,
            contradictions=core.contradictions,
            refusals=dict(core.refusals),
            stages={name: round(value, 6) for name, value in dataclasses.asdict(core.stages).items()},
            selftests=self._selftests,
            lockdown=(*self._lockdown, *self._keystore.drivers()),
            alarms=self._alarms(),
            rotation=self._guard.rotation if self._guard else "",
            audit=f"{number} {digest}" if number else "",
            restarts=self._restarts,
            hung=self._hung,
            counter=self._guard.counter if self._guard else "",
            attested_head=self._guard.attested_head.decode() if self._guard else "",
        )

    def _alarms(self) -> tuple[str, ...]:
        alarms = self._guard.alarms if self._guard else ()
        lines = tuple(str(alarm) for alarm in alarms[:MOST_ALARMS])
        more = len(alarms) - len(lines)
        return (*lines, f"and {more} alarms more: witness recover") if more else lines
