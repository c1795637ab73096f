"""`python -m witness.core` as whoever starts it sees it: one line, a life line, an exit status."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.processes import CoreProcess, SocketClient, clean_environ, poll, short_folder
from tests.core.state import IDENTITY, NAME, START, add_logs, make_state, trust
from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.transcripts import check_cosignatures
from witness.core.keystore import softkey
from witness.core.layout import StateLayout
from witness.core.refusals import (
    ClockBehind,
    DisabledLog,
    NoTrustedSignature,
    StaleOldSize,
    Stopping,
    UnknownOrigin,
)
from witness.core.store import schema
from witness.core.store.logs import LogBook
from witness.core.store.sqlite import SQLiteStore
from witness.core.wire import Verb, decode_status

READY = {"ready": True}
ALGORITHMS = ("ed25519",)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture
def layout(folder: Path) -> StateLayout:
    return make_state(folder)


@pytest.fixture
def log(layout: StateLayout) -> SimulatedLog:
    made = SimulatedLog("process.example/log", size=5)
    trust(layout, made)
    return made


def refused(process: CoreProcess, *words: str) -> dict[str, str]:
    """The process has told why, in its one line and its exit status, and left no socket."""
    line = process.first_line
    assert set(line) == {"error", "hint"}, f"{line} {process.said()}"
    for word in words:
        assert word in line["error"]
    assert process.wait() == 3
    assert "Traceback" not in process.said()
    process.kill()
    return line


def test_ready_then_serving(layout: StateLayout, log: SimulatedLog) -> None:
    with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
        body = log.add_checkpoint(0)
        lines = client.add_checkpoint(body)
        assert isinstance(lines, bytes)
        check_cosignatures("add-checkpoint", body, lines, softkey.read_public(layout.softkey).vkeys)
        status = client.ask(Verb.STATUS)
        assert isinstance(status, bytes)
        assert decode_status(status).pid == core.pid
        assert decode_status(status).ready
        assert layout.core_lock.read_text() == f"{core.pid}\n"
        assert core.stop() == 0
    assert not layout.core_socket.exists()


def test_sigterm_and_sigint_end_it_with_0(layout: StateLayout, log: SimulatedLog) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with CoreProcess(layout) as core:
            core.signal(number)
            assert core.wait() == 0
            assert "Traceback" not in core.said()


def test_the_end_of_the_life_line_ends_it_with_0(layout: StateLayout, log: SimulatedLog) -> None:
    with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        core.close_life_line()
        assert core.wait() == 0
        assert client.at_end()
    assert not layout.core_socket.exists()


def test_bytes_on_the_life_line_mean_nothing(layout: StateLayout, log: SimulatedLog) -> None:
    with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
        assert core.process.stdin is not None
        core.process.stdin.write(b'{"state_dir": "/elsewhere"}\nexport keys\n' * 1000)
        core.process.stdin.flush()
        assert isinstance(client.ask(Verb.STATUS), bytes)
        assert core.stop() == 0


def test_what_was_taken_up_is_answered_before_it_ends(layout: StateLayout) -> None:
    logs = [SimulatedLog(f"process.example/{n}", size=3) for n in range(40)]
    trust(layout, *logs)
    with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
        sent = {client.send(Verb.ADD_CHECKPOINT, log.add_checkpoint(0)): log for log in logs}
        first = client.receive(1)  # it has begun with them
        core.signal(signal.SIGTERM)
        signed = [sent.pop(1).origin] if isinstance(first, bytes) else []
        try:
            for number, log in sent.items():
                answer = client.receive(number)
                if isinstance(answer, bytes):
                    signed.append(log.origin)
                else:
                    assert answer == Stopping()
        except ConnectionResetError:
            pass  # frames that it had not read any more
        assert core.wait() == 0
    store = SQLiteStore(layout.database)
    stored = [record.origin for record, head in store.load() if head is not None]
    store.close()
    assert sorted(signed) == sorted(stored), "every head that moved was answered, and every answer moved one"
    assert signed


def test_a_missing_database(layout: StateLayout) -> None:
    layout.database.unlink()
    line = refused(CoreProcess(layout), "no database", str(layout.database))
    assert "witness init" in line["hint"]
    assert not layout.database.exists()


def test_a_missing_folder(folder: Path) -> None:
    layout = StateLayout(folder / "nowhere")
    with (folder / "nowhere.err").open("wb") as errors:
        ran = subprocess.run(
            [sys.executable, "-m", "witness.core"],
            input=json.dumps({"state_dir": str(layout.root)}).encode() + b"\n",
            cwd=ROOT, env=clean_environ(), stdout=subprocess.PIPE, stderr=errors, timeout=60, check=False,
        )  # fmt: skip
    assert ran.returncode == 3
    assert "error" in json.loads(ran.stdout)
    assert not layout.root.exists()


def test_a_foreign_database(layout: StateLayout) -> None:
    layout.database.write_bytes(b"something else" * 1000)
    refused(CoreProcess(layout), "cannot be read as a database")


def test_a_newer_database(layout: StateLayout) -> None:
    connection = sqlite3.connect(layout.database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    line = refused(CoreProcess(layout), "schema 99")
    assert line["hint"]


def test_one_folder_has_one_core(layout: StateLayout, log: SimulatedLog) -> None:
    with CoreProcess(layout) as first, SocketClient(layout.core_socket) as client:
        line = refused(CoreProcess(layout), "another witness is running", str(first.pid))
        assert line["hint"]
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes), "the first is undisturbed"
        with SocketClient(layout.core_socket) as further:
            assert isinstance(further.ask(Verb.STATUS), bytes), "and still has its socket"
        first.kill()
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(5)), bytes), (
            "the lock died with its holder"
        )


def test_missing_keys(layout: StateLayout) -> None:
    layout.softkey.unlink()
    refused(CoreProcess(layout), "no key file")


def sealed(folder: Path, passphrase: str = "correct horse") -> StateLayout:
    return make_state(folder, algorithms=ALGORITHMS, passphrase=passphrase)


def test_sealed_keys_without_a_passphrase(folder: Path) -> None:
    line = refused(CoreProcess(sealed(folder)), "sealed")
    assert "WITNESS_PASSPHRASE" in line["hint"]


@pytest.mark.parametrize("wrong", ["", "Correct horse", "correct horse\n\n"])
def test_a_wrong_passphrase(folder: Path, wrong: str) -> None:
    layout = sealed(folder)
    process = CoreProcess(layout, environ={"WITNESS_PASSPHRASE": wrong})
    line = refused(process, "does not open")
    assert "horse" not in json.dumps(line) + process.said()


@pytest.mark.parametrize("final", ["", "\n"])
def test_a_passphrase_from_a_file(folder: Path, final: str) -> None:
    layout = sealed(folder)
    file = folder / "credential"
    file.write_text(f"correct horse{final}")
    with CoreProcess(layout, passphrase_file=str(file)) as core:
        assert core.stop() == 0
    file.unlink()
    refused(CoreProcess(layout, passphrase_file=str(file)), "No such file")


def test_a_passphrase_from_the_environment_does_not_stay_there(folder: Path) -> None:
    layout = sealed(folder)
    with CoreProcess(layout, passphrase_env="SECRET_HERE", environ={"SECRET_HERE": "correct horse"}) as core:
        assert core.stop() == 0


def test_a_passphrase_that_is_no_text(folder: Path) -> None:
    layout = sealed(folder)
    file = folder / "credential"
    file.write_bytes(b"\xff\xfe")
    refused(CoreProcess(layout, passphrase_file=str(file)), "not UTF-8", str(file))
    undecodable = os.fsdecode(b"\xff\xfe")
    refused(CoreProcess(layout, environ={"WITNESS_PASSPHRASE": undecodable}), "not UTF-8")


@pytest.mark.parametrize(("name", "identity"), [(NAME, "another"), ("other.example", IDENTITY)])
def test_keys_of_another_witness(layout: StateLayout, name: str, identity: str) -> None:
    layout.softkey.unlink()
    softkey.create(layout.softkey, name=name, identity=identity, passphrase=None, algorithms=ALGORITHMS)
    line = refused(CoreProcess(layout), NAME, name, identity)
    assert line["hint"]


def test_state_of_another_witness(layout: StateLayout) -> None:
    layout.database.unlink()
    schema.create(layout.database, name=NAME, identity="another", now=START)
    refused(CoreProcess(layout), "another")


@pytest.mark.parametrize("line", ["", "not JSON", "[]", '{"state_dir": "/x", "unknown": 1}'])
def test_settings_that_are_none(line: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "witness.core"], input=line.encode() + b"\n", cwd=ROOT, env=clean_environ(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 3
    assert "settings" in json.loads(ran.stdout)["error"]
    assert b"Traceback" not in ran.stderr


def test_what_the_operator_changes_is_noticed(layout: StateLayout, log: SimulatedLog) -> None:
    """Polled with a deadline: that it takes no longer than a second is the constant in process.py."""
    other = SimulatedLog("process.example/other", size=4, keys=[SimulatedKey("k", number=1)])
    further = SimulatedKey("k", number=2)
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        assert client.add_checkpoint(other.add_checkpoint(0)) == UnknownOrigin(other.origin)
        trust(layout, other)
        body = other.add_checkpoint(0)
        poll("a log that was added", lambda: isinstance(client.add_checkpoint(body), bytes) or None)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        by_further = other.add_checkpoint(4, keys=[further])
        assert client.add_checkpoint(by_further) == NoTrustedSignature(other.origin)
        add_logs(layout, [(other.origin, (further.vkey,))])
        poll("a key that was added", lambda: isinstance(client.add_checkpoint(by_further), bytes) or None)
        again = other.add_checkpoint(4)
        for disabled in (True, False):
            with LogBook(layout.database) as book, book.transaction():
                book.set_disabled(other.origin, disabled=disabled)
            poll(
                f"disabled={disabled}",
                lambda want=disabled: (
                    (client.add_checkpoint(again) == DisabledLog(other.origin)) is want or None
                ),
            )
        # All the while nothing was forgotten.
        assert client.add_checkpoint(other.add_checkpoint(0)) == StaleOldSize(4)
        assert client.add_checkpoint(log.add_checkpoint(0)) == StaleOldSize(5)


def test_the_operator_is_heard_within_a_second() -> None:
    from witness.core.process import REFRESH_SECONDS

    assert REFRESH_SECONDS <= 0.5


def test_a_store_that_breaks_ends_the_core_and_the_next_one_has_everything(
    layout: StateLayout, log: SimulatedLog
) -> None:
    with CoreProcess(layout) as core, SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        # From now on every write to a file fails as a failing disk's does.
        resource.prlimit(core.pid, resource.RLIMIT_FSIZE, (1, 1))
        answer = client.add_checkpoint(log.add_checkpoint(5))
        assert not isinstance(answer, bytes)
        assert answer.code == "store-unavailable"
        assert core.wait() == 3
        assert core.process.stdout is not None
        assert "the store is broken" in json.loads(core.process.stdout.readline())["error"]
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        assert client.add_checkpoint(log.add_checkpoint(0)) == StaleOldSize(5)
        assert isinstance(client.add_checkpoint(log.add_checkpoint(5)), bytes)


def test_state_from_the_future_stops_signing_after_a_restart_too(
    layout: StateLayout, log: SimulatedLog
) -> None:
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
    connection = sqlite3.connect(layout.database)
    connection.execute("UPDATE heads SET timestamp = timestamp + 100000")
    connection.commit()
    connection.close()
    with CoreProcess(layout), SocketClient(layout.core_socket) as client:
        answer = client.add_checkpoint(log.add_checkpoint(5))
        assert isinstance(answer, ClockBehind)
        assert answer.issued - answer.now > 90000
        status = client.ask(Verb.STATUS)
        assert isinstance(status, bytes)
        assert not decode_status(status).ready
