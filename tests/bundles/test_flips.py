"""Mutation: every single-bit flip of each good bundle fails, or provably changes nothing that is covered.

`covered` is what a reader relies on, taken out of the parsed bundle: when a flipped bundle verifies, it must
say the very same. What lies outside of it is listed per format, and is what the report calls unchecked, what
strangers may add (unknown signature lines), or another spelling of the same value (whitespace, hex case).
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bundles.test_armored_witness import OPTIONS as FIRMWARE_OPTIONS
from tests.bundles.test_armored_witness import bundle, configuration, gob_configuration
from tests.bundles.test_attestation import DEVICE, attestation
from tests.bundles.test_evidence import OPTIONS as EVIDENCE_OPTIONS
from tests.bundles.test_evidence import fork, same_size
from tests.bundles.test_record_head import record_head
from tests.bundles.test_sigstore import HAPPY, REKOR2, options_for
from tests.bundles.test_sigsum import OPTIONS as SIGSUM_OPTIONS
from tests.bundles.test_sigsum import proof as sigsum
from tests.bundles.test_succession import NEW, OLD
from tests.bundles.test_sumdb import DATABASE, record
from tests.bundles.test_sumdb import OPTIONS as SUMDB_OPTIONS
from tests.bundles.world import LOG, MAKER, POLICY, W1, W3, Good, Log, armory, manifest, release, ten
from witness.bundles import MalformedBundle, Options, Report, verify
from witness.bundles.armored_witness import FirmwareBundle
from witness.bundles.armory_drive import ArmoryDriveBundle
from witness.bundles.attestation import Attestation
from witness.bundles.checkpoint import SignedCheckpoint
from witness.bundles.evidence import Evidence, format_evidence
from witness.bundles.formats import read
from witness.bundles.record_head import AttestedHead
from witness.bundles.sigstore import SigstoreBundle
from witness.bundles.sigsum import SigsumProof
from witness.bundles.succession import Statement
from witness.bundles.sumdb import GoSum, SumdbLookup
from witness.bundles.tlog_proof import TlogProof
from witness.core.keystore.stating import state_succession
from witness.tlog.note import parse_note

CONFIG = json.dumps(configuration(manifest())).encode()
LOOKUP = DATABASE.lookup(300)
GO_SUM = {"m": DATABASE.lookup(5)} | DATABASE.tiles(DATABASE.lookup(5))
ARMORY = Log([b"0", release(), b"2"])
MADE = [
    Good("checkpoint", ten().note(witnesses=(W1, W3)), Options(policy=POLICY)),
    Good(
        "tlog-proof", ten().proof(6, witnesses=(W1, W3), extra=b"x"), Options(policy=POLICY, entry=b"entry 6")
    ),
    Good(
        "armory-drive",
        armory(ARMORY, ARMORY.leaves[1]),
        Options(logs=(LOG.vkey,), manifest_keys=(MAKER.vkey,)),
    ),
    Good("config", CONFIG, FIRMWARE_OPTIONS),
    Good("gob", gob_configuration(json.loads(CONFIG)), FIRMWARE_OPTIONS),
    Good("firmware", bundle(manifest()), FIRMWARE_OPTIONS),
    Good(
        "attestation",
        attestation(),
        Options(manifest_keys=(DEVICE.vkey,), file_name="0123456789ABCDEF.witness.3"),
    ),
    Good("record head", record_head(), Options(manifest_keys=(DEVICE.vkey,))),
    Good("sigsum", sigsum(), SIGSUM_OPTIONS),
    Good("sigsum 1", sigsum(version=1), SIGSUM_OPTIONS),
    Good("lookup", LOOKUP, dataclasses.replace(SUMDB_OPTIONS, artifacts=DATABASE.tiles(LOOKUP))),
    Good("go.sum", record(5), dataclasses.replace(SUMDB_OPTIONS, artifacts=GO_SUM)),
    Good("evidence", format_evidence(same_size()), EVIDENCE_OPTIONS),
    Good("succession", state_succession(OLD[:1], NEW[:1], 5).note, Options(witnesses=(OLD[0].vkey,))),
    Good("evidence of a fork", format_evidence(fork(5, 13)), EVIDENCE_OPTIONS),
]


def text(note: bytes) -> bytes:
    """A note's text: the signature lines are judged, and strangers' may be there."""
    return parse_note(note).text


def of_firmware(found: FirmwareBundle) -> Any:
    # A configuration's Size is compared with the firmware, which is not given here; its format is a label.
    return dataclasses.replace(
        found, checkpoint=text(found.checkpoint), manifest=text(found.manifest), size=0
    )


def of_sigsum(found: SigsumProof) -> Any:
    return dataclasses.replace(found, cosignatures=())  # counted, not required one by one


def of_sigstore(found: SigstoreBundle) -> Any:
    """All but the log's ID in Rekor v2, the global index without a promise, the size and digest hints, and
    what is inside a timestamp besides imprint and time."""
    parts = found.parts
    entries = [
        (
            entry.body,
            entry.kind,
            entry.integrated if entry.promise else 0,
            entry.proof and (entry.proof.index, entry.proof.hashes, text(entry.proof.checkpoint)),
        )
        for entry in parts.entries
    ]
    return entries, parts.content.signature, parts.content.payload, parts.certificate


def of_evidence(found: Evidence) -> Any:
    return found.kind, found.contained_root, found.proof, [text(note) for note in found.notes]


def as_is(found: Any) -> Any:
    return found


COVERED: dict[type, Callable[[Any], Any]] = {
    SignedCheckpoint: lambda found: text(found.note),
    TlogProof: lambda found: (found.proof.index, found.proof.hashes, text(found.proof.checkpoint)),
    ArmoryDriveBundle: lambda found: (text(found.checkpoint), text(found.release), found.leaves),
    FirmwareBundle: of_firmware,
    Attestation: lambda found: dataclasses.replace(found, note=text(found.note)),
    AttestedHead: lambda found: found.head,
    Statement: lambda found: found.said,
    SigsumProof: of_sigsum,
    SumdbLookup: lambda found: (found.id, found.record, text(found.tree)),
    GoSum: as_is,
    Evidence: lambda found: dataclasses.replace(
        found, notes=tuple(text(note) for note in found.notes), vkeys=()
    ),
    SigstoreBundle: of_sigstore,
}


def covered(data: bytes) -> Any:
    found = read(data)
    return COVERED[type(found)](found)


def survivors(good: Good, bits: Iterator[int] | range) -> tuple[int, int]:
    """Flips the bits one by one; how many were judged, and how many of the flipped bundles verified."""
    said = covered(good.data)
    total = passed = 0
    for bit in bits:
        total += 1
        flipped = bytearray(good.data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            report = verify(bytes(flipped), good.options)
        except MalformedBundle:
            continue
        assert isinstance(report, Report)
        if report.verified:
            passed += 1
            assert covered(bytes(flipped)) == said, f"bit {bit} of {good.name} changes what is covered"
    return total, passed


@pytest.mark.parametrize("good", MADE, ids=lambda good: good.name)
def test_every_bit_of_bundles_made_here(good: Good) -> None:
    assert verify(good.data, good.options).verified
    total, passed = survivors(good, range(8 * len(good.data)))
    # Whoever made a check that checks nothing would see this first.
    assert passed < total / 4


def published(testdata: Path) -> Iterator[Good]:
    folder = testdata / "proofs"
    from tests.bundles.test_armory_drive import real_options
    from tests.bundles.world import SUMDB_ORIGIN, sumdb_key

    data = folder / "tlog-proof/go.sum-database-tree-43930254.tlog-proof"
    entry = data.with_suffix(".raw").read_bytes()
    yield Good(
        "tlog-proof",
        data.read_bytes(),
        Options(logs=(sumdb_key(),), origin=SUMDB_ORIGIN, entry=entry),
    )
    for path in sorted((folder / "armory-drive").glob("prod2-*.json")):
        yield Good("armory-drive", path.read_bytes(), real_options(folder / "armory-drive"))


def test_every_bit_of_published_bundles(testdata: Path) -> None:
    for good in published(testdata):
        assert verify(good.data, good.options).verified
        survivors(good, range(8 * len(good.data)))


@pytest.mark.parametrize("file", [HAPPY, REKOR2])
def test_a_sample_of_bits_of_sigstore_bundles(testdata: Path, file: str) -> None:
    folder = testdata / "proofs/sigstore"
    good = Good(file, (folder / file).read_bytes(), options_for(folder, file))
    bits = random.Random(6).sample(range(8 * len(good.data)), 2500)
    survivors(good, iter(bits))


@pytest.mark.campaign
@pytest.mark.parametrize("file", [HAPPY, REKOR2])
def test_every_bit_of_sigstore_bundles(testdata: Path, file: str) -> None:
    folder = testdata / "proofs/sigstore"
    good = Good(file, (folder / file).read_bytes(), options_for(folder, file))
    survivors(good, range(8 * len(good.data)))


# --- Structure: bundles of every shape, and bytes of none ---


@st.composite
def mangled(draw: st.DrawFn, of: tuple[Good, ...] = tuple(MADE)) -> tuple[bytes, Options]:
    """A good bundle with stretches of it deleted, repeated, swapped or replaced, some by another's."""
    good = draw(st.sampled_from(of))
    data = good.data
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 200)))
        other = draw(st.sampled_from(MADE)).data
        piece = draw(
            st.one_of(
                st.just(b""),
                st.just(data[start:end] * 2),
                st.just(other[start:end]),
                st.binary(max_size=20),
                st.sampled_from([b"\n", b"\n\n", b"0", b"{", b"[", b'"', b"null", b"-1", b"9" * 30, b"\xff"]),
            )
        )
        data = data[:start] + piece + data[end:]
    return data, good.options


@settings(max_examples=600)
@given(mangled())
def test_a_report_or_malformed_bundle(case: tuple[bytes, Options]) -> None:
    data, options = case
    try:
        report = verify(data, options)
    except MalformedBundle:
        return
    assert report.checks


@pytest.mark.campaign
@pytest.mark.parametrize("good", MADE, ids=lambda good: good.name)
def test_fuzz(good: Good) -> None:
    """The fuzz target of a format."""

    @settings(max_examples=3_000, deadline=None)
    @given(mangled((good,)))
    def target(case: tuple[bytes, Options]) -> None:
        data, options = case
        try:
            report = verify(data, options)
        except MalformedBundle:
            return
        if report.verified:
            assert covered(data) == covered(good.data)

    target()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=8)
    | st.sampled_from(["AA==", "AAAA"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, key))


@st.composite
def json_of_another_shape(draw: st.DrawFn) -> tuple[bytes, Options]:
    good = draw(st.sampled_from([each for each in MADE if each.data.startswith(b"{")]))
    members = json.loads(good.data)
    path = draw(st.sampled_from([place for place in places(members) if place]))
    at = members
    for step in path[:-1]:
        at = at[step]
    if draw(st.booleans()):
        at[path[-1]] = draw(json_values)
    else:
        del at[path[-1]]
    return json.dumps(members).encode("utf-8"), good.options


@settings(max_examples=400)
@given(json_of_another_shape())
def test_json_of_another_shape(case: tuple[bytes, Options]) -> None:
    data, options = case
    try:
        report = verify(data, options)
    except MalformedBundle:
        return
    assert report.checks


def test_sigstore_json_of_another_shape(testdata: Path) -> None:
    """Every member of a real bundle in turn is gone, or of every other type."""
    folder = testdata / "proofs/sigstore"
    options = options_for(folder, HAPPY)
    data = (folder / HAPPY).read_bytes()
    for path in places(json.loads(data)):
        for value in (None, True, 7, -1, "", "AA==", [], [1], {}, {"a": 1}):
            members = json.loads(data)
            at = members
            for step in path[:-1]:
                at = at[step]
            if path:
                at[path[-1]] = value
            try:
                assert verify(json.dumps(members if path else value).encode(), options).checks
            except MalformedBundle:
                continue


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda found: found.encode("utf-8", "surrogatepass"))
)
def test_any_bytes(data: bytes) -> None:
    try:
        report = verify(data, Options(policy=POLICY))
    except MalformedBundle:
        return
    assert not report.verified


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"Manifest":' + b"[" * 31 + b"]" * 31 + b"}",
        b'{"' + b'\\"' * 1_000_000,
        b'{"LeafHashes":[' + b'"AA==",' * 200_000 + b'"AA=="]}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 100_000 + b"}",
        b"version=2\n" * 100_000,
        b"\n" * 1_000_000,
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 5_000_000,
    ],
    ids=range(10),
)
def test_hostile_sizes_end(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        verify(data, Options())
