"""What the world has of us: our own cosigned checkpoints, fetched back and shown to the core.

Distributors and monitoring copies remember what this witness signed, whatever became of its state. The core
checks each copy with its own keys; all that a copy can bring about is that signing stops. So nothing here is
trusted, and nothing here has to be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from witness.core.refusals import CoreError
from witness.core.wire import LogPage
from witness.tlog.checkpoint import log_id, origin_hash

_log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Questions under way in the first round, which signing waits for."""
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


class Looker:
    """Asks every source for every log with a head or a chance of one.

    Args:
        sources: where.
        core: the core.
        get: the bounded GET.
        interval: seconds from the end of one round to the next.
    """

    def __init__(self, sources: Sequence[Source], core: Asked, get: Get, *, interval: float) -> None:
        self._sources = tuple(sources)
        self._core = core
        self._get = get
        self._interval = interval
        self.looked = asyncio.Event()
        """Set once everybody was asked. Before, an old state must not be published over what is there."""
        self.copies = 0
        """Copies of ours that were seen."""

    async def run(self) -> None:
        """One round at once, which the core waits for, and further ones for ever."""
        while True:
            try:
                await self.round()
                await self._core.compared()
                self.looked.set()
            except CoreError as error:
                _log.debug("the core cannot be told: %s", error)
                await asyncio.sleep(RETRY)
                continue
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Every source, every log, once."""
        slots = asyncio.Semaphore(AT_ONCE)
        change = 0
        while True:
            page = await self._core.logs(change)
            change = page.change
            async with asyncio.TaskGroup() as group:
                for info in page.logs:
                    for source in self._sources:
                        group.create_task(self._ask(slots, source, info.origin))
            if not page.more:
                return

    async def _ask(self, slots: asyncio.Semaphore, source: Source, origin: str) -> None:
        async with slots:
            copy = await self._get(source.url(origin))
            if copy is None:
                return
            try:
                ours = await self._core.seen(source.name, copy)
            except CoreError as error:
                _log.debug("a copy could not be shown: %s", error)
                return
            self.copies += ours
