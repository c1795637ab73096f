"""`witness bundle`: the command line of making and converting, against a log on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import Outcome, witness
from tests.reading.world import TestWitness, World, contents, cosigned, entry_log, policy_of, witness_key
from tests.simulated_log import SimulatedLog

KEYS = [witness_key(f"witness.example/w{number}") for number in range(2)]


@contextmanager
def served(world: World) -> Iterator[World]:
    """Serves a world from a thread of its own: the command has an event loop in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(world.__aenter__(), loop).result(10)
        yield world
        asyncio.run_coroutine_threadsafe(world.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def log() -> SimulatedLog:
    return entry_log(300)


@pytest.fixture
def world(log: SimulatedLog) -> Iterator[World]:
    with served(World(log, [TestWitness(key) for key in KEYS])) as world:
        yield world


@pytest.fixture
def policy(log: SimulatedLog, tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.write_text(policy_of(log, KEYS, 2))
    return path


def make(world: World, policy: Path, *more: str | Path) -> Outcome:
    return witness("bundle", "make", "--policy", policy, "--url", world.url("tiles"), *more)


def witnesses_of(world: World) -> list[str]:
    return [f"--witness-url={world.witness_url(number)}" for number in range(2)]


def test_made_by_witnesses_and_verified_by_verify(
    log: SimulatedLog, world: World, policy: Path, tmp_path: Path
) -> None:
    proof, entry = tmp_path / "p.tlog-proof", tmp_path / "entry"
    outcome = make(world, policy, "--index", "7", "-o", proof, "--save-entry", entry, *witnesses_of(world))
    assert outcome.code == 0, outcome.err
    assert "entry 7 of 300" in outcome.out
    assert entry.read_bytes() == contents(log)[7]
    verified = witness("verify", proof, "--policy", policy, "--entry", entry)
    assert verified.code == 0, verified.out
    assert witness("verify", proof, "--policy", policy, "--entry", policy).code == 1
    # No scratch file is left.
    assert {path.name for path in tmp_path.iterdir()} == {policy.name, entry.name, proof.name}


def test_to_standard_output(world: World, policy: Path) -> None:
    outcome = make(world, policy, "--index", "7", *witnesses_of(world))
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("c2sp.org/tlog-proof@v1\nindex 7\n")


def test_json(world: World, policy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    outcome = make(world, policy, "--index", "7", "--json", "-o", proof, *witnesses_of(world))
    facts = outcome.json
    assert (facts["index"], facts["size"], facts["file"]) == (7, 300, str(proof))
    assert make(world, policy, "--index", "7", "--json").code == 2


def test_no_quorum_no_file(world: World, policy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    outcome = make(world, policy, "--index", "7", "-o", proof, witnesses_of(world)[0])
    assert outcome.code == 1
    assert "cosigned by w0" in outcome.error()
    assert not proof.exists()
    outcome = make(world, policy, "--index", "7", "--no-submit", "-o", proof, *witnesses_of(world))
    assert outcome.code == 1
    assert not proof.exists()


def test_urls_from_the_policy(log: SimulatedLog, world: World, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    lines = [f"log {log.vkeys[0]} {world.url('tiles')}"]
    lines += [f"witness w{n} {key.vkey} {world.witness_url(n)}" for n, key in enumerate(KEYS)]
    policy.write_text("\n".join([*lines, "group g all w0 w1", "quorum g", ""]))
    outcome = witness("bundle", "make", "--policy", policy, "--leaf-hash", "00" * 32)
    assert outcome.code == 1
    assert "no entry with leaf hash" in outcome.error()
    assert witness("bundle", "make", "--policy", policy, "--index", "0").code == 0


def test_a_fork_leaves_evidence(log: SimulatedLog, world: World, policy: Path, tmp_path: Path) -> None:
    fork = log.fork(100)
    fork.append(150)
    world.distributed["checkpoint.2"] = cosigned(fork, *KEYS)
    proof = tmp_path / "proof"
    outcome = make(world, policy, "--index", "7", "-o", proof, "--distributor", world.distributor())
    assert outcome.code == 1
    assert "FORKED" in outcome.error()
    assert not proof.exists()
    evidence = tmp_path / "proof.evidence.json"
    assert witness("verify", evidence, "--log", str(log.vkeys[0])).code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ("--index", "7", "--policy", "/nowhere/at-all"),
        ("--log", "no-key", "--index", "7"),
        ("--leaf-hash", "zz"),
        ("--index", "7", "--wait", "soon"),
        ("--index", "7", "--distributor", "ftp://x"),
        (),
    ],
)
def test_wrong_usage(world: World, policy: Path, wrong: tuple[str, ...]) -> None:
    outcome = make(world, policy, *wrong)
    assert outcome.code in (2, 3)
    outcome.error()


def test_a_log_that_is_not_there(policy: Path) -> None:
    outcome = witness("bundle", "make", "--policy", policy, "--url", "http://127.0.0.1:1", "--index", "0")
    assert outcome.code == 3
    outcome.error()


def test_convert(world: World, policy: Path, tmp_path: Path) -> None:
    proof, spicy, back = tmp_path / "proof", tmp_path / "spicy", tmp_path / "back"
    assert make(world, policy, "--index", "7", "-o", proof, *witnesses_of(world)).code == 0
    assert witness("bundle", "convert", proof, "--to", "spicy", "-o", spicy).code == 0
    assert witness("bundle", "convert", spicy, "--to", "tlog-proof", "-o", back).code == 0
    assert back.read_bytes() == proof.read_bytes()
    note = tmp_path / "note"
    outcome = witness("bundle", "convert", proof, "--to", "checkpoint", "-o", note)
    assert outcome.code == 1
    assert "would lose everything but the checkpoint" in outcome.error()
    assert not note.exists()
    outcome = witness("bundle", "convert", proof, "--to", "checkpoint", "--lossy", "-o", note)
    assert outcome.code == 0
    assert "warning: lost: everything but the checkpoint" in outcome.err
    assert witness("verify", note, "--policy", policy).code == 0
    outcome = witness("bundle", "convert", policy, "--to", "spicy")
    assert outcome.code == 1
    outcome.error()


def test_convert_a_lookup(testdata: Path, tmp_path: Path) -> None:
    folder = testdata / "logs/sumdb/size11094656"
    codes = []
    for file in sorted((folder / "lookup").rglob("*@*")):
        proof = tmp_path / "proof"
        outcome = witness("bundle", "convert", file, "--to", "tlog-proof", "--tiles", folder, "-o", proof)
        codes.append(outcome.code)
    assert 0 in codes
    assert proof.exists()
