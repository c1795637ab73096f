"""Proofs: what `bundle make` wrote is taken by the field's verifiers, and we take what its tools wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.world import MAKER, sigsum_leaf
from tests.cli.command import witness as command
from tests.cli.test_bundle import served
from tests.interop.processes import Program, Witness, fetch, poll, serve_folder
from tests.interop.programs import GoPrograms
from tests.interop.tessera_log import TesseraLog
from tests.interop.test_feeders import line
from tests.interop.test_tessera import await_known
from tests.reading.world import Entries, TestWitness, World, witness_key
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.tlog.policy import sigsum_log_key

pytestmark = pytest.mark.slow

SPICY = "filippo.io/torchwood/cmd/spicy"
ENTRIES = [f"entry {number}" for number in range(600)]


@pytest.fixture(scope="module")
def log(programs: GoPrograms, tmp_path_factory: pytest.TempPathFactory) -> TesseraLog:
    """A Tessera log of 600 entries whose checkpoint no witness has seen."""
    log = TesseraLog(programs, tmp_path_factory.mktemp("proofs") / "log", "interop.example/proofs")
    assert "error" not in log.run("quorum none\n", [ENTRIES])
    return log


def policy_of(log: TesseraLog, witness: Witness, *kinds: int) -> str:
    lines = [f"log {log.vkey}"]
    lines += [f"witness w{kind} {witness.vkey(kind)} {witness.url}" for kind in kinds]
    return "\n".join([*lines, f"group ours all {' '.join(f'w{kind}' for kind in kinds)}", "quorum ours", ""])


def check(programs: GoPrograms, log: TesseraLog, cosigners: list[str], **request: Any) -> dict[str, Any]:
    entry = base64.b64encode(request.pop("entry")).decode()
    refusal = request.pop("refusal", False)
    full = {"origin": log.origin, "log": log.vkey, "cosigners": cosigners, "entry": entry, **request}
    return programs.run("proofcheck", full, refusal=refusal)


def test_go_verifies_what_make_wrote_with_a_real_witness(
    witness: Witness, log: TesseraLog, programs: GoPrograms, tmp_path: Path
) -> None:
    witness.add_log(log.vkey)
    await_known(witness, log)
    policy, entry = tmp_path / "policy", tmp_path / "entry"
    policy.write_text(policy_of(log, witness, 4, 6))
    with serve_folder(log.folder) as url:
        for number in (0, 255, 256, 599):
            entry.write_text(ENTRIES[number])
            proof = tmp_path / f"{number}.tlog-proof"
            made = command("bundle", "make", "--policy", policy, "--url", url, "--entry", entry, "-o", proof)
            assert made.code == 0, made.err
            assert command("verify", proof, "--policy", policy, "--entry", entry).code == 0
            # torchwood 0.9 knows no ML-DSA: its policy names the Ed25519 key alone.
            request = {"proof": proof.read_text(), "policy": policy_of(log, witness, 4)}
            answer = check(programs, log, [witness.vkey(4)], entry=ENTRIES[number].encode(), **request)
            assert (answer["index"], answer["size"]) == (number, 600)
            refused = check(programs, log, [witness.vkey(4)], entry=b"other", refusal=True, **request)
            assert "torchwood" in refused["error"]


@pytest.mark.parametrize("extra", [None, b"some context"])
def test_we_verify_what_go_wrote(
    log: TesseraLog, programs: GoPrograms, tmp_path: Path, extra: bytes | None
) -> None:
    entry, other = tmp_path / "entry", tmp_path / "other"
    other.write_text("other")
    for number in (0, 255, 256, 599):
        request: dict[str, Any] = {
            "dir": str(log.folder),
            "index": number,
            "origin": log.origin,
            "log": log.vkey,
        }
        if extra is not None:
            request["extra"] = base64.b64encode(extra).decode()
        answer = programs.run("proofmake", request)
        entry.write_text(ENTRIES[number])
        for name in ("formats", "torchwood"):
            proof = tmp_path / name
            proof.write_text(answer[name])
            assert command("verify", proof, "--log", log.vkey, "--entry", entry).code == 0
            assert command("verify", proof, "--log", log.vkey, "--entry", other).code == 1
        # The same proof as ours, byte for byte.
        with serve_folder(log.folder) as url:
            options = ["--extra", _file(tmp_path / "extra", extra)] if extra is not None else []
            made = command("bundle", "make", "--log", log.vkey, "--url", url, "--index", number, *options)
        assert made.code == 0, made.err
        assert made.out == answer["formats"] == answer["torchwood"]


def test_spicy_verifies_ours_and_we_verify_spicys(
    log: TesseraLog, programs: GoPrograms, tmp_path: Path
) -> None:
    spicy = programs.path(SPICY)
    # Ours to them: a file that was logged, and its proof beside it.
    file, proof = tmp_path / "release", tmp_path / "release.tlog-proof"
    file.write_text(ENTRIES[300])
    with serve_folder(log.folder) as url:
        options = ("--log", log.vkey, "--url", url, "--entry", file, "-o", proof)
        assert command("bundle", "make", *options).code == 0
    beside = tmp_path / "release.spicy"
    assert command("bundle", "convert", proof, "--to", "spicy", "-o", beside).code == 0
    assert _run(spicy, "-verify", log.vkey, file).returncode == 0
    file.write_text("other")
    assert _run(spicy, "-verify", log.vkey, file).returncode != 0

    # Theirs to us.
    assets, key = tmp_path / "assets", tmp_path / "key"
    assets.mkdir()
    said = _run(spicy, "-init", "spicy.example/log", "-assets", assets, "-key", key)
    assert said.returncode == 0, said.stderr
    (vkey,) = [line.split()[-1] for line in said.stderr.splitlines() if "Public key" in line]
    files = []
    for number in range(3):
        signed = tmp_path / f"file{number}"
        signed.write_bytes(b"file %d" % number)
        files.append(signed)
    assert _run(spicy, "-key", key, "-assets", assets, *files).returncode == 0
    for signed in files:
        converted = tmp_path / "converted"
        outcome = command("bundle", "convert", f"{signed}.spicy", "--to", "tlog-proof", "-o", converted)
        assert outcome.code == 0, outcome.err
        assert command("verify", converted, "--log", vkey, "--entry", signed).code == 0
        assert command("verify", converted, "--log", vkey, "--entry", file).code == 1


def test_a_checksum_databases_records(programs: GoPrograms, tmp_path: Path) -> None:
    """x/mod's own server: found by look-up, followed by data tiles."""
    server = Program([str(programs.path("sumdbserver"))], tmp_path / "output")
    try:
        where = json.loads(poll("the database listens", lambda: line(server.said())))

        def look_up(numbers: range) -> list[bytes]:
            # `!m` is a capital M: our own escaping is put to the test where the record is looked for.
            base = f"{where['url']}/lookup/interop.example/!m@v1.0."
            answers = [fetch(f"{base}{number}") for number in numbers]
            assert {answer.status for answer in answers} == {200}
            return [answer.body.partition(b"\n")[2].partition(b"\n\n")[0] + b"\n" for answer in answers]

        records = look_up(range(300))
        keys = ("--log", where["vkey"], "--origin", "go.sum database tree")
        log = (*keys, "--url", where["url"], "--kind", "sumdb")
        for number in (0, 256, 299):
            record, proof = tmp_path / "record", tmp_path / "proof"
            record.write_bytes(records[number])
            assert command("bundle", "make", *log, "--entry", record, "-o", proof).code == 0
            assert command("verify", proof, *keys, "--entry", record).code == 0
            # Without --search the look-up alone tells where it is.
            outcome = command("bundle", "make", *log, "--entry", record, "--search", "0")
            assert outcome.code == 0, outcome.err
        out = tmp_path / "out.jsonl"
        place = tmp_path / "place"
        follow = ("monitor", *log, "--place", place, "--from", "start", "--output", out, "--once")
        assert command(*follow).code == 0
        records += look_up(range(300, 310))
        assert command(*follow).code == 0
        lines = [json.loads(each) for each in out.read_text().splitlines()]
        assert [base64.b64decode(each["entry"]) for each in lines] == records
    finally:
        assert server.stop() == 0


def test_a_tessera_log_is_followed(log: TesseraLog, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with serve_folder(log.folder) as url:
        options = (
            "--log",
            log.vkey,
            "--url",
            url,
            "--place",
            tmp_path / "place",
            "--from",
            "start",
            "--once",
        )
        outcome = command("monitor", *options, "--output", out)
        assert outcome.code == 0, outcome.err
    lines = [json.loads(each) for each in out.read_text().splitlines()]
    assert [each["index"] for each in lines] == list(range(600))
    # Tessera orders what comes in together as it likes.
    assert {base64.b64decode(each["entry"]).decode() for each in lines} == set(ENTRIES)


def test_sigsum_go_verifies_what_make_and_convert_wrote(tmp_path: Path) -> None:
    program = os.environ.get("WITNESS_INTEROP_SIGSUM_VERIFY")
    if not program:
        pytest.skip("WITNESS_INTEROP_SIGSUM_VERIFY names no sigsum-verify (its module is on no public proxy)")
    key = SimulatedKey("sigsum-log")
    key.vkey = sigsum_log_key(key.vkey.public_key)
    key.name = key.vkey.name
    message = hashlib.sha256(b"a release").digest()
    log = SimulatedLog(key.name, keys=[key])
    log._tree = tree = Entries()
    leaf = sigsum_leaf(message, MAKER)
    for content in (b"one", b"two", leaf, b"four", b"five"):
        tree.contents.append(content)
        tree._tree.append(content)
    log.resume()
    cosigner = TestWitness(witness_key("witness.example/w0"))
    public = cosigner.key.vkey.public_key
    policy = _file(tmp_path / "policy", f"log {key.vkey}\nwitness w {cosigner.key.vkey}\nquorum w\n".encode())
    with served(World(log, [cosigner])) as world:
        proof = tmp_path / "proof"
        options = ("--policy", policy, "--url", world.url("tiles"), "--witness-url", world.witness_url(0))
        made = command(
            "bundle",
            "make",
            *options,
            "--index",
            "2",
            "--extra",
            _file(tmp_path / "x", leaf[32:]),
            "-o",
            proof,
        )
        assert made.code == 0, made.err
    sigsum = tmp_path / "sigsum-proof"
    outcome = command("bundle", "convert", proof, "--to", "sigsum-proof", "--policy", policy, "-o", sigsum)
    assert outcome.code == 0, outcome.err
    theirs = _file(
        tmp_path / "theirs",
        f"log {key.vkey.public_key.hex()}\nwitness w {public.hex()}\nquorum w\n".encode(),
    )
    submitter = _file(tmp_path / "submitter", _openssh(MAKER.vkey.public_key))
    for content, code in ((b"a release", 0), (b"another", 1)):
        done = subprocess.run(
            [program, "-k", submitter, "-p", theirs, str(sigsum)],
            input=content,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert bool(done.returncode) is bool(code), done.stderr


def _openssh(public_key: bytes) -> bytes:
    blob = b"".join(len(part).to_bytes(4) + part for part in (b"ssh-ed25519", public_key))
    return b"ssh-ed25519 " + base64.b64encode(blob) + b" test\n"


def _file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
