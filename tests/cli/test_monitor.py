"""`witness monitor`: the real command as a process, against a log on loopback."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import Outcome, witness
from tests.cli.test_bundle import served
from tests.reading.world import World, contents, entry_log, policy_of
from tests.simulated_log import SimulatedLog


@pytest.fixture
def log() -> SimulatedLog:
    return entry_log(300)


@pytest.fixture
def world(log: SimulatedLog) -> Iterator[World]:
    with served(World(log)) as world:
        yield world


@pytest.fixture
def options(log: SimulatedLog, world: World, tmp_path: Path) -> list[str]:
    (tmp_path / "policy").write_text(policy_of(log, (), 0))
    return [
        "monitor",
        f"--policy={tmp_path / 'policy'}",
        f"--url={world.url('tiles')}",
        f"--place={tmp_path / 'place'}",
        "--interval=0.1",
    ]


def once(options: list[str], *more: str | Path) -> Outcome:
    # A process of its own: signal handlers, and a standard output that is a real file.
    command = [sys.executable, "-c", "from witness.cli.main import main; main()", *options, "--once"]
    done = subprocess.run(
        [*command, *map(str, more)], capture_output=True, text=True, timeout=60, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_json_lines_once_and_again(log: SimulatedLog, options: list[str]) -> None:
    first = once(options, "--from", "start")
    assert first.code == 0, first.err
    lines = [json.loads(line) for line in first.out.splitlines()]
    assert [base64.b64decode(line["entry"]) for line in lines] == contents(log)
    assert once(options).out == ""
    log.append(3)
    assert [json.loads(line)["index"] for line in once(options).out.splitlines()] == [300, 301, 302]


def test_where_to_begin_has_to_be_said(options: list[str], tmp_path: Path) -> None:
    outcome = once(options)
    assert outcome.code == 2
    assert "holds no place yet" in outcome.error()
    assert once(options, "--from", "yesterday").code == 2
    assert once(options, "--from", "301").code == 1
    assert once(options, "--from", "now").out == ""
    assert (tmp_path / "place/place.json").exists()


def test_a_command_for_each_entry(log: SimulatedLog, options: list[str], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    command = f"sh -c 'cat > {taken}/$WITNESS_INDEX'"
    assert once(options, "--from", "295", "--exec", command).code == 0
    assert {path.name: path.read_bytes() for path in taken.iterdir()} == {
        str(index): contents(log)[index] for index in range(295, 300)
    }
    log.append(1)
    outcome = once(options, "--exec", "false")
    assert outcome.code == 3
    assert "entry 300: ended with exit code 1" in outcome.error()
    assert once(options, "--exec", command).code == 0
    assert (taken / "300").read_bytes() == contents(log)[300]


def test_a_fork_ends_it_for_good(log: SimulatedLog, world: World, options: list[str], tmp_path: Path) -> None:
    assert once(options, "--from", "now").code == 0
    world.log = log.fork(200)
    world.log.append(200)
    outcome = once(options)
    assert outcome.code == 1
    assert "FORKED" in outcome.error()
    (evidence,) = (tmp_path / "place").glob("evidence-*.json")
    assert witness("verify", evidence, "--log", str(log.vkeys[0])).code == 0
    world.log = log  # it shows us the old face again
    outcome = once(options)
    assert outcome.code == 3
    assert "seen to fork" in outcome.error()


def test_killed_at_any_moment_no_entry_is_lost_or_doubled(
    log: SimulatedLog, options: list[str], tmp_path: Path
) -> None:
    """Kills while entries come in, a dozen times: the output file has each entry exactly once."""
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", "from witness.cli.main import main; main()", *options]
    for number in range(12):
        with subprocess.Popen([*command, "--from", "start", "--output", str(output), "--hold=0"]) as process:
            size = output.stat().st_size if output.exists() else 0
            log.append(100)
            until(lambda size=size: output.exists() and output.stat().st_size > size)  # type: ignore[misc]
            for _ in range(number % 4):
                log.append(40)
                time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
    assert once([*options, "--output", str(output)]).code == 0
    lines = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [line["index"] for line in lines] == list(range(log.size))
    assert [base64.b64decode(line["entry"]) for line in lines] == contents(log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_it_is_told_to_stop(
    log: SimulatedLog, world: World, options: list[str], tmp_path: Path, number: int
) -> None:
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", "from witness.cli.main import main; main()", *options]
    with subprocess.Popen(
        [*command, "--from", "start", "--output", str(output), "--hold=0"],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        lines = lambda: output.exists() and output.read_bytes().count(b"\n")  # noqa: E731
        until(lambda: lines() == 300)
        world.faults.status = 503
        log.append(5)
        time.sleep(0.3)
        world.faults.status = 200
        until(lambda: lines() == 305)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.count(b"warning: ") == 1
    assert b"status 503" in said
