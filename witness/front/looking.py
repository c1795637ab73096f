"""What the world has of us: our own cosigned checkpoints, fetched back and shown to the core.

Distributors and monitoring copies remember what this witness signed, whatever became of its state. The core
checks each copy with its own keys; all that a copy can bring about is that signing stops. So nothing here is
trusted, and nothing here has to be.

Others pay for our questions. A place is asked `PER_SECOND` times a second at most, and from the second round
on as slowly as the interval allows: with 100,000 logs a round takes hours. What is about to be published is
asked for out of turn, once in a run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from witness.core.refusals import CoreError
from witness.core.wire import LogPage
from witness.tlog.checkpoint import log_id, origin_hash

_log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Logs about which questions are under way."""
PER_SECOND: Final = 20.0
"""Questions to one place a second, at most."""
MAX_COPY: Final = 64 * 1024
"""Bytes of a cosigned checkpoint."""
RETRY: Final = 1.0

Get = Callable[[str], Awaitable[bytes | None]]
"""`get(url)`: the body of a bounded GET, or None for no copy, or no answer."""


class Asked(Protocol):
    """What the looker needs of the core."""

    async def logs(self, since: int = 0) -> LogPage:
        """A page of logs."""
        ...

    async def seen(self, source: str, note: bytes) -> bool:
        """Shows a copy; whether it was one of ours."""
        ...

    async def compared(self) -> None:
        """Says that everybody was asked."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """One place with copies: what it is called, and the URL of a log's copy by its origin."""

    name: str
    url: Callable[[str], str]


def distributor(base: str, witness: str, name: str | None = None) -> Source:
    """A distributor (github.com/transparency-dev/distributor), where our copies are by our name."""
    prefix, who = base.rstrip("/"), quote(witness, safe="")

    def url(origin: str) -> str:
        return f"{prefix}/distributor/v0/logs/{log_id(origin)}/byWitness/{who}/checkpoint"

    return Source(name or prefix, url)


def monitoring(base: str) -> Source:
    """A monitoring prefix (tlog-witness): ours as the world sees it, or a mirror's."""
    prefix = base.rstrip("/")
    return Source(prefix, lambda origin: f"{prefix}/{origin_hash(origin).hex()}/checkpoint")


class Pace:
    """Turns, each at least so long after the one before; what was missed is not made up for.

    Args:
        now: seconds since some moment.
        sleep: waits for so many seconds.
    """

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self.now = now
        self.sleep = sleep
        self._next = now()

    async def turn(self, gap: float) -> None:
        """Waits for the next turn; the one after it comes `gap` seconds later at the earliest."""
        wait = self._next - self.now()
        if wait > 0:
            await self.sleep(wait)
        self._next = max(self._next, self.now()) + gap


class Looker:
    """Asks every source for every log with a head or a chance of one.

    Args:
        sources: where.
        core: the core.
        get: the bounded GET.
        interval: seconds that a round takes, but for the first, and more where there are many logs.
        pace: the clock to go by.
    """

    def __init__(
        self, sources: Sequence[Source], core: Asked, get: Get, *, interval: float, pace: Pace | None = None
    ) -> None:
        self._sources = tuple(sources)
        self._core = core
        self._get = get
        self._interval = interval
        self._pace = pace or Pace(time.monotonic, asyncio.sleep)
        self._looked_at: set[str] = set()
        self.copies = 0
        """Copies of ours that were seen."""

    async def run(self) -> None:
        """One round as soon as may be, which the core waits for, and further ones for ever, in no hurry."""
        gap = 1 / PER_SECOND
        while True:
            began = self._pace.now()
            try:
                count = await self.round(gap)
                await self._core.compared()
            except CoreError as error:
                _log.debug("the core cannot be told: %s", error)
                await self._pace.sleep(RETRY)
                continue
            gap = max(1 / PER_SECOND, self._interval / max(1, count))
            await self._pace.sleep(max(RETRY, began + self._interval - self._pace.now()))

    async def round(self, gap: float) -> int:
        """Every source, every log, once, with so many seconds from log to log; how many logs there are."""
        slots = asyncio.Semaphore(AT_ONCE)
        change, count, more = 0, 0, True
        while more:
            page = await self._core.logs(change)
            change, more = page.change, page.more
            count += len(page.logs)
            async with asyncio.TaskGroup() as group:
                for info in page.logs:
                    await slots.acquire()
                    await self._pace.turn(gap)
                    task = group.create_task(self._ask_all(info.origin))
                    task.add_done_callback(lambda _: slots.release())
        return count

    async def look_at(self, origin: str) -> None:
        """Asks for a log, if nobody has in this run: an old state is not published over what is there."""
        if origin not in self._looked_at:
            await self._ask_all(origin)

    async def _ask_all(self, origin: str) -> None:
        for source in self._sources:
            copy = await self._get(source.url(origin))
            if copy is None:
                continue
            try:
                self.copies += await self._core.seen(source.name, copy)
            except CoreError as error:
                _log.debug("a copy could not be shown: %s", error)
        self._looked_at.add(origin)
