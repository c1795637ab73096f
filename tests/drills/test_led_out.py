"""Each way into an alarm, with the commands that operators have: refused, told, led out, signed again."""

from __future__ import annotations

import asyncio
import functools
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import make
from tests.cli.command import witness as command
from tests.core.processes import SocketClient, poll, short_folder
from tests.drills.test_rollback import database, grow, put_back, running, status
from tests.histories.forked import ForkedCore, MovableClock
from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import (
    ClockBehind,
    ClockWrong,
    CoreError,
    NoTrustedSignature,
    SigningStopped,
    StateBehind,
)
from witness.core.store.alarms import Kind
from witness.core.wire import Verb, encode_seen
from witness.tlog.checkpoint import origin_hash

ORIGIN = "drill.example/log"
HOUR, YEAR = 3600, 365 * 86400


@pytest.fixture
def layout() -> Iterator[StateLayout]:
    with short_folder() as folder:
        yield StateLayout(make(folder / "s"))


@pytest.fixture
def log(layout: StateLayout) -> SimulatedLog:
    log = SimulatedLog(ORIGIN, size=4)
    assert command("logs", "add", str(log.vkeys[0]), state=layout.root).code == 0
    return log


def bodies(folder: Path, log: SimulatedLog, *sizes: int) -> list[str | Path]:
    """The options that give `recover` proofs from these sizes."""
    args: list[str | Path] = []
    for size in sizes:
        file = folder / f"body-{log.branch.replace('/', '-')}-{log.size}-{size}"
        file.write_bytes(log.add_checkpoint(size))
        args += ["--file", file]
    return args


def signs(client: SocketClient, body: bytes) -> None:
    """It signs, once it has taken up what the operator did."""
    poll("it signs again", lambda: isinstance(client.add_checkpoint(body), bytes) or None)


def explained(layout: StateLayout, *words: str) -> None:
    """`witness recover` says so, and that it is not over."""
    poll("it is told", lambda: command("recover", state=layout.root).code == 1 or None)
    said = command("recover", state=layout.root).out
    assert all(word in said for word in words), said


async def test_a_database_an_hour_old_of_a_log_that_is_polled(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    """The proofs come from the log's own server; a fork that it serves leads nowhere."""
    fork = log.fork(4)
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    database(layout, tmp_path / "old.db")
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        assert grow(client, log, 4) == 7
        assert core.stop() == 0
    put_back(tmp_path / "old.db", layout)
    log.append(5)
    fork.append(9)
    async with SimulatedLogServer(fork) as lying, SimulatedLogServer(log) as honest:
        with running(layout), SocketClient(layout.core_socket) as client:
            assert isinstance(client.add_checkpoint(fork.add_checkpoint(4)), (StateBehind, SigningStopped))
            await asyncio.to_thread(explained, layout, f"state-behind {ORIGIN!r}: size 4 here, size 7 was")
            for server, code in ((lying, 1), (honest, 0)):
                told = ("--origin", ORIGIN, "--feeder", "tiles", "--url", server.url("tiles"))
                assert command("logs", "add", str(log.vkeys[0]), *told, state=layout.root).code == 0
                outcome = await asyncio.to_thread(command, "recover", "--fast-forward", state=layout.root)
                assert outcome.code == code, outcome
            assert "brought forward to size 12" in outcome.out
            signs(client, log.add_checkpoint(12))
            assert isinstance(client.add_checkpoint(fork.add_checkpoint(12)), CoreError)


def test_a_database_that_is_gone(layout: StateLayout, log: SimulatedLog, tmp_path: Path) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    layout.database.unlink()
    with pytest.raises(AssertionError, match="no database"), running(layout):
        pass
    assert command("recover", "--new-database", state=layout.root).code == 0
    assert command("logs", "add", str(log.vkeys[0]), state=layout.root).code == 0
    log.append(2)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert client.add_checkpoint(log.add_checkpoint(0)) == StateBehind(
            ORIGIN, -1, 4, "the high-water record"
        )
        explained(layout, "nothing here, to be brought to size 4", "audit-behind")
        assert command("recover", *bodies(tmp_path, log, 4), state=layout.root).code == 0
        signs(client, log.add_checkpoint(6))
    assert command("audit", "verify", state=layout.root).code == 0


def test_a_database_and_a_record_that_are_gone_lead_nowhere(layout: StateLayout, log: SimulatedLog) -> None:
    """Nothing says what was signed: the identity is retired, and no size of zero is believed."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    layout.database.unlink()
    for file in layout.root.glob("high-water*"):
        file.unlink()
    assert command("recover", "--new-database", state=layout.root).code == 0
    assert command("logs", "add", str(log.vkeys[0]), state=layout.root).code == 0
    fork = log.fork(0)
    fork.append(3)
    with running(layout), SocketClient(layout.core_socket) as client:
        for _ in range(2):
            assert isinstance(client.add_checkpoint(fork.add_checkpoint(0)), SigningStopped)
            explained(layout, Kind.RECORD_LOST, "bring back the high-water record")
            assert command("recover", "--fast-forward", state=layout.root).code == 1
        assert command("recover", "--retire", state=layout.root).code == 1
        poll("it knows", lambda: any(Kind.RETIRED in alarm for alarm in status(client).alarms) or None)
        assert isinstance(client.add_checkpoint(fork.add_checkpoint(0)), SigningStopped)


def test_a_folder_that_was_cloned_and_both_run(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    """Each hears of what the other signed; one is stopped for good, the other goes on."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    with short_folder() as folder:
        clone = StateLayout(folder / "c")
        shutil.copytree(layout.root, clone.root)
        with running(clone), SocketClient(clone.core_socket) as two:
            with running(layout), SocketClient(layout.core_socket) as one:
                grow(one, log, 4)
                note = one.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
                assert isinstance(note, bytes)
                assert two.ask(Verb.SEEN, encode_seen("distributor.example", note)) == b"ours"
                fork = log.fork(4)
                fork.append(5)
                assert two.add_checkpoint(fork.add_checkpoint(4)) == StateBehind(
                    ORIGIN, 4, 7, "distributor.example"
                )
                explained(clone, "size 4 here, size 7 was cosigned, seen in distributor.example")
            log.append(1)
            assert command("recover", *bodies(tmp_path, fork, 4, 7), state=clone.root).code == 1
            assert command("recover", *bodies(tmp_path, log, 4, 7), state=clone.root).code == 0
            signs(two, log.add_checkpoint(8))


def test_a_second_copy_that_signs_the_same_size(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    """Sizes tell nothing then, only the time: the operator must say that the other copy is stopped."""
    with short_folder() as folder:
        clone = StateLayout(folder / "c")
        with running(layout) as core, SocketClient(layout.core_socket) as one:
            grow(one, log, 0)
            assert core.stop() == 0
        shutil.copytree(layout.root, clone.root)
        clock = MovableClock(folder / "clock")
        clock.offset = 60.0
        other = ForkedCore(clone, clock, continuity=ContinuitySettings(interval=0.1))
        assert other.error is None
        with SocketClient(clone.core_socket) as two:
            assert isinstance(two.add_checkpoint(log.add_checkpoint(4)), bytes)
            note = two.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
            assert isinstance(note, bytes)
        other.kill()
    settings = ContinuitySettings(interval=0.1)
    core_after = ForkedCore(layout, MovableClock(layout.root.parent / "clock"), continuity=settings)
    try:
        with SocketClient(layout.core_socket) as one:
            assert one.ask(Verb.SEEN, encode_seen("distributor.example", note)) == b"ours"
            assert isinstance(one.add_checkpoint(log.add_checkpoint(4)), SigningStopped)
            explained(layout, Kind.SECOND_COPY, "cosigned again")
            log.append(1)
            args = bodies(tmp_path, log, 4)
            assert command("recover", *args, state=layout.root).code == 2, "it must be said"
            assert command("recover", *args, "--only-copy", state=layout.root).code == 0
            poll("it is settled", lambda: not status(one).alarms or None)
            # What the other copy issued, this one is not to precede.
            poll(
                "its time is known",
                lambda: isinstance(one.add_checkpoint(log.add_checkpoint(5)), ClockBehind) or None,
            )
            MovableClock(layout.root.parent / "clock").offset = 90.0
            signs(one, log.add_checkpoint(5))
    finally:
        core_after.kill()


def test_the_clock_goes_back_an_hour_and_a_year_ahead_and_is_right_again(
    layout: StateLayout, log: SimulatedLog
) -> None:
    clock = MovableClock(layout.root.parent / "clock")
    core = ForkedCore(layout, clock, continuity=ContinuitySettings(interval=0.1))
    assert core.error is None
    try:
        with SocketClient(layout.core_socket) as client:
            grow(client, log, 0)
            for offset, refused in ((-HOUR, ClockBehind), (YEAR, ClockWrong)):
                clock.offset = offset
                assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), refused)
                assert not status(client).ready
                poll("it is on the record", functools.partial(told_of_clock, layout, refused))
                clock.offset = 2.0
                assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), bytes)
                assert status(client).ready
        assert core.stop() == 0
    finally:
        core.kill()


def told_of_clock(layout: StateLayout, refused: type[CoreError]) -> bool | None:
    """Whether the latest word of the record about the clock is of this trouble."""
    said = [
        line for line in command("audit", "show", state=layout.root).out.splitlines() if " clock " in line
    ]
    word = "behind" if refused is ClockBehind else "ahead"
    return (bool(said) and word in said[-1]) or None


def test_a_key_of_a_log_that_somebody_added_is_taken_away_again(
    layout: StateLayout, log: SimulatedLog
) -> None:
    thief = SimulatedKey(ORIGIN, number=7)
    by_thief = log.add_checkpoint(4, keys=[thief])
    with running(layout), SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        with sqlite3.connect(layout.database) as connection:
            connection.execute(
                "INSERT INTO log_keys (log_id, vkey, source, added) VALUES (1, ?, '', 1)", (str(thief.vkey),)
            )
        poll("an alarm", lambda: status(client).alarms or None)
        explained(layout, f"{Kind.LOG_KEY} {ORIGIN!r}", "--accept-keys")
        assert isinstance(client.add_checkpoint(by_thief), SigningStopped)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), SigningStopped)
        assert command("logs", "keys", ORIGIN, "--remove", str(thief.vkey), state=layout.root).code == 0
        assert command("recover", "--accept-keys", ORIGIN, state=layout.root).code == 0
        signs(client, log.add_checkpoint(4))
        assert client.add_checkpoint(by_thief) == NoTrustedSignature(ORIGIN)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("harm", ["altered", "lost"])
def test_a_high_water_record_that_was_altered_or_lost(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path, harm: str, *, stopped: bool
) -> None:
    """Every log has to be brought forward. That may be done while nothing runs; a core ends it."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    for file in layout.root.glob("high-water*"):
        if harm == "lost":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes().replace(b'"issued"', b'"issueD"', 1))
    kind = Kind.RECORD_LOST if harm == "lost" else Kind.RECORD_INVALID
    log.append(3)

    def refused(client: SocketClient) -> None:
        answer = client.add_checkpoint(log.add_checkpoint(4))
        assert isinstance(answer, SigningStopped)
        assert answer.kind == kind

    with running(layout) as core, SocketClient(layout.core_socket) as client:
        refused(client)
        explained(layout, kind, f"{ORIGIN}: size 4 here")
        if stopped:
            assert core.stop() == 0
            assert command("recover", *bodies(tmp_path, log, 4), state=layout.root).code == 1
            explained(layout, kind, "witness run")
        else:
            assert command("recover", *bodies(tmp_path, log, 4), state=layout.root).code == 0
            signs(client, log.add_checkpoint(7))
    with running(layout), SocketClient(layout.core_socket) as client:
        if stopped:
            refused(client)
            assert command("recover", "--fast-forward", state=layout.root).code == 0
        signs(client, log.add_checkpoint(7))
    with running(layout), SocketClient(layout.core_socket) as client:
        assert status(client).ready


def test_a_record_of_events_that_is_behind(layout: StateLayout, log: SimulatedLog, tmp_path: Path) -> None:
    """The heads are the latest; only what happened since is missing."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    database(layout, tmp_path / "old.db")
    for _ in range(2):
        with running(layout) as core:
            assert core.stop() == 0
    put_back(tmp_path / "old.db", layout)
    with running(layout), SocketClient(layout.core_socket) as client:
        answer = client.add_checkpoint(log.add_checkpoint(4))
        assert isinstance(answer, SigningStopped)
        assert answer.kind == Kind.AUDIT_BEHIND
        explained(layout, Kind.AUDIT_BEHIND, "no log is behind")
        assert command("recover", "--fast-forward", state=layout.root).code == 0
        signs(client, log.add_checkpoint(4))
    with running(layout), SocketClient(layout.core_socket) as client:
        assert status(client).ready
    assert command("audit", "verify", state=layout.root).code == 0


def test_a_high_water_record_older_than_the_database(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    """A record from before it was begun anew: it is ours and proves what it says, but is not the latest."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    old = {file: file.read_bytes() for file in layout.root.glob("high-water*")}
    for file in old:
        file.unlink()
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        log.append(1)
        poll("it is told", lambda: status(client).alarms or None)
        assert command("recover", *bodies(tmp_path, log, 4), state=layout.root).code == 0
        signs(client, log.add_checkpoint(5))
        assert core.stop() == 0
    for file, content in old.items():
        file.write_bytes(content)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(5)), SigningStopped)
        explained(layout, Kind.RECORD_LOST, "the database goes with record")
        assert command("recover", *bodies(tmp_path, log, 5), state=layout.root).code == 0
        signs(client, log.add_checkpoint(5))
