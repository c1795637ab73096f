"""Sigstore bundles: the published ones, by their trusted roots."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.world import failed, outcome
from witness.bundles import MalformedBundle, Options, verify
from witness.bundles.signing import is_root, load_signing_key
from witness.bundles.strict_json import MalformedJson
from witness.bundles.timestamp import MalformedTimestamp, parse_timestamp
from witness.bundles.trusted_root import parse_trusted_root
from witness.tlog.note import parse_vkey

REASONS = {
    "checkpoint-bad-keyhint_fail": "log signature",
    "checkpoint-wrong-roothash_fail": "inclusion proof",
    "intoto-missing-inclusion-proof_fail": "inclusion",
    "rekor2-checkpoint-missing-root-hash_fail": "checkpoint",
    "rekor2-checkpoint-missing-size_fail": "checkpoint",
    "rekor2-checkpoint-no-matching-signature_fail": "log signature",
    "rekor2-timestamp-payload-mismatch_fail": "RFC 3161 timestamp",
    "set-invalid-signature_fail": "signed entry timestamp",
    "wrong-hashedrekord-artifact_fail": "entry",
    "wrong-hashedrekord-cert-and-sig_fail": "entry",
}
HAPPY = "conformance/happy-path-v0.3/bundle.sigstore.json"
REKOR2 = "conformance/rekor2-dsse-happy-path/bundle.sigstore.json"


@pytest.fixture(scope="module")
def folder(testdata: Path) -> Path:
    return testdata / "proofs/sigstore"


def options_for(folder: Path, file: str) -> Options:
    own = (folder / file).parent / "trusted_root.json"
    shared = "trusted_root.staging.json" if "staging" in file else "trusted_root.prod.json"
    return Options(trusted_root=(own if own.exists() else folder / shared).read_bytes())


def test_published_bundles(folder: Path) -> None:
    seen = 0
    for entry in json.loads((folder / "index.json").read_text()):
        path = folder / entry["file"]
        if not path.exists():
            continue  # held back
        seen += 1
        wrong = outcome(path.read_bytes(), options_for(folder, entry["file"]))
        if entry["expect"] == "pass":
            assert not wrong, entry["file"]
        else:
            assert REASONS.get(path.parent.name, path.parent.name) in wrong, entry["file"]
    assert seen > 15


def test_every_report_says_what_is_not_checked(folder: Path) -> None:
    report = verify((folder / HAPPY).read_bytes(), options_for(folder, HAPPY))
    assert report.verified
    said = " ".join(report.unchecked)
    for word in ("whose certificate", "Certificate Transparency", "artifact was not given", "no witness"):
        assert word in said


def test_without_a_trusted_root_nothing_verifies(folder: Path) -> None:
    data = (folder / HAPPY).read_bytes()
    assert {"log signature", "signed entry timestamp"} <= outcome(data, Options())
    staging = (folder / "trusted_root.staging.json").read_bytes()
    assert "log signature" in outcome(data, Options(trusted_root=staging))
    assert "trusted root" in outcome(data, Options(trusted_root=b"{}"))


def test_witnesses_of_rekor_v2(folder: Path) -> None:
    """The cosignatures in the bundle verify by the witnesses' own keys."""
    data = (folder / REKOR2).read_bytes()
    mullvad = parse_vkey("witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv")
    other = parse_vkey("rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG")
    options = options_for(folder, REKOR2)
    assert not outcome(data, replace(options, witnesses=(mullvad,)))
    assert outcome(data, replace(options, witnesses=(mullvad, other))) == {"witness rgdd.se/poc-witness"}


def change(members: dict[str, Any], path: str, value: Any) -> bytes:
    members = copy.deepcopy(members)
    at: Any = members
    *parents, last = path.split("/")
    for step in parents:
        at = at[int(step)] if step.isdigit() else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(members).encode()


ENTRY = "verificationMaterial/tlogEntries/0/"


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        ("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.9", "malformed"),
        ("mediaType", None, "malformed"),
        (ENTRY + "logIndex", "-1", "malformed"),
        (ENTRY + "logIndex", "1", "signed entry timestamp"),
        (ENTRY + "integratedTime", "1", "signed entry timestamp"),
        (ENTRY + "kindVersion/version", "0.0.2", "entry"),
        (ENTRY + "inclusionProof/treeSize", "1", "inclusion proof"),
        (ENTRY + "inclusionProof/logIndex", "5", "inclusion"),
        (ENTRY + "inclusionProof/hashes", [], "inclusion"),
        (ENTRY + "inclusionProof/checkpoint", None, "inclusion"),
        (ENTRY + "inclusionProof", None, "inclusion"),
        (ENTRY + "inclusionPromise", None, "signing time"),
        (ENTRY + "canonicalizedBody", "e30=", "inclusion"),
        ("verificationMaterial/tlogEntries", [], "inclusion"),
        ("verificationMaterial/certificate", None, "malformed"),
        ("messageSignature/signature", "AAAA", "entry"),
        ("messageSignature/messageDigest/digest", "AAAA", "entry"),
        ("messageSignature/messageDigest/algorithm", "MD5", "malformed"),
        ("messageSignature", None, "malformed"),
        ("dsseEnvelope", {}, "malformed"),
    ],
)
def test_each_fault_has_its_own_name(folder: Path, path: str, value: Any, wrong: str) -> None:
    members = json.loads((folder / HAPPY).read_bytes())
    assert wrong in outcome(change(members, path, value), options_for(folder, HAPPY))


def test_envelopes(folder: Path) -> None:
    members = json.loads((folder / REKOR2).read_bytes())
    options = options_for(folder, REKOR2)
    for path, value, wrong in (
        ("dsseEnvelope/payload", "e30=", "entry"),
        ("dsseEnvelope/payloadType", "text/plain", "entry"),
        ("dsseEnvelope/signatures", [], "malformed"),
        ("dsseEnvelope/signatures", members["dsseEnvelope"]["signatures"] * 2, "malformed"),
        ("verificationMaterial/timestampVerificationData", None, "signing time"),
    ):
        assert wrong in outcome(change(members, path, value), options), path


def test_artifacts(folder: Path) -> None:
    data, options = (folder / HAPPY).read_bytes(), options_for(folder, HAPPY)
    assert outcome(data, replace(options, artifacts={"a.txt": b"other"})) == {"artifact"}
    assert outcome(data, replace(options, artifacts={"a": b"1", "b": b"2"})) == {"artifact a", "artifact b"}
    envelope = (folder / REKOR2).read_bytes()
    assert outcome(envelope, replace(options_for(folder, REKOR2), artifacts={"artifact": b"x"})) == {
        "artifact"
    }


def test_protobufs_json_has_two_alphabets(folder: Path) -> None:
    members = json.loads((folder / HAPPY).read_bytes())
    key = members["verificationMaterial"]["certificate"]["rawBytes"]
    url_safe = key.translate(str.maketrans("+/", "-_")).rstrip("=")
    assert url_safe != key
    data = change(members, "verificationMaterial/certificate/rawBytes", url_safe)
    assert not outcome(data, options_for(folder, HAPPY))


def test_a_key_outside_of_its_validity(folder: Path) -> None:
    root = json.loads((folder / "trusted_root.prod.json").read_bytes())
    data = (folder / HAPPY).read_bytes()
    when = json.loads(data)["verificationMaterial"]["tlogEntries"][0]["integratedTime"]
    assert when == "1710869186"  # 2024-03-19T17:26:26Z
    for end, wrong in (("2024-03-19T17:26:26Z", set()), ("2024-03-19T17:26:25Z", {"log key validity"})):
        root["tlogs"][0]["publicKey"]["validFor"]["end"] = end
        assert failed(verify(data, Options(trusted_root=json.dumps(root).encode()))) == wrong
    del root["tlogs"][0]["publicKey"]["validFor"]["start"]
    with pytest.raises(MalformedJson):
        parse_trusted_root(json.dumps(root).encode())


def test_timestamps_cut_short(folder: Path) -> None:
    stamps = json.loads((folder / REKOR2).read_bytes())["verificationMaterial"]["timestampVerificationData"]
    data = base64.b64decode(stamps["rfc3161Timestamps"][0]["signedTimestamp"])
    assert parse_timestamp(data).when > 1_700_000_000
    for length in range(200):
        with pytest.raises(MalformedTimestamp):
            parse_timestamp(data[:length])


def test_malformed_json() -> None:
    for data in (
        b'{"verificationMaterial":',
        b'{"verificationMaterial":1,"verificationMaterial":1}',
        b"{" * 100_000,
    ):
        with pytest.raises(MalformedBundle):
            verify(data, Options())


@pytest.mark.filterwarnings("ignore")
def test_every_bit_of_a_certificate(folder: Path) -> None:
    """The library that reads certificates has errors of many kinds; none may come out."""
    members = json.loads((folder / HAPPY).read_bytes())
    der = base64.b64decode(members["verificationMaterial"]["certificate"]["rawBytes"])
    assert load_signing_key(der) is not None
    assert not is_root(der)
    for bit in range(8 * len(der)):
        flipped = bytearray(der)
        flipped[bit // 8] ^= 1 << bit % 8
        load_signing_key(bytes(flipped))
        is_root(bytes(flipped))
    for length in range(len(der)):
        assert load_signing_key(der[:length]) is None
