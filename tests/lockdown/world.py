"""State folders, users and cores for the lock-down's tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.core.processes import DEADLINE, CoreProcess, SocketClient, clean_environ, short_folder
from tests.core.state import make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.lockdown.steps import Account, Step
from witness.core.wire import CoreStatus, LockdownStep, Verb, decode_status

OTHER = 54321
"""A user that nobody is."""
CORE = Account("the core", 54322, 54322)
FRONT = Account("the front", 54323, 54323)
EVERY = tuple(step.value for step in Step)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def state(*logs: SimulatedLog, owner: int | None = None) -> Iterator[StateLayout]:
    """A state folder that any user can get to; its owner's alone otherwise."""
    with short_folder() as folder:
        folder.chmod(0o755)
        layout = make_state(folder / "state")
        layout.root.chmod(0o700)
        layout.config.write_text("name: x\n")
        layout.config.chmod(0o600)
        trust(layout, *logs)
        if owner is not None:
            for path in (layout.root, *layout.root.rglob("*")):
                os.chown(path, owner, owner)
        yield layout


def as_user(uid: int) -> tuple[str, ...]:
    """What to put before a `python -m MODULE`."""
    return (sys.executable, "-m", "tests.lockdown.as_user", str(uid))


def run_as(uid: int, module: str, *arguments: str, stdin: str = "") -> dict[str, Any]:
    """Runs a module of the tests as a user; what it said, as JSON."""
    done = subprocess.run(
        [*as_user(uid), "-m", module, *arguments],
        check=False, input=stdin, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT,
        env=clean_environ(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def status_of(core: CoreProcess) -> CoreStatus:
    with SocketClient(core.layout.core_socket) as client:
        answer = client.ask(Verb.STATUS)
    assert isinstance(answer, bytes), answer
    return decode_status(answer)


def steps_of(core: CoreProcess) -> dict[str, LockdownStep]:
    return {step.name: step for step in status_of(core).lockdown}


def facts(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def works(core: CoreProcess, log: SimulatedLog, old: int = 0) -> None:
    """It cosigns: threads, the database and the keys are all there."""
    with SocketClient(core.layout.core_socket) as client:
        answer = client.add_checkpoint(log.add_checkpoint(old))
        assert isinstance(answer, bytes), answer
