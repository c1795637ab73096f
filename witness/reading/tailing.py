"""Looking at a log again and again, with pauses that grow while something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from feeders.protocol import FeedError
from witness.reading.following import Turn
from witness.reading.handing import HandOverFailed
from witness.reading.heads import BadHead

LONGEST_PAUSE: Final = 900.0
"""Seconds between two looks while something fails, at most; the interval if that is longer."""

FIRST_PAUSE: Final = 1.0
"""Seconds after the first failure of a hand-over: what takes entries may be back at once."""

_MOST_TOLD: Final = 256


class Follows(Protocol):
    """A `following.Follower`, as far as it matters here."""

    async def turn(self, stopping: Callable[[], bool]) -> Turn:
        """One look at the log, and the entries that it adds."""


class Told:
    """Passes lines on, each once until it is told that all is well again.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def __call__(self, line: str) -> None:
        """Passes a line on, if it is a new one."""
        if line in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(line)
        self._say(line)

    def well(self) -> None:
        """All is well: what goes wrong after this is told again."""
        self._told.clear()


async def tail(follower: Follows, stop: asyncio.Event, interval: float, told: Told) -> None:
    """Follows a log until `stop` is set; then what was begun with one batch is finished.

    What may be better next time (the log's server, its answers, who takes the entries) is told and tried
    again; a fork, a place that cannot be written, and whatever else is raised, ends it.

    Args:
        follower: looks.
        stop: ends it.
        interval: seconds between two looks.
        told: takes a line about each failure.

    Raises:
        Forked, NotBegun, OSError: see `Follower.turn`.
    """
    failures = 0
    while not stop.is_set():
        pause = interval
        try:
            turn = await follower.turn(stop.is_set)
        except HandOverFailed as error:
            failures += 1
            told(error.reason)
            pause = min(FIRST_PAUSE * 2 ** min(failures - 1, 20), max(interval, LONGEST_PAUSE))
        except (FeedError, BadHead) as error:
            failures += 1
            told(str(error))
            pause = min(interval * 2 ** min(failures - 1, 20), max(interval, LONGEST_PAUSE))
        else:
            failures = 0
            if turn.why_not:
                told(turn.why_not)
            elif turn.accepted:
                told.well()
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            continue
