"""`witness logs keys`: an operator's hand changes a known log's keys, with the approvals that it needs."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import make, witness
from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import NoTrustedSignature, SigningStopped
from witness.core.store.alarms import Kind
from witness.core.wire import CoreStatus, Verb, decode_status

ORIGIN = "keys.example/log"
FIRST, SECOND = SimulatedKey(ORIGIN), SimulatedKey(ORIGIN, number=1)


@pytest.fixture
def state() -> Iterator[Path]:
    with short_folder() as folder:
        path = make(folder / "s")
        assert witness("logs", "add", str(FIRST.vkey), state=path).code == 0
        yield path


@pytest.fixture
def log() -> SimulatedLog:
    return SimulatedLog(ORIGIN, size=4, keys=[FIRST])


def running(state: Path, *operators: str) -> CoreProcess:
    settings = ContinuitySettings(interval=0.1, needed=len(operators), operators=operators)
    return CoreProcess(StateLayout(state), continuity=settings)


def status(client: SocketClient) -> CoreStatus:
    answer = client.ask(Verb.STATUS)
    assert isinstance(answer, bytes)
    return decode_status(answer)


def test_a_key_is_added_shown_and_removed(state: Path) -> None:
    assert witness("logs", "keys", ORIGIN, state=state).out == f"{FIRST.vkey}\n"
    assert witness("logs", "keys", ORIGIN, "--add", str(SECOND.vkey), state=state).code == 0
    facts = witness("logs", "keys", ORIGIN, "--json", state=state).json
    assert facts["vkeys"] == [str(FIRST.vkey), str(SECOND.vkey)]
    name = "+".join(str(FIRST.vkey).split("+")[:2])
    assert witness("logs", "keys", ORIGIN, "--remove", name, state=state).code == 0
    facts = witness("logs", "keys", ORIGIN, "--json", state=state).json
    assert facts["vkeys"] == [str(SECOND.vkey)]
    assert [each["vkey"] for each in facts["removed"]] == [str(FIRST.vkey)]
    assert witness("logs", "show", ORIGIN, "--json", state=state).json["vkeys"] == [str(SECOND.vkey)]
    # Removed by mistake: an operator may trust it again.
    assert witness("logs", "keys", ORIGIN, "--add", str(FIRST.vkey), state=state).code == 0
    assert len(witness("logs", "keys", ORIGIN, "--json", state=state).json["vkeys"]) == 2


def test_a_list_does_not_bring_a_removed_key_back(state: Path, tmp_path: Path) -> None:
    change = ("--add", str(SECOND.vkey), "--remove", str(FIRST.vkey))
    assert witness("logs", "keys", ORIGIN, *change, state=state).code == 0
    file = tmp_path / "list.txt"
    file.write_text(f"logs/v0\n\nvkey {FIRST.vkey}\n")
    outcome = witness("logs", "import", str(file), state=state)
    assert "1 changed key not taken" in outcome.out
    assert witness("logs", "keys", ORIGIN, state=state).out == f"{SECOND.vkey}\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--remove", str(FIRST.vkey)), 1, "would have no key left"),
        (("--remove", str(SECOND.vkey)), 1, "is no key of the log"),
        (("--remove", ORIGIN), 0, ""),
        (("--add", str(SECOND.vkey), "--remove", str(SECOND.vkey)), 1, "is no key of the log"),
        (("--add", "nonsense"), 2, "vkey"),
    ],
)
def test_what_is_refused(state: Path, args: tuple[str, ...], code: int, said: str) -> None:
    if code == 0:
        args = (*args, "--add", str(SECOND.vkey))  # by its name alone, while it is the only one
    outcome = witness("logs", "keys", ORIGIN, *args, state=state)
    assert outcome.code == code, outcome.err
    if code:
        assert said in outcome.error()
        assert witness("logs", "keys", ORIGIN, state=state).out == f"{FIRST.vkey}\n"


def test_an_unknown_log(state: Path) -> None:
    assert witness("logs", "keys", "nobody.example", state=state).code == 1


def test_the_last_key_of_a_disabled_log_goes_and_it_is_not_enabled_without(state: Path) -> None:
    assert witness("logs", "disable", ORIGIN, state=state).code == 0
    assert witness("logs", "keys", ORIGIN, "--remove", str(FIRST.vkey), state=state).code == 0
    outcome = witness("logs", "enable", ORIGIN, state=state)
    assert outcome.code == 1
    assert "has no key" in outcome.error()
    assert witness("logs", "keys", ORIGIN, "--add", str(SECOND.vkey), state=state).code == 0
    assert witness("logs", "enable", ORIGIN, state=state).code == 0


def test_a_running_core_takes_it_up_at_once_and_raises_no_alarm(state: Path, log: SimulatedLog) -> None:
    with running(state) as core, SocketClient(StateLayout(state).core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        change = ("--add", str(SECOND.vkey), "--remove", str(FIRST.vkey))
        assert witness("logs", "keys", ORIGIN, *change, state=state).code == 0
        by_second = log.add_checkpoint(4, keys=[SECOND])
        poll("the new key is good", lambda: isinstance(client.add_checkpoint(by_second), bytes) or None)
        assert client.add_checkpoint(log.add_checkpoint(4)) == NoTrustedSignature(ORIGIN)
        assert status(client).alarms == ()
        assert core.stop() == 0
    with running(state) as core, SocketClient(StateLayout(state).core_socket) as client:
        assert status(client).alarms == ()
        assert isinstance(client.add_checkpoint(by_second), bytes)
        assert core.stop() == 0
    shown = witness("audit", "show", state=state).out
    assert " log-keys-changed " in shown
    assert witness("audit", "verify", state=state).code == 0


def test_an_older_database_does_not_bring_a_removed_key_back(
    state: Path, log: SimulatedLog, tmp_path: Path
) -> None:
    """Its own note that an operator gave the log these keys is as old as it is."""
    assert witness("logs", "keys", ORIGIN, "--add", str(SECOND.vkey), state=state).code == 0
    with running(state) as core, SocketClient(StateLayout(state).core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        assert witness("backup", str(tmp_path / "b.db"), state=state).code == 0
        assert witness("logs", "keys", ORIGIN, "--remove", str(FIRST.vkey), state=state).code == 0
        stale = log.add_checkpoint(4)
        probe = log.add_checkpoint(1)  # a size that is wrong, so that nothing is signed meanwhile
        poll("it is taken up", lambda: client.add_checkpoint(probe) == NoTrustedSignature(ORIGIN) or None)
        assert core.stop() == 0
    assert witness("restore", str(tmp_path / "b.db"), state=state).code == 0
    with running(state), SocketClient(StateLayout(state).core_socket) as client:
        alarms = status(client).alarms
        assert any(alarm.startswith(f"{Kind.LOG_KEY} {ORIGIN!r}") for alarm in alarms), alarms
        assert witness("recover", "--fast-forward", state=state).code == 1
        poll("the rest is settled", lambda: len(status(client).alarms) == 1 or None)
        assert isinstance(client.add_checkpoint(stale), SigningStopped)
        # The operator removes it once more, and says that the keys are right.
        assert witness("logs", "keys", ORIGIN, "--remove", str(FIRST.vkey), state=state).code == 0
        assert witness("recover", "--accept-keys", ORIGIN, state=state).code == 0
        by_second = log.add_checkpoint(4, keys=[SECOND])
        poll("it is signed", lambda: isinstance(client.add_checkpoint(by_second), bytes) or None)
        assert client.add_checkpoint(stale) == NoTrustedSignature(ORIGIN)


def test_approvals_and_nobody_around_them(state: Path, log: SimulatedLog, tmp_path: Path) -> None:
    key = tmp_path / "alice"
    made = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", str(key)], check=False
    )
    if made.returncode:
        pytest.skip("ssh-keygen cannot make keys here")
    operator = f"alice {key.with_suffix('.pub').read_text().strip()}"
    config = StateLayout(state).config
    config.write_text(config.read_text() + f"authority:\n  needed: 1\n  operators:\n    - {operator}\n")
    change = ("logs", "keys", ORIGIN, "--add", str(SECOND.vkey))
    with running(state, operator), SocketClient(StateLayout(state).core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        outcome = witness(*change, state=state)
        assert outcome.code == 1
        assert "log-keys needs 1 of 1 operators" in outcome.error()
        assert witness("logs", "add", str(SECOND.vkey), state=state).code == 1, "no other way in"
        (hint,) = [line for line in outcome.err.splitlines() if line.startswith("hint: ")]
        subject = hint.split("'")[1]
        assert str(SECOND.vkey) in subject
        number = witness("approvals", "propose", "log-keys", "--subject", subject, state=state).out.strip()
        assert witness("approvals", "approve", number, "--key", key, state=state).code == 0
        # Approved is what the log is to have afterwards, and nothing else.
        other = SimulatedKey(ORIGIN, number=2)
        assert witness("logs", "keys", ORIGIN, "--add", str(other.vkey), state=state).code == 1
        assert witness(*change, state=state).code == 0
        by_second = log.add_checkpoint(4, keys=[SECOND])
        poll("the new key is good", lambda: isinstance(client.add_checkpoint(by_second), bytes) or None)
        assert status(client).alarms == ()
        # Around the command, with the command's own note of it: the core asks for the approval too.
        with sqlite3.connect(StateLayout(state).database) as connection:
            from witness.core.request import digest_of_keys

            connection.execute("UPDATE log_keys SET withdrawn = 1 WHERE vkey = ?", (str(FIRST.vkey),))
            connection.execute(
                "UPDATE facts SET value = ? WHERE name = ?",
                (digest_of_keys([str(SECOND.vkey)]), f"log-keys:{ORIGIN}"),
            )
        told = poll("an alarm", lambda: status(client).alarms or None)
        assert told[0].startswith(f"{Kind.LOG_KEY} {ORIGIN!r}")
