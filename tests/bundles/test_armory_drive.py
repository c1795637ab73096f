"""Armory Drive bundles: the real log's, and what the original lets pass."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import LOG, MAKER, Log, armory, b64, outcome, release, signed
from witness.bundles import MalformedBundle, Options, trust_in, verify
from witness.tlog.note import parse_vkey

OPTIONS = Options(logs=(LOG.vkey,), manifest_keys=(MAKER.vkey,))
REASONS = {
    "root": "leaf hashes",
    "leaf count": "leaf hashes",
    "release not in log": "inclusion",
    "release sig": "release signature",
}


def real_options(folder: Path) -> Options:
    index = json.loads((folder / "index.json").read_text())
    return Options(
        logs=(parse_vkey(index["log_vkey"]),),
        origin=index["origin"],
        manifest_keys=(parse_vkey(index["release_vkey"]),),
    )


def test_published_bundles(testdata: Path) -> None:
    folder = testdata / "proofs/armory-drive"
    options = real_options(folder)
    seen = 0
    for case in json.loads((folder / "index.json").read_text())["cases"]:
        path = folder / case["file"]
        if not path.exists():
            continue  # held back
        seen += 1
        wrong = outcome(path.read_bytes(), options)
        if case["expect"] == "ok":
            assert not wrong
        else:
            assert REASONS[case["our_check"].removeprefix("reject: ")] in wrong
    assert seen


def test_bundles_of_every_release_of_the_real_log(testdata: Path) -> None:
    """Assembled here from the log's own files, with the negative ones that follow from each."""
    options = real_options(testdata / "proofs/armory-drive")
    folder = testdata / "logs/serverless/armory-drive-prod2"
    leaves = [path.read_bytes() for path in sorted((folder / "seq/00/00/00/00").iterdir())]
    checkpoint = (folder / "checkpoint").read_bytes()
    log = Log(leaves)
    for leaf in leaves:
        members = json.loads(armory(log, leaf)) | {"NewCheckpoint": b64(checkpoint)}
        assert not outcome(json.dumps(members).encode(), options)
        fewer = members | {"LeafHashes": members["LeafHashes"][:-1]}
        assert "leaf hashes" in outcome(json.dumps(fewer).encode(), options)
        swapped = members | {"LeafHashes": members["LeafHashes"][::-1]}
        assert "leaf hashes" in outcome(json.dumps(swapped).encode(), options)


def test_artifacts() -> None:
    log = Log([release(b"imx", csf=b"csf")])
    data = armory(log, log.leaves[0])
    good = {"armory-drive.imx": b"imx", "csf": b"csf"}
    assert not outcome(data, replace(OPTIONS, artifacts=good))
    assert len([s for s in verify(data, OPTIONS).unchecked if "not compared" in s]) == 2
    assert outcome(data, replace(OPTIONS, artifacts={"csf": b"x"})) == {"artifact csf"}
    assert outcome(data, replace(OPTIONS, artifacts={"sdp": b"x"})) == {"artifact sdp"}


def test_fails_closed_where_the_original_does_not() -> None:
    log = Log([b"0", release()])
    data = armory(log, log.leaves[1])
    assert not outcome(data, OPTIONS)
    # No key to hold the release to; a trusted bundle that is another log's.
    assert outcome(data, replace(OPTIONS, manifest_keys=())) == {"release signature"}
    other = Log([b"0"], MAKER)
    assert outcome(data, replace(OPTIONS, previous=trust_in(other.note()))) == {"consistency"}
    # A release that says nothing of the firmware.
    for artifacts in ({}, {"other": b64(bytes(32))}, {"armory-drive.imx": "AA=="}):
        empty = signed(json.dumps({"revision": "r", "artifact_sha256": artifacts}).encode() + b"\n", MAKER)
        assert outcome(armory(Log([empty]), empty), OPTIONS) == {"release"}
    # A leaf hash that is none, members whose names Go would read as the known ones.
    members = json.loads(data)
    for change in (
        {"LeafHashes": ["AA=="]},
        {"newcheckpoint": ""},
        {"LeafHashes": "AA=="},
        {"FirmwareRelease": None},
    ):
        with pytest.raises(MalformedBundle):
            verify(json.dumps(members | change).encode(), OPTIONS)
    nothing = members | {"LeafHashes": None, "NewCheckpoint": b64(Log([]).note())}
    assert outcome(json.dumps(nothing).encode(), OPTIONS) == {"inclusion"}


def test_every_manifest_key_must_have_signed() -> None:
    log = Log([release()])
    assert outcome(armory(log, log.leaves[0]), replace(OPTIONS, manifest_keys=(MAKER.vkey, LOG.vkey))) == {
        "release signature"
    }


def test_the_given_entry_is_the_release() -> None:
    log = Log([b"0", release()])
    data = armory(log, log.leaves[1])
    assert not outcome(data, replace(OPTIONS, entry=log.leaves[1]))
    assert outcome(data, replace(OPTIONS, entry=b"0")) == {"entry"}


def test_a_tampered_release_is_named(testdata: Path) -> None:
    folder = testdata / "proofs/armory-drive"
    data = (folder / "neg-tampered-release.proofbundle.json").read_bytes()
    assert b"v2021.10.09" in base64.b64decode(json.loads(data)["FirmwareRelease"])
    assert outcome(data, real_options(folder)) == {"inclusion", "release signature"}
