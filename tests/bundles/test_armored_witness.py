"""Armored Witness firmware bundles, configurations and manifests."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.world import LOG, MAKER, POLICY, Log, b64, firmware_bundle, manifest, outcome
from tests.simulated_log import SimulatedKey
from witness.bundles import Learned, MalformedBundle, Options, trust_in, verify
from witness.bundles.formats import read
from witness.bundles.gob import MalformedGob, parse_gob
from witness.tlog.note import parse_vkey

OPTIONS = Options(policy=POLICY, manifest_keys=(MAKER.vkey,))
OS1, OS2 = SimulatedKey("x.dev-aw-os1-ci"), SimulatedKey("x.dev-aw-os2-ci")
APPLET = SimulatedKey("x.dev-aw-applet-prod")


def bundle(leaf: bytes, **others: Any) -> bytes:
    log = Log([b"0", b"1", leaf, b"3"])
    return firmware_bundle(log, 2, **others)


def test_good_bundle() -> None:
    report = verify(bundle(manifest()), OPTIONS)
    assert report.verified
    assert report.learned.versions == {"TRUSTED_APPLET": "1.2.3"}
    assert report.format == "armored-witness-bundle"


@pytest.mark.parametrize(
    ("leaf", "others", "wrong"),
    [
        (manifest(b"other"), {}, "firmware digest"),
        (manifest(), {"firmware": None}, "firmware digest"),
        (manifest(schema=2), {}, "manifest"),
        (manifest(schema=True), {}, "manifest"),
        (manifest(component="KITCHEN"), {}, "manifest"),
        (manifest(version="1.2"), {}, "manifest"),
        (manifest(keys=(LOG,)), {}, "manifest signature"),
        (manifest(), {"Index": 1}, "inclusion"),
        (manifest(), {"InclusionProof": None}, "inclusion"),
        (manifest(), {"HABSignature": b64(b"hab")}, "HAB signature"),
        (manifest(hab=b"hab"), {"HABSignature": b64(b"other")}, "HAB signature"),
        (manifest(), {"Manifest": b64(b"no note")}, "manifest signature"),
    ],
)
def test_each_fault_has_its_own_name(leaf: bytes, others: dict[str, Any], wrong: str) -> None:
    assert wrong in outcome(bundle(leaf, **others), OPTIONS)


def test_hab_signature() -> None:
    leaf = manifest(hab=b"hab", component="BOOTLOADER")
    assert not outcome(bundle(leaf, HABSignature=b64(b"hab")), OPTIONS)
    assert not outcome(bundle(leaf), replace(OPTIONS, artifacts={"hab": b"hab"}))
    assert outcome(bundle(leaf), replace(OPTIONS, artifacts={"hab": b"x"})) == {"HAB signature"}


def test_component_is_what_its_signers_release() -> None:
    """Upstream's verifier takes an applet that an operating system's key signed for either."""
    applet = manifest(keys=(APPLET,))
    options = replace(OPTIONS, manifest_keys=(APPLET.vkey,))
    assert not outcome(bundle(applet), options)
    other = manifest(component="RECOVERY", keys=(APPLET,))
    assert outcome(bundle(other), options) == {"component"}
    # The reader can also name the component, as the artifact.
    named = replace(OPTIONS, artifacts={"TRUSTED_APPLET": b"firmware"})
    assert not outcome(bundle(manifest()), named)
    assert "component" in outcome(bundle(manifest(component="RECOVERY")), named)


def test_an_operating_system_has_two_signers() -> None:
    both = manifest(component="TRUSTED_OS", keys=(OS1, OS2))
    assert not outcome(bundle(both), replace(OPTIONS, manifest_keys=(OS1.vkey, OS2.vkey)))
    assert outcome(bundle(both), replace(OPTIONS, manifest_keys=(OS1.vkey,))) == {"manifest signature"}
    one = manifest(component="TRUSTED_OS", keys=(OS1,))
    assert outcome(bundle(one), replace(OPTIONS, manifest_keys=(OS1.vkey, OS2.vkey))) == {
        "manifest signature"
    }
    # One key given twice is one signer.
    twice = replace(OPTIONS, manifest_keys=(OS1.vkey, OS1.vkey))
    assert outcome(bundle(one), twice) == {"manifest signature"}


@pytest.mark.parametrize(
    ("last", "version", "ok"),
    [
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "1.2.4", True),
        ("1.2.4", "1.2.3", False),
        ("1.9.0", "1.10.0", True),
        ("1.2.3", "1.2.3-rc.1", False),
        ("1.2.3-rc.1", "1.2.3", True),
        ("1.2.3-rc.2", "1.2.3-rc.10", True),
        ("1.2.3-alpha", "1.2.3-1", False),
        ("1.2.3-a", "1.2.3-a.1", True),
        ("0.3.1709910063-incompatible", "0.3.1709910062-incompatible", False),
        ("1.2.3+build9", "1.2.3+build1", True),
    ],
)
def test_version_is_not_below_the_last(last: str, version: str, ok: bool) -> None:  # noqa: FBT001
    options = replace(OPTIONS, previous=Learned((), {"TRUSTED_APPLET": last}))
    assert outcome(bundle(manifest(version=version)), options) == (set() if ok else {"version"})


def test_the_last_version_comes_from_the_last_bundle() -> None:
    older, newer = bundle(manifest(version="1.0.0")), bundle(manifest(version="2.0.0"))
    # Both are at index 2 of forked logs of one size: the fork is found as well.
    assert outcome(older, replace(OPTIONS, previous=trust_in(newer))) == {"consistency", "version"}


def test_witnesses_are_judged() -> None:
    log = Log([manifest()])
    data = firmware_bundle(log, 0, Checkpoint=b64(log.note()))
    assert outcome(data, OPTIONS) == {"witnesses"}


def test_members() -> None:
    good = json.loads(bundle(manifest()))
    for change in (
        {"index": 2},
        {"LogIndex": 2},
        {"Index": -1},
        {"Index": 2**64},
        {"Index": "2"},
        {"Checkpoint": ""},
    ):
        with pytest.raises(MalformedBundle):
            verify(json.dumps(good | change).encode(), OPTIONS)


def configuration(leaf: bytes, size: int = 8) -> dict[str, Any]:
    inner = json.loads(bundle(leaf))
    return {
        "Offset": 1024,
        "Size": size,
        "Signatures": None,
        "Bundle": {
            "Checkpoint": inner["Checkpoint"],
            "Manifest": inner["Manifest"],
            "LogIndex": inner["Index"],
            "InclusionProof": inner["InclusionProof"],
        },
    }


def test_configuration() -> None:
    data = json.dumps(configuration(manifest())).encode()
    report = verify(data, OPTIONS)
    assert report.verified
    assert report.format == "armored-witness-config"
    assert any("firmware was not given" in sentence for sentence in report.unchecked)
    assert not outcome(data, replace(OPTIONS, artifacts={"firmware": b"firmware"}))
    assert outcome(data, replace(OPTIONS, artifacts={"firmware": b"x"})) == {
        "firmware digest",
        "firmware size",
    }
    inner = json.dumps(configuration(manifest())["Bundle"]).encode()
    assert not outcome(inner, OPTIONS)


# --- gob: an encoder for these structs alone, after encoding/gob's documentation ---


def uint(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([256 - len(octets)]) + octets


def sint(value: int) -> bytes:
    return uint(~value << 1 | 1 if value < 0 else value << 1)


def blob(data: bytes) -> bytes:
    return uint(len(data)) + data


def struct_type(name: str, type_id: int, fields: list[tuple[str, int]]) -> bytes:
    common = b"\x01" + blob(name.encode()) + b"\x01" + sint(type_id) + b"\x00"
    items = b"".join(
        b"\x01" + blob(field.encode()) + b"\x01" + sint(kind) + b"\x00" for field, kind in fields
    )
    body = b"\x01" + common + b"\x01" + uint(len(fields)) + items + b"\x00"
    return blob(sint(-type_id) + b"\x03" + body + b"\x00")


def slice_type(type_id: int) -> bytes:
    common = b"\x01" + blob(b"[][]uint8") + b"\x01" + sint(type_id) + b"\x00"
    return blob(sint(-type_id) + b"\x02\x01" + common + b"\x01" + sint(5) + b"\x00\x00")


def gob_configuration(config: dict[str, Any]) -> bytes:
    inner = config["Bundle"]
    proof = [base64.b64decode(each) for each in inner["InclusionProof"]]
    fields = [
        b"\x01" + blob(base64.b64decode(inner["Checkpoint"])),
        b"\x01" + blob(base64.b64decode(inner["Manifest"])),
        b"\x01" + uint(inner["LogIndex"]),
        b"\x01" + uint(len(proof)) + b"".join(map(blob, proof)),
    ]
    value = (
        b"\x01"
        + sint(config["Offset"])
        + b"\x01"
        + sint(config["Size"])
        + b"\x02"
        + b"".join(fields)
        + b"\x00\x00"
    )
    types = [
        struct_type("Config", 65, [("Offset", 2), ("Size", 2), ("Signatures", 66), ("Bundle", 67)]),
        slice_type(66),
        struct_type(
            "ProofBundle", 67, [("Checkpoint", 5), ("Manifest", 5), ("LogIndex", 3), ("InclusionProof", 66)]
        ),
    ]
    return b"".join(types) + blob(sint(65) + value)


def test_configuration_in_gob() -> None:
    config = configuration(manifest())
    data = gob_configuration(config)
    assert read(data) == read(json.dumps(config).encode())
    assert not outcome(data, OPTIONS)
    padded = data.ljust(40960, b"\x00")
    assert read(padded) == read(data)
    with pytest.raises(MalformedBundle):
        verify(data + b"\x01", OPTIONS)
    for length in range(len(data)):
        with pytest.raises(MalformedGob):
            parse_gob(data[:length])


def test_gob_bounds() -> None:
    for data in (
        b"",
        b"\xf7" + bytes(9),
        b"\xf8" + b"\xff" * 8,
        blob(sint(65)),
        blob(sint(2) + b"\x05"),
        slice_type(66) * 40,
        struct_type("T", 65, [("A", 65)]) + blob(sint(65) + b"\x01\x01\x01\x01\x00\x00\x00\x00"),
        struct.pack(">B", 0) * 100,
    ):
        with pytest.raises(MalformedGob):
            parse_gob(data)


def test_real_manifest(testdata: Path) -> None:
    folder = testdata / "proofs/armored-witness"
    entry = json.loads((folder / "index.json").read_text())["manifest"]
    data = (folder / entry["file"]).read_bytes()
    report = verify(data, Options(manifest_keys=(parse_vkey(entry["vkey"]),)))
    steps = {check.name: check.ok for check in report.checks}
    assert steps["manifest signature"]
    assert steps["component"]
    assert not steps["inclusion"]  # a manifest alone is in no log
    detail = next(check.detail for check in report.checks if check.name == "inclusion")
    assert base64.b64decode(entry["leaf_hash_b64"]).hex() in detail
