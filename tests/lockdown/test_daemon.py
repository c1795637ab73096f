"""`witness run` as root: two users, told by `witness status`, and everything works across them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.cli.daemon import Daemon, call, daemon, eventually
from tests.cli.daemon import facts as of
from tests.core.processes import CoreProcess, short_folder
from tests.lockdown.world import OTHER, as_user, facts, needs_root, works
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.lockdown.steps import Step
from witness.tlog.checkpoint import origin_hash

CORE_ONLY = {"no_network", "locked_memory"}
NAME = "daemon.example/w"


def made(folder: Path, config: str = "") -> Path:
    folder.chmod(0o755)
    state = folder / "state"
    assert call("--state", state, "init", "--name", NAME).returncode == 0
    with (state / "witness.yaml").open("a") as file:
        file.write(config)
    return state


def uids(running: Daemon) -> dict[str, int]:
    return {name: int(facts(pid)["Uid"].split()[1]) for name, pid in running.children().items()}


def steps(process: dict) -> dict[str, str]:
    return {step["name"]: step["state"] for step in process["lockdown"]}


@needs_root
def test_core_and_front_have_users_of_their_own() -> None:
    log = SimulatedLog("daemon.example/log", size=4)
    with short_folder() as folder:
        state = made(folder, f"static:\n  dir: {folder}/static\n")
        layout = StateLayout(state)
        assert (
            call("--state", state, "logs", "add", str(log.vkeys[0]), "--origin", log.origin).returncode == 0
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with daemon(state, "--listen", f"127.0.0.1:{port}") as running:
            users = uids(running)
            assert set(users) == {"core", "front", "feeder"}
            assert users["front"] == users["feeder"] != users["core"]
            assert 0 not in users.values()
            status = of(call("--state", state, "status", "--json"))
            assert set(steps(status["core"])) == {step.value for step in Step}
            assert set(steps(status["front"]["front"])) == {step.value for step in Step} - CORE_ONLY
            assert steps(status["core"])["own_user"] == steps(status["front"]["front"])["own_user"] == "done"
            # The front gets to the feeders' socket, and they have given up what it has.
            assert steps(status["front"]["feeding"]) == steps(status["front"]["front"])
            told = call("--state", state, "status").stdout
            assert "lockdown  core done: " in told
            assert "lockdown  front done: own_user" in told
            # Requests go through both, and what is published is the front's to write.
            assert running.request("POST", "/add-checkpoint", log.add_checkpoint(0))[0] == 200
            assert call("--state", state, "probe").returncode == 0
            file = folder / "static" / origin_hash(log.origin).hex() / "checkpoint"
            eventually("the static publisher writes", file.exists)
            assert file.stat().st_uid == users["front"]
            # A child that dies comes back with its user.
            for name in ("front", "feeder", "core"):
                old = running.children()[name]
                os.kill(old, 9)
                eventually(f"the {name} is back", lambda o=old, n=name: running.children().get(n, o) != o)
                eventually("it is ready", running.ready)
            eventually("both have their users again", lambda: uids(running) == users)
            eventually("it cosigns again", lambda: call("--state", state, "probe").returncode == 0)
            assert running.stop() == 0
            assert "Traceback" not in running.err.read_text()
        assert not layout.front_socket.exists()
        assert not layout.core_socket.exists()
        # The next run knows the users from the files.
        with daemon(state) as running:
            assert uids(running) == users


@needs_root
def test_users_can_be_named_and_must_differ() -> None:
    with short_folder() as folder:
        state = made(folder, 'lockdown:\n  core_user: "50001"\n  front_user: "50002"\n')
        with daemon(state) as running:
            assert uids(running) == {"core": 50001, "front": 50002, "feeder": 50002}
        config = state / "witness.yaml"
        config.write_text(config.read_text().replace("50002", "50001"))
        refused = call("--state", state, "run", "--listen", "127.0.0.1:0")
        assert refused.returncode == 3
        assert "the front could read the keys" in refused.stderr
        config.write_text(config.read_text().replace("50001", "nobody-has-this-name"))
        refused = call("--state", state, "run", "--listen", "127.0.0.1:0")
        assert "there is no user 'nobody-has-this-name'" in refused.stderr
        assert "useradd --system" in refused.stderr


@needs_root
def test_a_state_folder_that_others_cannot_get_to_keeps_root_and_landlock() -> None:
    with short_folder() as folder:
        state = made(folder)
        folder.chmod(0o700)
        with daemon(state) as running:
            assert uids(running) == {"core": 0, "front": 0, "feeder": 0}
            status = of(call("--state", state, "status", "--json"))
            assert (
                steps(status["core"])["own_user"]
                == steps(status["front"]["front"])["own_user"]
                == "unavailable"
            )
            assert call("--state", state, "probe").returncode == 0
            assert steps(status["front"]["front"])["landlock"] in ("done", "unavailable")
            told = call("--state", state, "status").stdout
            assert f"cannot get into {folder}" in told


def test_a_static_folder_around_the_state_is_told_and_not_opened() -> None:
    with short_folder() as folder:
        state = made(folder, f"static:\n  dir: {folder}\nlockdown:\n  own_user: false\n")
        with daemon(state):
            front = of(call("--state", state, "status", "--json"))["front"]["front"]
            found = {step["name"]: step for step in front["lockdown"]}
            assert found["landlock"]["state"] == "unavailable"
            assert "holds the state folder" in found["landlock"]["detail"]
        config = state / "witness.yaml"
        config.write_text(config.read_text() + "  require: [landlock]\n")
        refused = call("--state", state, "run", "--listen", "127.0.0.1:0")
        assert refused.returncode == 3
        assert "the front cannot be locked down: landlock is unavailable" in refused.stderr
        assert "lockdown.require" in refused.stderr


def test_every_step_can_be_switched_off() -> None:
    lines = "".join(f"  {step.value}: false\n" for step in Step)
    with short_folder() as folder:
        state = made(folder, f"lockdown:\n{lines}")
        with daemon(state) as running:
            status = of(call("--state", state, "status", "--json"))
            assert (
                set(steps(status["core"]).values())
                == set(steps(status["front"]["front"]).values())
                == set(steps(status["front"]["feeding"]).values())
                == {"off"}
            )
            assert {facts(pid)["Seccomp"] for pid in running.children().values()} == {"0"}
            assert call("--state", state, "probe").returncode == 0


@pytest.mark.parametrize("line", ["landlock: 1", "cellar: true", "require: [cellar]", "require: landlock"])
def test_a_fault_in_its_section_is_told(line: str) -> None:
    with short_folder() as folder:
        state = made(folder, f"lockdown:\n  {line}\n")
        refused = call("--state", state, "run")
        assert refused.returncode != 0
        assert f"lockdown.{line.split(':', maxsplit=1)[0]}" in refused.stderr, json.dumps(refused.stderr)


@needs_root
def test_two_witnesses_of_one_machine_share_no_user_or_are_told() -> None:
    with short_folder() as one, short_folder() as two:
        first, second = made(one), made(two)
        with daemon(first) as a, daemon(second) as b:
            assert not set(uids(a).values()) & set(uids(b).values())
            assert "another witness" not in b.err.read_text()
            users = uids(a)
            assert b.stop() == 0
        with (second / "witness.yaml").open("a") as file:
            file.write(f'lockdown:\n  core_user: "{users["core"]}"\n')
        with daemon(first) as a, daemon(second) as b:
            pid = a.children()["core"]
            assert f"warning: process {pid} of another witness is user {users['core']}" in b.err.read_text()


@needs_root
def test_a_users_witness_that_root_ran_once_is_still_the_users() -> None:
    log = SimulatedLog("daemon.example/log", size=4)
    with short_folder() as folder:
        state = made(folder)
        layout = StateLayout(state)
        assert call("--state", state, "logs", "add", str(log.vkeys[0])).returncode == 0
        for path in (folder, *folder.rglob("*")):
            os.chown(path, OTHER, OTHER)
        state.chmod(0o700)
        for turn in range(2):
            with daemon(state) as running:  # root
                assert uids(running)["core"] == OTHER
                old = 0 if turn == 0 else log.size
                assert running.request("POST", "/add-checkpoint", log.add_checkpoint(old))[0] == 200
                assert running.stop() == 0
            foreign = {path.name for path in state.rglob("*") if path.lstat().st_uid != OTHER}
            assert foreign <= {"core.stderr"}, "which is the test's own"
            with CoreProcess(layout, prefix=as_user(OTHER)) as core:
                works(core, log, log.size)
                assert core.stop() == 0
                assert "Permission" not in core.said()


@needs_root
def test_a_retired_key_file_that_only_root_may_delete_is_deleted() -> None:
    with short_folder() as folder:
        state = made(folder)
        layout = StateLayout(state)
        assert call("--state", state, "keys", "rotate", "--overlap", "30d").returncode == 0
        with daemon(state):
            done = call("--state", state, "keys", "rotate", "--finish")
            assert done.returncode == 0, done.stderr
            assert not layout.softkey.exists()
            assert "warning" not in done.stderr
            assert "rotation" not in call("--state", state, "status").stdout
        # Where no command is at hand, it is told, and the next start does it.
        assert call("--state", state, "keys", "rotate", "--overlap", "0").returncode == 0
        second = layout.keys / "softkey-1.json"
        with daemon(state):
            eventually(
                "it is told",
                lambda: (
                    "softkey-1.json is not deleted yet"
                    in of(call("--state", state, "status", "--json"))["core"]["rotation"]
                ),
            )
            assert second.exists()
        with daemon(state):
            assert not second.exists()
            eventually(
                "nothing is left to tell",
                lambda: not of(call("--state", state, "status", "--json"))["core"]["rotation"],
            )
