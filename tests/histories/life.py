"""One witness's life, at random: signatures, crashes, and all that is done to a state that should not be.

Real core processes (`tests.histories.forked`) sign for two logs, each of which tells two tales. Whatever any
copy of the witness ever released goes into one ledger, and the ledger knows the one promise: never two
inconsistent checkpoints of one origin, and nothing by an identity that was retired. In the end an operator
leads the witness out of whatever it is in, and it signs again.

What guards a state that is older than what it signed is one of two kinds, for each history:

- RECORD: the high-water record lies outside of the folder. What a crash cut off before the record was written
  is its documented gap (docs/decisions/0006): harm is done only while the record holds all that was released.
- WORLD: the record lies in the folder, and goes back with it. A distributor knows what was released. Copies
  that run at a time are told of each other's signatures before they sign again: what two copies sign in the
  very same moment nobody can prevent.

A history in which everything goes back at once, record and all, and no distributor is there, is none that any
witness survives; docs/security.md says so. Where the record alone is lost, only a log that is honest from
then on keeps the promise, until the record was begun anew; so do the logs here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from tests.cli.command import witness as command
from tests.core.processes import poll
from tests.core.state import trust
from tests.histories.stage import (
    HOUR,
    ORIGINS,
    SIZE,
    YEAR,
    Copy,
    Guarded,
    Over,
    Stage,
    duplicate,
    tales,
)
from tests.simulated_log import SimulatedLog
from witness.cli import generations
from witness.core.continuity import recover
from witness.core.continuity.recover import Behind, CannotRecover
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.store.alarms import Kind
from witness.core.store.desk import Desk
from witness.core.wire import Verb
from witness.tlog.submission import parse_add_checkpoint


class History(Stage):
    """One life."""

    def play(self, steps: int) -> None:
        """The whole life. Raises whatever shows that the witness is not what it should be."""
        try:
            self.start(self.main)
            self.sign()
            for _ in range(steps):
                self.step()
            self.lead_out()
        except Over as over:
            self.log.append(f"over: {over}")
        finally:
            for copy in list(self.running):
                self.end(copy, kill=True)

    def step(self) -> None:
        """One thing happens."""
        happenings: dict[Callable[[], None], int] = {
            self.sign: 6,
            self.restart: 2,
            self.crash: 4,
            self.copy_away: 4,
            self.recover: 4,
            self.put_back: 6,
            self.lose_database: 1,
            self.clone: 2,
            self.roll_clock: 2,
        }
        if self.guarded is Guarded.RECORD:
            happenings |= {self.lose_record: 1, self.retire: 1, self.give_up: 1, self.rotate: 3}
        if self.honest and self.recorded():  # a new record holds all: the log may lie again
            self.honest, self.world.timed = False, True
        chosen = self.choose.choices(list(happenings), list(happenings.values()))[0]
        self.log.append(chosen.__name__)
        chosen()
        if self.main not in self.running:
            self.start(self.main)
        self.tempt()

    def tempt(self) -> None:
        """Every log tries its tales: what a state has forgotten, it would sign now."""
        for origin in ORIGINS:
            for tale in self.choose.sample(self.ways(origin), len(self.ways(origin))):
                self.ask(self.main, tale)

    def sign(self) -> None:
        """Some requests."""
        for _ in range(self.choose.randint(1, 4)):
            self.ask_anything(self.main)

    def restart(self) -> None:
        """A clean stop and a start."""
        self.end(self.main)
        self.start(self.main)

    def crash(self) -> None:
        """SIGKILL with requests under way. What was sent before it has been released."""
        client = self.main.client
        assert client is not None
        sent = []
        for _ in range(self.choose.randint(1, 6)):
            origin = self.choose.choice(ORIGINS)
            old = self.size(origin)
            body = self.tale(origin).add_checkpoint(old, min(SIZE, old + self.choose.randrange(5)))
            sent.append((body, client.send(Verb.ADD_CHECKPOINT, body)))
        waited = self.choose.randint(0, len(sent))
        answers = [(body, client.receive(number)) for body, number in sent[:waited]]
        assert self.main.core is not None
        self.main.core.kill()
        for body, number in sent[waited:]:
            try:
                answers.append((body, client.receive(number)))
            except ConnectionError:
                break
        self.end(self.main, kill=True)
        since = self.world.newest  # they were under way at a time, and came in any order
        for body, answer in answers:
            self.take(body, answer, since)
        self.start(self.main)

    def roll_clock(self) -> None:
        """The machine's clock is set, rightly or wrongly."""
        offset = self.choose.choice([0.0, 0.0, -HOUR, HOUR, 2 * HOUR, YEAR])
        self.log.append(f"  clock {offset:+.0f}")
        self.clock.offset = offset

    def copy_away(self) -> None:
        """A backup, a copy of the database, or one of the whole folder."""
        place = self.folder / f"copy{len(self.shelf)}"
        kind = self.choose.choice(["backup", "database", "folder"])
        self.log.append(f"  {kind} -> {place.name}")
        if kind == "backup":
            assert command("backup", place, state=self.main.layout.root).code == 0
        else:
            self.end(self.main, kill=self.choose.random() < 0.5)
            duplicate(self.main.layout.root, place)
        self.shelf.append((kind, place))

    def put_back(self) -> None:
        """One of the copies takes the state's place."""
        if not self.shelf:
            self.copy_away()
            return
        if not self.stopped_for_harm() or self.known_to_nobody():
            return
        kind, place = self.choose.choice(self.shelf)
        self.log.append(f"  {kind} <- {place.name}")
        root = self.main.layout.root
        if kind == "backup":
            assert command("restore", place, state=root).code == 0
            self.expected = {Kind.RESTORED}
        elif kind == "folder":
            shutil.rmtree(root)
            duplicate(place, root)
        else:
            self.unlink_database()
            for file in place.glob("witness.db*"):
                shutil.copy(file, root)

    def lose_database(self) -> None:
        """The database is gone; the operator makes an empty one, and adds the logs again."""
        if not self.stopped_for_harm() or self.known_to_nobody():
            return
        self.unlink_database()
        layout = self.main.layout
        outcome = command("recover", "--new-database", state=layout.root)
        assert layout.database.exists(), outcome.err
        trust(layout, *(tales(origin)[0] for origin in ORIGINS))

    def lose_record(self) -> None:
        """The high-water record is gone, or somebody changed it. Honest logs alone save us from here on."""
        if not self.stopped_for_harm():
            return
        self.honest, self.world.timed = True, False
        gone = self.choose.random() < 0.5
        for file in self.folder.glob("high-water.*"):
            if gone:
                file.unlink()
            else:
                data = bytearray(file.read_bytes())
                if data:
                    data[self.choose.randrange(min(300, len(data)))] ^= 1
                    file.write_bytes(data)

    def known_to_nobody(self) -> bool:
        """Whether only the database still knows what an operator ended: without it nothing can."""
        world = self.world
        return self.honest and bool(world.retired or world.given_up or world.retired_keys)

    def clone(self) -> None:
        """The folder is copied, and both run; then one of them is stopped for good."""
        self.harmed = True
        self.end(self.main)
        place = self.folder / f"s{len(self.shelf)}-{self.starts}"
        duplicate(self.main.layout.root, place)
        other = Copy(StateLayout(place))
        self.start(self.main)
        if not self.start(other):
            return
        for _ in range(self.choose.randint(1, 5)):
            self.ask_anything(self.choose.choice(self.running))
        if self.choose.random() < 0.5:
            self.main, other = other, self.main
        self.end(other, kill=self.choose.random() < 0.5)

    def recover(self) -> None:
        """An operator brings forward what can be, by whichever tale is told at that moment."""
        if self.choose.random() < 0.3:
            self.end(self.main)
        with Desk(self.main.layout.database) as desk:
            for behind in recover.plan(desk).behind:
                self.bring(desk, behind, self.tale(behind.origin), self.choose.random() < 0.5)
            recover.settle_what_is_over(desk, int(self.clock()))

    def bring(self, desk: Desk, behind: Behind, tale: SimulatedLog, far: bool) -> bool:  # noqa: FBT001
        sizes = {behind.size} | ({behind.head.size} if behind.head else set())
        new = SIZE if far else self.choose.randint(max(sizes), SIZE)
        bodies = [parse_add_checkpoint(tale.add_checkpoint(size, new)) for size in sorted(sizes)]
        try:
            head = recover.bring_forward(desk, behind, bodies, int(self.clock()))
        except CannotRecover as error:
            self.log.append(f"  {behind.origin} stays at {sizes}: {error.reason}")
            return False
        self.log.append(f"  {behind.origin} brought forward to {head.size}")
        return True

    def retire(self) -> None:
        """The identity is retired, once in a long life."""
        if self.honest or self.choose.random() < 0.8:
            return
        self.harmed = True
        self.end(self.main)
        with Desk(self.main.layout.database) as desk:
            recover.retire(desk, int(self.clock()))
        self.start(self.main)
        self.end(self.main)  # and it knows
        self.world.retired = True

    def give_up(self) -> None:
        """A log that is behind is given up for good."""
        with Desk(self.main.layout.database) as desk:
            behind = recover.plan(desk).behind
            if not behind or self.honest:
                return
            chosen = self.choose.choice(behind)
            self.log.append(f"  {chosen.origin}")
            recover.give_up(desk, chosen, int(self.clock()))
            recover.settle_what_is_over(desk, int(self.clock()))
        self.end(self.main)
        self.start(self.main)
        self.world.given_up.add(chosen.origin)

    def ways(self, origin: str) -> tuple[SimulatedLog, ...]:
        """The tales that a log's operator tries in the end."""
        # Where nothing was released beyond what the tales share, either is an honest log's.
        told = self.honest and self.world.branches.get(origin)
        return (self.tale(origin),) if told else tales(origin)

    def rotate(self) -> None:
        """A new generation of keys, at once or beside the old one for a time, which then ends."""
        if generations.known(self.main.layout).retiring:
            command("keys", "rotate", "--finish", state=self.main.layout.root)
        else:
            overlap = self.choose.choice(["0", "1h"])
            outcome = command("keys", "rotate", "--overlap", overlap, state=self.main.layout.root)
            self.log.append(f"  overlap {overlap}: {outcome.code} {outcome.err.splitlines()[-1:]}")
        ring = keyring.read(self.main.layout)
        self.world.vkeys = tuple(dict.fromkeys([*self.world.vkeys, *ring.vkeys]))
        self.restart()
        if not self.standing(self.main):
            poll("what is due is done", lambda: not self.due() or None)
        self.note_retired()

    def due(self) -> bool:
        """Whether a generation is to be taken up or retired now."""
        found = generations.known(self.main.layout)
        return found.staged is not None or bool(found.due(int(self.clock())))

    def note_retired(self) -> None:
        """What the witness says of its keys holds from now on."""
        gone = generations.known(self.main.layout).retired
        now = {vkey for vkey in self.world.vkeys if str(vkey) in gone}
        self.log.extend(f"  retired {vkey.key_id.hex()}" for vkey in now - self.world.retired_keys)
        self.world.retired_keys |= now

    def lead_out(self) -> None:
        """In the end all is put right: the clock, other copies, and what is behind. Then it signs again."""
        self.log.append("lead out")
        if self.main not in self.running:
            self.start(self.main)
        self.clock.offset = max(0.0, self.status().last_issued + 1 - time.time())
        layout = self.main.layout
        for _ in range(4):  # what one alarm hid, the comparison after it may show
            with Desk(layout.database) as desk:
                for behind in recover.plan(desk).behind:
                    if behind.origin not in self.world.given_up:
                        ways = self.ways(behind.origin)
                        assert any(self.bring(desk, behind, tale, far=True) for tale in ways), behind
                recover.settle_what_is_over(desk, int(self.clock()))
            self.settled()
            self.end(self.main)
            self.start(self.main)
            kinds = {Kind(alarm.split(" ")[0].rstrip(":")) for alarm in self.standing(self.main)}
            if not kinds - {Kind.ABANDONED}:
                break
        if set(keyring.read(layout).vkeys) <= self.world.retired_keys:
            self.tempt()  # an old folder: the keys that may sign are not in it
            assert kinds & {Kind.RETIRED_KEY, Kind.RETIRED}, self.standing(self.main)
            return
        if self.world.retired:
            assert Kind.RETIRED in kinds
            self.tempt()
            return
        with Desk(layout.database) as desk:
            if forgotten := recover.plan(desk).forgotten and bool(kinds & recover.BLIND):
                recover.retire(desk, int(self.clock()))
        if forgotten:
            assert self.honest, "the record was there"
            self.world.retired = True
            self.tempt()
            return
        assert not kinds - {Kind.ABANDONED}, f"it is not led out: {self.standing(self.main)}"
        poll("it is ready", lambda: self.status().ready or None)
        client = self.main.client
        assert client is not None
        for origin in ORIGINS:
            answers = []
            for tale in self.ways(origin):
                body = tale.add_checkpoint(self.size(origin), SIZE)
                answers.append(client.add_checkpoint(body))
                self.take(body, answers[-1])
            if origin not in self.world.given_up:
                assert any(isinstance(answer, bytes) for answer in answers), answers
        self.led_out += self.harmed
