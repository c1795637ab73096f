"""`witness run` that is told to end while it is still being loaded."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.daemon import COMMAND, DEADLINE, environment, eventually
from witness.cli.start import _is_daemon

SLOW = """
import os, pathlib, time
pathlib.Path(os.environ["LOADING"]).touch()
time.sleep(600)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A `witness` whose loading does not come to its end: the library that it needs first takes its time."""
    (folder / "click.py").write_text(SLOW)
    environ = environment(LOADING=str(folder / "loading"))
    environ["PYTHONPATH"] = f"{folder}:{environ['PYTHONPATH']}"
    process = subprocess.Popen([*COMMAND, *arguments], env=environ, stderr=subprocess.PIPE)
    eventually("it is being loaded", (folder / "loading").exists)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_daemon_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--state", str(tmp_path / "s"), "run") as process:
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_other_commands_do_not_pretend_to_have_done_what_they_were_asked(tmp_path: Path) -> None:
    with start(tmp_path, "--state", "run", "status") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run", True),
        ("--state s run --listen x", True),
        ("--state=s run", True),
        ("", False),
        ("--state run", False),
        ("--state run init --name x", False),
        ("logs add run", False),
        ("--help", False),
    ],
)
def test_what_is_the_daemon(line: str, *, expected: bool) -> None:
    assert _is_daemon(line.split()) is expected
