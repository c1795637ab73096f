"""Whose user drives the key devices where root starts the witness, and what a core may have opened."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.keystore.programs import eventually
from tests.core.keystore.rigs import IDENTITY, NAME, Rig, children_of, in_use
from tests.core.processes import CoreProcess, SocketClient, short_folder
from tests.core.state import START, trust
from tests.lockdown.world import CORE, facts, needs_root, steps_of
from tests.simulated_log import SimulatedLog
from witness.core.keystore.base import KeyInvalid
from witness.core.keystore.hostclient import HostClient
from witness.core.lockdown.kernel import CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID
from witness.core.lockdown.steps import LockdownSettings
from witness.core.store import schema

LOG = SimulatedLog("devices.example/log", size=3)
TSS = 54399
"""A group that a device's node belongs to."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        path.chmod(0o755)
        yield path


@pytest.fixture
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    yield from in_use(request.param, folder)


def core_on(rig: Rig, folder: Path, *, given: Path | None = None) -> CoreProcess:
    """A core that root starts, with its keys in the rig; `given`: what the core's user is given first."""
    layout = rig.state(folder / "state")
    for path in (given, *given.rglob("*")) if given is not None else ():
        os.chown(path, CORE.uid, CORE.gid)
    schema.create(layout.database, name=NAME, identity=IDENTITY, now=START)
    trust(layout, LOG)
    layout.root.chmod(0o700)
    secret = rig.secret()
    return CoreProcess(
        layout,
        lockdown=LockdownSettings(account=CORE, require=("own_user",)),
        environ={} if secret is None else {"WITNESS_PASSPHRASE": secret},
    )


def cosigns(core: CoreProcess, old: int = 0) -> None:
    with SocketClient(core.layout.core_socket) as client:

        def answered() -> bool:
            answer = client.add_checkpoint(LOG.add_checkpoint(old))
            return isinstance(answer, bytes)

        eventually("it cosigns", answered)


def capabilities(known: dict[str, str]) -> set[int]:
    effective = int(known["CapEff"], 16)
    return {number for number in range(64) if effective >> number & 1}


@needs_root
@pytest.mark.parametrize("rig", ["pkcs11"], indirect=True)
def test_a_device_that_answers_the_cores_user_is_driven_by_it(rig: Any, folder: Path) -> None:
    with core_on(rig, folder, given=rig.tokens) as core:
        cosigns(core)
        step = steps_of(core)["devices"]
        assert (step.state, step.detail) == ("done", f"pkcs11 by {CORE.name}")
        (host,) = children_of(core.pid)
        (worker,) = children_of(host)
        known = facts(worker)
        assert set(known["Uid"].split()) == set(known["Gid"].split()) == {str(CORE.uid)}
        assert capabilities(known) == set()
        assert known["NoNewPrivs"] == "1"
        # Nobody else of that user looks into it, or survives it.
        assert Path(f"/proc/{worker}/environ").stat().st_uid == 0
        assert capabilities(facts(host)) == {CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID}
        core.kill()
        eventually("its processes end with it", lambda: not Path(f"/proc/{worker}").exists())
        eventually("the host too", lambda: not Path(f"/proc/{host}").exists())


@needs_root
@pytest.mark.parametrize("rig", ["tpm2"], indirect=True)
def test_the_group_of_the_devices_node_is_given_along(rig: Any, folder: Path) -> None:
    for path in (rig.socket, rig.socket.with_name(rig.socket.name + ".ctrl")):
        os.chown(path, 0, TSS)
        path.chmod(0o660)
    with core_on(rig, folder) as core:
        cosigns(core)
        step = steps_of(core)["devices"]
        assert (step.state, step.detail) == ("done", f"tpm2 by {CORE.name} (and group {TSS})")


@needs_root
@pytest.mark.parametrize("rig", ["ssh-agent", "pkcs11"], indirect=True)
def test_a_device_that_answers_root_alone_stays_roots_and_is_told(rig: Rig, folder: Path) -> None:
    with core_on(rig, folder) as core:
        cosigns(core)
        step = steps_of(core)["devices"]
        assert step.state == "unavailable"
        assert step.detail.startswith(f"{rig.backend} by root; {CORE.name}: "), step.detail
        (host,) = children_of(core.pid)
        (worker,) = children_of(host)
        assert capabilities(facts(worker)) == {CAP_DAC_OVERRIDE}
        # It comes back as who it was.
        os.kill(worker, signal.SIGKILL)
        cosigns(core, LOG.size)
        assert children_of(host) != [worker]
        assert steps_of(core)["devices"].detail == step.detail


def test_a_host_opens_what_is_registered_and_nothing_else(folder: Path) -> None:
    """A core in an attacker's hands cannot have a library of the attacker's choosing loaded."""
    settings = {"socket": str(folder / "nothing")}
    host = HostClient.spawn([("ssh-agent", settings)])
    host.start()
    try:
        other = {"module": str(folder / "evil.so"), "token": "t"}
        for backend, wanted in (("pkcs11", other), ("remote", settings), ("ssh-agent", {})):
            with pytest.raises(KeyInvalid, match="is not registered so"):
                host.call("agent", "open", 20.0, backend=backend, settings=wanted, secret=None)
        assert children_of(host.pid) == [], "no worker was started"
    finally:
        host.close()


def test_a_host_that_hangs_is_ended() -> None:
    host = HostClient.spawn()
    host.start()
    os.kill(host.pid, signal.SIGSTOP)
    host.close()
    assert not Path(f"/proc/{host.pid}").exists()
