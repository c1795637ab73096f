"""tlog-proof: the published cases, the strict reading, and that both ways agree."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.proof import MAX_PROOF_HASHES, MalformedProof, Proof, format_proof, parse_proof

HEAD = b"c2sp.org/tlog-proof@v1\n"


def reason(data: bytes) -> str:
    with pytest.raises(MalformedProof) as caught:
        parse_proof(data)
    return caught.value.reason


def test_published_cases(testdata: Path) -> None:
    cases = json.loads((testdata / "proofs/tlog-proof/parse-cases.json").read_text())
    for case in cases["format"]:
        extra = case["extra"].encode() if "extra" in case else None
        hashes = tuple(base64.b64decode(each) for each in case["hashes"])
        proof = Proof(case["index"], hashes, case["checkpoint"].encode(), extra)
        assert format_proof(proof).decode() == case["want"]
        assert parse_proof(case["want"].encode()) == proof
    for case in cases["reject"] + cases["strict_reject_but_go_lenient"]:
        text = case.get("proof")
        if text is None:
            text = case["proof_prefix"] + case["repeat"] * case["times"] + case["suffix"]
        assert reason(text.encode())


def test_real_proofs_come_back_as_they_were(testdata: Path) -> None:
    found = list((testdata / "proofs/tlog-proof").glob("*.tlog-proof"))
    assert found
    for path in found:
        data = path.read_bytes()
        assert format_proof(parse_proof(data)) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"c2sp.org/tlog-proof@v2\nindex 0\n\nc\n", "first line"),
        (HEAD + b"index 0\nextra AA==\n\nc\n", "hash line"),
        (HEAD + b"extra AA==\nextra AA==\nindex 0\n\nc\n", "index line"),
        (HEAD + b"index 00\n\nc\n", "index line"),
        (HEAD + b"index 0 \n\nc\n", "index line"),
        (HEAD + "index ٣\n\nc\n".encode(), "index line"),
        (HEAD + b"index 0\n\n", "no empty line with a checkpoint"),
        (HEAD + b"index 0\n\nc", "newline"),
        (HEAD + b"index 0\n" + (b"A" * 43 + b"=\n") * (MAX_PROOF_HASHES + 1) + b"\nc\n", "more than 63"),
    ],
)
def test_refuses(data: bytes, why: str) -> None:
    assert why in reason(data)


proofs = st.builds(
    Proof,
    st.integers(0, 2**64 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_HASHES).map(tuple),
    st.binary(max_size=50).map(lambda text: text + b"\n"),
    st.none() | st.binary(max_size=50),
)


@given(proofs)
def test_both_ways(proof: Proof) -> None:
    assert parse_proof(format_proof(proof)) == proof


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_have_one_form(data: bytes, headed: bool) -> None:  # noqa: FBT001
    data = HEAD + data if headed else data
    try:
        proof = parse_proof(data)
    except MalformedProof:
        return
    assert format_proof(proof) == data


@pytest.mark.parametrize(
    "proof",
    [
        Proof(-1, (), b"c\n"),
        Proof(2**64, (), b"c\n"),
        Proof(0, (b"short",), b"c\n"),
        Proof(0, (bytes(32),) * 64, b"c\n"),
        Proof(0, (), b"c"),
        Proof(0, (), b""),
    ],
)
def test_formats_no_nonsense(proof: Proof) -> None:
    with pytest.raises(MalformedProof):
        format_proof(proof)
