"""Following a log: every checkpoint is judged, every entry's inclusion checked, each handed over in order.

What is believed of the log is one checkpoint (the head) and the edge of the tree of all entries handed over
so far. A new checkpoint must be signed, witnessed as the policy wants, and an extension of the head. A batch
of entries is hashed onto the edge, and the tree that it then is must be a prefix of the head's: that proves
each entry of the batch to be in the log at its index, without asking the log for any entry's own proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from feeders.protocol import BadLogData
from witness.reading.edge import Edge
from witness.reading.forks import check_consistent, checked_edge
from witness.reading.handing import Entry, HandOver
from witness.reading.heads import BadHead, Forked, Gathering, Head, Trust, read_head
from witness.reading.log import LogReader
from witness.reading.place import BadPlace, Place, PlaceFolder
from witness.reading.sources import Collector, Sources, Tell
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import InvalidProof, leaf_hash, verify_consistency

START: Final = 0
NOW: Final = -1
"""Begin with the entries that come after the first checkpoint that is accepted."""


class NotBegun(Exception):
    """No place was kept yet, and where to begin cannot be: `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Settings:
    """How a log is followed.

    Attributes:
        begin: index of the first entry where no place was kept yet; `NOW` for those still to come.
        hold: seconds for which a partial bundle is left alone while the log fills whole ones.
    """

    begin: int = START
    hold: float = 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look at the log came to.

    Attributes:
        size: of the newest accepted checkpoint; None while there is none.
        next: index of the next entry to hand over.
        accepted: whether the checkpoint is new.
        handed: entries handed over.
        why_not: why the log's latest checkpoint was not accepted; empty where it was.
    """

    size: int | None
    next: int
    accepted: bool
    handed: int
    why_not: str = ""


class Follower:
    """Follows one log. Its memory holds one bundle of entries, the reader's tiles, and the place.

    Args:
        reader: the log.
        trust: policy and keys; without a quorum in the policy, the log's word alone.
        sources: asked for cosignatures that the log's checkpoint does not carry.
        folder: the place; locked by the caller.
        hand_over: takes the entries.
        settings: see there.
        tell: hears one line of what sources said.
        clock: seconds, monotonic.
        now: POSIX seconds: what the age of cosignatures is counted from.

    Raises:
        BadPlace: the place cannot be read, or is of a log that is not trusted.
        HandOverFailed, OSError: the output is not as the place says.
    """

    def __init__(
        self,
        reader: LogReader,
        trust: Trust,
        sources: Sources,
        folder: PlaceFolder,
        hand_over: HandOver,
        *,
        settings: Settings,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._trust = trust
        self._sources = sources
        self._folder = folder
        self._hand_over = hand_over
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._now = now
        self._held: tuple[int, float] | None = None  # where a partial bundle begins, and since when it waits
        self._place = folder.load()
        self._known = _known(self._place, trust)
        self._written = hand_over.begin(self._place.written if self._place is not None else None)
        if self._place is not None:
            self._place = replace(self._place, written=self._written)

    async def turn(self, stopping: Callable[[], bool] = lambda: False) -> Turn:
        """One look at the log: its checkpoint, then all entries that it adds.

        Args:
            stopping: asked between batches; when it says so, the rest is left for another time.

        Raises:
            FetchFailed: the log could not be asked.
            BadLogData: its tiles or entries do not lead to the root that it signed.
            BadHead: its checkpoint is not signed by a trusted key, or is of another origin.
            Forked: it has signed two histories; the evidence is kept in the folder.
            NotBegun: the log is shorter than the index to begin at.
            HandOverFailed, OSError: an entry was not taken, or the place could not be written.
        """
        try:
            accepted, why_not = await self._look()
        except Forked as fork:
            path = self._folder.keep_evidence(fork.evidence)
            raise Forked(f"{fork.reason}; the evidence is in {path}", fork.evidence) from fork
        if self._known is None:
            return Turn(None, 0, accepted=False, handed=0, why_not=why_not)
        handed = await self._catch_up(self._known.checkpoint, stopping)
        return Turn(self._known.size, self._next, accepted, handed, why_not)

    # --- Checkpoints ---

    async def _look(self) -> tuple[bool, str]:
        """Takes the newest checkpoint that may be accepted; whether it is new, and why the latest is not."""
        gathering, known = Gathering(self._trust.at(int(self._now()))), self._known
        if known is not None:
            gathering.add(known.note)
        newest = gathering.add(await self._reader.checkpoint())
        if known is not None:
            await check_consistent(self._reader, known, newest, self._trust)
            if newest.size < known.size:
                return False, f"size {newest.size} was served, {known.size} is known"
            if newest.size == known.size:
                return False, ""
        collector = Collector(gathering, self._reader, self._sources, self._tell)
        await collector.collect(newest, lambda: gathering.best(newest.size - 1) is not None)
        for heard in gathering.heads:
            # Whatever anybody heard the log say counts, witnessed or not.
            if heard.text not in (newest.text, known.text if known is not None else None):
                await check_consistent(self._reader, heard, newest, self._trust)
        best = gathering.best(known.size if known is not None else -1)
        if best is not None:
            await self._accept(best)
        if best is not None and best.size >= newest.size:
            return True, ""
        failed = [check.detail for check in gathering.report(newest).checks if not check.ok]
        return best is not None, f"size {newest.size} is not accepted: {'; '.join(failed)}"

    async def _accept(self, head: Head) -> None:
        """Moves the head, durably: what the log signs from now on is held against it."""
        if self._place is not None:
            place = replace(self._place, head=head.note)
        else:
            place = Place(head.note, await self._beginning(head), self._written)
        self._folder.save(place)
        self._place, self._known = place, head

    async def _beginning(self, head: Head) -> Edge:
        begin = head.size if self._settings.begin == NOW else self._settings.begin
        if begin > head.size:
            raise NotBegun(f"the log has {head.size} entries, and following should begin at {begin}")
        if begin == 0:
            return Edge()
        edge, _ = await checked_edge(self._reader, begin, head)
        return edge

    # --- Entries ---

    @property
    def _next(self) -> int:
        return self._place.edge.size if self._place is not None else 0

    async def _catch_up(self, head: Checkpoint, stopping: Callable[[], bool]) -> int:
        handed = 0
        end = self._until(head.size)
        while self._next < end and not stopping():
            entries = await self._reader.entries(self._next, head.size, end - self._next)
            checked = await self._checked(head, entries)
            for at in range(0, len(checked), self._hand_over.batch):
                if stopping():
                    break
                handed += await self._hand(checked[at : at + self._hand_over.batch])
        return handed

    def _until(self, size: int) -> int:
        """Where to stop: at the end, or before a partial bundle that may soon be a whole one.

        SPEC tlog-tiles: "A client […] that "tails" a rapidly […] growing log SHOULD, as an optimization,
        avoid fetching partial entry bundles when possible. […] If an entry bundle remains partial for too
        long (as defined by client policy), the client MUST fetch it".
        """
        whole = size - size % self._reader.family.span
        if whole == size:
            return size
        behind, now = self._next < whole, self._clock()
        if behind and (self._held is None or self._held[0] != whole):
            self._held = (whole, now)
        # A log that fills no bundles between two looks is not held back at all.
        if self._held is None or self._held[0] != whole or now - self._held[1] >= self._settings.hold:
            return size
        return max(whole, self._next)

    async def _checked(self, head: Checkpoint, entries: tuple[bytes, ...]) -> list[Entry]:
        """The entries, once it is sure that the head's tree has them at their indices."""
        assert self._place is not None
        start = self._next
        hashes = [leaf_hash(entry) for entry in entries]
        edge = self._place.edge.grown(hashes)
        proof = await self._reader.proof(edge.size, head.size)
        try:
            verify_consistency(edge.size, head.size, edge.root(), head.root, proof)
        except InvalidProof as error:
            self._reader.forget()
            reason = f"entries {start} to {edge.size - 1} are not those of the tree that was signed"
            raise BadLogData(self._reader.url, f"{reason}: {error.reason}") from error
        return [
            Entry(head.origin, start + at, entry, hashed, head.size)
            for at, (entry, hashed) in enumerate(zip(entries, hashes, strict=True))
        ]

    async def _hand(self, entries: list[Entry]) -> int:
        """Hands a batch over, and only then moves the place past it."""
        assert self._place is not None
        written = await self._hand_over.hand(entries)
        edge = self._place.edge.grown([entry.leaf_hash for entry in entries])
        place = replace(self._place, edge=edge, written=written)
        self._folder.save(place)
        self._place = place
        return len(entries)


def _known(place: Place | None, trust: Trust) -> Head | None:
    if place is None:
        return None
    try:
        return read_head(place.head, trust)
    except BadHead as error:
        reason = f"the place is of {place.checkpoint.origin}, whose checkpoint is not trusted: {error.reason}"
        raise BadPlace(reason, "name the log's key and policy as before, or another folder") from error
