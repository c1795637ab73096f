"""Feeding other witnesses with logs that do not push by themselves: one log, several witnesses at a time.

A round asks the log for its checkpoint once, and for each proof once, however many witnesses want it. To
each witness stands a `LogPoller` of its own, for each has its own idea of the log's size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from feeders.poll import LogPoller
from feeders.protocol import FeedLog, FetchFailed, LogSource
from feeders.states import Status
from feeders.witness_client import WitnessClient
from witness.core.refusals import Overloaded, Unavailable
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.note import Signature


@dataclass(frozen=True, slots=True)
class Answer:
    """What one witness made of one log in a round.

    Attributes:
        origin: the log's.
        witness: the witness's URL.
        status: how it ended; `current` is cosigned.
        size: the tree size that the witness has, as far as we know.
        signatures: its cosignature lines, unverified; empty where it was not asked or said no.
        reason: one line; empty where all is well.
    """

    origin: str
    witness: str
    status: Status
    size: int | None
    signatures: tuple[Signature, ...]
    reason: str


class _RoundSource:
    """A `LogSource` that asks another one everything once a round."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._lock = asyncio.Lock()
        self._checkpoint: bytes | FetchFailed | None = None
        self._proofs: dict[tuple[int, int, bytes, bytes | None], tuple[bytes, ...]] = {}

    def begin(self) -> None:
        self._checkpoint = None
        self._proofs.clear()

    async def fetch_checkpoint(self) -> bytes:
        async with self._lock:
            if self._checkpoint is None:
                try:
                    self._checkpoint = await self._source.fetch_checkpoint()
                except FetchFailed as error:
                    self._checkpoint = error
            if isinstance(self._checkpoint, FetchFailed):
                raise type(self._checkpoint)(self._checkpoint.url, self._checkpoint.reason)
            return self._checkpoint

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        async with self._lock:
            wanted = (old_size, checkpoint.size, checkpoint.root, old_root)
            # What was made without knowing the old root serves those who know it, too.
            found = self._proofs.get(wanted) or self._proofs.get((*wanted[:3], None))
            if found is None:
                found = await self._source.fetch_consistency_proof(old_size, checkpoint, old_root)
                self._proofs[wanted] = found
            return found


class Feed:
    """One log and the witnesses that are fed with it.

    Args:
        log: which log.
        source: its family's client.
        witnesses: whom to feed.
        now: seconds since the epoch.
        refresh: an unchanged checkpoint is sent again once a cosignature is this many seconds old.
        first_pause: seconds for which a witness that failed is left alone; doubled with each further failure.
        longest_pause: where that ends.
    """

    def __init__(
        self,
        log: FeedLog,
        source: LogSource,
        witnesses: Sequence[WitnessClient],
        *,
        now: Callable[[], float],
        refresh: float,
        first_pause: float = 5.0,
        longest_pause: float = 900.0,
    ) -> None:
        self.log = log
        self._source = _RoundSource(source)
        self._now = now
        self._pauses = (first_pause, longest_pause)
        self._pollers = [
            (each, LogPoller(log, self._source, each.add_checkpoint, now, refresh)) for each in witnesses
        ]
        self._not_before = dict.fromkeys((each.url for each in witnesses), float("-inf"))

    async def round(self) -> list[Answer]:
        """Brings each witness up to the log's latest checkpoint; who is being left alone gives no answer."""
        self._source.begin()
        due = [pair for pair in self._pollers if self._not_before[pair[0].url] <= self._now()]
        return list(await asyncio.gather(*(self._one(*pair) for pair in due)))

    async def _one(self, witness: WitnessClient, poller: LogPoller) -> Answer:
        asked: list[Signature] = []
        witness_answers = witness.signatures
        least = 0.0
        try:
            await poller.poll()
        except Overloaded as error:
            least = float(error.retry_after)
        except (FetchFailed, Unavailable):
            pass
        state = poller.state
        if witness.signatures is not witness_answers:
            asked = list(witness.signatures)
        if state.status in (Status.WITNESS_UNAVAILABLE, Status.REFUSED):
            first, longest = self._pauses
            pause = min(longest, first * 2 ** min(state.consecutive_failures - 1, 16))
            self._not_before[witness.url] = self._now() + max(least, pause)
        return Answer(self.log.origin, witness.url, state.status, state.size, tuple(asked), state.last_error)
