"""`witness keys rotate`: a new generation under the same name, with the real daemon."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_sign_seed_keypair

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import Daemon, call, daemon, eventually
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import (
    SignatureType,
    SignerKey,
    VerifierKey,
    key_id_for,
    parse_note,
    parse_signature_lines,
    parse_vkey,
)
from witness.tlog.signature import verify_note

LOG = "rotation.example/log"
_SEED = bytes(range(32))
_PLAIN = SignerKey(NAME, key_id_for(NAME, SignatureType.ED25519, crypto_sign_seed_keypair(_SEED)[0]), _SEED)
SIGNER = f"PRIVATE+KEY+{NAME}+{_PLAIN.key_id.hex()}+{base64.b64encode(bytes([1]) + _SEED).decode()}"


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rot", dir="/tmp") as folder:
        state = make(Path(folder) / "s", "--logs", "none")
        # What tells of a retirement lies where no copy of the state folder brings it back.
        with (state / "witness.yaml").open("a") as config:
            config.write("continuity:\n  high_water: ../water\n  interval: 0.2\n")
        yield state


@pytest.fixture
def log(state: Path) -> SimulatedLog:
    log = SimulatedLog(LOG, size=3)
    assert witness("logs", "add", str(log.vkeys[0]), state=state).code == 0
    return log


def vkeys(state: Path) -> tuple[VerifierKey, ...]:
    return tuple(parse_vkey(line) for line in witness("keys", "list", state=state).out.splitlines())


def signers(
    running: Daemon, log: SimulatedLog, keys: tuple[VerifierKey, ...], known: int = 0
) -> list[str]:  # fmt: skip
    """The key IDs of the lines of an answer, all of which verify; `known` where no cosignature tells."""
    status, body = running.request("GET", f"/{origin_hash(log.origin).hex()}/checkpoint")
    if status == 200:
        known = int(body.split(b"\n")[1])
    if known:
        log.append(1)
    status, lines = running.request("POST", "/add-checkpoint", log.add_checkpoint(known))
    assert status == 200, lines
    text = log.value().text()
    note = parse_note(text + b"\n" + lines)
    verified = verify_note(note, keys)
    assert len(verified) == len(parse_signature_lines(lines))
    return [each.key.key_id.hex() for each in verified]


def ids(keys: tuple[VerifierKey, ...]) -> list[str]:
    return [key.key_id.hex() for key in keys]


def shown(state: Path) -> dict[str, Any]:
    """The witness keys, of all generations, by their key IDs."""
    found = witness("keys", "show", "witness", "--json", state=state).json
    return {facts["key_id"]: facts for facts in found}


def test_a_rotation_from_end_to_end(state: Path, log: SimulatedLog, tmp_path: Path) -> None:
    old = vkeys(state)
    assert len(old) == 2
    with daemon(state) as running:
        assert signers(running, log, old) == ids(old)
        staged = call("--state", state, "keys", "rotate", "--overlap", "7d")
        assert staged.returncode == 0, staged.stderr
        assert "restart the witness" in staged.stderr
        new = tuple(parse_vkey(line) for line in staged.stdout.splitlines())
        assert signers(running, log, (*old, *new)) == ids(old), "nothing changes before a restart"
        assert vkeys(state) == old
        assert {shown(state)[each]["stage"] for each in ids(new)} == {"staged"}
        early = witness("keys", "rotate", "--finish", state=state)
        assert early.code == 1
        assert "restart the witness" in early.err
        assert running.stop() == 0
    shutil.copytree(state, tmp_path / "before")
    both = (*old, *new)

    with daemon(state) as running:
        eventually("it signs with both", lambda: signers(running, log, both) == ids(both))
        assert vkeys(state) == both
        assert {facts["stage"] for facts in shown(state).values()} == {"active", "retiring"}
        assert "generation 0 beside it until" in witness("status", state=state).out
        assert witness("keys", "rotate", state=state).code == 1, "one at a time"
        done = call("--state", state, "keys", "rotate", "--finish")
        assert done.returncode == 0, done.stderr
        assert "never signs again" in done.stdout
        assert signers(running, log, both) == ids(new)
        assert vkeys(state) == new
        eventually("its file is deleted", lambda: not StateLayout(state).softkey.exists())
        assert shown(state)[old[0].key_id.hex()]["state"] == "retired"
        assert running.stop() == 0
    whole = witness("audit", "verify", "--json", state=state)
    assert whole.code == 0, whole.err
    assert whole.json["maced"] == whole.json["entries"], "one record, across the generations"
    assert whole.json["noted"]
    kinds = [json.loads(line)["kind"] for line in witness("audit", "export", state=state).out.splitlines()]
    told = [kind for kind in kinds if kind.startswith(("rot", "retired", "keys-"))]
    assert told == ["rotation-staged", "rotated", "rotation-finish", "retired-keys", "keys-destroyed"]

    with daemon(state) as running:
        assert signers(running, log, both) == ids(new)
        assert running.stop() == 0

    # The whole folder as it was before: the record outside knows better.
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "before", state)
    with daemon(state) as running:
        assert running.request("POST", "/add-checkpoint", log.add_checkpoint(log.size))[0] == 503
        told = witness("status", state=state).out
        assert "retired-key" in told
        assert f"{old[0].name}+{old[0].key_id.hex()}" in told
        assert vkeys(state) == (), "the old are retired, and the new not taken up under an alarm"
        bodies = []
        (behind,) = witness("recover", "--json", state=state).json["behind"]
        for size in (behind["have"], behind["seen"]):
            bodies.append(tmp_path / f"body-{size}")
            bodies[-1].write_bytes(log.add_checkpoint(size))
        assert (
            witness("recover", *(arg for body in bodies for arg in ("--file", body)), state=state).code == 0
        )
        eventually("it signs again", running.ready)
        assert signers(running, log, both, known=log.size) == ids(new)
        assert vkeys(state) == new


def test_a_statement_is_verified_offline_with_an_old_key(state: Path) -> None:
    old = vkeys(state)
    assert witness("keys", "statement", state=state).code == 1
    assert witness("keys", "rotate", state=state).code == 0
    with daemon(state) as running:
        assert running.stop() == 0
    new = tuple(key for key in vkeys(state) if key not in old)
    note = witness("keys", "statement", state=state).out
    file = state / "statement"
    file.write_text(note)
    for key in old:
        told = witness("verify", file, "--witness", str(key))
        assert told.code == 0, told.out
        for each in new:
            assert str(each) in told.out
    assert witness("verify", file).code == 1
    assert witness("verify", file, "--witness", str(new[0])).code == 1


def test_an_imported_key_opens_the_records_too(tmp_path: Path) -> None:
    """The first key's secret is what the records' keys are made of: another first key must not lose them."""
    with tempfile.TemporaryDirectory(prefix="rot", dir="/tmp") as folder:
        state = make(Path(folder) / "s", "--algorithm", "ml-dsa-44")
        with daemon(state) as running:
            assert running.stop() == 0
        key = tmp_path / "key"
        key.write_text(SIGNER)
        assert witness("keys", "import", key, state=state).code == 0
        with daemon(state) as running:
            eventually("it signs", running.ready)
            assert running.stop() == 0
        whole = witness("audit", "verify", "--json", state=state)
        assert whole.code == 0, whole.err
        assert whole.json["maced"] == whole.json["entries"]


def test_no_overlap_is_a_switch(state: Path, log: SimulatedLog) -> None:
    old = vkeys(state)
    assert witness("keys", "rotate", "--overlap", "0", state=state).code == 0
    with daemon(state) as running:
        new = vkeys(state)
        assert set(new).isdisjoint(old)
        assert signers(running, log, (*old, *new)) == ids(new)
        eventually("its file is deleted", lambda: not StateLayout(state).softkey.exists())


def test_an_overlap_ends_by_itself(state: Path, log: SimulatedLog) -> None:
    old = vkeys(state)
    assert witness("keys", "rotate", "--overlap", "3s", state=state).code == 0
    with daemon(state) as running:
        eventually("only the new keys sign", lambda: len(vkeys(state)) == 2)
        new = vkeys(state)
        assert signers(running, log, (*old, *new)) == ids(new)


def test_a_finish_while_nothing_runs_waits_for_the_next_start(state: Path, log: SimulatedLog) -> None:
    old = vkeys(state)
    assert witness("keys", "rotate", state=state).code == 0
    with daemon(state) as running:
        assert running.stop() == 0
    assert "generation 1 signs, and generation 0 beside it until 2" in witness("status", state=state).out
    told = witness("keys", "rotate", "--finish", state=state)
    assert told.code == 0
    assert "at the next start" in told.out
    with daemon(state) as running:
        new = vkeys(state)
        assert len(new) == 2
        assert signers(running, log, (*old, *new)) == ids(new)


def test_the_attestation_key_outlives_every_generation(state: Path) -> None:
    def attested() -> dict[str, dict[str, Any]]:
        outcome = witness("keys", "attest", "--json", state=state)
        assert outcome.code == 0, outcome.err
        return {facts["vkey"]: facts for facts in outcome.json}

    before = attested()
    assert witness("keys", "rotate", "--overlap", "0", state=state).code == 0
    with daemon(state) as running:
        eventually("its file is deleted", lambda: not StateLayout(state).softkey.exists())
        new = vkeys(state)
        assert running.stop() == 0
    after = attested()
    assert {facts["attestation_key"] for facts in (*before.values(), *after.values())} == {
        facts["attestation_key"] for facts in before.values()
    }
    assert {after[str(key)]["generation"] for key in new} == {1}
    for facts in (*before.values(), *after.values()):
        key = StateLayout(state).attestations / f"{facts['serial']}.pub"
        assert witness("verify", facts["file"], "--manifest-key", f"@{key}").code == 0


def test_a_third_generation_follows(state: Path, log: SimulatedLog) -> None:
    seen = list(vkeys(state))
    for number in (1, 2):
        assert witness("keys", "rotate", "--overlap", "0", state=state).code == 0
        with daemon(state) as running:
            keys = vkeys(state)
            seen += keys
            assert signers(running, log, tuple(seen)) == ids(keys)
            assert {shown(state)[each]["generation"] for each in ids(keys)} == {number}
            assert running.stop() == 0
    assert len(set(seen)) == 6
    whole = witness("audit", "verify", "--json", state=state)
    assert whole.json["maced"] == whole.json["entries"], whole.out


def test_what_was_never_taken_up_makes_way(state: Path) -> None:
    old = vkeys(state)
    first = witness("keys", "rotate", state=state).out.splitlines()
    assert "generation 1 is staged" in witness("status", state=state).out
    second = witness("keys", "rotate", state=state).out.splitlines()
    with daemon(state) as running:
        assert [str(key) for key in vkeys(state)] == [*map(str, old), *second]
        assert running.stop() == 0
    states = {facts["vkey"]: facts["stage"] for facts in shown(state).values()}
    assert {states[vkey] for vkey in first} == {"retired"}


def test_a_sealed_key_file_stays_sealed(tmp_path: Path) -> None:
    state = make(tmp_path / "s", "--logs", "none", env={"WITNESS_PASSPHRASE": "secret"})
    assert witness("keys", "rotate", state=state).code != 0
    assert not StateLayout(state).keyring.exists()
    assert witness("keys", "rotate", state=state, env={"WITNESS_PASSPHRASE": "secret"}).code == 0
    assert all(facts["sealed"] for facts in shown(state).values())
    assert {facts["generation"] for facts in shown(state).values()} == {0, 1}


def test_a_database_from_before_the_retirement_brings_no_key_back(
    state: Path, log: SimulatedLog, tmp_path: Path
) -> None:
    """The keys folder is today's, with a copy of the deleted file put back; only the database is old."""
    old, layout = vkeys(state), StateLayout(state)
    assert witness("keys", "rotate", "--overlap", "1h", state=state).code == 0
    with daemon(state) as running:
        assert len(vkeys(state)) == 4
        assert witness("backup", tmp_path / "backup", state=state).code == 0
        shutil.copy(layout.softkey, tmp_path / "softkey.json")
        assert call("--state", state, "keys", "rotate", "--finish").returncode == 0
        new = vkeys(state)
        assert running.stop() == 0
    shutil.copy(tmp_path / "softkey.json", layout.softkey)
    with daemon(state) as running:
        assert signers(running, log, (*old, *new)) == ids(new), "the database knows"
        assert running.stop() == 0
    shutil.copy(tmp_path / "softkey.json", layout.softkey)
    assert witness("restore", tmp_path / "backup", state=state).code == 0
    with daemon(state) as running:
        assert "retired-key" in witness("status", state=state).out
        assert witness("recover", "--fast-forward", state=state).code in (0, 1)
        with sqlite3.connect(layout.database) as connection:
            rows = dict(connection.execute("SELECT number, state FROM generations").fetchall())
        assert rows == {0: "retired", 1: "active"}
        assert NAME in witness("status", state=state).out
