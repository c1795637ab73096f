"""Drills with a TPM's rollback counter: a real `witness`, a simulated TPM that knows better than the folder.

Each ends in refusal with the right alarm, and is led out of by `witness recover`, or by what that says.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.daemon import Daemon, call, daemon, eventually
from tests.core.keystore.rigs import NAME, Rig, in_use
from tests.core.processes import CoreProcess, SocketClient
from tests.drills.tpm_between import Between
from tests.simulated_log import SimulatedLog
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import SigningStopped
from witness.core.store.alarms import Kind

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="wit") as path:
        yield Path(path)


@pytest.fixture
def tpm(folder: Path) -> Iterator[Rig]:
    yield from in_use("tpm2", folder)


def made(state: Path, tpm: Rig, *more: str, tcti: str = "") -> SimulatedLog:
    """A state whose keys and counter are the TPM's, with one log."""
    option = tcti or tpm.settings()["tcti"]
    done = call(
        "--state", state, "init", "--name", NAME, "--backend", "tpm2", "-o", f"tcti={option}", *more
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = SimulatedLog("log.example/tpm", size=3)
    assert call("--state", state, "logs", "add", str(log.vkeys[0])).returncode == 0
    return log


def cosign(running: Daemon, log: SimulatedLog, old: int) -> tuple[int, bytes]:
    return running.request("POST", "/add-checkpoint", log.add_checkpoint(old))


def cosigned(running: Daemon, log: SimulatedLog, old: int) -> None:
    eventually("it is ready", running.ready)
    status, body = cosign(running, log, old)
    assert status == 200, body


def told(state: Path) -> dict[str, Any]:
    """What `witness status --json` says of the core."""
    core: dict[str, Any] = json.loads(call("--state", state, "status", "--json").stdout)["core"]
    return core


def moves(state: Path) -> int:
    """Where the counter stands, by `status`."""
    return int(told(state)["counter"].split(": ")[1].split(",")[0])


def recover(state: Path, *options: str | Path) -> tuple[int, str]:
    done = call("--state", state, "recover", *options)
    return done.returncode, done.stdout + done.stderr


def unready(running: Daemon) -> str:
    """Why it is not ready; empty where it is."""
    status, body = running.get("/readyz")
    return body.decode() if status == 503 else ""


def test_a_whole_folder_an_hour_old(tpm: Rig, folder: Path) -> None:
    """Database, record, everything: only the counter knows better."""
    state = folder / "state"
    log = made(state, tpm)
    with daemon(state) as running:
        cosigned(running, log, 0)
        assert "counter   tpm2: " in call("--state", state, "status").stdout
        first = moves(state)
        assert running.stop() == 0
    shutil.copytree(state, folder / "old")
    log.append(2)
    with daemon(state) as running:
        cosigned(running, log, 3)
        assert moves(state) == first + 1
        assert running.stop() == 0
    shutil.rmtree(state)
    shutil.copytree(folder / "old", state)
    log.append(2)
    with daemon(state) as running:
        reason = eventually("it says why", lambda: unready(running))
        assert f"this state is from when it stood at {first}" in reason
        status, body = cosign(running, log, 3)
        assert (status, b"counter" in body) == (503, True)
        code, text = recover(state)
        assert code == 1
        assert "alarm  counter: seen in the counter of tpm2" in text
        assert "log.example/tpm: size 3 here, to be brought to size 3 at least" in text
        # A fork of the log from the state that was rolled back to is no way out.
        fork = log.fork(2)
        fork.append(9)
        body_file = folder / "body"
        body_file.write_bytes(fork.add_checkpoint(3))
        assert "does not prove" in recover(state, "--file", body_file)[1]
        assert cosign(running, log, 3)[0] == 503
        body_file.write_bytes(log.add_checkpoint(3))
        assert recover(state, "--file", body_file) == (
            0, "log.example/tpm: brought forward to size 7\nno alarm stands\n",
        )  # fmt: skip
        cosigned(running, log, 7)
        assert running.stop() == 0
    with daemon(state) as running:
        cosigned(running, log, 7)


def test_a_clone_on_the_same_tpm(tpm: Rig, folder: Path) -> None:
    """Both run: the one that looks second finds that the other has counted."""
    log = made(folder / "state", tpm)
    layout, clone = StateLayout(folder / "state"), StateLayout(folder / "clone")
    often = ContinuitySettings(interval=0.1, counter_interval=0.5)
    with CoreProcess(layout, continuity=often) as core, SocketClient(layout.core_socket) as client:
        assert isinstance(client.add_checkpoint(log.add_checkpoint(0)), bytes)
        assert core.stop() == 0
    shutil.copytree(layout.root, clone.root)
    log.append(1)
    with (
        CoreProcess(layout, continuity=often) as first,
        SocketClient(layout.core_socket) as one,
        CoreProcess(clone, continuity=often) as second,
        SocketClient(clone.core_socket) as two,
    ):

        def stopped() -> tuple[StateLayout, SocketClient, CoreProcess] | None:
            """The copy that noticed, and the other one's process."""
            for state, client, other in ((clone, two, first), (layout, one, second)):
                answer = client.add_checkpoint(log.add_checkpoint(3))
                if isinstance(answer, SigningStopped):
                    assert answer.kind == Kind.COUNTER
                    return state, client, other
            return None

        state, client, other = eventually("one of the two stops", stopped)
        assert other.stop() == 0  # by its operator, for good
        body = folder / "body"
        body.write_bytes(log.add_checkpoint(3))

        def recovered() -> bool:
            return recover(state.root, "--file", body)[0] == 0 and isinstance(
                client.add_checkpoint(log.add_checkpoint(4)), bytes
            )

        # The other may have moved the counter since the alarm: then that is told anew, and settled anew.
        eventually("it signs again", recovered)


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_while_the_counter_moves(tpm: Rig, folder: Path, point: str) -> None:
    """The state names the next value; the counter has it not yet, or has it and nobody heard."""
    state = folder / "state"
    with Between(folder / "between", tpm.root / "tpm") as between:
        log = made(state, tpm, tcti=f"swtpm:path={between.path}")
        with daemon(state) as running:
            cosigned(running, log, 0)
            first = moves(state)
            assert running.stop() == 0
        between.hold = point
        running = Daemon(state)
        try:
            assert between.held.wait(60)
            os.kill(running.children()["core"], signal.SIGKILL)
            eventually("the core is gone", lambda: "core" not in running.children())
            between.let_go()
            assert running.process.wait(60) == 3, "a first start that fails is the operator's to know"
        finally:
            running.end()
        with daemon(state) as running:
            cosigned(running, log, 3)
            assert told(state)["alarms"] == []
            assert moves(state) == first + (1 if point == "before" else 2)
            assert running.stop() == 0


def test_away_at_the_start(tpm: Rig, folder: Path) -> None:
    state = folder / "state"
    log = made(state, tpm)
    with daemon(state) as running:
        cosigned(running, log, 0)
        assert running.stop() == 0
    tpm.take_away()
    with daemon(state) as running:
        assert "cannot be compared" in eventually("it says why", lambda: unready(running))
        assert cosign(running, log, 3)[0] == 503
        assert told(state)["counter"] == "tpm2: not compared yet"
        tpm.bring_back()
        cosigned(running, log, 3)
        assert told(state)["alarms"] == []


def test_wiped(tpm: Rig, folder: Path) -> None:
    """A TPM in the place of the registered one, or that one with nothing in it: the identity is over."""
    state = folder / "state"
    log = made(state, tpm)
    with daemon(state) as running:
        cosigned(running, log, 0)
        assert running.stop() == 0
    tpm.exchange()
    with daemon(state) as running:
        alarms = eventually("an alarm", lambda: told(state)["alarms"])
        assert "another device answers as tpm2, or it was wiped" in alarms[0]
        assert cosign(running, log, 3)[0] == 503
        code, text = recover(state)
        assert code == 1
        assert "witness recover --retire, then witness init makes a new identity" in text
        # Settling it changes nothing while the device is the wrong one.
        recover(state, "--fast-forward")
        eventually("the alarm is back", lambda: told(state)["alarms"])
        assert running.stop() == 0
    # The right one, put back by its operator.
    tpm.take_away()
    tpm._make(tpm.root / "state")
    with daemon(state) as running:
        assert "device" in eventually("it says why", lambda: unready(running))
        assert recover(state, "--fast-forward")[0] == 0
        cosigned(running, log, 3)


def test_cleared(tpm: Rig, folder: Path) -> None:
    """TPM2_Clear: the same TPM, other keys, and no counter. The way out is a new identity."""
    state = folder / "state"
    log = made(state, tpm)
    before = call("--state", state, "keys", "list").stdout
    with daemon(state) as running:
        cosigned(running, log, 0)
        assert running.stop() == 0
    tpm.run_tool("tpm2_clear", "-c", "platform")
    with daemon(state) as running:
        alarms = eventually("an alarm", lambda: told(state)["alarms"])
        assert "it was wiped, or cleared" in alarms[0]
        assert cosign(running, log, 3)[0] == 503
        assert recover(state, "--retire")[0] == 1
        assert running.stop() == 0
    made(folder / "new", tpm)
    assert not set(before.split()) & set(call("--state", folder / "new", "keys", "list").stdout.split())
    with daemon(folder / "new") as running:
        cosigned(running, log, 0)


def test_a_state_without_a_counter_gets_one(tpm: Rig, folder: Path) -> None:
    """As a state that an earlier program made: it works as before, and says what it lacks."""
    state = folder / "state"
    log = made(state, tpm, "-o", "rollback=off")
    ring = StateLayout(state).keyring
    content = json.loads(ring.read_text())
    assert content["devices"][0]["counter"] == {"off": "yes"}
    with daemon(state) as running:
        cosigned(running, log, 0)
        assert not any("rollback counter" in line for line in told(state)["warnings"])
        assert running.stop() == 0
    del content["devices"][0]["counter"]
    ring.write_text(json.dumps(content))
    with daemon(state) as running:
        cosigned(running, log, 3)
        assert any("witness keys counter makes one" in line for line in told(state)["warnings"])
        assert "stop it first" in call("--state", state, "keys", "counter").stderr
        assert running.stop() == 0
    done = call("--state", state, "keys", "counter")
    assert (done.returncode, done.stdout) == (0, "tpm2: its counter is 0x01807849\n"), done.stderr
    assert "counts already" in call("--state", state, "keys", "counter").stderr
    # The TPM is known anew, as one that has moved: it goes on counting.
    tcti = f"tcti={tpm.settings()['tcti']}"
    assert call("--state", state, "keys", "register", "tpm2", "-o", tcti).returncode == 0
    with daemon(state) as running:
        cosigned(running, log, 3)
        assert moves(state) > 0
        assert running.stop() == 0
