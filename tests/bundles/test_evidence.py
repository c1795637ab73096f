"""Evidence of misbehaviour: what convinces, and what merely looks like it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import LOG, MAKER, Log, outcome
from tests.simulated_log import SimulatedKey
from witness.bundles import MalformedBundle, Options, trust_in, verify
from witness.bundles.evidence import FORK, SAME_SIZE, Evidence, format_evidence, parse
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.contained import contained_root
from witness.tlog.merkle import consistency_proof, node_hash
from witness.tlog.note import format_note

OPTIONS = Options(logs=(LOG.vkey,))
HONEST = Log(b"%d" % index for index in range(13))
FORKED = Log(b"%d" % index if index != 3 else b"x" for index in range(13))


def fork(old: int, new: int) -> Evidence:
    proof = tuple(consistency_proof(old, new, FORKED.tree.node))
    return Evidence(FORK, (LOG.vkey,), (HONEST.note(old), FORKED.note(new)), FORKED.tree.root(old), proof)


def same_size(size: int = 5) -> Evidence:
    return Evidence(SAME_SIZE, (LOG.vkey,), (HONEST.note(size), FORKED.note(size)))


@pytest.mark.parametrize("evidence", [same_size(), *(fork(old, 13) for old in range(4, 13))])
def test_good(evidence: Evidence) -> None:
    data = format_evidence(evidence)
    assert parse(json.loads(data)) == evidence
    report = verify(data, OPTIONS)
    assert report.verified
    assert report.format == "evidence"
    assert not report.learned.checkpoints  # neither is to be trusted


def test_who_says_so() -> None:
    """The keys in the file are the accuser's; only a key that the reader knows convicts."""
    data = format_evidence(same_size())
    assert outcome(data, Options()) == {"first log signature", "second log signature"}
    assert outcome(data, Options(logs=(MAKER.vkey,))) == {"first log signature", "second log signature"}
    assert outcome(data, replace(OPTIONS, origin="other")) == {"origin"}
    impostor = SimulatedKey(LOG.name, number=1)
    forged = replace(same_size(), notes=(HONEST.note(5), Log([b"y"] * 5, impostor).note()))
    assert outcome(format_evidence(forged), OPTIONS) == {"second log signature"}
    wrong = FORKED.checkpoint(5)
    note = format_note(wrong.text(), [LOG.sign(wrong, wrongly=True)])
    assert outcome(format_evidence(replace(same_size(), notes=(HONEST.note(5), note))), OPTIONS) == {
        "second log signature"
    }


def test_what_is_no_contradiction() -> None:
    agreeing = replace(same_size(), notes=(HONEST.note(5), HONEST.note(5)))
    assert outcome(format_evidence(agreeing), OPTIONS) == {"contradiction"}
    growing = replace(same_size(), notes=(HONEST.note(5), HONEST.note(6)))
    assert outcome(format_evidence(growing), OPTIONS) == {"contradiction"}
    proof = tuple(consistency_proof(5, 13, HONEST.tree.node))
    honest = Evidence(FORK, (LOG.vkey,), (HONEST.note(5), HONEST.note()), HONEST.tree.root(5), proof)
    assert outcome(format_evidence(honest), OPTIONS) == {"contradiction"}
    invented = replace(honest, contained_root=bytes(32))
    assert outcome(format_evidence(invented), OPTIONS) == {"contradiction"}
    turned = fork(5, 13)
    assert outcome(format_evidence(replace(turned, notes=turned.notes[::-1])), OPTIONS) == {"contradiction"}
    two_logs = replace(same_size(), notes=(HONEST.note(5), Log([b"z"] * 5, LOG, "other").note()))
    assert "origin" in outcome(format_evidence(two_logs), OPTIONS)


def test_every_kind_of_log_key() -> None:
    from witness.tlog.note import SignatureType

    for kind in (SignatureType.ECDSA, SignatureType.RFC6962, SignatureType.COSIGNATURE_MLDSA44):
        key = SimulatedKey("log.example", kind)
        notes = Log(HONEST.leaves, key).note(5), Log(FORKED.leaves, key).note(5)
        data = format_evidence(Evidence(SAME_SIZE, (key.vkey,), notes))
        assert not outcome(data, Options(logs=(key.vkey,)))


@pytest.mark.parametrize("old", range(1, 13))
def test_a_failed_proof_tells_what_the_new_tree_contains(old: int) -> None:
    proof = consistency_proof(old, 13, FORKED.tree.node)
    found = contained_root(old, 13, FORKED.tree.root(), proof)
    assert found == (None if old & (old - 1) == 0 else FORKED.tree.root(old))
    assert contained_root(old, 13, HONEST.tree.root(), proof) is None
    assert contained_root(old, 13, FORKED.tree.root(), proof[:-1]) is None
    assert contained_root(13, old, FORKED.tree.root(), proof) is None


def test_the_published_fork(testdata: Path) -> None:
    """Its key has a key ID that no key has, so the log is one of ours with the same trees."""
    case = json.loads((testdata / "misbehaviour/golang-mod-sumdb-fork.json").read_text())
    proof = [base64.b64decode(each) for each in case["consistency_proof_5_6"]]
    roots = [base64.b64decode(case[name].split("\n")[2]) for name in ("old", "new")]
    found = contained_root(5, 6, roots[1], proof)
    assert found == base64.b64decode(case["new_tree_root_at_5"])
    notes = []
    for size, root in ((5, roots[0]), (6, roots[1])):
        checkpoint = Checkpoint(LOG.name, size, root)
        notes.append(format_note(checkpoint.text(), [LOG.sign(checkpoint)]))
    evidence = Evidence(FORK, (LOG.vkey,), (notes[0], notes[1]), found, tuple(proof))
    assert not outcome(format_evidence(evidence), OPTIONS)
    assert node_hash(proof[0], proof[1]) != found


@pytest.mark.parametrize(
    "change",
    [
        {"format": "tlog-witness-evidence/v2"},
        {"kind": "gossip"},
        {"vkeys": []},
        {"vkeys": ["x"]},
        {"vkeys": [1]},
        {"notes": ["a"]},
        {"notes": ["\ud800", "b"]},
        {"proof": []},
        {"kind": FORK},
        {"kind": FORK, "contained_root": "AAAA"},
        {"Kind": SAME_SIZE},
    ],
)
def test_malformed(change: dict[str, object]) -> None:
    members = json.loads(format_evidence(same_size()))
    with pytest.raises(MalformedBundle):
        verify(json.dumps(members | change).encode(), OPTIONS)


def test_evidence_is_nothing_to_trust() -> None:
    with pytest.raises(MalformedBundle):
        trust_in(format_evidence(same_size()))
