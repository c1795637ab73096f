"""The queue of one target, and the sending from it.

Every target has a lane of its own, so that a slow or dead one delays nobody else. A lane remembers which
origins are dirty and nothing more: the checkpoint is fetched when its turn has come, so that of an origin
only the latest is ever sent, however often it moved meanwhile.

Two queues: `fresh` holds origins that moved, `routine` those that a full publication names again. Fresh
ones go first: naming a hundred thousand logs again does not delay a log that moved.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterable

from distributor.pace import Backoff, Clock
from distributor.protocol import (
    CheckpointCall,
    PublishFailed,
    PublishRejected,
    Target,
    TargetState,
    TargetUnavailable,
)
from witness.core.refusals import CoreError, NoCheckpoint

_log = logging.getLogger(__name__)

_STRUGGLING = 3
"""Different origins failing with no success between: then it is the target, not the origins."""


class Lane:
    """Sends the checkpoints of dirty origins to one target.

    Args:
        target: where they go.
        checkpoint: gives the latest checkpoint of an origin.
        clock: for due times.
        backoff: seconds after the n-th failure, of an origin and of the whole target.
        concurrency: publications under way at once, at most.
        longest_retry_after: seconds that a target's Retry-After is honoured, at most.
    """

    def __init__(
        self,
        target: Target,
        checkpoint: CheckpointCall,
        *,
        clock: Clock,
        backoff: Backoff,
        concurrency: int,
        longest_retry_after: float,
    ) -> None:
        self._target = target
        self._checkpoint = checkpoint
        self._clock = clock
        self._backoff = backoff
        self._concurrency = concurrency
        self._longest_retry_after = longest_retry_after
        self._wake = asyncio.Event()
        self._draining = False
        # An origin is in at most one of these five at a time. The dicts are ordered sets.
        self._fresh: dict[str, None] = {}
        self._routine: dict[str, None] = {}
        self._sending: dict[str, bool] = {}  # True: it moved since its checkpoint was fetched
        self._waiting: set[str] = set()  # backing off, each with its entry in _due
        self._rejected: set[str] = set()
        self._due: list[tuple[float, str]] = []  # a heap by monotonic seconds
        self._attempts: dict[str, int] = {}  # failures in a row, of origins that have any
        # The target as a whole: not before when, failures in a row, and the origins that struggle.
        self._paused_until = 0.0
        self._pauses = 0
        self._struggling: set[str] = set()
        self._published = 0
        self._consecutive_failures = 0
        self._last_success: float | None = None
        self._last_failure: float | None = None
        self._last_error: str | None = None

    def state(self) -> TargetState:
        """How the target fares, now."""
        return TargetState(
            name=self._target.name,
            published=self._published,
            pending=len(self._fresh) + len(self._routine) + len(self._sending) + len(self._waiting),
            rejected=len(self._rejected),
            last_success=self._last_success,
            last_error=self._last_error,
            last_failure=self._last_failure,
            consecutive_failures=self._consecutive_failures,
        )

    def mark_moved(self, origins: Iterable[str]) -> None:
        """These origins have a new checkpoint."""
        for origin in origins:
            if origin in self._sending:
                self._sending[origin] = True
            elif origin not in self._waiting and origin not in self._rejected:
                self._routine.pop(origin, None)
                self._fresh[origin] = None
        self._wake.set()

    def mark_all(self, origins: Iterable[str]) -> None:
        """A full publication names these origins; what was rejected gets its next chance."""
        for origin in origins:
            self._rejected.discard(origin)
            if origin not in self._sending and origin not in self._waiting and origin not in self._fresh:
                self._routine[origin] = None
        self._wake.set()

    def drain(self) -> None:
        """From now on `run` sends only what moved, and returns after that."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Sends until `drain` was called and is done, or until cancelled."""
        async with asyncio.TaskGroup() as senders:
            while True:
                self._wake.clear()  # before looking: what is marked from here on wakes us again
                while (origin := self._next()) is not None:
                    self._sending[origin] = False
                    senders.create_task(self._send(origin))
                if self._draining and not self._sending:
                    return
                await self._clock.wait(self._wake, self._seconds_until_due())

    def _next(self) -> str | None:
        """The origin whose turn it is, taken from its queue; None while nothing may be sent."""
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now:
            _, origin = heapq.heappop(self._due)
            self._waiting.discard(origin)
            self._fresh[origin] = None
        # A target that failed as a whole is tried with one origin until it takes something again.
        if now < self._paused_until or len(self._sending) >= (1 if self._pauses else self._concurrency):
            return None
        if self._fresh:
            origin = next(iter(self._fresh))
            del self._fresh[origin]
            return origin
        if self._routine and not self._draining:
            origin = next(iter(self._routine))
            del self._routine[origin]
            return origin
        return None

    def _seconds_until_due(self) -> float | None:
        """How long nothing can happen by itself; None while only marks or ending senders matter."""
        now = self._clock.monotonic()
        if now < self._paused_until:
            return self._paused_until - now
        return max(0.0, self._due[0][0] - now) if self._due else None

    async def _send(self, origin: str) -> None:
        try:
            note = await self._fetch(origin)
            if note is not None:
                await self._target.publish(origin, note)
                self._succeeded(origin)
            moved = self._sending.pop(origin)
        except PublishFailed as failure:
            # Popped before anything is queued again; that it moved meanwhile is covered by the retry.
            self._sending.pop(origin)
            self._failed(origin, failure)
        else:
            if moved:
                self._fresh[origin] = None
        finally:
            self._wake.set()

    async def _fetch(self, origin: str) -> bytes | None:
        """The latest checkpoint; None when there is none to publish."""
        try:
            return await self._checkpoint(origin)
        except NoCheckpoint:
            return None
        except CoreError as error:
            raise PublishFailed(self._target.name, origin, str(error)) from error

    def _succeeded(self, origin: str) -> None:
        if self._consecutive_failures:
            _log.info("%s takes checkpoints again", self._target.name)
        self._attempts.pop(origin, None)
        self._struggling.clear()
        self._pauses = 0
        self._paused_until = 0.0
        self._published += 1
        self._consecutive_failures = 0
        self._last_success = self._clock.posix()

    def _failed(self, origin: str, failure: PublishFailed) -> None:
        if not self._consecutive_failures:  # one line at the turn of fortune; `states` has the rest
            _log.warning("cannot publish: %s", failure)
        self._consecutive_failures += 1
        self._last_failure = self._clock.posix()
        self._last_error = str(failure)
        asked = min(failure.retry_after or 0.0, self._longest_retry_after)
        if isinstance(failure, TargetUnavailable):
            # To the very end: should it be this origin after all that the target chokes on, others are
            # tried before it is again.
            self._routine[origin] = None
            self._pause(asked)
        elif isinstance(failure, PublishRejected):
            # The target is well, and has judged: no reason to be careful with other origins.
            self._attempts.pop(origin, None)
            self._struggling.clear()
            self._pauses = 0
            self._rejected.add(origin)
        else:
            attempt = self._attempts.get(origin, 0) + 1
            self._attempts[origin] = attempt
            self._waiting.add(origin)
            due = self._clock.monotonic() + max(asked, self._backoff.seconds(attempt))
            heapq.heappush(self._due, (due, origin))
            if len(self._struggling) < _STRUGGLING:
                self._struggling.add(origin)
            if len(self._struggling) >= _STRUGGLING:
                self._pause(0.0)

    def _pause(self, asked: float) -> None:
        """Leaves the whole target alone for a while, at least the seconds it asked for."""
        now = self._clock.monotonic()
        if now >= self._paused_until:  # of several that failed together, only the first one counts
            self._pauses += 1
            self._paused_until = now + self._backoff.seconds(self._pauses)
        self._paused_until = max(self._paused_until, now + asked)
