"""Where a history happens: the folder, the clock, the world, and the copies of the witness that run."""

from __future__ import annotations

import functools
import random
import shutil
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.core.processes import SocketClient, poll
from tests.core.state import NAME, make_state, trust
from tests.crash.promise import Ledger, PromiseBroken
from tests.histories.forked import ForkedCore, MovableClock
from tests.simulated_log import SimulatedLog
from witness.cli.generations import record_keys
from witness.core.continuity import highwater
from witness.core.continuity.settings import ContinuitySettings
from witness.core.keystore import keyring, softkey
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError, StaleOldSize
from witness.core.store import alarms
from witness.core.store.alarms import Kind
from witness.core.store.desk import Desk
from witness.core.wire import CoreStatus, Verb, decode_status, encode_seen
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import VerifierKey, parse_note
from witness.tlog.signature import verify_note

SHARED, SIZE = 5, 40
"""The tales part after so many leaves, and end after so many."""
ORIGINS = ("history.example/a", "history.example/b")
HOUR, YEAR = 3600.0, 365 * 86400.0


class Guarded(StrEnum):
    """What knows better than an old state."""

    RECORD = "record"
    WORLD = "world"


@functools.cache
def tales(origin: str) -> tuple[SimulatedLog, SimulatedLog]:
    """A log's two tales."""
    honest = SimulatedLog(origin, size=SIZE)
    lying = honest.fork(SHARED)
    lying.append(SIZE - SHARED)
    return honest, lying


def duplicate(folder: Path, place: Path) -> None:
    """Copies a folder as anybody would; what a killed process left of its sockets is no file."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.sock"))


class Over(Exception):
    """No key is left that may sign: no core starts, and rightly so."""


@dataclass
class Copy:
    """A copy of the witness: a folder, and perhaps a process."""

    layout: StateLayout
    core: ForkedCore | None = None
    client: SocketClient | None = None


@dataclass
class World:
    """All that was ever released.

    Attributes:
        ledger: what is consistent with what.
        vkeys: every key that the witness ever had.
        latest: the largest cosigned checkpoint of each log, as a distributor keeps it.
        newest: the largest timestamp.
        branches: which tales of a log were told in what was released.
        given_up: logs that are never to be signed again.
        retired_keys: keys that are never to sign again.
        retired: the whole identity is.
        timed: timestamps must not go back.
    """

    ledger: Ledger
    vkeys: tuple[VerifierKey, ...]
    latest: dict[str, bytes] = field(default_factory=dict)
    newest: int = 0
    branches: dict[str, set[str]] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    retired_keys: set[VerifierKey] = field(default_factory=set)
    retired: bool = False
    timed: bool = True

    def released(self, note: bytes, since: int) -> None:
        """Somebody was given this, who asked when `since` was the newest timestamp.

        Raises:
            PromiseBroken: it must never have been signed.
        """
        signers = {each.key for each in verify_note(parse_note(note), self.vkeys)}
        if signers & self.retired_keys:
            raise PromiseBroken("signed by a key that was retired")
        self.ledger.vkeys = tuple(signers)
        found = self.ledger.served(note)
        checkpoint = parse_checkpoint(parse_note(note).text)
        origin = checkpoint.origin
        if self.retired or origin in self.given_up:
            raise PromiseBroken(f"{origin}: signed, and it was retired or given up for good")
        if self.timed and found.timestamp < since:
            raise PromiseBroken(f"{origin}: signed at {found.timestamp}, and {since} was issued before")
        self.newest = max(self.newest, found.timestamp)
        if found.size > SHARED:
            told = {tale.branch for tale in tales(origin) if tale.root(found.size) == found.root}
            self.branches.setdefault(origin, set()).update(told)
        before = self.latest.get(origin)
        if before is None or parse_checkpoint(parse_note(before).text).size <= found.size:
            self.latest[origin] = note


class Stage:
    """What there is, and what is needed to do anything with it. `log` tells what happened."""

    def __init__(self, folder: Path, seed: int, sabotage: str | None = None) -> None:
        self.sabotage = sabotage
        self.expected: set[Kind] = set()
        self.choose = random.Random(seed)
        self.guarded = self.choose.choice(list(Guarded))
        self.folder = folder
        self.clock = MovableClock(folder / "clock")
        self.main = Copy(make_state(folder / "s", algorithms=("ed25519",)))
        self.main.layout.config.write_text(f"name: {NAME}\n")
        trust(self.main.layout, *(tales(origin)[0] for origin in ORIGINS))
        keys = softkey.open_keystore(self.main.layout.softkey, None)
        self.key, _ = record_keys(self.main.layout, None)
        ledger = Ledger(keys.public.vkeys, {origin: list(tales(origin)) for origin in ORIGINS})
        self.world = World(ledger, keys.public.vkeys)
        self.running: list[Copy] = []
        self.shelf: list[tuple[str, Path]] = []
        self.harmed = False
        self.honest = False
        self.log: list[str] = [f"guarded by {self.guarded}"]
        self.alarms: set[str] = set()
        self.released = self.refused = self.starts = self.led_out = 0

    def tale(self, origin: str) -> SimulatedLog:
        """The tale that a log tells at this moment."""
        both = tales(origin)
        if self.honest:
            told = self.world.branches.get(origin, set())
            return next((tale for tale in both if tale.branch in told), both[0])
        return both[self.choose.randrange(2)]

    def start(self, copy: Copy) -> bool:
        """Starts a core on a copy, and shows it what the world has; False where it must not start."""
        outside = self.folder / "high-water" if self.guarded is Guarded.RECORD else None
        settings = ContinuitySettings(
            high_water=str(outside) if outside else None, interval=0.02, wait=0 if outside else 60.0
        )
        self.starts += 1
        copy.core = ForkedCore(copy.layout, self.clock, self.sabotage, continuity=settings)
        if copy.core.error is not None:
            if set(keyring.read(copy.layout).vkeys) <= self.world.retired_keys:
                raise Over(copy.core.error)
            assert "another process holds the high-water record" in copy.core.error, copy.core.error
            assert self.running, "it finds another copy, and there is none"
            self.log.append(f"  {copy.layout.root.name} does not start: {copy.core.error}")
            copy.core = None
            return False
        copy.client = SocketClient(copy.layout.core_socket)
        self.running.append(copy)
        if outside is None:
            for origin in ORIGINS:
                self.show(copy, origin)
            assert copy.client.ask(Verb.COMPARED) == b""
        standing = self.standing(copy)
        self.alarms.update(alarm.split(" ")[0].rstrip(":") for alarm in standing)
        if not self.harmed:
            assert not standing, f"a false alarm: {standing}"
        for kind in self.expected:
            assert any(alarm.startswith(kind) for alarm in standing), f"no alarm {kind}: {standing}"
        self.expected.clear()
        for alarm in standing:
            self.log.append(f"  alarm {alarm}")
        return True

    def end(self, copy: Copy, *, kill: bool = False) -> None:
        """Ends a copy's core."""
        if copy.core is None or copy.client is None:
            return
        self.running.remove(copy)
        if kill:
            copy.core.kill()
        else:
            assert copy.core.stop() == 0, copy.core.said()
        copy.client.close()
        copy.core = copy.client = None

    def standing(self, copy: Copy) -> tuple[str, ...]:
        """The alarms that a running core tells of."""
        assert copy.client is not None
        answer = copy.client.ask(Verb.STATUS)
        assert isinstance(answer, bytes)
        return decode_status(answer).alarms

    def show(self, copy: Copy, origin: str) -> None:
        """Shows a copy what the distributor has."""
        assert copy.client is not None
        note = self.world.latest.get(origin)
        if note is not None:
            assert copy.client.ask(Verb.SEEN, encode_seen("distributor", note)) == b"ours"

    def status(self) -> CoreStatus:
        """What the main copy's core says of itself."""
        assert self.main.client is not None
        answer = self.main.client.ask(Verb.STATUS)
        assert isinstance(answer, bytes)
        return decode_status(answer)

    def size(self, origin: str) -> int:
        """What the main copy's database has of a log."""
        with Desk(self.main.layout.database) as desk:
            row = desk.one(
                "SELECT h.size FROM heads h JOIN logs l ON l.id = h.log_id WHERE origin = ?", (origin,)
            )
        return int(row[0]) if row else 0

    def ask_anything(self, copy: Copy) -> None:
        """One request of some log, by either tale."""
        self.ask(copy, self.tale(self.choose.choice(ORIGINS)))

    def ask(self, copy: Copy, tale: SimulatedLog) -> None:
        """One request of a log, from whatever size the witness says that it has."""
        assert copy.client is not None
        old = self.choose.randrange(SHARED)
        answer: bytes | CoreError = StaleOldSize(old)
        while isinstance(answer, StaleOldSize):
            old = answer.known
            new = min(SIZE, old + self.choose.randrange(5))
            body = tale.add_checkpoint(old, new)
            answer = copy.client.add_checkpoint(body)
            assert not (isinstance(answer, StaleOldSize) and answer.known == old), "no size is right"
        self.take(body, answer)

    def take(self, body: bytes, answer: bytes | CoreError, since: int | None = None) -> None:
        """An answer came: what was released is in the world, and every copy hears of it."""
        if isinstance(answer, CoreError):
            self.refused += 1
            return
        self.released += 1
        note = body.partition(b"\n\n")[2] + answer
        self.world.released(note, self.world.newest if since is None else since)
        if self.guarded is Guarded.WORLD:
            for copy in self.running:
                if copy.core is not None and copy.core.alive:
                    self.show(copy, parse_checkpoint(parse_note(note).text).origin)

    def right_clock(self, issued: int) -> None:
        """Time goes on until the clock is beyond what was issued."""
        self.clock.offset = max(0.0, issued + 1 - time.time())

    def settled(self) -> None:
        """Waits until a running core has taken up what an operator did, or raised its alarm again."""

        def taken() -> bool | None:
            told = self.status()
            self.right_clock(told.last_issued)
            with Desk(self.main.layout.database) as desk:
                stands = {(alarm.kind, alarm.origin) for alarm in alarms.standing(desk)}
            return (len(stands) == len(told.alarms) and (told.ready or bool(stands))) or None

        poll("it has taken up what was settled", taken)

    def recorded(self) -> bool:
        """Whether the high-water record holds all that was released."""
        if self.guarded is Guarded.WORLD:
            return True
        try:
            marks = highwater.read_only(self.folder / "high-water", self.key)
        except highwater.RecordInvalid:
            return False
        for origin, note in self.world.latest.items():
            mark = marks.heads.get(origin)
            if mark is None or mark.size < parse_checkpoint(parse_note(note).text).size:
                return False
        return marks.issued >= self.world.newest

    def stopped_for_harm(self) -> bool:
        """Ends the core, cleanly or not; False while the record does not hold all that was released."""
        self.end(self.main, kill=self.choose.random() < 0.5)
        if not self.honest and not self.recorded():
            return False
        self.harmed = True
        return True

    def unlink_database(self) -> None:
        for file in self.main.layout.root.glob("witness.db*"):
            if ".replaced" not in file.name:
                file.unlink()
