"""Drills: a state older than what it has signed, with real processes; each is led out of by `recover`."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.core.state import make_state, trust
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.continuity import recover
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import (
    NotCompared,
    NotYetCosigned,
    SigningStopped,
    StaleOldSize,
    StateBehind,
    UnknownOrigin,
)
from witness.core.store import schema
from witness.core.store.alarms import Kind, standing
from witness.core.store.desk import Desk
from witness.core.wire import Verb, decode_status, encode_seen
from witness.tlog.checkpoint import origin_hash
from witness.tlog.submission import parse_add_checkpoint

ORIGIN = "drill.example/log"
NOW = 1_900_000_000


@pytest.fixture
def layout() -> Iterator[StateLayout]:
    with short_folder() as folder:
        yield make_state(folder / "s")


@pytest.fixture
def log(layout: StateLayout) -> SimulatedLog:
    log = SimulatedLog(ORIGIN, size=4)
    trust(layout, log)
    return log


def running(layout: StateLayout, **continuity: Any) -> CoreProcess:
    more = {"interval": 0.1, **continuity}
    return CoreProcess(layout, continuity=ContinuitySettings(**more))


def grow(client: SocketClient, log: SimulatedLog, old: int, by: int = 3) -> int:
    """Has the log cosigned at its present size, or a larger one."""
    if by and old:
        log.append(by)
    answer = client.add_checkpoint(log.add_checkpoint(old))
    assert isinstance(answer, bytes), answer
    return log.size


def status(client: SocketClient) -> Any:
    answer = client.ask(Verb.STATUS)
    assert isinstance(answer, bytes)
    return decode_status(answer)


def database(layout: StateLayout, copy: Path) -> None:
    """Copies the database as somebody does who knows no better."""
    for suffix in ("", "-wal", "-shm"):
        file = layout.database.with_name(layout.database.name + suffix)
        target = copy.with_name(copy.name + suffix)
        target.unlink(missing_ok=True)
        if file.exists():
            shutil.copy(file, target)


def put_back(copy: Path, layout: StateLayout) -> None:
    for suffix in ("", "-wal", "-shm"):
        file = layout.database.with_name(layout.database.name + suffix)
        file.unlink(missing_ok=True)
        saved = copy.with_name(copy.name + suffix)
        if saved.exists():
            shutil.copy(saved, file)


def cosigned_then_rolled_back(layout: StateLayout, log: SimulatedLog, folder: Path) -> int:
    """The database is brought back to when the head was smaller. Returns the size that was signed last."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        size = grow(client, log, 0)
        assert core.stop() == 0
    database(layout, folder / "old.db")
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        size = grow(client, log, size)
        assert core.stop() == 0
    put_back(folder / "old.db", layout)
    return size


def test_a_database_an_hour_old_signs_nothing_and_is_brought_forward(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    size = cosigned_then_rolled_back(layout, log, tmp_path)
    log.append(2)
    with running(layout), SocketClient(layout.core_socket) as client:
        refused = client.add_checkpoint(log.add_checkpoint(4))
        assert refused == StateBehind(ORIGIN, 4, size, "the high-water record")
        told = status(client)
        assert not told.ready
        assert any(f"{ORIGIN!r}: size 4 here, size {size} was cosigned" in line for line in told.alarms)
        # A fork of the log from the state that was rolled back to is what must never be signed.
        fork = log.fork(4)
        fork.append(9)
        assert isinstance(client.add_checkpoint(fork.add_checkpoint(4)), (StateBehind, SigningStopped))
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            with pytest.raises(recover.CannotRecover, match="does not prove"):
                recover.bring_forward(desk, behind, bodies(fork, size, 4), NOW)
            with pytest.raises(recover.CannotRecover, match="is missing"):
                recover.bring_forward(desk, behind, bodies(log, 4), NOW)
            head = recover.bring_forward(desk, behind, bodies(log, size, 4), NOW)
            assert head.size == log.size
            recover.settle_what_is_over(desk, NOW)
        poll("it signs again", lambda: status(client).ready or None)
        hashed = origin_hash(ORIGIN)
        assert client.ask(Verb.CHECKPOINT, hashed) == NotYetCosigned(hashed.hex())
        assert client.add_checkpoint(fork.add_checkpoint(4)) == StaleOldSize(log.size)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(log.size)), bytes)
        assert isinstance(client.ask(Verb.CHECKPOINT, hashed), bytes)


def bodies(log: SimulatedLog, *sizes: int) -> list[Any]:
    return [parse_add_checkpoint(log.add_checkpoint(size)) for size in sizes]


def test_an_alarm_outlives_the_process_and_cannot_be_settled_by_hand(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    cosigned_then_rolled_back(layout, log, tmp_path)
    for _ in range(2):
        with running(layout), SocketClient(layout.core_socket) as client:
            assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), StateBehind)
    connection = sqlite3.connect(layout.database)
    with running(layout), SocketClient(layout.core_socket) as client:
        connection.execute("UPDATE alarms SET settled = 1")
        connection.commit()
        for _ in range(300):  # while the core takes it in, too
            assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), (StateBehind, NotCompared))
        poll("the alarm is back", lambda: status(client).alarms or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), StateBehind)
    connection.execute("UPDATE alarms SET settled = 1 WHERE settled IS NULL")
    connection.commit()
    connection.close()
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), StateBehind)


def test_a_lost_database_never_starts_at_zero(layout: StateLayout, log: SimulatedLog) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        size = grow(client, log, 0)
        assert core.stop() == 0
    layout.database.unlink()
    with pytest.raises(AssertionError, match="no database"), running(layout):
        pass
    # The operator makes an empty one for the identity, and adds the log again.
    schema.create(layout.database, name="witness.example/w1", identity="0123456789abcdef", now=NOW)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert client.add_checkpoint(log.add_checkpoint(0)) == UnknownOrigin(ORIGIN)
        trust(layout, log)

        def refused() -> Any:
            answer = client.add_checkpoint(log.add_checkpoint(0))
            return answer if not isinstance(answer, UnknownOrigin) else None

        assert poll("the log is known", refused) == StateBehind(ORIGIN, -1, size, "the high-water record")
        log.append(5)
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            recover.bring_forward(desk, behind, bodies(log, size), NOW)
            recover.settle_what_is_over(desk, NOW)  # the record of events was lost, too
        poll("it signs again", lambda: status(client).ready or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(log.size)), bytes)


def test_a_log_that_cannot_be_brought_forward_is_given_up_and_never_signed_again(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    other = SimulatedLog("drill.example/other", size=3, keys=[SimulatedKey("drill.example/other", number=4)])
    trust(layout, other)
    cosigned_then_rolled_back(layout, log, tmp_path)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(other.add_checkpoint(0)), StateBehind)
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            recover.give_up(desk, behind, NOW)
            recover.settle_what_is_over(desk, NOW)
        poll(
            "others are signed",
            lambda: isinstance(client.add_checkpoint(other.add_checkpoint(0)), bytes) or None,
        )
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), SigningStopped)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), SigningStopped)
        assert isinstance(client.add_checkpoint(other.add_checkpoint(3)), bytes)


def test_only_a_distributor_knows_better(layout: StateLayout, log: SimulatedLog, tmp_path: Path) -> None:
    """The whole folder is an hour old, record and all: what the world has of us is brought by the front."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    shutil.copytree(layout.root, tmp_path / "old")
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        size = grow(client, log, 4)
        published = client.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
        assert isinstance(published, bytes)
        assert core.stop() == 0
    shutil.rmtree(layout.root)
    shutil.copytree(tmp_path / "old", layout.root)
    log.append(1)
    with running(layout, wait=60.0), SocketClient(layout.core_socket) as client:
        assert client.add_checkpoint(log.add_checkpoint(4)).code == "not-compared"
        # Whoever changes it, or brings somebody else's, brings nothing about.
        assert client.ask(Verb.SEEN, encode_seen("a liar", published.replace(b"\n7\n", b"\n9\n"))) == b""
        assert client.ask(Verb.SEEN, encode_seen("a liar", log.checkpoint())) == b""
        assert status(client).alarms == ()
        assert client.ask(Verb.SEEN, encode_seen("distributor.example", published)) == b"ours"
        assert client.ask(Verb.COMPARED) == b""
        refused = client.add_checkpoint(log.add_checkpoint(4))
        assert refused == StateBehind(ORIGIN, 4, size, "distributor.example")
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            recover.bring_forward(desk, behind, bodies(log, size, 4), NOW)
        poll("it signs again", lambda: status(client).ready or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(log.size)), bytes)


def test_without_a_front_that_asks_the_wait_ends_by_itself(layout: StateLayout, log: SimulatedLog) -> None:
    with running(layout, wait=0.2), SocketClient(layout.core_socket) as client:
        poll("it signs", lambda: isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes) or None)


def test_our_own_latest_cosignature_is_no_alarm(layout: StateLayout, log: SimulatedLog) -> None:
    with running(layout), SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        older = client.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
        grow(client, log, 4)
        latest = client.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
        for note in (older, latest):
            assert isinstance(note, bytes)
            assert client.ask(Verb.SEEN, encode_seen("d", note)) == b"ours"
        assert status(client).alarms == ()


def test_a_clone_notices_what_the_other_signed(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    """The folder is cloned and both run: each sees the other's cosignatures in the world."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    with short_folder() as folder:
        shutil.copytree(layout.root, folder / "c")
        clone = StateLayout(folder / "c")
        with (
            running(layout),
            running(clone),
            SocketClient(layout.core_socket) as one,
            SocketClient(clone.core_socket) as two,
        ):
            grow(one, log, 4)
            note = one.ask(Verb.CHECKPOINT, origin_hash(ORIGIN))
            assert isinstance(note, bytes)
            two.ask(Verb.SEEN, encode_seen("distributor.example", note))
            assert isinstance(two.add_checkpoint(log.add_checkpoint(4)), StateBehind)


def test_a_clone_with_the_same_record_does_not_start(layout: StateLayout, log: SimulatedLog) -> None:
    """Where the record lies outside the folder, a copied folder finds it held."""
    with short_folder() as folder:
        shutil.copytree(layout.root, folder / "c")
        record = str(folder / "hw")
        clone = StateLayout(folder / "c")
        with (
            running(layout, high_water=record),
            pytest.raises(AssertionError, match="two copies of one witness"),
            running(clone, high_water=record),
        ):
            pass


def test_a_lost_record_stops_signing_until_every_log_is_brought_forward(
    layout: StateLayout, log: SimulatedLog
) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    for file in layout.root.glob("high-water*"):
        file.unlink()
    log.append(3)
    with running(layout), SocketClient(layout.core_socket) as client:
        refused = client.add_checkpoint(log.add_checkpoint(4))
        assert isinstance(refused, SigningStopped)
        assert refused.kind == Kind.RECORD_LOST
        with Desk(layout.database) as desk:
            assert recover.settle_what_is_over(desk, NOW) == ()
            (behind,) = recover.plan(desk).behind
            recover.bring_forward(desk, behind, bodies(log, 4), NOW)
            assert recover.settle_what_is_over(desk, NOW)
        poll("it signs again", lambda: status(client).ready or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(7)), bytes)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert status(client).ready


def test_a_changed_record_stops_signing(layout: StateLayout, log: SimulatedLog) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    for file in layout.root.glob("high-water*"):
        file.write_bytes(file.read_bytes().replace(b'"issued"', b'"issueD"', 1))
    with running(layout), SocketClient(layout.core_socket) as client:
        refused = client.add_checkpoint(log.add_checkpoint(4))
        assert isinstance(refused, SigningStopped)
        assert refused.kind == Kind.RECORD_INVALID


def exchange_key(layout: StateLayout, thief: SimulatedKey) -> None:
    """By somebody who takes the guards away first."""
    connection = sqlite3.connect(layout.database)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE log_keys SET vkey = ?", (str(thief.vkey),))
    connection.execute("DROP TRIGGER log_keys_stand")
    connection.execute("UPDATE log_keys SET vkey = ?", (str(thief.vkey),))
    connection.execute("UPDATE logs SET change = change + 1")
    connection.commit()
    connection.close()


def test_a_further_key_by_plain_sql_under_a_running_core(layout: StateLayout, log: SimulatedLog) -> None:
    """The database lets keys be added, for the command does; that it was no command, the core finds out."""
    thief = SimulatedKey(ORIGIN, number=7)
    with running(layout), SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        connection = sqlite3.connect(layout.database)
        connection.execute(
            "INSERT INTO log_keys (log_id, vkey, source, added) VALUES (1, ?, '', 1)", (str(thief.vkey),)
        )
        connection.commit()
        connection.close()
        told = poll("an alarm", lambda: status(client).alarms or None)
        assert f"{Kind.LOG_KEY} {ORIGIN!r}" in told[0]
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4, keys=[thief])), SigningStopped)


def test_a_log_s_key_replaced_under_a_running_core(layout: StateLayout, log: SimulatedLog) -> None:
    thief = SimulatedKey(ORIGIN, number=7)
    with running(layout), SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        exchange_key(layout, thief)
        told = poll("an alarm", lambda: status(client).alarms or None)
        assert f"{Kind.LOG_KEY} {ORIGIN!r}" in told[0]
        answer = client.add_checkpoint(log.add_checkpoint(4, keys=[thief]))
        assert isinstance(answer, SigningStopped)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4, keys=[thief])), SigningStopped)
        with Desk(layout.database) as desk:
            from witness.core.request import digest_of_keys

            recover.accept_keys(desk, ORIGIN, digest_of_keys([str(thief.vkey)]), NOW)
        poll(
            "it is signed again",
            lambda: isinstance(client.add_checkpoint(log.add_checkpoint(4, keys=[thief])), bytes) or None,
        )


def test_a_log_s_key_replaced_while_nothing_ran(layout: StateLayout, log: SimulatedLog) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    thief = SimulatedKey(ORIGIN, number=7)
    exchange_key(layout, thief)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4, keys=[thief])), SigningStopped)


def test_the_state_of_a_killed_core_is_no_alarm(layout: StateLayout, log: SimulatedLog) -> None:
    size = 0
    for _ in range(5):
        with running(layout) as core, SocketClient(layout.core_socket) as client:
            assert status(client).alarms == ()
            size = grow(client, log, size)
            core.kill()


def test_alarms_are_never_deleted(layout: StateLayout, log: SimulatedLog, tmp_path: Path) -> None:
    cosigned_then_rolled_back(layout, log, tmp_path)
    with running(layout):
        pass
    with Desk(layout.database) as desk:
        assert standing(desk)
        with pytest.raises(sqlite3.IntegrityError):
            desk.connection.execute("DELETE FROM alarms")
    assert os.environ.get("WITNESS_STATE") is None


def test_a_log_that_was_given_up_stays_so_when_an_older_database_comes_back(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    other = SimulatedLog("drill.example/other", size=3, keys=[SimulatedKey("drill.example/other", number=4)])
    trust(layout, other)
    cosigned_then_rolled_back(layout, log, tmp_path)
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            recover.give_up(desk, behind, NOW)
            recover.settle_what_is_over(desk, NOW)
        poll("others go on", lambda: status(client).ready or None)
        assert core.stop() == 0
    put_back(tmp_path / "old.db", layout)
    with running(layout), SocketClient(layout.core_socket) as client:
        told = status(client).alarms
        assert any(alarm.startswith(f"{Kind.ABANDONED} {ORIGIN!r}") for alarm in told), told
        with Desk(layout.database) as desk:
            assert recover.plan(desk).behind == ()
            recover.settle_what_is_over(desk, NOW)
        poll("others go on", lambda: status(client).ready or None)
        assert isinstance(client.add_checkpoint(other.add_checkpoint(0)), bytes)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), SigningStopped)


def test_a_retired_identity_stays_so_when_an_older_database_comes_back(
    layout: StateLayout, log: SimulatedLog, tmp_path: Path
) -> None:
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    database(layout, tmp_path / "old.db")
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        with Desk(layout.database) as desk:
            recover.retire(desk, NOW)
        poll("it has stopped", lambda: status(client).alarms or None)
        assert core.stop() == 0
    put_back(tmp_path / "old.db", layout)
    for _ in range(2):
        with running(layout) as core, SocketClient(layout.core_socket) as client:
            refused = client.add_checkpoint(log.add_checkpoint(4))
            assert isinstance(refused, SigningStopped)
            with Desk(layout.database) as desk:
                # Other alarms may be raised by now or not; this one nothing settles.
                settled = recover.settle_what_is_over(desk, NOW)
                assert Kind.RETIRED not in {alarm.kind for alarm in settled}
                assert Kind.RETIRED in {alarm.kind for alarm in recover.plan(desk).for_good}
            assert core.stop() == 0
    layout.database.unlink()
    schema.create(layout.database, name="witness.example/w1", identity="0123456789abcdef", now=NOW)
    trust(layout, log)
    with running(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), (SigningStopped, StateBehind))
        assert any(alarm.startswith(Kind.RETIRED) for alarm in status(client).alarms)
