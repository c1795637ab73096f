"""Rotation of keys in devices, through the daemon: what each kind makes anew, and what it can destroy."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.daemon import eventually
from tests.cli.test_custody import World
from tests.core.keystore.rigs import Agent, Rig, Tpm, in_use
from tests.core.processes import short_folder
from witness.core.keystore import keyring
from witness.tlog.note import VerifierKey, parse_vkey

STAYS: Final = {"pkcs11-hmac": "made of the same secret", "ssh-agent": "remove the key itself"}
"""What is told of keys that no device destroys, by the kind of device; the others destroy them."""
CONFIG: Final = "continuity: {interval: 0.2, high_water: ../water}\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    yield from in_use(request.param, folder)


@pytest.fixture
def world(rig: Rig, folder: Path) -> World:
    world = World(rig, folder)
    with (world.state / "witness.yaml").open("a") as file:
        file.write(CONFIG)
    return world


def signing(world: World) -> tuple[VerifierKey, ...]:
    return tuple(parse_vkey(line) for line in world.command("keys", "list").out.split())


def rotated(world: World, *arguments: str) -> tuple[VerifierKey, ...]:
    """Stages a generation; its keys."""
    return tuple(parse_vkey(line) for line in world.command("keys", "rotate", *arguments).out.split())


@pytest.mark.slow
@pytest.mark.parametrize("rig", ["tpm2", "pkcs11", "pkcs11-hmac", "ssh-agent"], indirect=True)
def test_a_rotation_within_one_device(rig: Rig, world: World, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["rig"]
    old = world.vkeys
    more: list[str] = []
    if isinstance(rig, Agent):
        rig._add("-q", rig._keygen("next"))
        more = ["-o", f"key={_fingerprint(rig.root / 'next')}"]
    with world.running() as running:
        world.works(running)
        new = rotated(world, *more)
        world.works(running)  # nothing has changed for a core that runs
        assert running.stop() == 0
    assert len(new) == len(old)
    assert set(new).isdisjoint(old)
    world.vkeys = (*old, *new)
    with world.running() as running:
        world.works(running)
        told = world.command("keys", "rotate", "--finish")
        world.vkeys = new
        world.works(running)
        if kind in STAYS:
            eventually("it is told", lambda: STAYS[kind] in world.command("status").out)
        else:
            eventually("nothing is left", lambda: "rotation" not in world.command("status").out)
            assert "stays" not in told.err
        assert running.stop() == 0
    if kind in {"tpm2", "pkcs11"}:
        with pytest.raises(AssertionError, match="FAIL"):
            _derive_or_sign(world, old[0])
    if kind == "tpm2":  # a device that has moved is registered anew, without what it no longer derives
        world.command("keys", "register", "tpm2", *_settings(rig))
    with world.running() as running:
        world.works(running)
        assert signing(world) == new
        assert running.stop() == 0
    whole = world.command("audit", "verify", "--json").json
    assert whole["maced"] == whole["entries"], whole
    statement = world.state / "statement"
    statement.write_text(world.command("keys", "statement").out)
    for key in old:
        world.command("verify", statement, "--witness", str(key))


def _fingerprint(key: Path) -> str:
    told = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True)
    return told.stdout.split()[1]


def _derive_or_sign(world: World, key: VerifierKey) -> None:
    """Has the device use a key once more, as if nobody had retired it."""
    ring = keyring.read(world.layout)
    alone = ring.only(lambda each: each.vkey == key)
    folder = world.state.parent / "alone"
    folder.mkdir()
    (folder / "witness.yaml").write_text((world.state / "witness.yaml").read_text())
    layout = type(world.layout)(folder)
    keyring.write(layout, alone)
    state, world.state = world.state, folder
    try:
        outcome = world.command("keys", "test", code=1)
    finally:
        world.state = state
    raise AssertionError(outcome.out)


@pytest.mark.slow
@pytest.mark.parametrize("rig", ["tpm2"], indirect=True)
def test_from_a_device_to_a_key_file_and_back(rig: Rig, world: World) -> None:
    old = world.vkeys
    for arguments in (["--backend", "softkey"], ["--backend", "tpm2", *_settings(rig)]):
        new = rotated(world, "--overlap", "0", *arguments)
        world.vkeys = new
        with world.running() as running:
            world.works(running)
            assert signing(world) == new
            assert running.stop() == 0
    whole = world.command("audit", "verify", "--json").json
    assert whole["maced"] == whole["entries"], whole
    assert len({*old, *signing(world)}) == 4
    assert len(keyring.read(world.layout).generations) == 3


def _settings(rig: Rig) -> list[str]:
    return [part for name, value in rig.settings().items() for part in ("-o", f"{name}={value}")]


@pytest.mark.slow
@pytest.mark.parametrize("rig", ["tpm2"], indirect=True)
def test_a_wiped_device_is_another_identity(rig: Rig, world: World, folder: Path) -> None:
    """TPM2_Clear: other seeds, no counters. The old keys cannot be derived, and nothing else signs."""
    assert isinstance(rig, Tpm)
    with world.running() as running:
        world.works(running)
        assert running.stop() == 0
    rig.run_tool("tpm2_clear", "-c", "lockout")
    told = world.command("keys", "test", code=1).out
    assert told.count("FAIL") == len(world.vkeys)
    with world.running() as running, world.callers(running) as callers:
        callers.met(503)
        asked = len(callers.answers)
        eventually("they go on asking", lambda: len(callers.answers) > asked + 20)
        assert {status for status, _ in callers.answers} == {503}
    reborn = World(rig, folder / "again")
    assert set(reborn.vkeys).isdisjoint(world.vkeys), "the same device, and another identity"
