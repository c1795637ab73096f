"""Cosignatures on record: all of them, heads, none; for so many days; and nothing else goes with them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import make, witness
from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.core.state import make_state, trust
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import StaleOldSize
from witness.core.store.cosignatures import Recorded, prune, recorded
from witness.core.store.desk import Desk


@pytest.fixture
def layout() -> Iterator[StateLayout]:
    with short_folder() as folder:
        yield make_state(folder / "s")


@pytest.fixture
def logs(layout: StateLayout) -> list[SimulatedLog]:
    origins = [f"recorded.example/{number}" for number in range(3)]
    logs = [SimulatedLog(origin, size=4, keys=[SimulatedKey(origin)]) for origin in origins]
    trust(layout, *logs)
    return logs


def running(layout: StateLayout, which: str, **more: Any) -> CoreProcess:
    settings = ContinuitySettings(interval=0.1, record_cosignatures=which, **more)
    return CoreProcess(layout, continuity=settings)


def on_record(layout: StateLayout, origin: str | None = None) -> list[Recorded]:
    with Desk(layout.database) as desk:
        return list(recorded(desk, origin))


def cosign(client: SocketClient, log: SimulatedLog, old: int) -> bytes:
    answer = client.add_checkpoint(log.add_checkpoint(old))
    assert isinstance(answer, bytes), answer
    return answer


def test_all_are_on_record_before_they_are_released(layout: StateLayout, logs: list[SimulatedLog]) -> None:
    """The core is killed as soon as the last answer is here; what has an answer has its row."""
    answers = []
    with running(layout, "all") as core, SocketClient(layout.core_socket) as client:
        for log in logs:
            old = 0
            for _ in range(4):
                answers.append((log.origin, log.size, cosign(client, log, old)))
                old = log.size
                log.append(2)
            answers.append((log.origin, old, cosign_again(client, log, old)))
            assert isinstance(client.add_checkpoint(log.add_checkpoint(1)), StaleOldSize)
        core.kill()
    kept = on_record(layout)
    assert [(each.origin, each.size) for each in kept] == [(origin, size) for origin, size, _ in answers]
    for each, (_, _, lines) in zip(kept, answers, strict=True):
        assert each.checkpoint.endswith(lines)
        assert each.checkpoint.startswith(f"{each.origin}\n{each.size}\n".encode())
    assert [each.timestamp for each in kept] == sorted(each.timestamp for each in kept)
    assert len(on_record(layout, logs[1].origin)) == 5


def cosign_again(client: SocketClient, log: SimulatedLog, size: int) -> bytes:
    """The same head once more: another timestamp, perhaps, and another row."""
    answer = client.add_checkpoint(log.add_checkpoint(size, size))
    assert isinstance(answer, bytes), answer
    return answer


def test_heads_are_what_stood_when_the_interval_ended(layout: StateLayout, logs: list[SimulatedLog]) -> None:
    log = logs[0]
    with running(layout, "heads") as core, SocketClient(layout.core_socket) as client:
        cosign(client, log, 0)
        poll("the head is on record", lambda: on_record(layout) or None)
        log.append(3)
        lines = cosign(client, log, 4)
        assert core.stop() == 0  # what moved last is recorded at the end
    kept = on_record(layout)
    assert [(each.origin, each.size) for each in kept] == [(log.origin, 4), (log.origin, 7)]
    assert kept[-1].checkpoint.endswith(lines)
    with running(layout, "heads") as core:
        assert core.stop() == 0
    assert on_record(layout) == kept, "a start records nothing anew"


def test_off_records_nothing(layout: StateLayout, logs: list[SimulatedLog]) -> None:
    with running(layout, "off") as core, SocketClient(layout.core_socket) as client:
        cosign(client, logs[0], 0)
        assert core.stop() == 0
    assert on_record(layout) == []


def test_age_prunes_the_record_and_nothing_else(layout: StateLayout, logs: list[SimulatedLog]) -> None:
    log = logs[0]
    with running(layout, "all") as core, SocketClient(layout.core_socket) as client:
        cosign(client, log, 0)
        fork = log.fork(2)
        fork.append(2)
        client.add_checkpoint(fork.add_checkpoint(4))  # evidence
        assert core.stop() == 0
    with Desk(layout.database) as desk:
        before = tables(desk)
        assert before["contradictions"] == 1
        row = desk.one("SELECT log_id, size, root, timestamp, note, cosignatures FROM cosignatures")
        assert row is not None
        old = (*row[:3], row[3] - 91 * 86400, *row[4:])
        with desk.transaction() as connection:
            connection.execute("DELETE FROM cosignatures")
            insert = (
                "INSERT INTO cosignatures (log_id, size, root, timestamp, note, cosignatures)"
                " VALUES (?, ?, ?, ?, ?, ?)"
            )
            connection.executemany(insert, [old] * 450 + [row] * 2)
        with pytest.raises(sqlite3.IntegrityError, match="stays as it is"):
            desk.connection.execute("UPDATE cosignatures SET timestamp = 0")
    # It prunes while nothing is recorded any more, and what is younger stays.
    with running(layout, "off"):
        poll("the old ones are gone", lambda: len(on_record(layout)) == 2 or None)
    with Desk(layout.database) as desk:
        assert tables(desk) == {**before, "cosignatures": 2, "audit": tables(desk)["audit"]}
        assert not prune(desk, int(row[3]))
        assert len(list(recorded(desk))) == 2


def tables(desk: Desk) -> dict[str, int]:
    names = ("heads", "logs", "log_keys", "contradictions", "audit", "cosignatures")
    return {name: desk.connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def test_the_command_prints_them_and_verify_takes_them(tmp_path: Path) -> None:
    with short_folder() as folder:
        state = make(folder / "s")
        layout = StateLayout(state)
        log = SimulatedLog("recorded.example/cli", size=5)
        assert witness("logs", "add", str(log.vkeys[0]), state=state).code == 0
        assert witness("audit", "cosignatures", state=state).out == ""
        with running(layout, "all"), SocketClient(layout.core_socket) as client:
            cosign(client, log, 0)
        vkeys = witness("keys", "list", state=state).out.split()
        line = witness("audit", "cosignatures", "--origin", log.origin, state=state).out
        assert line.rstrip("\n").endswith(f" {log.origin}")
        assert " 5 " in line
        facts = json.loads(witness("audit", "cosignatures", "--json", state=state).out)
        assert (facts["origin"], facts["size"], facts["root"]) == (log.origin, 5, log.root().hex())
        later = str(facts["timestamp"] + 1)
        assert witness("audit", "cosignatures", "--since", later, state=state).out == ""
        missing = witness("audit", "cosignatures", "--origin", "nobody", state=state)
        assert (missing.code, "no log 'nobody'" in missing.err) == (3, True)
    file = tmp_path / "checkpoint"
    file.write_text(facts["checkpoint"])
    witnesses = [part for vkey in vkeys for part in ("--witness", vkey)]
    verified = witness("verify", str(file), "--log", str(log.vkeys[0]), *witnesses)
    assert verified.code == 0, verified.err
