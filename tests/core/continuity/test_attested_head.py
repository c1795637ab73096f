"""The attested head: made by a running core, and what it finds in a record that was tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import witness
from tests.core.continuity.test_audit import CHANGES, tamper
from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.core.state import ATTESTATION_SEED, IDENTITY, NAME, make_state, trust
from tests.drills.test_rollback import database, grow, put_back, running, status
from tests.simulated_log import SimulatedLog
from witness.core.continuity.attested import ATTESTED_HEAD, HEAD_SECONDS, HeadKeeper
from witness.core.continuity.secret import AUDIT, MacKey, record_keys, source
from witness.core.keystore import softkey
from witness.core.keystore.attestation import AttestationKey, serial_of
from witness.core.keystore.keyring import read as read_ring
from witness.core.layout import StateLayout
from witness.core.store import audit
from witness.core.store.audit import Event
from witness.core.store.base import Identity
from witness.core.store.desk import Desk
from witness.tlog.note import parse_note
from witness.tlog.record_head import RecordHead, parse_record_head
from witness.tlog.signature import verify_note

KEY = AttestationKey(ATTESTATION_SEED, serial_of(IDENTITY), dev=False)


@pytest.fixture
def layout() -> Iterator[StateLayout]:
    with short_folder() as folder:
        layout = make_state(folder / "s")
        layout.config.write_text(f"name: {NAME}\n")
        yield layout


def opened(note: bytes) -> RecordHead:
    parsed = parse_note(note)
    assert [each.key for each in verify_note(parsed, [KEY.vkey])] == [KEY.vkey]
    return parse_record_head(parsed.text)


def kept(layout: StateLayout) -> bytes:
    with Desk(layout.database) as desk:
        return (desk.fact(ATTESTED_HEAD) or "").encode()


def lived(layout: StateLayout, log: SimulatedLog, old: int) -> bytes:
    """A core that runs and stops; what it has attested last."""
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, old)
        assert core.stop() == 0
    return kept(layout)


def test_a_running_core_attests_its_records_head(layout: StateLayout) -> None:
    log = SimulatedLog("head.example/log", size=4)
    trust(layout, log)
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        note = poll("the head is attested", lambda: status(client).attested_head or None).encode()
        head = opened(note)
        assert (head.name, head.identity, head.number) == (NAME, IDENTITY, 1)
        assert status(client).audit == f"{head.number} {head.digest}"
        grow(client, log, 0)
        assert core.stop() == 0
    with Desk(layout.database) as desk:
        last = audit.head(desk)
    # The stop is the last entry, and attested at once.
    assert last == (2, opened(kept(layout)).digest)
    shown = witness("audit", "head", state=layout.root)
    assert (shown.code, shown.out.encode()) == (0, kept(layout))


def test_without_an_attestation_key_nothing_is_attested(tmp_path: Path) -> None:
    with short_folder() as folder:
        layout = make_state(folder / "s", attestation_seed=None)
        with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
            assert status(client).attested_head == ""
            assert core.stop() == 0
        outcome = witness("audit", "head", state=layout.root)
        assert outcome.code == 1
        assert "no head" in outcome.error()


def verify(layout: StateLayout, *heads: Path) -> tuple[int, str]:
    outcome = witness(
        "audit", "verify", *(part for head in heads for part in ("--head", head)), state=layout.root
    )
    return outcome.code, outcome.err


def forget_the_high_water_record(layout: StateLayout) -> None:
    """What somebody does who may write the whole state folder."""
    for path in layout.root.glob("high-water*"):
        path.unlink()


def test_a_record_brought_back_behind_a_kept_head_is_found(layout: StateLayout, tmp_path: Path) -> None:
    log = SimulatedLog("head.example/log", size=4)
    trust(layout, log)
    early, late = tmp_path / "early", tmp_path / "late"
    early.write_bytes(lived(layout, log, 0))
    database(layout, tmp_path / "old.db")
    late.write_bytes(lived(layout, log, 4))
    assert verify(layout, early, late) == (0, "")
    put_back(tmp_path / "old.db", layout)
    forget_the_high_water_record(layout)
    assert verify(layout)[0] == 0, "nothing else tells"
    assert verify(layout, early)[0] == 0
    code, said = verify(layout, early, late)
    assert code == 1
    assert "ends at entry 2" in said


def test_a_record_written_anew_with_its_own_key_is_found(layout: StateLayout, tmp_path: Path) -> None:
    log = SimulatedLog("head.example/log", size=4)
    trust(layout, log)
    head = tmp_path / "head"
    head.write_bytes(lived(layout, log, 0))
    lived(layout, log, 4)
    signers = softkey.open_keystore(layout.softkey, None).signers()
    key = MacKey(record_keys([source(signers, layout.records_key)], b"")[AUDIT])
    with Desk(layout.database) as desk:
        told = [json.loads(entry.record) for entry in audit.entries(desk)]
        for (trigger,) in desk.connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
        ).fetchall():
            desk.connection.execute(f"DROP TRIGGER {trigger}")
        desk.connection.execute("DELETE FROM audit")
        for entry in told:
            facts = {**entry["facts"], "logs": 7} if entry["number"] == 1 else entry["facts"]
            audit.append(desk, key, [Event(entry["kind"], facts)], entry["seen"])
    forget_the_high_water_record(layout)
    assert verify(layout)[0] == 0, "chain and MACs are right: nothing else tells"
    code, said = verify(layout, head)
    assert code == 1
    assert "entry 2 is not the one" in said


@pytest.fixture(scope="module")
def of_three_lives() -> Iterator[StateLayout]:
    with short_folder() as folder:
        made = make_state(folder / "s")
        made.config.write_text(f"name: {NAME}\n")
        for _ in range(3):
            with running(made) as core:
                assert core.stop() == 0
        yield made


@pytest.mark.parametrize("change", ["none", *CHANGES])
def test_the_command_finds_every_kind_of_change(
    of_three_lives: StateLayout, tmp_path: Path, change: str
) -> None:
    """With what stands beside the table: the key file, and the high-water record with its head."""
    shutil.copytree(
        of_three_lives.root, tmp_path / "s", ignore=lambda _, names: [n for n in names if n.endswith(".sock")]
    )
    layout = StateLayout(tmp_path / "s")
    if change != "none":
        with Desk(layout.database) as desk:
            tamper(desk, change)
    code, said = verify(layout)
    assert code == (0 if change == "none" else 1), said


def test_only_a_head_of_this_witness_is_compared(layout: StateLayout, tmp_path: Path) -> None:
    log = SimulatedLog("head.example/log", size=4)
    trust(layout, log)
    good = lived(layout, log, 0)
    file = tmp_path / "head"
    stranger = AttestationKey(bytes(32), KEY.serial, dev=False)
    other = RecordHead(NAME, "ff" + IDENTITY, 2, "ab" * 32, 0)
    for data, code, said in (
        (good.replace(b"entry 2", b"entry 1"), 1, "signature is not valid"),
        (stranger.attest_head(opened(good)), 1, "not signed by"),
        (KEY.attest_head(other), 1, "another record"),
        (b"no note", 3, "no attested head"),
        (KEY.attest(read_ring(layout).vkeys[0], 0), 3, "no attested head"),
    ):
        file.write_bytes(data)
        found = verify(layout, file)
        assert found[0] == code, found
        assert said in found[1]


def test_a_record_that_is_behind_itself_is_not_attested(layout: StateLayout, tmp_path: Path) -> None:
    log = SimulatedLog("head.example/log", size=4)
    trust(layout, log)
    before = lived(layout, log, 0)
    database(layout, tmp_path / "old.db")
    lived(layout, log, 4)
    put_back(tmp_path / "old.db", layout)
    with running(layout) as core, SocketClient(layout.core_socket) as client:
        alarms = poll("an alarm", lambda: status(client).alarms or None)
        assert any("record of events" in alarm for alarm in alarms), alarms
        assert core.stop() == 0
    assert kept(layout) == before


def test_at_most_so_often_and_only_when_it_moved(
    layout: StateLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("witness.core.continuity.attested.time.monotonic", lambda: now)
    held: list[AttestationKey] = []
    keeper = HeadKeeper(Identity(NAME, IDENTITY), lambda: held[0] if held else None, lambda: 5.0)
    with Desk(layout.database) as desk:
        assert not keeper.due((1, "ab" * 32)), "no key yet"
        held.append(KEY)
        assert not keeper.due((0, "")), "an empty record"
        assert keeper.due((1, "ab" * 32))
        keeper.attest(desk, (1, "ab" * 32))
        now += HEAD_SECONDS
        assert not keeper.due((1, "ab" * 32))
        keeper.attest(desk, (2, "cd" * 32))
        assert not keeper.due((3, "ef" * 32))
        assert keeper.due((3, "ef" * 32), at_once=True)
        now += HEAD_SECONDS
        assert keeper.due((3, "ef" * 32))
    assert opened(keeper.note) == RecordHead(NAME, IDENTITY, 2, "cd" * 32, 5)
    assert kept(layout) == keeper.note
