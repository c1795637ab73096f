"""Conversions: the same bytes come back, or it is said what would be lost; and both sides verify."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.bundles.world import (
    MAKER,
    SUMDB_ORIGIN,
    SUMDB_VKEY,
    W1,
    W2,
    W3,
    Log,
    armory,
    outcome,
    release,
    sigsum_leaf,
    sigsum_proof,
    ten,
)
from tests.simulated_log import SimulatedKey
from witness.bundles import MalformedBundle, Options, parse_log_key
from witness.bundles.formats import read
from witness.bundles.options import RawKey
from witness.bundles.sigsum import SigsumProof
from witness.reading.converting import TARGETS, CannotConvert, Lossy, Means, convert, needed_tiles
from witness.reading.sigsum_form import format_sigsum
from witness.tlog.merkle import leaf_hash
from witness.tlog.note import SignatureType, make_vkey, parse_vkey
from witness.tlog.policy import sigsum_log_key
from witness.tlog.proof import format_proof, parse_proof

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = Means()
SIGSUM = SimulatedKey("sigsum-log")
SIGSUM_KEY = sigsum_log_key(SIGSUM.vkey.public_key)
MESSAGE = hashlib.sha256(b"a release").digest()
KEYS = Means(Options(logs=(SIGSUM_KEY,), witnesses=(W1.vkey,)))


def sigsum(size: int = 5, at: int = 2, version: int = 2) -> bytes:
    leaves = [b"%d" % index for index in range(size)]
    leaves[at] = sigsum_leaf(MESSAGE, MAKER)
    return sigsum_proof(Log(leaves, SIGSUM, SIGSUM_KEY.name), at, MESSAGE, MAKER, version)


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_have_one_of_the_documented_outcomes(target: str) -> None:
    for data in (b"", b"index ", b"index 0\n\n", b"version=2\n", b"{}", b"c2sp.org/tlog-proof@v1\n", b"\xff"):
        with pytest.raises((MalformedBundle, CannotConvert)):
            convert(data, target, NOTHING)


def test_spicy() -> None:
    proof = ten().proof(3, witnesses=(W1, W2))
    spicy = convert(proof, "spicy", NOTHING)
    assert spicy == proof.removeprefix(b"c2sp.org/tlog-proof@v1\n")
    assert convert(spicy, "tlog-proof", NOTHING) == proof
    assert convert(spicy, "spicy", NOTHING) == spicy
    with pytest.raises(Lossy, match=r"extra data \(4 bytes\)") as lossy:
        convert(ten().proof(3, extra=b"more"), "spicy", NOTHING)
    assert lossy.value.result == convert(ten().proof(3), "spicy", NOTHING)


@pytest.mark.parametrize(("size", "at"), [(1, 0), (2, 1), (5, 2), (300, 299)])
def test_sigsum_and_back(size: int, at: int) -> None:
    proof = sigsum(size, at)
    converted = convert(proof, "tlog-proof", KEYS)
    assert convert(converted, "sigsum-proof", KEYS) == proof
    leaf = sigsum_leaf(MESSAGE, MAKER)
    assert not outcome(converted, dataclasses.replace(KEYS.options, entry=leaf))
    assert parse_proof(converted).extra == leaf[32:]
    # Made from a log that says nothing of submitters: the leaf says it.
    plain = dataclasses.replace(parse_proof(converted), extra=None)
    with pytest.raises(CannotConvert, match="give the leaf"):
        convert(format_proof(plain), "sigsum-proof", KEYS)
    with pytest.raises(Lossy, match="exact bytes") as lossy:
        convert(format_proof(plain), "sigsum-proof", dataclasses.replace(KEYS, entry=leaf))
    assert lossy.value.result == proof
    options = dataclasses.replace(
        KEYS.options, manifest_keys=(RawKey(MAKER.vkey.public_key),), entry=b"a release"
    )
    assert not outcome(lossy.value.result, options)


def test_what_sigsum_would_lose() -> None:
    with pytest.raises(Lossy, match="first bytes of the checksum"):
        convert(sigsum(version=1), "tlog-proof", KEYS)
    with pytest.raises(CannotConvert, match="key of the log"):
        convert(sigsum(), "tlog-proof", NOTHING)
    unknown = Means(Options(logs=(SIGSUM_KEY,)))
    with pytest.raises(Lossy, match=hashlib.sha256(W1.vkey.public_key).hexdigest()):
        convert(sigsum(), "tlog-proof", unknown)
    converted = convert(sigsum(), "tlog-proof", KEYS)
    with pytest.raises(Lossy, match=f"signature line by {W1.name}"):
        convert(converted, "sigsum-proof", unknown)
    with pytest.raises(CannotConvert, match="no Sigsum log"):
        convert(ten().proof(3), "sigsum-proof", KEYS)
    # An ML-DSA cosignature has no place in a Sigsum proof.
    both = Log([sigsum_leaf(MESSAGE, MAKER)], SIGSUM, SIGSUM_KEY.name)
    note = both.proof(0, witnesses=(W1, W2), extra=sigsum_leaf(MESSAGE, MAKER)[32:])
    note = note.replace(SIGSUM.name.encode() + b" ", SIGSUM_KEY.name.encode() + b" ")
    with pytest.raises(CannotConvert, match="no signature by the log"):
        convert(note, "sigsum-proof", dataclasses.replace(KEYS))


def test_sigsum_proofs_in_use(testdata: Path) -> None:
    folder = testdata / "proofs/sigsum"
    cases = json.loads((folder / "index.json").read_text())
    written = 0
    for case in cases:
        if not (folder / case["file"]).is_file():
            continue  # held back
        data = (folder / case["file"]).read_bytes()
        bundle = read(data)
        assert isinstance(bundle, SigsumProof)
        if case["version"] == "2":
            assert format_sigsum(bundle) == data
            written += 1
        if "log_key" not in case or "message_hex" not in case:
            continue
        witness = [parse_log_key(case["witness_key"]).public_key] if "witness_key" in case else []
        # A Sigsum witness's key has no name; the cosignature does not say one either.
        vkeys = [make_vkey("any.example/name", SignatureType.COSIGNATURE_ED25519, key) for key in witness]
        options = Options(logs=(parse_log_key(case["log_key"]),), witnesses=tuple(vkeys))
        means = Means(options)
        proof = convert(data, "tlog-proof", means)
        checksum = hashlib.sha256(bytes.fromhex(case["message_hex"])).digest()
        leaf = checksum + (parse_proof(proof).extra or b"")
        assert not outcome(proof, dataclasses.replace(options, entry=leaf))
        assert convert(proof, "sigsum-proof", means) == data
    assert written


def test_sumdb(testdata: Path) -> None:
    folder = testdata / "logs/sumdb/size11094656"
    options = Options(logs=(parse_vkey(SUMDB_VKEY),), origin=SUMDB_ORIGIN)
    converted = 0
    for file in sorted((folder / "lookup").rglob("*@*")):
        lookup = file.read_bytes()
        paths = [path for path in needed_tiles(lookup) if (folder / path).is_file()]
        tiles = {path: (folder / path).read_bytes() for path in paths}
        if len(tiles) < len(needed_tiles(lookup)):
            with pytest.raises(CannotConvert, match="give the tile tile/8/"):
                convert(lookup, "tlog-proof", Means(artifacts=tiles))
            continue
        proof = convert(lookup, "tlog-proof", Means(artifacts=tiles))
        record = parse_proof(proof).extra
        assert record is not None
        assert not outcome(proof, dataclasses.replace(options, entry=record))
        with pytest.raises(Lossy, match="the inclusion proof") as lossy:
            convert(proof, "sumdb-lookup", NOTHING)
        assert lossy.value.result == lookup
        converted += 1
    assert converted


def test_a_proof_of_sum_golang_org_as_a_lookup(testdata: Path) -> None:
    folder = testdata / "proofs/tlog-proof"
    proof = (folder / "go.sum-database-tree-43930254.tlog-proof").read_bytes()
    record = (folder / "go.sum-database-tree-43930254.raw").read_bytes()
    with pytest.raises(CannotConvert, match="give the entry"):
        convert(proof, "sumdb-lookup", NOTHING)
    with pytest.raises(CannotConvert, match="no record"):
        convert(proof, "sumdb-lookup", Means(entry=b"a\n\nb\n"))
    with pytest.raises(Lossy) as lossy:
        convert(proof, "sumdb-lookup", Means(entry=record))
    assert read(lossy.value.result).format == "sumdb-lookup"


def test_armory_drive(testdata: Path) -> None:
    file = testdata / "proofs/armory-drive/prod2-v2021.10.08.proofbundle.json"
    index = json.loads((testdata / "proofs/armory-drive/index.json").read_text())
    real = Options(logs=(parse_vkey(index["log_vkey"]),), origin=index["origin"])
    made = release()
    log = Log([b"x", made, b"y"])
    ours = Options(logs=(log.key.vkey,))
    for data, options in ((file.read_bytes(), real), (armory(log, made), ours)):
        with pytest.raises(Lossy, match="all leaf hashes") as lossy:
            convert(data, "tlog-proof", NOTHING)
        entry = parse_proof(lossy.value.result).extra
        assert entry is not None
        assert not outcome(lossy.value.result, dataclasses.replace(options, leaf_hash=leaf_hash(entry)))
    with pytest.raises(CannotConvert, match="not among"):
        convert(armory(Log([b"x"]), made), "tlog-proof", NOTHING)


def test_a_checkpoint_loses_the_rest() -> None:
    with pytest.raises(Lossy, match="everything but") as lossy:
        convert(ten().proof(3, witnesses=(W3,)), "checkpoint", NOTHING)
    assert lossy.value.result == ten().note(witnesses=(W3,))


def test_there_is_not_always_a_way() -> None:
    for data, target in (
        (sigsum(), "spicy"),
        (armory(Log([release()]), release()), "sigsum-proof"),
        (ten().note(), "tlog-proof"),
    ):
        with pytest.raises(CannotConvert, match="there is no conversion"):
            convert(data, target, KEYS)
