"""Whether anything may be signed now, and with what timestamp.

Everything that stops all signing is asked for here and nowhere else, so that no door forgets a reason: a
store that failed, an alarm, a clock that is behind or plainly wrong (rule 8). What stops one log alone
stands with that log (`LogState.stopped`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from witness.core.clock import ClockCheck
from witness.core.refusals import ClockBehind, CoreError, StoreUnavailable


class Ground:
    """What signing stands on. Lives on the event loop's thread.

    Args:
        now: the clock, POSIX seconds.

    Attributes:
        last_issued: the largest timestamp of a cosignature that is durable, POSIX seconds; 0 for none.
        clock: bounds of a clock that can be right; set by `witness.core.continuity`.
        halted: why nothing is signed, where an alarm stands; set by `witness.core.continuity`.
        failing: why the last commit failed, until one succeeds.
        broken: set when the store failed for good: only a fresh process may go on.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.last_issued = 0
        self._taken = 0  # the largest that something under way is signed with, or was
        self.clock: ClockCheck | None = None
        self.halted: CoreError | None = None
        self.failing: str | None = None
        self.broken = asyncio.Event()
        self._broken_reason: str | None = None

    def give_up(self, reason: str) -> None:
        """The store failed for good."""
        self._broken_reason = reason
        self.broken.set()

    def timestamp(self) -> int:
        """The time for cosignatures, never behind one already issued or under way.

        Raises:
            CoreError: nothing may be signed now.
        """
        now = self._must_stand()
        if self.clock is not None:
            self.clock.check(now, self._known)
        self._taken = now
        return now

    def idle(self) -> None:
        """Nothing is under way: what was signed is durable, and a time at which nothing was is forgotten.

        Otherwise a request that is refused, in a moment in which the clock is a year ahead, would stop
        signing for that year.
        """
        self._taken = 0

    @property
    def _known(self) -> int:
        return max(self.last_issued, self._taken)

    def check(self) -> None:
        """For what is signed without a timestamp and without a commit: may anything be signed now?

        A commit that failed stops it too: what asks for none cannot find out that the store is well again.

        Raises:
            CoreError: nothing may be signed now.
        """
        now = self._must_stand()
        if self.failing is not None:
            raise StoreUnavailable(self.failing)
        if self.clock is not None and (wrong := self.clock.wrong(now, self.last_issued)):
            raise wrong

    def reasons(self) -> list[str]:
        """Why every request would be refused now, for people."""
        reasons = []
        if self._broken_reason is not None:
            reasons.append(f"the store is broken: {self._broken_reason}")
        elif self.failing is not None:
            reasons.append(str(StoreUnavailable(self.failing)))
        now = int(self._now())
        if now < self.last_issued:
            reasons.append(str(ClockBehind(now, self.last_issued)))
        elif self.clock is not None and (wrong := self.clock.wrong(now, self.last_issued)):
            reasons.append(str(wrong))
        if self.halted is not None:
            reasons.append(str(self.halted))
        return reasons

    def _must_stand(self) -> int:
        if self._broken_reason is not None:
            raise StoreUnavailable(self._broken_reason)
        if self.halted is not None:
            raise self.halted.with_traceback(None)  # it is raised again and again, and must not grow
        now = int(self._now())
        if now < self._known:
            raise ClockBehind(now, self._known)
        return now
