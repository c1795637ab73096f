"""Time and chance, as values that are handed in: the clock that is waited on, and the back-off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_base, wait_exponential

_MAX_ATTEMPT = 64  # no strategy still grows here; keeps an exponential's integers small


class Clock(Protocol):
    """What the publisher knows of time."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def posix(self) -> float:
        """POSIX seconds, for people and for HTTP dates."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Returns when the event is set or the seconds have passed, whichever is first; None waits on."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def posix(self) -> float:
        """POSIX seconds."""
        return time.time()

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Returns when the event is set or the seconds have passed, whichever is first."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return


class Jittered(wait_base):
    """A tenacity wait strategy shortened by a random part, so that witnesses do not knock in step.

    Args:
        wait: the strategy that gives the longest wait.
        chance: gives numbers in [0, 1).
        spread: the part of the wait, in [0, 1], that chance may take away.
    """

    def __init__(self, wait: wait_base, chance: Callable[[], float], spread: float = 0.5) -> None:
        self._wait = wait
        self._chance = chance
        self._spread = spread

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait before the next try."""
        return self._wait(retry_state) * (1 - self._spread * self._chance())


class Backoff:
    """Seconds to wait after the n-th failure in a row, by one of tenacity's wait strategies.

    The strategies are used without tenacity's loop around a function: between two tries of an origin the
    queue turns to others, and what is sent then is the checkpoint that is the latest then.
    """

    def __init__(self, wait: wait_base) -> None:
        self._wait = wait
        self._retrying = AsyncRetrying()

    def seconds(self, attempt: int) -> float:
        """Seconds to wait after failure number `attempt` (1 is the first)."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = min(attempt, _MAX_ATTEMPT)
        return self._wait(state)


def exponential(chance: Callable[[], float], first: float, longest: float) -> Backoff:
    """Doubles from `first` to `longest` seconds, each shortened by up to a half at random."""
    return Backoff(Jittered(wait_exponential(multiplier=first, min=first, max=longest), chance))
