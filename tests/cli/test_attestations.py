"""Attestations through the command line: made with the witness, made anew, handed out, verified offline."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import daemon, eventually
from tests.cli.test_keys import init
from tests.core.keystore.rigs import Rig, in_use
from witness.core.keystore import keyring, softkey
from witness.core.keystore.attestation import serial_of
from witness.core.keystore.keyring import ATTESTATION
from witness.core.layout import StateLayout

BOTH = ("--algorithm", "ed25519", "--algorithm", "ml-dsa-44")
PASSPHRASE = {"WITNESS_PASSPHRASE": "correct horse"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="att") as path:
        yield Path(path)


def notes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def verified(file: Path, *more: str) -> int:
    key = file.with_name(file.name.partition(".")[0] + ".pub")
    return witness("verify", file, "--manifest-key", f"@{key}", *more).code


@pytest.mark.parametrize("environ", [{}, PASSPHRASE])
def test_they_are_made_with_the_witness_and_verify_offline(tmp_path: Path, environ: dict[str, str]) -> None:
    layout = StateLayout(make(tmp_path / "s", *BOTH, env=environ))
    ring = keyring.read(layout)
    serial = serial_of(ring.identity)
    made = notes(layout.attestations)
    assert set(made) == {f"{serial}.pub", f"{serial}.witness.0.ed25519", f"{serial}.witness.0.ml-dsa-44"}
    for vkey, algorithm in zip(ring.vkeys, ("ed25519", "ml-dsa-44"), strict=True):
        file = layout.attestations / f"{serial}.witness.0.{algorithm}"
        assert verified(file, "--witness", str(vkey)) == 0
        others = [str(each) for each in ring.vkeys if each != vkey]
        assert verified(file, "--witness", others[0]) == 1
        later = file.rename(file.with_name(f"{serial}.witness.1.{algorithm}"))
        assert verified(later) == 1, "its name says another generation"
        later.rename(file)
    told = witness("keys", "show", "attestation", "--json", state=layout.root).json
    assert [each["vkey"] for each in told] == [made[f"{serial}.pub"].decode().strip()]


def test_they_are_made_anew_the_same_and_handed_out(tmp_path: Path) -> None:
    state = make(tmp_path / "s", *BOTH, env=PASSPHRASE)
    layout = StateLayout(state)
    made = notes(layout.attestations)
    for path in layout.attestations.iterdir():
        path.unlink()
    outcome = witness("keys", "attest", "--out", tmp_path / "out", state=state, env=PASSPHRASE)
    assert (outcome.code, outcome.err) == (0, "")
    assert notes(layout.attestations) == notes(tmp_path / "out") == made
    assert sorted(outcome.out.splitlines()) == sorted(
        str(tmp_path / "out" / name) for name in made if not name.endswith(".pub")
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o644}
    facts = witness("keys", "attest", "--json", state=state, env=PASSPHRASE).json
    assert [(each["generation"], Path(each["file"]).read_text() == each["note"]) for each in facts] == [
        (0, True), (0, True)
    ]  # fmt: skip
    locked = witness("keys", "attest", state=state)
    assert locked.code == 3
    assert "passphrase" in locked.error()


def test_a_development_witness_is_marked(tmp_path: Path) -> None:
    layout = StateLayout(make(tmp_path / "s", "--dev"))
    (pub,) = layout.attestations.glob("*.pub")
    assert pub.read_text().startswith("DEV:AW-ID-Attestation-")
    for file in layout.attestations.glob("*.witness.*"):
        assert verified(file) == 0
        assert b"\nDEV:" + NAME.encode() in file.read_bytes()


def old(state: Path) -> StateLayout:
    """A state as it was made before there were attestations."""
    layout = StateLayout(state)
    file = softkey.KeyFile(layout.softkey)
    seeds, public = file.secrets("correct horse").seeds, file.public
    layout.softkey.unlink()
    softkey._replace(layout.softkey, public.name, public.identity, seeds, None, "correct horse")
    for path in layout.attestations.iterdir():
        path.unlink()
    layout.attestations.rmdir()
    assert keyring.read(layout).vkeys == public.vkeys
    return layout


def test_a_witness_from_before_gets_its_key(folder: Path) -> None:
    layout = old(make(folder / "s", *BOTH, env=PASSPHRASE))
    vkeys = keyring.read(layout).vkeys
    with daemon(layout.root, **PASSPHRASE):
        refused = witness("keys", "attest", state=layout.root, env=PASSPHRASE)
        assert refused.code == 3
        assert "running" in refused.error()
    outcome = witness("keys", "attest", state=layout.root, env=PASSPHRASE)
    assert outcome.code == 0, outcome.err
    assert [verified(Path(line)) for line in outcome.out.splitlines()] == [0, 0]
    ring = keyring.read(layout)
    assert ring.vkeys == vkeys
    assert [key.purpose for key in ring.keys].count(ATTESTATION) == 1
    with daemon(layout.root, **PASSPHRASE) as running:
        assert running.ready()
        again = witness("keys", "attest", state=layout.root, env=PASSPHRASE)
        assert again.out == outcome.out, "beside a running witness, too"


@pytest.fixture
def tpm(folder: Path) -> Iterator[Rig]:
    yield from in_use("tpm2", folder)


def test_the_records_head_is_attested_by_the_tpm_and_verifies_offline(tpm: Rig, folder: Path) -> None:
    state = folder / "s"
    assert init(state, tpm).returncode == 0
    (pub,) = StateLayout(state).attestations.glob("*.pub")
    kept = folder / "head"
    with daemon(state) as running:

        def attested() -> str:
            status = witness("status", "--json", state=state).json
            return (status["core"] or {}).get("attested_head", "")

        kept.write_text(eventually("the head is attested", attested))
        assert f"by AW-ID-Attestation-{pub.name.removesuffix('.pub')}" in witness("status", state=state).out
        assert running.stop() == 0
    assert witness("verify", kept, "--manifest-key", f"@{pub}").code == 0
    later = witness("audit", "head", state=state)
    assert later.out != kept.read_text(), "the stop is attested too"
    (folder / "later").write_text(later.out)
    both = witness("verify", folder / "later", "--manifest-key", f"@{pub}", "--previous", kept)
    assert both.code == 0, both.out
    back = witness("verify", kept, "--manifest-key", f"@{pub}", "--previous", folder / "later")
    assert back.code == 1
    # The MACs cannot be checked without the TPM; the head needs only its vkey.
    checked = witness("audit", "verify", "--head", kept, "--head", folder / "later", state=state)
    assert checked.code == 0, checked.err
    kept.write_text(kept.read_text().replace("witness.example/custody", "witness.example/cuckoo"))
    assert witness("verify", kept, "--manifest-key", f"@{pub}").code == 1
    assert witness("audit", "verify", "--head", kept, state=state).code == 1


@pytest.fixture
def token(folder: Path) -> Iterator[Rig]:
    yield from in_use("pkcs11", folder)


@pytest.fixture
def agent(folder: Path) -> Iterator[Rig]:
    yield from in_use("ssh-agent", folder)


def test_a_tpm_attests_from_init_on(tpm: Rig, folder: Path) -> None:
    done = init(folder / "s", tpm)
    assert done.returncode == 0, done.stderr
    layout = StateLayout(folder / "s")
    made = notes(layout.attestations)
    ring = keyring.read(layout)
    serial = serial_of(ring.devices[0].unique_id)
    counter = ring.witness_keys[0].generation
    assert counter > 0
    assert set(made) == {
        f"{serial}.pub", f"{serial}.witness.{counter}.ed25519", f"{serial}.witness.{counter}.ml-dsa-44"
    }  # fmt: skip
    outcome = witness("keys", "attest", state=layout.root)
    assert outcome.code == 0, outcome.err
    assert notes(layout.attestations) == made
    assert [verified(Path(line)) for line in outcome.out.splitlines()] == [0, 0]


def test_a_device_that_only_signs_attests_nothing_and_that_is_said(agent: Rig, folder: Path) -> None:
    assert init(folder / "both", agent).returncode == 0  # ML-DSA-44 in the key file
    outcome = witness("keys", "attest", state=folder / "both")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: witness.example/custody+")
    (line,) = outcome.out.splitlines()
    assert line.endswith(".ml-dsa-44")
    assert verified(Path(line)) == 0


def test_a_token_that_signs_can_derive_an_attestation_key_beside(token: Rig, folder: Path) -> None:
    state, pin = folder / "s", {"WITNESS_PASSPHRASE": token.right}
    done = init(state, token, "-o", "attestation=hmac", **pin)
    assert done.returncode == 0, done.stderr
    outcome = witness("keys", "attest", state=state, env=pin)
    assert (outcome.code, outcome.err) == (0, "")
    of_token, of_file = map(Path, outcome.out.splitlines())
    assert [verified(of_token), verified(of_file)] == [0, 0]
    ring = keyring.read(StateLayout(state))
    unique_id = ring.device("pkcs11").unique_id
    assert of_token.name == f"{serial_of(unique_id)}.witness.0.ed25519"
    assert of_file.name == f"{serial_of(ring.identity)}.witness.0.ml-dsa-44"
    with daemon(state, **pin) as running:
        by = f"by AW-ID-Attestation-{serial_of(unique_id)}"
        eventually("the token attests the head", lambda: by in witness("status", state=state).out)
        assert running.ready()
    again = init(folder / "another", token, "-o", "attestation=hmac", "-o", "label=another", **pin)
    assert again.returncode == 0, again.stderr
    refused = init(folder / "third", token, "-o", "derive=hmac", "-o", "attestation=hmac", **pin)
    assert refused.returncode == 2


def test_a_witness_without_any_attestation_key(agent: Rig, folder: Path) -> None:
    done = init(folder / "s", agent, "--algorithm", "ed25519")
    assert done.returncode == 0, done.stderr
    outcome = witness("keys", "attest", state=folder / "s")
    assert outcome.code == 1
    assert "no key of this witness can be attested" in outcome.error()
