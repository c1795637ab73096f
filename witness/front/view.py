"""What the front knows of the core for pages, health and metrics: asked seldom, kept a moment.

Anybody may ask for `/` or `/healthz` as often as they like; the core is asked at most once a moment, so that
such requests cannot take time from cosigning.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from witness.core.refusals import CoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from witness.core.wire import Core, CoreStatus, LogInfo

STATUS_AGE = 1.0
"""Seconds for which a status is good."""
LOGS_AGE = 5.0
"""Seconds for which a list of logs is good."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Logs:
    """The configured logs, or none of them when there are more than `limit`.

    Attributes:
        logs: each log once, in the core's order; empty when there are too many.
        total: how many the core has configured.
        listed: whether `logs` holds them all.
    """

    logs: tuple[LogInfo, ...]
    total: int
    listed: bool


class CoreView:
    """The core's status and logs, each asked again only when what is known has grown old.

    Args:
        core: whom to ask.
        max_origins: logs are listed up to this many. Above it a listing would cost both processes more than
            a page or a scrape is worth.
        clock: seconds, of any epoch.
        status_age: seconds for which a status is good.
        logs_age: seconds for which a list of logs is good.
    """

    def __init__(
        self,
        core: Core,
        *,
        max_origins: int,
        clock: Callable[[], float] = time.monotonic,
        status_age: float = STATUS_AGE,
        logs_age: float = LOGS_AGE,
    ) -> None:
        self._core = core
        self._max_origins = max_origins
        self._status: Kept[CoreStatus] = Kept(core.status, status_age, clock)
        self._logs: Kept[Logs] = Kept(self._list, logs_age, clock)

    async def status(self) -> CoreStatus:
        """How the core is, or was a moment ago.

        Raises:
            Unavailable: it does not answer.
        """
        return await self._status.get()

    async def logs(self) -> Logs:
        """The configured logs.

        Raises:
            Unavailable: the core does not answer.
        """
        return await self._logs.get()

    @property
    def last_status(self) -> CoreStatus | None:
        """The latest status, however old: for what hardly changes, as vkeys."""
        return self._status.value

    async def _list(self) -> Logs:
        total = (await self.status()).logs
        if total > self._max_origins:
            return Logs((), total, listed=False)
        found: dict[str, LogInfo] = {}
        since, more = 0, True
        while more:
            page = await self._core.logs(since)
            found.update((log.origin, log) for log in page.logs)
            if len(found) > self._max_origins:  # logs were added meanwhile
                return Logs((), max(total, len(found)), listed=False)
            more = page.more and page.change > since
            since = page.change
        return Logs(tuple(found.values()), len(found), listed=True)


class Kept(Generic[_T]):
    """A value fetched at most once an age, and by one asker while others wait for the same fetch."""

    def __init__(self, fetch: Callable[[], Awaitable[_T]], age: float, clock: Callable[[], float]) -> None:
        self.value: _T | None = None
        self._fetch = fetch
        self._age = age
        self._clock = clock
        self._at = float("-inf")
        self._error: tuple[CoreError, float] | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> _T:
        """The value, fetched where it has grown old; raises what the fetch raised."""
        asked = self._clock()
        if self.value is not None and asked - self._at < self._age:
            return self.value
        async with self._lock:
            # While this asker waited, another's fetch may have succeeded, or failed: its result is ours too.
            if self.value is not None and (self._at > asked or self._clock() - self._at < self._age):
                return self.value
            if self._error is not None and self._error[1] > asked:
                raise self._error[0]
            try:
                self.value = await self._fetch()
            except CoreError as error:
                self._error = (error, self._clock())
                raise
            self._at = self._clock()
            return self.value
