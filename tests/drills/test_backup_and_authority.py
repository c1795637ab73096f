"""Backups that are whole and cannot rewind; operators whose signatures a recovery needs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import witness as command
from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.drills.test_rollback import bodies, database, grow, put_back, status
from tests.simulated_log import SimulatedLog
from witness.core.continuity import authority, recover
from witness.core.continuity.authority import Action, Authority, NotApproved, Proposal
from witness.core.continuity.settings import ContinuitySettings
from witness.core.continuity.sshsig import NAMESPACE, parse_operator, signer
from witness.core.layout import StateLayout
from witness.core.refusals import SigningStopped, StateBehind
from witness.core.store.desk import Desk

NOW = 1_900_000_000


@pytest.fixture
def state() -> Iterator[Path]:
    with short_folder() as folder:
        path = folder / "s"
        assert command("init", "--name", "w.example", "--algorithm", "ed25519", state=path).code == 0
        yield path


@pytest.fixture
def log(state: Path) -> SimulatedLog:
    log = SimulatedLog("drill.example/log", size=4)
    assert command("logs", "add", str(log.vkeys[0]), state=state).code == 0
    return log


def running(state: Path, **continuity: Any) -> CoreProcess:
    return CoreProcess(StateLayout(state), continuity=ContinuitySettings(interval=0.1, **continuity))


def test_a_backup_made_while_it_runs_is_restored_and_signs_only_once_brought_forward(
    state: Path, log: SimulatedLog
) -> None:
    socket = StateLayout(state).core_socket
    file = state.parent / "b.db"
    with running(state) as core, SocketClient(socket) as client:
        grow(client, log, 0)
        assert command("backup", file, state=state).code == 0
        assert command("backup", file, state=state).code == 3
        size = grow(client, log, 4)
        assert command("restore", file, state=state).code == 3, "not under a running core"
        assert core.stop() == 0
    assert command("restore", file, state=state).code == 0
    log.append(2)
    with running(state), SocketClient(socket) as client:
        refused = client.add_checkpoint(log.add_checkpoint(4))
        assert isinstance(refused, SigningStopped)
        assert refused.kind == "restored"
        with Desk(StateLayout(state).database) as desk:
            assert recover.settle_what_is_over(desk, NOW) == (), "a log is behind"
            (behind,) = recover.plan(desk).behind
            assert behind.size == size
            recover.bring_forward(desk, behind, bodies(log, size, 4), NOW)
            assert [each.kind for each in recover.settle_what_is_over(desk, NOW)][:1]
        poll("it signs again", lambda: status(client).ready or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(log.size)), bytes)
    with running(state), SocketClient(socket) as client:
        assert status(client).ready
    assert command("audit", "verify", state=state).code == 0


def test_a_file_that_is_no_backup_is_not_restored(state: Path, tmp_path: Path) -> None:
    for content in (b"", b"not a database", (StateLayout(state).database).read_bytes()):
        file = tmp_path / "x.db"
        file.write_bytes(content)
        assert command("restore", file, state=state).code == 3


# --- authority ---


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ssh")
    made = {}
    for name in ("alice", "bob", "carol", "mallory"):
        done = subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=False
        )
        if done.returncode:
            pytest.skip("ssh-keygen cannot make keys here")
        made[name] = folder / name
    return made


def line(keys: dict[str, Path], name: str) -> str:
    return f"{name} {keys[name].with_suffix('.pub').read_text().strip()}"


def test_ssh_keygen_s_signatures_are_understood_and_nothing_else(keys: dict[str, Path]) -> None:
    operators = tuple(parse_operator(line(keys, name)) for name in ("alice", "bob"))

    def signed(name: str, message: bytes, namespace: str = NAMESPACE) -> bytes:
        return subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", str(keys[name])],
            input=message, capture_output=True, check=True,
        ).stdout  # fmt: skip

    armored = signed("alice", b"message")
    found = signer(armored, b"message", operators)
    assert found is not None
    assert found.name == "alice"
    assert signer(armored, b"another", operators) is None
    assert signer(signed("alice", b"message", "file"), b"message", operators) is None, "another namespace"
    assert signer(signed("mallory", b"message"), b"message", operators) is None
    for at in range(0, len(armored), 5):
        changed = bytearray(armored)
        changed[at] ^= 1
        assert (
            signer(bytes(changed), b"message", operators) is None or bytes(changed).split() == armored.split()
        )


def test_k_of_n_decide_once_and_in_time(state: Path, keys: dict[str, Path]) -> None:
    operators = tuple(parse_operator(line(keys, name)) for name in ("alice", "bob", "carol"))
    two = Authority(2, operators)

    def vote(
        desk: Desk, proposal: authority.Proposal, name: str, *, approve: bool = True, now: int = NOW
    ) -> None:
        armored = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(keys[name])],
            input=authority.to_sign(proposal, approve=approve), capture_output=True, check=True,
        ).stdout  # fmt: skip
        authority.vote(desk, two, proposal, armored, approve=approve, now=now)

    def propose(desk: Desk) -> Proposal:
        return authority.propose(desk, "w", "i", Action.RECOVER, {}, now=NOW, hours=1)

    with Desk(StateLayout(state).database) as desk:
        first = propose(desk)
        vote(desk, first, "alice")
        with pytest.raises(NotApproved):
            vote(desk, first, "alice")
        with pytest.raises(NotApproved):
            vote(desk, first, "mallory")
        with pytest.raises(NotApproved):
            authority.use(desk, two, Action.RECOVER, {}, NOW)
        vote(desk, first, "bob")
        with pytest.raises(NotApproved):
            authority.use(desk, two, Action.ROTATE, {}, NOW)
        with pytest.raises(NotApproved):
            authority.use(desk, two, Action.RECOVER, {}, NOW + 3600)
        authority.use(desk, two, Action.RECOVER, {}, NOW)
        with pytest.raises(NotApproved):
            authority.use(desk, two, Action.RECOVER, {}, NOW)
        second = propose(desk)
        vote(desk, second, "alice", approve=False)
        vote(desk, second, "bob", approve=False)
        with pytest.raises(NotApproved):
            vote(desk, second, "carol")
        third = propose(desk)
        with pytest.raises(NotApproved):
            vote(desk, third, "alice", now=NOW + 3600)
        # A row that is changed afterwards is not what was signed.
        fourth = propose(desk)
        vote(desk, fourth, "alice")
        vote(desk, fourth, "bob")
        desk.connection.execute("UPDATE proposals SET action = 'rotate' WHERE id = ?", (fourth.number,))
        with pytest.raises(NotApproved):
            authority.use(desk, two, Action.ROTATE, {}, NOW)


def test_an_alarm_is_settled_only_with_enough_operators(
    state: Path, log: SimulatedLog, keys: dict[str, Path], tmp_path: Path
) -> None:
    layout = StateLayout(state)
    operators = tuple(line(keys, name) for name in ("alice", "bob"))
    config = layout.config
    config.write_text(
        config.read_text()
        + "authority:\n  needed: 2\n  operators:\n"
        + "".join(f"    - {o}\n" for o in operators)
    )
    authority_settings = {"needed": 2, "operators": operators}
    with running(state) as core, SocketClient(layout.core_socket) as client:
        grow(client, log, 0)
        assert core.stop() == 0
    database(layout, tmp_path / "old.db")
    with running(state) as core, SocketClient(layout.core_socket) as client:
        size = grow(client, log, 4)
        assert core.stop() == 0
    put_back(tmp_path / "old.db", layout)
    with running(state, **authority_settings), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(4)), StateBehind)
        files = []
        for old in (4, size):
            file = tmp_path / f"body{old}"
            file.write_bytes(log.add_checkpoint(old))
            files += ["--file", file]
        assert command("recover", *files, state=state).code == 1
        # By hand, around the command: the core takes no notice.
        with Desk(layout.database) as desk:
            (behind,) = recover.plan(desk).behind
            recover.bring_forward(desk, behind, bodies(log, size, 4), NOW)
        poll("the alarm is back", lambda: status(client).alarms or None)
        assert not status(client).ready
        number = command("approvals", "propose", "recover", state=state).out.strip()
        for name in ("alice", "bob"):
            assert command("approvals", "approve", number, "--key", keys[name], state=state).code == 0
        assert command("recover", *files, "--fast-forward", state=state).code in (0, 1)
        poll("it signs again", lambda: status(client).ready or None)
