"""ML-DSA-44 inside a PKCS #11 token: a real one in software, where `make mldsa-token` has built it.

It takes ten minutes to build and is in no distribution, so that continuous integration goes without; there,
the numbers that go to a token are held to the standard's (PKCS #11 3.2).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pkcs11")

from pkcs11 import Attribute, KeyType, Mechanism

from tests.cli.daemon import call, daemon, eventually
from tests.conftest import ROOT
from tests.core.keystore.rigs import NAME, need
from tests.simulated_log import SimulatedLog
from tests.transcripts import check_cosignatures
from witness.core.keystore import keyring, pkcs11
from witness.core.keystore.base import Algorithm
from witness.core.layout import StateLayout
from witness.tlog.note import parse_vkey

LIBRARY = Path(os.environ.get("MLDSA_TOKEN", ROOT / ".mldsa-token" / "libkryoptic_pkcs11.so"))
PIN = "1234"


def test_the_numbers_are_the_standards() -> None:
    """pkcs11t.h of PKCS #11 3.2."""
    assert int(KeyType.ML_DSA) == 0x4A
    assert int(Mechanism.ML_DSA_KEY_PAIR_GEN) == 0x1C
    assert int(Mechanism.ML_DSA) == 0x1D
    assert int(Attribute.PARAMETER_SET) == 0x61D
    assert pkcs11._CKP_ML_DSA_44 == 1
    assert pkcs11._MECHANISMS[Algorithm.MLDSA44] == Mechanism.ML_DSA, "not a pre-hashed one"
    assert pkcs11._GENERATORS[Algorithm.MLDSA44] == Mechanism.ML_DSA_KEY_PAIR_GEN


@pytest.fixture
def token(tmp_path: Path) -> Iterator[list[str]]:
    """The options of a token of its own."""
    if not LIBRARY.exists():
        pytest.skip(f"no token here has ML-DSA: make mldsa-token builds one ({LIBRARY})")
    need("softhsm2-util", library="pkcs11")
    conf = tmp_path / "token.conf"
    conf.write_text(f'[[slots]]\nslot = 1\ndbtype = "sqlite"\ndbargs = "{tmp_path / "token.sql"}"\n')
    subprocess.run(
        [
            "softhsm2-util", "--module", LIBRARY, "--init-token", "--slot", "1", "--label", "witness",
            "--so-pin", "12345678", "--pin", PIN,
        ],
        env={**os.environ, "KRYOPTIC_CONF": str(conf)}, check=True, capture_output=True,
    )  # fmt: skip
    options = {"module": LIBRARY, "token": "witness", "environment": f"KRYOPTIC_CONF={conf}"}
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


@pytest.mark.slow
def test_both_keys_are_made_in_the_token_and_cosign_from_there(token: list[str], tmp_path: Path) -> None:
    state, log = tmp_path / "state", SimulatedLog("log.example/mldsa", size=4)
    secret = {"WITNESS_PASSPHRASE": PIN}
    made = call("--state", state, "init", "--name", NAME, "--backend", "pkcs11", *token, **secret)
    assert made.returncode == 0, made.stderr
    vkeys = tuple(parse_vkey(line) for line in made.stdout.splitlines())
    assert {len(vkey.public_key) for vkey in vkeys} == {32, 1312}
    assert {key.how for key in keyring.read(StateLayout(state)).witness_keys} == {"sign"}
    again = call(
        "--state", tmp_path / "again", "init", "--name", NAME, "--backend", "pkcs11", *token, **secret
    )
    assert again.returncode == 3
    assert "has a key" in again.stderr
    assert call("--state", state, "logs", "add", str(log.vkeys[0])).returncode == 0
    for old in (0, log.size):
        with daemon(state, **secret) as running:
            eventually("it is ready", running.ready)
            body = log.add_checkpoint(old)
            status, lines = running.request("POST", "/add-checkpoint", body)
            assert status == 200, lines
            check_cosignatures("add-checkpoint", body, lines, vkeys)
            # The key that signs subtrees is in the token, too.
            note = body.split(b"\n\n", 1)[1] + lines
            status, subtree = running.request("POST", "/sign-subtree", log.sign_subtree(0, 4, note))
            assert status == 200, subtree
            check_cosignatures("sign-subtree", body, subtree, vkeys)
            assert running.stop() == 0
    with daemon(state, WITNESS_PASSPHRASE="4321") as running:
        status, why = running.request("POST", "/add-checkpoint", log.add_checkpoint(log.size))
        assert status == 503
        assert b"does not take the PIN" in why
