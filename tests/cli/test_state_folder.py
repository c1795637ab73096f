"""Which folder a command works on, and what it says when nothing stands there."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import COMMAND, DEADLINE, environment
from tests.core.processes import short_folder
from witness.cli.state import resolve

HOME = Path("/home/somebody")


@pytest.mark.parametrize(
    ("flag", "environ", "expected"),
    [
        (Path("/a"), {"WITNESS_STATE": "/b", "STATE_DIRECTORY": "/c", "XDG_STATE_HOME": "/d"}, "/a"),
        (None, {"WITNESS_STATE": "/b", "STATE_DIRECTORY": "/c", "XDG_STATE_HOME": "/d"}, "/b"),
        (None, {"STATE_DIRECTORY": "/c", "XDG_STATE_HOME": "/d"}, "/c"),
        (None, {"STATE_DIRECTORY": "/c:/other"}, "/c"),
        (None, {"XDG_STATE_HOME": "/d"}, "/d/witness"),
        (None, {"XDG_STATE_HOME": "relative"}, "/home/somebody/.local/state/witness"),
        (None, {"WITNESS_STATE": "", "STATE_DIRECTORY": ""}, "/home/somebody/.local/state/witness"),
        (None, {}, "/home/somebody/.local/state/witness"),
    ],
)
def test_the_first_that_names_a_folder_decides(flag, environ, expected):
    assert resolve(flag, environ, HOME) == Path(expected)


def test_a_relative_folder_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve(Path("state"), {}, HOME) == tmp_path / "state"
    assert resolve(None, {"WITNESS_STATE": "state"}, HOME) == tmp_path / "state"


def test_commands_find_the_state_by_the_environment(tmp_path):
    make(tmp_path / "s")
    found = witness("keys", "list", env={"WITNESS_STATE": str(tmp_path / "s")})
    assert found.code == 0
    assert found.out.startswith(NAME + "+")


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("logs", "list"),
        ("logs", "show", "x"),
        ("logs", "disable", "x"),
        ("checkpoint", "x"),
        ("keys", "list"),
        ("status",),
        ("probe",),
    ],
    ids=" ".join,
)
def test_without_a_state_every_command_says_so_and_makes_none(tmp_path, command):
    outcome = witness(*command, state=tmp_path / "none")
    assert outcome.code == 3
    assert f"there is no witness state in {tmp_path / 'none'}" in outcome.error()
    assert "hint: witness init --name NAME" in outcome.err
    assert not (tmp_path / "none").exists()


def test_a_lost_database_is_not_replaced(tmp_path):
    state = make(tmp_path / "s")
    (state / "witness.db").unlink()
    for command in (("run",), ("logs", "list")):
        outcome = witness(*command, state=state)
        assert outcome.code == 3
        assert "there is no database" in outcome.error()
        assert "a lost database is not replaced by an empty one" in outcome.err
    assert not (state / "witness.db").exists()


def test_a_foreign_database_is_told_and_left_alone(tmp_path):
    state = make(tmp_path / "s")
    (state / "witness.db").write_bytes(b"not a database" * 100)
    outcome = witness("logs", "list", state=state)
    assert outcome.code == 3
    assert "cannot be read as a database" in outcome.error()
    assert (state / "witness.db").read_bytes() == b"not a database" * 100


def reads_like_anybody():
    """Takes from root what lets it read everything: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    for capability in (1, 2):
        assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@pytest.mark.parametrize("command", ["status", "run", "logs list"])
def test_a_folder_that_may_not_be_read_is_the_world_s_fault_and_no_wrong_usage(command):
    with short_folder() as folder:
        state = make(folder / "s")
        state.chmod(0)
        outcome = subprocess.run(
            [*COMMAND, "--state", str(state), *command.split()],
            capture_output=True, text=True, check=False, cwd="/", timeout=DEADLINE,
            env=environment(), preexec_fn=reads_like_anybody if os.geteuid() == 0 else None,
        )  # fmt: skip
        state.chmod(0o700)
    assert outcome.returncode == 3, outcome.stderr
    assert outcome.stderr.splitlines() == [
        f"error: {state}/witness.yaml: Permission denied",
        "hint: run it as the user that owns the state folder",
    ]
