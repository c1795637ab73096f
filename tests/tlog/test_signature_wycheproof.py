"""The verifiers against Project Wycheproof, and against CCTV's Ed25519 edge cases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from witness.tlog.note import MalformedVKey, SignatureType, make_vkey
from witness.tlog.signature import _verify_mldsa44, verify_signature

if TYPE_CHECKING:
    from pathlib import Path


def load(testdata: Path, name: str) -> Any:
    return json.loads((testdata / "wycheproof" / name).read_text("utf-8"))


def test_ed25519(testdata: Path) -> None:
    vectors = load(testdata, "ed25519_test.json")
    count = 0
    for group in vectors["testGroups"]:
        key = make_vkey("log", SignatureType.ED25519, bytes.fromhex(group["publicKey"]["pk"]))
        for test in group["tests"]:
            count += 1
            good = verify_signature(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            assert good is (test["result"] == "valid"), test["tcId"]
    assert count == vectors["numberOfTests"] == 151


def test_ecdsa_p256(testdata: Path) -> None:
    vectors = load(testdata, "ecdsa_secp256r1_sha256_test.json")
    count = 0
    for group in vectors["testGroups"]:
        key = make_vkey("log", SignatureType.ECDSA, bytes.fromhex(group["publicKeyDer"]))
        for test in group["tests"]:
            count += 1
            good = verify_signature(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            assert good is (test["result"] == "valid"), test["tcId"]
    assert count == vectors["numberOfTests"] == 484


def test_mldsa44(testdata: Path) -> None:
    vectors = load(testdata, "mldsa_44_verify_test.json")
    count = with_context = 0
    for group in vectors["testGroups"]:
        public = bytes.fromhex(group["publicKey"])
        for test in group["tests"]:
            count += 1
            if len(public) != 1312:
                assert test["result"] == "invalid"
                with pytest.raises(MalformedVKey):
                    make_vkey("w", SignatureType.COSIGNATURE_MLDSA44, public)
                continue
            good = _verify_mldsa44(public, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            # tlog-cosignature names no context: a signature that is valid under one is none here.
            if test.get("ctx") and test["result"] == "valid":
                with_context += 1
                assert not good
            else:
                assert good is (test["result"] == "valid"), test["tcId"]
    assert count == vectors["numberOfTests"] == 180
    assert with_context == 2


def test_mldsa44_deterministic_signatures_verify(testdata: Path) -> None:
    vectors = load(testdata, "mldsa_44_sign_seed_test.json")
    verified = 0
    for group in vectors["testGroups"]:
        if not group.get("publicKey"):
            continue
        seed, public = bytes.fromhex(group["privateSeed"]), bytes.fromhex(group["publicKey"])
        assert MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw() == public
        for test in group["tests"]:
            # Tests without a message give its digest mu, which no verifier of notes is handed.
            if test["result"] == "valid" and "msg" in test and not test.get("ctx"):
                verified += 1
                assert _verify_mldsa44(public, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    assert verified > 20


def test_cctv_ed25519_edge_cases(testdata: Path) -> None:
    """RFC 8032 leaves open which of these signatures with odd points verify; libsodium answers so.

    It accepts where R and A are canonical and not of low order themselves (they may have a component of
    low order beside the one of prime order) and the equation holds without the cofactor. OpenSSL also
    accepts points of low order: 165 signatures more. Refusing them costs no log anything, because no
    honest key or signature holds such a point.
    """
    vectors = load(testdata, "cctv-ed25519vectors.json")
    accepted = 0
    for vector in vectors:
        key = make_vkey("log", SignatureType.ED25519, bytes.fromhex(vector["key"]))
        good = verify_signature(key, vector["msg"].encode(), bytes.fromhex(vector["sig"]))
        harmless = {"low_order_component_A", "low_order_component_R"}
        assert good is (set(vector["flags"] or []) <= harmless), vector["number"]
        accepted += good
    assert (len(vectors), accepted) == (914, 43)
