"""Sigsum proofs of both versions, and the rule for cosignatures that do not verify."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import MAKER, W1, W3, Log, outcome, sigsum_leaf, sigsum_proof
from tests.simulated_log import SimulatedKey
from witness.bundles import MalformedBundle, Options, parse_log_key, parse_manifest_key, trust_in, verify
from witness.bundles.options import RawKey
from witness.tlog.merkle import leaf_hash
from witness.tlog.policy import Dialect, parse_policy, sigsum_log_key

LOG = SimulatedKey("sigsum-log")
KEY = sigsum_log_key(LOG.vkey.public_key)
MESSAGE = hashlib.sha256(b"a release").digest()
POLICY = parse_policy(
    f"log {LOG.vkey.public_key.hex()}\nwitness one {W1.vkey.public_key.hex()}\n"
    f"witness three {W3.vkey.public_key.hex()}\ngroup g any one three\nquorum g\n".encode(),
    Dialect.SIGSUM,
)
OPTIONS = Options(policy=POLICY, manifest_keys=(RawKey(MAKER.vkey.public_key),), entry=b"a release")


def log(size: int = 5, at: int = 2) -> Log:
    leaves = [b"%d" % index for index in range(size)]
    leaves[at] = sigsum_leaf(MESSAGE, MAKER)
    return Log(leaves, LOG, KEY.name)


def proof(size: int = 5, at: int = 2, version: int = 2) -> bytes:
    return sigsum_proof(log(size, at), at, MESSAGE, MAKER, version)


@pytest.mark.parametrize(("size", "at"), [(1, 0), (2, 1), (5, 2), (5, 4), (8, 0)])
@pytest.mark.parametrize("version", [1, 2])
def test_good(size: int, at: int, version: int) -> None:
    assert not outcome(proof(size, at, version), OPTIONS)


def test_what_was_logged_can_be_given_in_three_ways() -> None:
    assert not outcome(proof(), replace(OPTIONS, entry=MESSAGE))  # Sigsum's own tools: --raw-hash
    assert not outcome(proof(), replace(OPTIONS, entry=None, artifacts={"message": MESSAGE}))
    assert outcome(proof(), replace(OPTIONS, artifacts={"message": bytes(32)})) >= {"entry", "leaf signature"}
    assert outcome(proof(), replace(OPTIONS, entry=b"other")) == {"leaf signature", "inclusion"}
    assert outcome(proof(), replace(OPTIONS, entry=None)) == {"leaf signature", "inclusion"}
    leaf = leaf_hash(sigsum_leaf(MESSAGE, MAKER))
    assert not outcome(proof(), replace(OPTIONS, leaf_hash=leaf))
    assert outcome(proof(), replace(OPTIONS, leaf_hash=bytes(32))) == {"entry"}


def test_keys() -> None:
    assert outcome(proof(), replace(OPTIONS, manifest_keys=())) == {"leaf signature"}
    other = RawKey(W1.vkey.public_key)
    assert outcome(proof(), replace(OPTIONS, manifest_keys=(other,))) == {"leaf signature"}
    assert not outcome(proof(), replace(OPTIONS, manifest_keys=(other, MAKER.vkey)))
    assert outcome(proof(), replace(OPTIONS, policy=None)) == {"log signature"}
    assert not outcome(proof(), replace(OPTIONS, policy=None, logs=(KEY,)))
    ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMCMTGNMNe1HP2us/dR5dBpyrSPDgPQ9mX5j9iqbLIS+ comment"
    key = parse_manifest_key(ssh)
    assert isinstance(key, RawKey)
    assert parse_log_key(key.public_key.hex()) == parse_log_key(ssh) == sigsum_log_key(key.public_key)


def test_witnesses() -> None:
    good = proof().decode()
    line = next(line for line in good.splitlines() if line.startswith("cosignature="))
    _, stamp, signature = line.split(" ")
    assert outcome(good.replace(line + "\n", "").encode(), OPTIONS) == {"witnesses"}
    assert outcome(good.replace(stamp, str(int(stamp) + 1)).encode(), OPTIONS) == {"witnesses"}
    # One that does not verify is not counted, and does not spoil the others (sigsum-go's rule).
    three = hashlib.sha256(W3.vkey.public_key).hexdigest()
    wrong = f"cosignature={three} {stamp} {signature}"
    assert not outcome(good.replace(line, f"{line}\n{wrong}").encode(), OPTIONS)
    assert outcome(good.replace(line, f"{line}\n{line}").encode(), OPTIONS) == {"malformed"}
    aged = replace(OPTIONS, max_age=10, now=int(stamp) + 11)
    assert outcome(proof(), aged) == {"witnesses"}


def test_tree_head_and_path() -> None:
    good = proof().decode()
    assert outcome(good.replace("leaf_index=2", "leaf_index=3").encode(), OPTIONS) == {"inclusion"}
    root = log().checkpoint().root.hex()
    assert outcome(good.replace(root, "00" * 32).encode(), OPTIONS) == {
        "log signature",
        "witnesses",
        "inclusion",
    }
    assert outcome(proof(version=1).replace(b"leaf=", b"leaf=0", 1), OPTIONS) == {"malformed"}


def test_the_short_checksum_of_version_1_counts() -> None:
    good = proof(version=1).decode()
    short = hashlib.sha256(MESSAGE).digest()[:2].hex()
    other = "0000" if short != "0000" else "0001"
    assert outcome(good.replace(f"leaf={short}", f"leaf={other}").encode(), OPTIONS) == {"leaf signature"}


def test_consistency_with_an_earlier_proof() -> None:
    assert not outcome(proof(), replace(OPTIONS, previous=trust_in(proof())))
    assert outcome(proof(4), replace(OPTIONS, previous=trust_in(proof(5)))) == {"consistency"}
    assert not outcome(proof(6), replace(OPTIONS, previous=trust_in(proof(5))))  # by the witness's word
    learned = verify(proof(), OPTIONS).learned
    assert learned == trust_in(proof())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version=2", "version=3"),
        ("version=2", "version=02"),
        ("size=5", "size=0"),
        ("size=5", "size=05"),
        ("size=5", "size=9223372036854775808"),
        ("\n\nsize", "\nsize"),
        ("\n\nleaf_index", "\nleaf_index"),
        ("node_hash=", "node_hash= "),
        ("leaf_index=2\n", ""),
        ("size=5", "size=1"),
    ],
)
def test_malformed(old: str, new: str) -> None:
    with pytest.raises(MalformedBundle) as caught:
        verify(proof().decode().replace(old, new, 1).encode(), OPTIONS)
    assert caught.value.format == "sigsum-proof"


def test_published_proofs(testdata: Path) -> None:
    folder = testdata / "proofs/sigsum"
    seen = 0
    for entry in json.loads((folder / "index.json").read_text()):
        path = folder / entry["file"]
        if not path.exists():
            continue  # held back
        seen += 1
        data = path.read_bytes()
        if "message_hex" not in entry:  # an example of the form: its keys were not published
            assert outcome(data, Options()) == {"log signature", "leaf signature", "inclusion"}
            continue
        options = Options(
            logs=(parse_log_key(entry["log_key"]),),
            manifest_keys=(parse_manifest_key(entry["submit_key"]),),
            entry=bytes.fromhex(entry["message_hex"]),
        )
        assert not outcome(data, options)
    assert seen
