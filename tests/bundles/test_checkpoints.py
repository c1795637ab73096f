"""What all formats share: logs, witnesses, freshness, consistency with what was trusted before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import (
    LOG,
    MAKER,
    POLICY,
    SUMDB_ORIGIN,
    W1,
    W2,
    W3,
    Log,
    armory,
    failed,
    outcome,
    release,
    sumdb_key,
    ten,
)
from tests.simulated_log import TIMESTAMP, SimulatedKey
from witness.bundles import (
    Learned,
    MalformedBundle,
    Options,
    decode_trust,
    encode_trust,
    merge_trust,
    trust_in,
    verify,
)
from witness.tlog.note import SignatureType, format_note
from witness.tlog.policy import Dialect, parse_policy

BY_LOG = Options(logs=(LOG.vkey,))
BY_POLICY = Options(policy=POLICY)


def test_satisfaction_table(testdata: Path) -> None:
    table = json.loads((testdata / "policy/satisfaction.json").read_text())
    for case in table["cases"]:
        report = verify(case["note"].encode(), Options(policy=parse_policy(case["policy"].encode())))
        assert report.verified is case["satisfied"], case["name"]
        assert failed(report) <= {"witnesses"}


def test_a_real_checkpoint(testdata: Path) -> None:
    latest = (testdata / "logs/sumdb/size11094656/latest").read_bytes()
    assert not outcome(latest, Options(logs=(sumdb_key(),), origin=SUMDB_ORIGIN))
    assert outcome(latest, Options(logs=(sumdb_key(),))) == {"log signature"}  # a key speaks for its own name
    assert outcome(latest, Options(logs=(LOG.vkey,), origin=SUMDB_ORIGIN)) == {"log signature"}


def test_log_signature() -> None:
    note = ten().note(witnesses=(W1,))
    assert not outcome(note, BY_LOG)
    assert outcome(note, Options()) == {"log signature"}
    assert outcome(note, Options(logs=(MAKER.vkey,))) == {"log signature"}
    assert outcome(note, replace(BY_LOG, origin="other")) == {"origin"}
    bad = format_note(ten().checkpoint().text(), [LOG.sign(ten().checkpoint(), wrongly=True)])
    assert outcome(bad, BY_LOG) == {"signatures", "log signature"}


def test_an_origin_makes_the_log_keys_speak_for_it() -> None:
    other = Log([b"a"], LOG, "another origin")
    assert outcome(other.note(), BY_LOG) == {"log signature"}
    assert not outcome(other.note(), replace(BY_LOG, origin="another origin"))
    # A policy's key speaks for its own name whatever the origin.
    assert outcome(other.note(), Options(policy=POLICY, origin="another origin")) >= {"log signature"}


@pytest.mark.parametrize(
    ("witnesses", "wrong"),
    [
        ((), {"witnesses"}),
        ((W1,), {"witnesses"}),
        ((W1, W2), set()),
        ((W1, W2, W3), set()),
        ((W1, W1), {"witnesses"}),
    ],
)
def test_quorum(witnesses: tuple[SimulatedKey, ...], wrong: set[str]) -> None:
    assert outcome(ten().note(witnesses=witnesses), BY_POLICY) == wrong


def test_named_witnesses_are_all_required() -> None:
    options = replace(BY_LOG, witnesses=(W1.vkey, W2.vkey))
    assert not outcome(ten().note(witnesses=(W1, W2)), options)
    assert outcome(ten().note(witnesses=(W2,)), options) == {"witness w1.example"}
    assert outcome(ten().note(witnesses=(W1, W2)), replace(BY_POLICY, witnesses=(W3.vkey,))) == {
        "witness w3.example"
    }


def test_a_wrong_cosignature_spoils_the_note() -> None:
    checkpoint = ten().checkpoint()
    lines = [
        LOG.sign(checkpoint),
        W1.sign(checkpoint),
        W2.sign(checkpoint),
        W3.sign(checkpoint, wrongly=True),
    ]
    assert outcome(format_note(checkpoint.text(), lines), BY_POLICY) >= {
        "signatures",
        "log signature",
        "witnesses",
    }
    # A stranger's does not.
    stranger = SimulatedKey("stranger.example", SignatureType.COSIGNATURE_ED25519)
    lines[3] = stranger.sign(checkpoint, wrongly=True)
    assert not outcome(format_note(checkpoint.text(), lines), BY_POLICY)


def test_sigsum_policy_on_a_note() -> None:
    """Raw keys find their signature lines by the key ID that each line's name gives them."""
    text = f"log {LOG.vkey.public_key.hex()}\nwitness any-name {W1.vkey.public_key.hex()}\nquorum any-name\n"
    policy = parse_policy(text.encode(), Dialect.SIGSUM)
    options = Options(policy=policy, logs=(LOG.vkey,))
    assert not outcome(ten().note(witnesses=(W1,)), options)
    assert outcome(ten().note(witnesses=(W3,)), options) == {"witnesses"}


@pytest.mark.parametrize(
    ("age", "max_age", "ok"),
    [(0, 0, True), (60, 60, True), (61, 60, False), (-300, 60, True), (-301, 60, False)],
)
def test_max_age(age: int, max_age: int, ok: bool) -> None:  # noqa: FBT001
    options = replace(BY_POLICY, max_age=max_age, now=TIMESTAMP + age)
    assert outcome(ten().note(witnesses=(W1, W2)), options) == (set() if ok else {"witnesses"})


def test_a_time_of_zero_says_nothing() -> None:
    options = replace(BY_POLICY, max_age=2**40, now=TIMESTAMP)
    assert outcome(ten().note(witnesses=(W1, W2), timestamp=0), options) == {"witnesses"}
    assert not outcome(ten().note(witnesses=(W1, W2), timestamp=0), BY_POLICY)


def test_one_stale_witness_is_not_counted_and_another_fresh_line_of_it_is() -> None:
    checkpoint = ten().checkpoint()
    lines = [LOG.sign(checkpoint), W1.sign(checkpoint, timestamp=1), W2.sign(checkpoint)]
    options = replace(BY_POLICY, max_age=60, now=TIMESTAMP)
    assert outcome(format_note(checkpoint.text(), lines), options) == {"witnesses"}
    lines.append(W1.sign(checkpoint))
    assert not outcome(format_note(checkpoint.text(), lines), options)


def test_a_maximum_age_needs_a_clock() -> None:
    with pytest.raises(ValueError, match="clock"):
        Options(max_age=1)


def with_previous(note: bytes, options: Options = BY_LOG) -> Options:
    return replace(options, previous=trust_in(note))


def test_previous() -> None:
    log = ten()
    fork = Log([*log.leaves[:5], b"other", *log.leaves[6:]])
    assert not outcome(log.note(), with_previous(log.note()))
    assert outcome(log.note(), with_previous(fork.note())) == {"consistency"}
    assert outcome(log.note(7), with_previous(log.note(8))) == {"consistency"}
    # A larger tree: nothing shows that it extends the smaller one, unless a quorum says so.
    assert outcome(log.note(), with_previous(log.note(8))) == {"consistency"}
    cosigned = log.note(witnesses=(W1, W2))
    assert not outcome(cosigned, with_previous(log.note(8), BY_POLICY))
    assert outcome(log.note(witnesses=(W1,)), with_previous(log.note(8), BY_POLICY)) == {
        "witnesses",
        "consistency",
    }
    assert not outcome(log.note(), with_previous(Log([]).note()))


def test_another_logs_previous_is_no_first_contact() -> None:
    other = Log([b"a"], SimulatedKey("other.example")).note()
    assert outcome(ten().note(), with_previous(other)) == {"consistency"}
    options = replace(with_previous(other), previous_must_match=False)
    assert not outcome(ten().note(), options)


def test_leaves_recompute_the_previous_root() -> None:
    log = Log([b"0", b"1", release(), b"3", b"4"])
    options = replace(BY_LOG, manifest_keys=(MAKER.vkey,))
    for size in range(1, 6):
        assert not outcome(armory(log, log.leaves[2]), with_previous(log.note(size), options))
    fork = Log([b"0", b"x", *log.leaves[2:]])
    assert outcome(armory(log, log.leaves[2]), with_previous(fork.note(3), options)) == {"consistency"}
    assert outcome(armory(log, log.leaves[2]), with_previous(fork.note(5), options)) == {"consistency"}


def test_trust_that_cannot_be_read_is_not_first_contact() -> None:
    options = replace(BY_LOG, previous=Learned((b"garbage",)))
    assert outcome(ten().note(), options) == {"consistency"}
    with pytest.raises(MalformedBundle):
        trust_in(b"garbage")
    for bad in (b"", b"{}", b'{"format":"tlog-witness-trust/v1","checkpoints":["x"],"versions":{}}'):
        with pytest.raises(MalformedBundle):
            decode_trust(bad)


def test_trust_comes_back_and_grows() -> None:
    first = verify(ten().note(8), BY_LOG).learned
    assert decode_trust(encode_trust(first)) == first
    grown = merge_trust(Learned(first.checkpoints, {"A": "1.0.0"}), verify(ten().note(), BY_LOG).learned)
    assert decode_trust(encode_trust(grown)) == grown
    assert grown.checkpoints == (ten().note(),)
    assert grown.versions == {"A": "1.0.0"}
    other = Log([b"a"], SimulatedKey("other.example"))
    both = merge_trust(grown, Learned((other.note(),)))
    assert len(both.checkpoints) == 2


def test_what_was_given_and_cannot_be_compared_fails() -> None:
    note = ten().note()
    assert outcome(note, replace(BY_LOG, entry=b"entry 1")) == {"entry"}
    assert outcome(note, replace(BY_LOG, leaf_hash=bytes(32))) == {"entry"}
    assert outcome(note, replace(BY_LOG, artifacts={"x": b""})) == {"artifact x"}
