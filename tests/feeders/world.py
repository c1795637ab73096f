"""The world around a feeder: a core that judges, and a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from feeders.kinds import make_source
from feeders.protocol import FeedLog
from feeders.tools import Tools
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.refusals import CoreError, InvalidProof, RootMismatch, StaleOldSize
from witness.tlog import merkle
from witness.tlog.note import SignatureType, VerifierKey
from witness.tlog.submission import AddCheckpoint, parse_add_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from feeders.protocol import Fetch, LogSource

KEY_TYPES = {
    "static-ct": SignatureType.RFC6962,
    "rfc6962": SignatureType.RFC6962,
    "rekor": SignatureType.ECDSA,
}
"""The type of key with which logs of a family sign; the others have Ed25519 keys."""


def kind_of(family: str) -> str:
    """The feeder of a family of the simulated server: `pixel8` is a pixel log with higher tiles."""
    return family.removesuffix("8")


def log_of(family: str, *, size: int = 0, huge: bool = False, origin: str = "") -> SimulatedLog:
    """A simulated log with a key as the family's logs have."""
    origin = origin or f"{family}.example/log"
    key = SimulatedKey(origin.replace(" ", "-"), KEY_TYPES.get(family, SignatureType.ED25519))
    return SimulatedLog(origin, size=size, keys=[key], huge=huge)


def source_of(
    family: str,
    url: str,
    fetch: Fetch,
    vkeys: tuple[VerifierKey, ...] = (),
    *,
    origin: str = "",
    tools: Tools | None = None,
) -> LogSource:
    """A family's client of the log at a URL."""
    log = FeedLog(origin or f"{family}.example/log", vkeys, kind_of(family), url, 30)
    return make_source(log, tools or Tools(fetch))


class JudgingCore:
    """Accepts what a witness may accept, in memory. `submit` is what feeders are handed."""

    def __init__(self) -> None:
        self.heads: dict[str, tuple[int, bytes]] = {}
        self.submissions: list[AddCheckpoint] = []
        self.failures: list[CoreError] = []  # raised instead of an answer, first one first
        self.cosigned = 0

    async def submit(self, body: bytes) -> bytes:
        submission = parse_add_checkpoint(body)
        self.submissions.append(submission)
        if self.failures:
            raise self.failures.pop(0)
        new = submission.checkpoint
        size, root = self.heads.get(new.origin, (0, merkle.EMPTY_ROOT))
        if submission.old_size != size:
            raise StaleOldSize(size)
        if size == new.size and root != new.root:
            raise RootMismatch(new.origin, size)
        try:
            merkle.verify_consistency(size, new.size, root, new.root, submission.proof)
        except merkle.InvalidProof as error:
            raise InvalidProof(size, new.size, error.reason) from error
        self.heads[new.origin] = (new.size, new.root)
        self.cosigned += 1
        return b"\xe2\x80\x94 witness.example AAAAAAA=\n"


class Clock:
    """Time that only `advance` moves, and sleepers that it wakes in their order."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now
        self.slept: list[float] = []  # every duration asked for, in order
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.time + seconds, asyncio.get_running_loop().create_future())
        self.slept.append(seconds)
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Give way to the other tasks until they have brought this about."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    async def asleep(self, count: int) -> None:
        """Wait until so many tasks sleep."""
        await self.until(lambda: self._waiting() == count)

    def advance(self, seconds: float) -> None:
        """Move on, and wake whom it concerns; follow with `asleep`."""
        self.time += seconds
        for wake, future in sorted(self._sleepers, key=lambda sleeper: sleeper[0]):
            if wake <= self.time and not future.done():
                future.set_result(None)

    def _waiting(self) -> int:
        return sum(not future.done() for _, future in self._sleepers)
