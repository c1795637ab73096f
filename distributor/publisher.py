"""Carrying every cosigned checkpoint to every target, for as long as the daemon runs.

The publisher asks what changed and marks it in the lane of each target. Everything is named anew after a
start, when the core has restarted or does not understand the cursor, and once in a while as a safety net:
a distributor that lost its database, or that learned of a log meanwhile, is served again without anybody's
hand.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributor.lane import Lane
from distributor.pace import Clock, SystemClock, exponential
from distributor.protocol import ChangesCall, CheckpointCall, Target, TargetState
from witness.core.refusals import CoreError, Overloaded, Refusal
from witness.core.wire import Changes, Cursor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """How eager and how patient publishing is. All times are seconds.

    Attributes:
        poll: between two questions for changes.
        republish: between two full publications; each interval is up to a tenth shorter or longer.
        first_backoff: after a first failure; doubles with each further one.
        longest_backoff: after many.
        longest_retry_after: that a target's Retry-After is honoured, at most.
        concurrency: publications under way at once to one target, at most.
        drain: that a stopping publisher still sends what has moved, at most.
    """

    poll: float = 1.0
    republish: float = 3600.0
    first_backoff: float = 1.0
    longest_backoff: float = 300.0
    longest_retry_after: float = 3600.0
    concurrency: int = 4
    drain: float = 3.0


class Publisher:
    """Publishes to any number of targets, which do not know of each other.

    Args:
        changes: what moved since a cursor.
        checkpoint: the latest checkpoint of an origin.
        targets: with names that differ.
        settings: how eager and how patient.
        clock: what is waited on.
        chance: numbers in [0, 1), for jitter.

    Raises:
        ValueError: two targets have one name.
    """

    def __init__(
        self,
        changes: ChangesCall,
        checkpoint: CheckpointCall,
        targets: Sequence[Target],
        *,
        settings: PublisherSettings | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        names = [target.name for target in targets]
        if len(set(names)) != len(names):
            raise ValueError("two targets of one name")
        self._settings = settings = settings or PublisherSettings()
        self._clock: Clock = clock or SystemClock()
        self._chance = chance
        self._changes = changes
        self._backoff = exponential(chance, settings.first_backoff, settings.longest_backoff)
        self._lanes = [
            Lane(
                target,
                checkpoint,
                clock=self._clock,
                backoff=self._backoff,
                concurrency=settings.concurrency,
                longest_retry_after=settings.longest_retry_after,
            )
            for target in targets
        ]
        self._cursor: Cursor | None = None
        self._full_due = 0.0
        self._told = False  # that the latest question for changes had no answer

    def states(self) -> tuple[TargetState, ...]:
        """How each target fares, in the order they were given."""
        return tuple(lane.state() for lane in self._lanes)

    async def run(self) -> None:
        """Publishes until cancelled; then sends what has moved, for `drain` seconds at most, and ends.

        To be run once. No task outlives it.
        """
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(lane.run()) for lane in self._lanes]
            try:
                await self._watch()
            except asyncio.CancelledError:
                await self._drain(lanes)
                raise  # the group then cancels the lanes that are not through, and waits for them

    async def _drain(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        try:
            async with asyncio.timeout(self._settings.drain):
                await self._ask()  # what was cosigned since the last poll; the lanes run on meanwhile
                for lane in self._lanes:
                    lane.drain()
                if lanes:
                    await asyncio.wait(lanes)
        except TimeoutError:
            waiting = sum(state.pending for state in self.states())
            _log.info("stopped with %d publications unsent; the next start sends all again", waiting)

    async def _watch(self) -> None:
        failures, never = 0, asyncio.Event()
        while True:
            if await self._ask():
                failures = 0
                delay = self._settings.poll
            else:
                failures += 1
                delay = self._backoff.seconds(failures)
            await self._clock.wait(never, delay)

    async def _ask(self) -> bool:
        """Learns what changed, and marks it; False when there was no answer."""
        try:
            if self._cursor is not None:
                await self._incremental(self._cursor)
            if self._cursor is None or self._clock.monotonic() >= self._full_due:
                await self._full()
        except CoreError as error:
            if not self._told:
                _log.warning("cannot learn which checkpoints moved: %s", error)
            self._told = True
            return False
        self._told = False
        return True

    async def _incremental(self, cursor: Cursor) -> None:
        """Marks what moved since the cursor; forgets the cursor when it leads nowhere."""
        while True:
            try:
                page = await self._changes(cursor)
            except Overloaded:
                raise
            except Refusal:
                self._cursor = None  # not understood: everything is named again
                return
            if page.cursor.epoch != cursor.epoch:
                # Another run of the core, which names everything: walked from its beginning as what it is.
                self._cursor = None
                return
            for lane in self._lanes:
                lane.mark_moved(page.origins)
            self._cursor = page.cursor
            if _is_last(page, cursor):
                return
            cursor = page.cursor

    async def _full(self) -> None:
        """Marks everything for a full publication."""
        cursor: Cursor | None = None
        while True:
            page = await self._changes(cursor)
            for lane in self._lanes:
                lane.mark_all(page.origins)
            if _is_last(page, cursor):
                break
            cursor = page.cursor
        self._cursor = page.cursor
        jitter = 0.9 + 0.2 * self._chance()  # a hundred witnesses started together do not stay together
        self._full_due = self._clock.monotonic() + self._settings.republish * jitter


def _is_last(page: Changes, asked: Cursor | None) -> bool:
    """Whether to stop asking; a page that promises more and does not advance would be asked for ever."""
    return not page.more or page.cursor == asked
