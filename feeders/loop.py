"""The polling loop: every configured log, each at its own pace, in one process.

Rules of this file:

- One task a log, all of them owned by `FeederPool.run`: none outlives it.
- Nothing aligns: starts, intervals and retries are all jittered.
- A server has a few polls at a time for all its logs; logs whose server failed have a share of their own in
  what is under way. So neither a slow host nor a hundred dead ones keep the others waiting.
- A log that cannot be reached is asked ever more rarely; one that answers is asked at its interval.
- A bug in one log's task ends that task only, and is loud: an ERROR with its traceback, and the state
  `broken`. The task is started again after a pause, for a bug may hang on one answer of one log.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from feeders.kinds import NOT_POLLED, UnknownFeeder
from feeders.poll import LogPoller, Submit
from feeders.protocol import BadUrl, FeedLog, FetchFailed
from feeders.states import FeederState, Status
from witness.core.refusals import Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from feeders.protocol import LogSource

__all__ = ["FeedLog", "FeederPool", "FeederState", "LoopSettings", "Status"]

_log: Final = logging.getLogger("witness.feeders")


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How all logs are polled.

    Attributes:
        refresh: seconds after which an unchanged checkpoint is cosigned anew.
        concurrency: polls under way at the same time; a quarter as many more for logs that failed.
        per_host: polls under way at the same time at one host.
        starts_per_second: how fast the first polls of many new logs follow each other.
        jitter: the part of an interval by which polls are moved at random, to either side.
        first_retry: seconds after a failure of the world; doubled with each further one.
        longest_retry: seconds at which that ends for a log's server (or at its interval, if longer).
        broken_pause: seconds before the task of a log that a bug ended is started again.
    """

    refresh: float = 600.0
    concurrency: int = 256
    per_host: int = 4
    starts_per_second: float = 100.0
    jitter: float = 0.1
    first_retry: float = 2.0
    longest_retry: float = 900.0
    broken_pause: float = 600.0


@dataclass(slots=True)
class _Feeder:
    """A log that is wanted: its poller and task, or for one that is not polled the state that says why."""

    log: FeedLog
    poller: LogPoller | None = None
    task: asyncio.Task[None] | None = None
    idle: FeederState = field(default_factory=FeederState)

    @property
    def state(self) -> FeederState:
        return self.idle if self.poller is None else self.poller.state


@dataclass(slots=True)
class _Host:
    """The polls that may be under way at one host, and how many of its logs there are."""

    slots: asyncio.Semaphore
    logs: int = 0


class FeederPool:
    """Polls the logs that it is given, until cancelled.

    Args:
        sources: makes the client of a log's family; raises `UnknownFeeder`. See `feeders.kinds.sources`.
        submit: takes an add-checkpoint body to the core; raises the core's refusals.
        settings: paces and limits.
        now: the time, seconds since the epoch.
        sleep: waits for seconds.
        rng: the jitter's randomness.
    """

    def __init__(
        self,
        sources: Callable[[FeedLog], LogSource],
        submit: Submit,
        *,
        settings: LoopSettings | None = None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._sources = sources
        self._submit = submit
        self._settings = settings or LoopSettings()
        self._now = now
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not cryptography
        self._slots = asyncio.Semaphore(self._settings.concurrency)
        self._suspect_slots = asyncio.Semaphore(max(1, self._settings.concurrency // 4))
        self._hosts: dict[str, _Host] = {}
        self._wanted: dict[str, FeedLog] = {}
        self._feeders: dict[str, _Feeder] = {}
        self._wake = asyncio.Event()
        self._running = False
        self.outcomes: Counter[Status] = Counter()
        """Polls by how they ended, since the start; unlike the states, each stale one counts."""
        self.missed = 0
        """Polls that did not take place because the one before them was late by a whole interval."""

    def reconcile(self, logs: Iterable[FeedLog]) -> None:
        """Makes these the logs that are polled: new ones start, missing ones stop, changed ones restart.

        Takes effect at once while `run` runs (a hundred new logs begin within a second), else when it starts.

        Raises:
            ValueError: two of the logs have the same origin.
        """
        wanted: dict[str, FeedLog] = {}
        for log in logs:
            if wanted.setdefault(log.origin, log) is not log:
                raise ValueError(f"two logs with the origin {log.origin!r}")
        self._wanted = wanted
        self._wake.set()

    def states(self) -> dict[str, FeederState]:
        """How each log's feeder stands, by origin."""
        return {
            origin: self._feeders[origin].state if origin in self._feeders else FeederState()
            for origin in self._wanted
        }

    def count(self) -> int:
        """How many logs are wanted."""
        return len(self._wanted)

    def counts(self) -> Counter[Status]:
        """How many logs have which status; may be called from another thread."""
        return Counter(feeder.state.status for feeder in list(self._feeders.values()))

    async def run(self) -> None:
        """Polls until cancelled; then ends every task before it returns.

        Raises:
            RuntimeError: it runs already.
        """
        if self._running:
            raise RuntimeError("this pool runs already")
        self._running = True
        try:
            while True:
                self._wake.clear()
                await self._apply()
                await self._wake.wait()
        finally:
            await self._stop(list(self._feeders))
            self._running = False

    async def _apply(self) -> None:
        """Brings the tasks in line with what is wanted, and looks after those that ended."""
        await self._stop([o for o, feeder in self._feeders.items() if self._wanted.get(o) != feeder.log])
        for feeder in self._feeders.values():
            if feeder.task is not None and feeder.task.done():
                self._restart(feeder, feeder.task)
        new = [log for origin, log in self._wanted.items() if origin not in self._feeders]
        for log in new:
            spread = min(len(new) / self._settings.starts_per_second, log.interval)
            self._feeders[log.origin] = self._start(log, self._rng.uniform(0, spread))

    def _start(self, log: FeedLog, delay: float) -> _Feeder:
        if log.kind == NOT_POLLED:
            return _Feeder(log, idle=FeederState(Status.NOT_POLLED))
        try:
            source = self._sources(log)
        except (UnknownFeeder, BadUrl) as error:
            _log.warning("not polled origin=%r error=%s", log.origin, error)
            return _Feeder(log, idle=FeederState(Status.UNKNOWN_FEEDER, last_error=str(error)))
        poller = LogPoller(log, source, self._submit, self._now, self._settings.refresh)
        feeder = _Feeder(log, poller)
        host = self._hosts.setdefault(log.host, _Host(asyncio.Semaphore(self._settings.per_host)))
        host.logs += 1
        self._launch(feeder, poller, delay)
        return feeder

    def _restart(self, feeder: _Feeder, ended: asyncio.Task[None]) -> None:
        """After a bug: nothing else ends a log's task while the log is wanted."""
        assert feeder.poller is not None
        error = None if ended.cancelled() else ended.exception()
        _log.error("feeder broken origin=%r", feeder.log.origin, exc_info=error)
        state = feeder.poller.state
        feeder.poller.state = replace(
            state,
            status=Status.BROKEN,
            consecutive_failures=state.consecutive_failures + 1,
            last_error=f"bug: {type(error).__name__}: {error}" if error else "bug: the task was cancelled",
        )
        self._launch(feeder, feeder.poller, self._settings.broken_pause)

    def _launch(self, feeder: _Feeder, poller: LogPoller, delay: float) -> None:
        feeder.task = asyncio.create_task(
            self._feed(feeder.log, poller, delay), name=f"feeder {feeder.log.origin}"
        )
        feeder.task.add_done_callback(lambda _: self._wake.set())

    async def _stop(self, origins: Iterable[str]) -> None:
        feeders = [self._feeders.pop(origin) for origin in origins]
        tasks = [feeder.task for feeder in feeders if feeder.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("feeder broken while it was stopped: %s", task.get_name(), exc_info=error)
        for feeder in feeders:
            if feeder.poller is not None:
                host = self._hosts[feeder.log.host]
                host.logs -= 1
                if not host.logs:
                    del self._hosts[feeder.log.host]

    async def _feed(self, log: FeedLog, poller: LogPoller, delay: float) -> None:
        """One log's life: a poll, a pause, a poll; retries with back-off while the world fails."""
        host, jitter, failures = self._hosts[log.host], self._settings.jitter, 0
        while True:
            poller.state = replace(poller.state, next_poll=self._now() + delay)
            await self._sleep(delay)
            try:
                await self._poll(log, host, poller)
            except (FetchFailed, Unavailable, Overloaded) as error:
                failures += 1
                delay = self._back_off(log, failures, error)
            else:
                failures = 0
                delay = log.interval * self._rng.uniform(1 - jitter, 1 + jitter)

    async def _poll(self, log: FeedLog, host: _Host, poller: LogPoller) -> None:
        before, due = poller.state, self._now()
        failed = before.status in (Status.UNREACHABLE, Status.TOO_SLOW)
        outcome: Status | None = None
        try:
            async with host.slots, self._suspect_slots if failed else self._slots:
                self.missed += int((self._now() - due) / log.interval)
                outcome = await poller.poll()
        except (FetchFailed, Unavailable, Overloaded):
            outcome = poller.state.status
            raise
        finally:
            if outcome is not None:
                self.outcomes[outcome] += 1
            if poller.state.status is not before.status:
                _report(log, poller.state)

    def _back_off(self, log: FeedLog, failures: int, error: Exception) -> float:
        """Seconds until a log is asked again whose server, or our core, failed so often in a row."""
        # A dead server is left alone ever longer. Our own core's failure is no reason to leave logs unfed
        # for long once it is back.
        longest = (
            max(log.interval, self._settings.longest_retry)
            if isinstance(error, FetchFailed)
            else log.interval
        )
        exponential = min(longest, self._settings.first_retry * 2.0 ** min(failures - 1, 32))
        at_least = float(error.retry_after) if isinstance(error, Overloaded) else 0.0
        return max(at_least, exponential) * self._rng.uniform(1.0, 1.5)


def _report(log: FeedLog, state: FeederState) -> None:
    """One line whenever a log's status changes."""
    match state.status:
        case Status.CURRENT:
            level = logging.INFO
        case Status.STALE:
            level = logging.DEBUG
        case Status.FORK:
            level = logging.ERROR
        case _:
            level = logging.WARNING
    _log.log(
        level, "feeder %s origin=%r size=%s error=%s", state.status, log.origin, state.size, state.last_error
    )
