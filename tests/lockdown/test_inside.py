"""The lock-down, proved from inside the running core: what it tries fails, and it goes on cosigning."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT
from tests.core.processes import DEADLINE, SocketClient, clean_environ
from tests.lockdown.attempts import WORKED
from tests.lockdown.world import CORE, EVERY, OTHER, as_user, needs_root, state
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.lockdown.steps import LockdownSettings
from witness.core.settings import CoreSettings
from witness.core.wire import Verb, decode_status

LOG = SimulatedLog("inside.example/log", size=5)
GOES_ON = {"thread", "open database"}
ANYBODY_MAY_NOT = {"become root", "bpf", "ptrace", "read parent", "signal parent", "write key file"}
"""What a user that is not root may not do anyway, or not to a parent of another user."""


@contextmanager
def inside(layout: StateLayout, lockdown: LockdownSettings, uid: int | None) -> Iterator[dict[str, str]]:
    """Runs the real core with its tries; gives what they met."""
    prefix = () if uid is None else as_user(uid)
    listener = socket.create_server(("127.0.0.1", 0))
    neighbour = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = layout.root.parent / "neighbour.sock"
    neighbour.bind(str(path))
    path.chmod(0o666)
    neighbour.listen()
    aims = {"tcp": listener.getsockname()[1], "unix": str(path)}
    settings = CoreSettings(str(layout.root), log_level="WARNING", lockdown=lockdown)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.lockdown.inside"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=clean_environ(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{settings.to_json()}\n{json.dumps(aims)}\n".encode())
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
        line = process.stdout.readline() if ready else b""
        assert line, process.communicate(timeout=5)[1].decode()
        yield json.loads(line)["met"]
        with SocketClient(layout.core_socket) as client:
            assert isinstance(client.add_checkpoint(LOG.add_checkpoint(0)), bytes)
        process.terminate()
        assert process.wait(DEADLINE) == 0, process.communicate()[1].decode()
    finally:
        process.kill()
        process.communicate()
        listener.close()
        neighbour.close()


def missing(layout: StateLayout) -> set[str]:
    """Steps that this machine does not have; where none is missing, the tests below prove all of them."""
    with SocketClient(layout.core_socket) as client:
        answer = client.ask(Verb.STATUS)
        assert isinstance(answer, bytes)
        return {step.name for step in decode_status(answer).lockdown if step.state == "unavailable"}


@pytest.mark.parametrize("uid", [None, pytest.param(OTHER, marks=needs_root)], ids=["as we are", "a user"])
def test_nothing_gets_out(uid: int | None) -> None:
    with state(LOG, owner=uid) as layout, inside(layout, LockdownSettings(), uid) as met:
        lacking = missing(layout) - {"own_user", "locked_memory"}
        if lacking:
            pytest.skip(f"this kernel lacks {', '.join(sorted(lacking))}")
        assert {what for what, how in met.items() if how == WORKED} == GOES_ON
        # Each is refused for what it is, not for some other reason that it would have failed for.
        assert met["open /etc/passwd"] == met["write beside"] == met["new file"] == "EACCES"
        assert met["write witness.yaml"] == met["write key file"] == "EACCES"
        assert {met[what] for what in ("connect tcp", "connect unix", "execute", "replace", "ptrace")} == {
            "EPERM"
        }


@needs_root
def test_nothing_gets_out_of_a_core_with_its_own_user() -> None:
    with state(LOG) as layout, inside(layout, LockdownSettings(account=CORE), None) as met:
        if missing(layout):
            pytest.skip(f"this kernel lacks {', '.join(sorted(missing(layout)))}")
        assert {what for what, how in met.items() if how == WORKED} == GOES_ON


def test_without_the_lock_down_all_of_it_works() -> None:
    """The control: what the tests above try can be done."""
    with state(LOG) as layout, inside(layout, LockdownSettings(off=EVERY), None) as met:
        failed = {what for what, how in met.items() if how != WORKED}
        # execve of what is no program; a user namespace for several threads; not every machine has the rest.
        expected = {"replace", "bpf", "io_uring", "user namespace"}
        if os.geteuid() != 0:
            expected |= ANYBODY_MAY_NOT
        assert failed <= expected
        assert met["replace"] == "EACCES"


SINGLE = {
    "landlock": ("open /etc/passwd", "EACCES"),
    "seccomp": ("execute", "EPERM"),
    "no_network": ("connect tcp", "ENETUNREACH"),
    "no_new_code": ("new code", "EACCES"),
}


@pytest.mark.parametrize("step", SINGLE)
def test_each_step_alone_stops_what_it_is_for(step: str) -> None:
    only = LockdownSettings(off=tuple(name for name in EVERY if name != step))
    with state(LOG) as layout, inside(layout, only, None) as met:
        if step in missing(layout):
            pytest.skip(f"this kernel lacks {step}")
        what, error = SINGLE[step]
        assert met[what] == error
