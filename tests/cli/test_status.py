"""What `witness status` says where no daemon runs, and of what stands in the state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import call, daemon
from witness.core.layout import StateLayout


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make(tmp_path / "state")


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_witness_that_does_not_run_is_an_error_with_its_line(state: Path, json: tuple[str, ...]) -> None:
    outcome = witness("status", *json, state=state)
    assert outcome.code == 3
    assert outcome.error() == "error: the witness is not running"
    assert "hint: witness run starts it" in outcome.err
    assert NAME in outcome.out, "what is known is told all the same"


@pytest.mark.parametrize("line", [(), ("logs",), ("keys",), ("lists",)])
def test_a_command_that_is_missing_is_an_error_after_the_help(line: tuple[str, ...]) -> None:
    outcome = witness(*line)
    assert outcome.code == 2
    assert "Commands:" in outcome.err
    path = " ".join(("witness", *line))
    assert outcome.err.splitlines()[-2:] == [
        "error: a command is missing",
        f"hint: name one of those above: {path} COMMAND",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"name: {NAME}\nlistenn: x\n", "witness.yaml, line 2: listenn: unknown key"),
        ("name: another.example\n", "names the witness 'another.example', and its keys are"),
        (f"name: {NAME}\nkeys: {{algorithms: [ml-dsa-44]}}\n", "keys.algorithms says ml-dsa-44, and"),
        (None, "witness.yaml is missing"),
    ],
)
def test_a_configuration_that_the_next_start_refuses_is_a_problem(
    state: Path, text: str | None, told: str
) -> None:
    config = StateLayout(state).config
    if text is None:
        config.unlink()
    else:
        config.write_text(text)
    (problem,) = witness("status", "--json", state=state).json["problems"]
    assert told in problem
    assert problem.endswith("; witness run will not start with it")
    assert told in witness("status", state=state).out


def test_a_running_witness_goes_on_with_the_one_it_read_and_is_told_of_the_new_one(state: Path) -> None:
    with daemon(state) as running:
        (state / "witness.yaml").write_text("nmae: x\n")
        outcome = call("--state", state, "status")
        assert outcome.returncode == 0, "it is ready still"
        assert "problem   " in outcome.stdout
        assert "nmae: unknown key" in outcome.stdout
        assert running.ready()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
@pytest.mark.parametrize("file", ["keys/softkey.json", "passphrase"])
def test_secrets_that_are_open_to_others_are_warned_of(state: Path, mode: int, file: str) -> None:
    (state / "passphrase").write_text("x")
    (state / "passphrase").chmod(0o600)
    with (state / "witness.yaml").open("a") as config:
        config.write("keys: {passphrase_file: passphrase}\n")
    assert witness("status", "--json", state=state).json["warnings"] == []
    (state / file).chmod(mode)
    warnings = witness("status", "--json", state=state).json["warnings"]
    if file == "passphrase" and not mode & 0o007:
        assert warnings == [], "systemd gives it to a group"
    else:
        path = state / file
        expected = f"{path} is open to others than its owner (mode {mode:04o}): chmod go= {path}"
        assert warnings == [expected]
        assert f"warning   {expected}" in witness("status", state=state).out


def test_a_start_warns_of_them_too(state: Path) -> None:
    key = StateLayout(state).softkey
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with daemon(state) as running:
        said = running.err.read_text()
        assert f"warning: {key} is open to others than its owner (mode 0644): chmod go= {key}" in said
        assert running.stop() == 0
