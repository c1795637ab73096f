"""Making a tlog-proof (https://c2sp.org/tlog-proof) for an entry of a log.

The proof is made of what the log serves and of the cosignatures that were collected, and is then judged by
`witness.bundles.verify`, as its reader will: what is returned has passed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from feeders.protocol import BadLogData
from witness.bundles import Report, verify
from witness.reading.forks import check_consistent
from witness.reading.heads import Gathering, Head, Trust
from witness.reading.log import LogReader, NotInLog
from witness.reading.sources import Collector, Sources
from witness.tlog.merkle import InvalidProof, leaf_hash, verify_inclusion
from witness.tlog.proof import Proof, format_proof

ROUND: Final = 5.0
"""Seconds between two rounds of asking, while the policy does not hold yet."""


class NotWitnessed(Exception):
    """No checkpoint that contains the entry satisfies the policy.

    Attributes:
        reason: how near the nearest is.
        told: what the sources that did not help said.
    """

    def __init__(self, reason: str, told: tuple[str, ...]) -> None:
        super().__init__("; ".join((reason, *told)))
        self.reason = reason
        self.told = told


class NotVerified(Exception):
    """The proof that was made does not pass: a fault of the log's, or of what was asked for.

    Attributes:
        report: the steps, with those that failed.
    """

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join(f"{each.name}: {each.detail}" for each in report.checks if not each.ok))
        self.report = report


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entry.

    Attributes:
        index: its index; None to look for it by its content.
        entry: its content.
        leaf_hash: its leaf hash, 32 bytes.
        extra: what to put on the proof's extra line; None for no line.
        search: how many of the newest leaves to look through, where the log does not name the index.

    Raises:
        ValueError: nothing is said, or entry and leaf hash are not of one entry.
    """

    index: int | None = None
    entry: bytes | None = None
    leaf_hash: bytes | None = None
    extra: bytes | None = None
    search: int = 1 << 16

    def __post_init__(self) -> None:
        if self.index is None and self.entry is None and self.leaf_hash is None:
            raise ValueError("which entry is not said: give its index, its content or its leaf hash")
        if self.entry is not None and self.leaf_hash not in (None, leaf_hash(self.entry)):
            raise ValueError("the entry has not the given leaf hash")

    @property
    def leaf(self) -> bytes | None:
        """The leaf hash, where known."""
        return self.leaf_hash if self.entry is None else leaf_hash(self.entry)


@dataclass(frozen=True, slots=True)
class Made:
    """A proof that verifies.

    Attributes:
        proof: the tlog-proof.
        index: the entry's.
        leaf_hash: the entry's, 32 bytes.
        size: of the tree that the proof is in.
        report: what `witness.bundles.verify` says of it.
        told: what sources that did not help said.
    """

    proof: bytes
    index: int
    leaf_hash: bytes
    size: int
    report: Report
    told: tuple[str, ...]


class Maker:
    """Makes a proof for one entry, and verifies it.

    Args:
        reader: the log.
        trust: the policy that the proof must satisfy.
        sources: who is asked for cosignatures that the log's own checkpoint does not carry.
        wanted: which entry.
    """

    def __init__(self, reader: LogReader, trust: Trust, sources: Sources, wanted: Wanted) -> None:
        self._reader = reader
        self._trust = trust
        self._sources = sources
        self._wanted = wanted
        self._told: list[str] = []

    async def make(
        self,
        rounds: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> Made:
        """Makes the proof.

        Args:
            rounds: how often all are asked, `ROUND` seconds apart, until the policy holds; at least 1.
            sleep: waits so many seconds.
            now: POSIX seconds.

        Raises:
            FetchFailed: the log could not be asked.
            BadLogData: its checkpoint, tiles or entries are wrong.
            BadHead: its checkpoint is not signed by a trusted key, or is of another origin.
            NotInLog: it has no such entry.
            NotWitnessed: the policy does not hold for any checkpoint that contains the entry.
            Forked: the log has signed two histories.
            NotVerified: the proof does not pass.
        """
        for left in reversed(range(rounds)):
            self._told.clear()
            gathering = Gathering(self._trust.at(int(now())))
            newest = gathering.add(await self._reader.checkpoint())
            try:
                index = await self._index(newest)
                return await self._prove(
                    index, await self._witnessed(gathering, newest, index), gathering.trust
                )
            except (NotInLog, NotWitnessed):
                if not left:
                    raise
            await sleep(ROUND)
        raise ValueError("no round was allowed")

    async def _index(self, newest: Head) -> int:
        wanted, leaf = self._wanted, self._wanted.leaf
        if wanted.index is not None:
            if wanted.index >= newest.size:
                raise NotInLog(f"the log has {newest.size} entries, none with index {wanted.index}")
            return wanted.index
        assert leaf is not None, "Wanted says at least one"
        return await self._reader.find(wanted.entry, leaf, newest.size, wanted.search)

    async def _witnessed(self, gathering: Gathering, newest: Head, index: int) -> Head:
        """A checkpoint with the entry that the policy accepts, of one history with the log's newest."""
        collector = Collector(gathering, self._reader, self._sources, self._told.append)
        await collector.collect(newest, lambda: gathering.best(index) is not None)
        head = gathering.best(index)
        if head is None:
            raise NotWitnessed(_nearest(gathering), tuple(self._told))
        if head.text != newest.text:
            await check_consistent(self._reader, head, newest, gathering.trust)
        return head

    async def _prove(self, index: int, head: Head, trust: Trust) -> Made:
        leaf, hashes = await self._reader.inclusion(index, head.size)
        try:
            verify_inclusion(index, head.size, leaf, head.checkpoint.root, hashes)
        except InvalidProof as error:
            reason = f"the tiles do not lead to the root hash at size {head.size}: {error.reason}"
            raise BadLogData(self._reader.url, reason) from error
        wanted = self._wanted
        data = format_proof(Proof(index, hashes, head.note, wanted.extra))
        expected = wanted.leaf if wanted.leaf is not None else leaf
        report = verify(data, replace(trust.options, entry=wanted.entry, leaf_hash=expected))
        if not report.verified:
            raise NotVerified(report)
        return Made(data, index, leaf, head.size, report, tuple(self._told))


def _nearest(gathering: Gathering) -> str:
    """What the policy says of the largest checkpoint."""
    head = gathering.heads[0]
    failed = [check.detail for check in gathering.report(head).checks if not check.ok]
    if failed:
        return f"the checkpoint of size {head.size} is not witnessed: {'; '.join(failed)}"
    return f"the largest witnessed checkpoint has size {head.size} and does not contain the entry"


async def read_entry(reader: LogReader, made: Made) -> bytes:
    """The entry that a proof is about, from the log.

    Raises:
        FetchFailed: it could not be had.
        BadLogData: what the log serves is another one.
    """
    entry = (await reader.entries(made.index, made.size, 1))[0]
    if leaf_hash(entry) != made.leaf_hash:
        raise BadLogData(reader.url, f"entry {made.index} as served has another leaf hash than in the tree")
    return entry
