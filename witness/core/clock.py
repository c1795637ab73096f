"""Whether the clock can be right. That it never runs behind an issued timestamp is the witness's own check.

Three bounds, each of which signing stops at, and is taken up again by itself once the clock is within them:

- before this program was made (`EARLIEST`);
- ahead of what passed since the last timestamp of this run, by the machine's other clock, which counts the
  seconds since boot, sleep included, and cannot be set;
- for the first timestamp of a run, further ahead of the last one known than a witness may reasonably stand
  still (`MAX_GAP`).

A jump ahead is worse than one back: a timestamp from the future, once issued, would stop signing until that
time comes. The last two bounds can be wrong about a clock that is right: a witness may have stood still for
longer, and a clock that was slow may have been set. Then an operator says so (`ClockCheck.accept`), by
`witness recover --accept-clock`; a timestamp behind one issued is never made, whatever anybody says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from witness.core.refusals import ClockWrong

EARLIEST: Final = 1_785_542_400
"""2026-08-01: before this program was made."""
TOLERANCE: Final = 300
"""Seconds that the clock may be ahead of what passed: corrections by NTP, and both clocks' drift."""
MAX_GAP: Final = 400 * 86400
"""Seconds that a witness may have stood still."""
ACCEPTED: Final = "clock-accepted"
"""The fact that names the time at which an operator said that the clock is right, POSIX seconds."""
_WAY: Final = "if it is right, witness recover --accept-clock"


def since_boot() -> float:
    """Seconds since boot, sleep included, where the system counts them so."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockCheck:
    """Holds the clock against another that nobody sets."""

    def __init__(self, *, elapsed: Callable[[], float] = since_boot, max_gap: int = MAX_GAP) -> None:
        self._elapsed = elapsed
        self._max_gap = max_gap
        self._anchor: tuple[int, float] | None = None
        self._accepted = 0

    def accept(self, when: int) -> None:
        """Takes an operator's word that the clock was right when it showed `when` (POSIX seconds)."""
        if when > self._accepted:
            self._accepted = when
            self._anchor = None

    def check(self, now: int, known: int) -> None:
        """Passes a timestamp that is about to be issued.

        Args:
            now: the clock, POSIX seconds, not behind `known`.
            known: the largest timestamp known to be issued; 0 for none.

        Raises:
            ClockWrong: the clock cannot be right.
        """
        wrong = self.wrong(now, known)
        if wrong is not None:
            raise wrong
        self._anchor = (now, self._elapsed())

    def wrong(self, now: int, known: int) -> ClockWrong | None:
        """What is wrong with the clock, or None."""
        if now < EARLIEST:
            return ClockWrong(now, "that is before this program was made")
        if self._anchor is not None:
            issued, then = self._anchor
            ahead = now - issued - (self._elapsed() - then)
            if ahead > TOLERANCE:
                return ClockWrong(
                    now, f"it is {ahead:.0f} s ahead of what passed since the last timestamp; {_WAY}"
                )
        elif known and now - max(known, self._accepted) > self._max_gap:
            days = (now - known) // 86400
            return ClockWrong(now, f"it is {days} days after the last timestamp issued; {_WAY}")
        return None
