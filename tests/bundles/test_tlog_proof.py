"""C2SP tlog-proofs: the real one, the reasons of failing ones, and what `extra` is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import POLICY, SUMDB_ORIGIN, W1, W2, Log, failed, outcome, sumdb_key, ten
from witness.bundles import MalformedBundle, Options, verify
from witness.tlog.merkle import leaf_hash
from witness.tlog.note import parse_note
from witness.tlog.proof import parse_proof

OPTIONS = Options(policy=POLICY, entry=b"entry 6")


def test_published_proofs(testdata: Path) -> None:
    folder = testdata / "proofs/tlog-proof"
    for entry in json.loads((folder / "index.json").read_text()):
        path = folder / entry["file"]
        if not path.exists():
            continue  # some are held back
        data = path.read_bytes()
        proof = parse_proof(data)
        assert proof.index == entry["index"]
        assert (proof.extra.decode() if proof.extra is not None else None) == entry["extra"]
        assert len(parse_note(proof.checkpoint).signatures) == len(entry["signatures"])
        if "leaf_file" in entry:
            leaf = (folder / entry["leaf_file"]).read_bytes()
            options = Options(logs=(sumdb_key(),), origin=SUMDB_ORIGIN, entry=leaf)
            report = verify(data, options)
            assert report.verified
            assert report.format == "tlog-proof"
            by_hash = replace(options, entry=None, leaf_hash=leaf_hash(leaf))
            assert not outcome(data, by_hash)
            assert outcome(data, replace(options, entry=leaf[:-1])) == {"inclusion"}
            assert outcome(data, replace(options, entry=None)) == {"inclusion"}
        else:
            assert outcome(data, Options()) == {"log signature", "inclusion"}  # keys thrown away


@pytest.mark.parametrize("index", range(10))
def test_every_entry(index: int) -> None:
    log = ten()
    data = log.proof(index, witnesses=(W1, W2))
    assert not outcome(data, replace(OPTIONS, entry=log.leaves[index]))
    assert outcome(data, replace(OPTIONS, entry=log.leaves[(index + 1) % 10])) == {"inclusion"}


def test_each_fault_has_its_own_name() -> None:
    log = ten()
    assert outcome(log.proof(6, witnesses=(W1,)), OPTIONS) == {"witnesses"}
    assert outcome(log.proof(6, witnesses=(W1, W2)).replace(b"index 6", b"index 7"), OPTIONS) == {"inclusion"}
    assert outcome(log.proof(6, witnesses=(W1, W2)).replace(b"index 6", b"index 10"), OPTIONS) == {
        "inclusion"
    }
    fork = Log([*log.leaves[:9], b"x"])
    ours, theirs = log.proof(6, witnesses=(W1, W2)), fork.note(witnesses=(W1, W2))
    assert outcome(ours.partition(b"\n\n")[0] + b"\n\n" + theirs, OPTIONS) == {"inclusion"}
    assert outcome(ours.partition(b"\n\n")[0] + b"\n\nno note\n", OPTIONS) == {"checkpoint", "inclusion"}


def test_extra_is_nobodys_word() -> None:
    with_extra = verify(ten().proof(6, witnesses=(W1, W2), extra=b"hello"), OPTIONS)
    assert with_extra.verified
    assert any("extra" in sentence for sentence in with_extra.unchecked)


def test_entry_and_leaf_hash_must_agree() -> None:
    data = ten().proof(6, witnesses=(W1, W2))
    assert not outcome(data, replace(OPTIONS, leaf_hash=leaf_hash(b"entry 6")))
    assert outcome(data, replace(OPTIONS, entry=b"other", leaf_hash=leaf_hash(b"entry 6"))) == {"entry"}


def test_malformed() -> None:
    for data in (b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v2\nindex 0\n\nx\n"):
        with pytest.raises(MalformedBundle) as caught:
            verify(data, OPTIONS)
        assert caught.value.format == "tlog-proof"


def test_a_failed_check_says_what_was_expected_and_found() -> None:
    report = verify(ten().proof(6, witnesses=(W1,)), OPTIONS)
    assert failed(report) == {"witnesses"}
    detail = next(check.detail for check in report.checks if not check.ok)
    assert "expected 2 of 3 in g" in detail
    assert "cosigned by one" in detail
