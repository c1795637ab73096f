"""Being gentle to a server: how many requests at a time and a second, whatever logs they are for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

MOST_HOSTS: Final = 4096
"""Hosts remembered before those that are idle are forgotten: redirects may name any number of them."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What one host is asked at most.

    Attributes:
        connections: requests at the same time.
        rate: requests a second, in the long run.
        burst: requests that may follow each other at once after a quiet time.
    """

    connections: int = 4
    rate: float = 20.0
    burst: int = 20


class _Host:
    """One host's turnstile: a semaphore, and a bucket of tokens that fills at the rate."""

    __slots__ = ("_full_at", "_limits", "_now", "_sleep", "slots", "users")

    def __init__(
        self, limits: HostLimits, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._limits = limits
        self._now = now
        self._sleep = sleep
        self._full_at = now()  # when the bucket would be full again
        self.slots = asyncio.Semaphore(limits.connections)
        self.users = 0

    @property
    def idle(self) -> bool:
        return self.users == 0 and self._full_at <= self._now()

    async def take(self) -> None:
        """Takes a token, and waits where the bucket is empty: each waiter has its own moment."""
        now = self._now()
        self._full_at = max(now, self._full_at) + 1 / self._limits.rate
        wait = self._full_at - now - self._limits.burst / self._limits.rate
        if wait > 0:
            await self._sleep(wait)


class Hosts:
    """The turnstiles of all hosts.

    Args:
        limits: of each host.
        now: seconds, monotonic.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        limits: HostLimits,
        now: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits = limits
        self._now = now
        self._sleep = sleep
        self._hosts: dict[str, _Host] = {}

    @contextlib.asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Waits for a turn at a host, and holds it during the block."""
        if host not in self._hosts and len(self._hosts) >= MOST_HOSTS:
            self._hosts = {name: each for name, each in self._hosts.items() if not each.idle}
        found = self._hosts.setdefault(host, _Host(self._limits, self._now, self._sleep))
        found.users += 1
        try:
            async with found.slots:
                await found.take()
                yield
        finally:
            found.users -= 1
