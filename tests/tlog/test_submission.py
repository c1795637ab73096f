from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.checkpoint import MalformedCheckpoint
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, format_note
from witness.tlog.submission import (
    MAX_PROOF_LINES,
    AddCheckpoint,
    MalformedSubmission,
    SignSubtree,
    format_add_checkpoint,
    format_sign_subtree,
    parse_add_checkpoint,
    parse_sign_subtree,
)

if TYPE_CHECKING:
    from pathlib import Path

ROOT64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NOTE = f"example.com/log\n7\n{ROOT64}\n\n— example.com/log AAAAAQI=\n".encode()
HASHES = [bytes((n,)) * 32 for n in range(MAX_PROOF_LINES)]
ADD = format_add_checkpoint(5, HASHES[:3], NOTE)
SIGN = format_sign_subtree(4, 6, HASHES[9], HASHES[:2], NOTE)


def again(parsed: AddCheckpoint | SignSubtree, body: bytes) -> bytes:
    """What was parsed, encoded; lines with unused bits have no encoding, so they keep the note as it was."""
    assert parsed.checkpoint.text() == parsed.note.text
    if not all(signature.canonical for signature in parsed.note.signatures):
        return body
    note = format_note(parsed.note.text, parsed.note.signatures)
    if isinstance(parsed, AddCheckpoint):
        return format_add_checkpoint(parsed.old_size, parsed.proof, note)
    return format_sign_subtree(parsed.start, parsed.end, parsed.root, parsed.proof, note)


def reference_hash_lines(lines: list[bytes]) -> list[bytes] | None:
    """The hash lines of a body decoded one by one, slowly, or None: what the fast decoder must agree with."""
    hashes = []
    for line in lines:
        if not re.fullmatch(rb"[A-Za-z0-9+/]{43}=", line):
            return None
        digest = base64.b64decode(line)
        if base64.b64encode(digest) != line or len(digest) != 32:
            return None
        hashes.append(digest)
    return hashes


def test_request_bodies_of_other_witnesses(testdata: Path) -> None:
    # The two requests that are refused for their form, and one with 64 proof lines.
    malformed = 0
    for name in ("add-checkpoint-litewitness.json", "add-checkpoint-zero-size.json"):
        for case in json.loads((testdata / "witness" / name).read_text("utf-8"))["cases"]:
            body = case["request_body"].encode()
            status = case.get("spec_status", case["status"])
            if status == 400 and case.get("name") != "old size greater than new":
                malformed += 1
                with pytest.raises(MalformedSubmission):
                    parse_add_checkpoint(body)
            else:
                # 403, 404, 409 and 422 are judgements about a body that is well formed, and so is
                # the 400 for an old size that is larger than the checkpoint's.
                assert again(parse_add_checkpoint(body), body) == body
    assert malformed == 3
    two = json.loads((testdata / "witness" / "two-keys-one-name.json").read_text("utf-8"))
    assert parse_add_checkpoint(two["request"]["body"].encode()).old_size == 0
    mldsa = json.loads((testdata / "cosignature" / "mldsa-litewitness.json").read_text("utf-8"))
    body = mldsa["request_body"].encode()
    assert again(parse_add_checkpoint(body), body) == body


def test_the_examples_of_the_specification(testdata: Path) -> None:
    examples = json.loads((testdata / "cosignature" / "c2sp-spec-examples.json").read_text("utf-8"))
    body = examples["add_checkpoint_request"].encode()
    add = parse_add_checkpoint(body)
    assert (add.old_size, add.checkpoint.size, len(add.proof)) == (20852014, 20852163, 4)
    assert again(add, body) == body
    # The published sign-subtree example has its signature cut short; it is read with a line put there.
    body = (
        examples["sign_subtree_request_without_signature"].encode()
        + "\n— witness.example/w1 AAAAAQI=\n".encode()
    )
    sign = parse_sign_subtree(body)
    assert (sign.start, sign.end, sign.checkpoint.size, len(sign.proof)) == (8, 13, 14, 4)
    assert again(sign, body) == body


@pytest.mark.parametrize("count", [0, 1, 2, 28, MAX_PROOF_LINES])
@pytest.mark.parametrize("size", [0, 1, 9, 10, MAX_TREE_SIZE])
def test_both_directions(size: int, count: int) -> None:
    add = parse_add_checkpoint(format_add_checkpoint(size, HASHES[:count], NOTE))
    assert (add.old_size, add.proof) == (size, tuple(HASHES[:count]))
    assert again(add, b"") == format_add_checkpoint(size, HASHES[:count], NOTE)
    sign = parse_sign_subtree(format_sign_subtree(size, size, HASHES[7], HASHES[:count], NOTE))
    assert (sign.start, sign.end, sign.root, sign.proof) == (size, size, HASHES[7], tuple(HASHES[:count]))
    assert sign.note == add.note


def test_the_first_empty_line_ends_the_proof_and_the_last_the_text() -> None:
    extended = NOTE.replace(b"\n\n", b"\nan extension line\n\n")
    assert parse_add_checkpoint(b"old 0\n\n" + extended).checkpoint.extensions == ("an extension line",)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"old",
        b"old ",
        b"old  5",
        b" old 5",
        b"old 5 ",
        b"old\t5",
        b"Old 5",
        b"old 05",
        b"old 00",
        b"old -5",
        b"old +5",
        b"old 5.0",
        b"old 0x5",
        b"old 5\r",
        b"old 9223372036854775808",
        b"old 99999999999999999999",
        b"old " + b"9" * 5000,
        "old \u0665".encode(),
        b"size 5",
        b"subtree 4 6",
    ],
)
def test_malformed_old_lines(first: bytes) -> None:
    with pytest.raises(MalformedSubmission):
        parse_add_checkpoint(first + b"\n\n" + NOTE)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"subtree",
        b"subtree 4",
        b"subtree 4 ",
        b"subtree  4 6",
        b"subtree 4  6",
        b"subtree 4 6 ",
        b"subtree 4 6 8",
        b"subtree 04 6",
        b"subtree 4 06",
        b"subtree 4,6",
        b"subtree -4 6",
        b"subtree 4 9223372036854775808",
        b"Subtree 4 6",
        b"old 4",
    ],
)
def test_malformed_subtree_lines(first: bytes) -> None:
    with pytest.raises(MalformedSubmission):
        parse_sign_subtree(first + b"\n" + ROOT64.encode() + b"\n\n" + NOTE)


@pytest.mark.parametrize(
    "line",
    [
        ROOT64[:-1],
        ROOT64 + "=",
        ROOT64 + " ",
        " " + ROOT64,
        ROOT64 + "\r",
        ROOT64[:-2] + "9=",  # the same 32 bytes, unused bits not zero
        ROOT64[:-2] + "==",
        ROOT64[:-2] + "-=",
        ROOT64.replace("AAEC", "AA_-"),
        ROOT64.replace("AAEC", "AA=C"),
        ROOT64.replace("AAEC", "A\u00e9C"),
        ROOT64[4:],
        "AAAA" + ROOT64,
        ROOT64 + ROOT64,
        "A" * 44,
        "=" * 44,
        "x",
    ],
)
def test_malformed_hash_lines(line: str) -> None:
    for around in (b"", ROOT64.encode() + b"\n"):
        block = around + line.encode() + b"\n" + around
        with pytest.raises(MalformedSubmission):
            parse_add_checkpoint(b"old 5\n" + block + b"\n" + NOTE)
        with pytest.raises(MalformedSubmission):
            parse_sign_subtree(b"subtree 4 6\n" + block + b"\n" + NOTE)


def test_newlines_that_are_shifted_do_not_add_up() -> None:
    # 90 bytes, two newlines, but not at the ends of lines.
    block = ROOT64[:-1].encode() + b"\n=A" + ROOT64[1:].encode() + b"\n"
    assert len(block) == 90
    with pytest.raises(MalformedSubmission):
        parse_add_checkpoint(b"old 5\n" + block + b"\n" + NOTE)


def test_the_64th_proof_line_is_refused() -> None:
    line = ROOT64.encode() + b"\n"
    assert len(parse_add_checkpoint(b"old 5\n" + line * 63 + b"\n" + NOTE).proof) == 63
    with pytest.raises(MalformedSubmission, match="63"):
        parse_add_checkpoint(b"old 5\n" + line * 64 + b"\n" + NOTE)
    # sign-subtree has the hash line before them.
    assert len(parse_sign_subtree(b"subtree 4 6\n" + line * 64 + b"\n" + NOTE).proof) == 63
    with pytest.raises(MalformedSubmission, match="63"):
        parse_sign_subtree(b"subtree 4 6\n" + line * 65 + b"\n" + NOTE)


def test_a_subtree_needs_its_hash() -> None:
    with pytest.raises(MalformedSubmission, match="subtree hash"):
        parse_sign_subtree(b"subtree 4 6\n\n" + NOTE)


@pytest.mark.parametrize(
    ("rest", "cause"),
    [
        (b"", MalformedNote),
        (b"\n" + NOTE[:-1], MalformedNote),
        (b"\n" + NOTE.replace(b"AAAAAQI=", b"AAAAAQI"), MalformedNote),
        (b"\n" + NOTE.split(b"\n\n", maxsplit=1)[0] + b"\n", MalformedNote),
        (b"\n\n" + NOTE, MalformedCheckpoint),  # one empty line too many is an empty origin
        (b"\n" + NOTE.replace(b"\n7\n", b"\n07\n"), MalformedCheckpoint),
        (b"\n" + NOTE.replace(b"\n\n", b"\n\nx\n\n"), MalformedCheckpoint),
    ],
)
def test_a_bad_note_is_the_cause(rest: bytes, cause: type[Exception]) -> None:
    parsers: list[tuple[Any, bytes]] = [
        (parse_add_checkpoint, b"old 5\n"),
        (parse_sign_subtree, b"subtree 4 6\n" + ROOT64.encode() + b"\n"),
    ]
    for parse, head in parsers:
        with pytest.raises(MalformedSubmission) as caught:
            parse(head + (rest or b"\n"))
        assert isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"\n\n", b"old 5", b"old 5\n", ADD.split(b"\n\n", maxsplit=1)[0]]
)
def test_a_body_without_an_empty_line(body: bytes) -> None:
    with pytest.raises(MalformedSubmission):
        parse_add_checkpoint(body)


def test_what_could_not_be_parsed_is_not_made() -> None:
    for size in (-1, MAX_TREE_SIZE + 1):
        with pytest.raises(ValueError, match="no tree size"):
            format_add_checkpoint(size, [], NOTE)
        with pytest.raises(ValueError, match="no tree size"):
            format_sign_subtree(0, size, HASHES[0], [], NOTE)
    with pytest.raises(ValueError, match="more than 63"):
        format_add_checkpoint(5, [*HASHES, HASHES[0]], NOTE)
    with pytest.raises(ValueError, match="31 bytes"):
        format_add_checkpoint(5, [bytes(31)], NOTE)
    with pytest.raises(ValueError, match="33 bytes"):
        format_sign_subtree(4, 6, bytes(33), [], NOTE)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_submission_or_malformed(data: bytes) -> None:
    for body in (data, b"old 5\n" + data, b"old 0\n\n" + data, ADD + data):
        try:
            assert again(parse_add_checkpoint(body), body) == body
        except MalformedSubmission:
            continue
    for body in (data, b"subtree 4 6\n" + data, SIGN + data):
        try:
            assert again(parse_sign_subtree(body), body) == body
        except MalformedSubmission:
            continue


@given(st.data())
def test_a_mutated_submission_is_refused_or_encodes_back(data: st.DataObject) -> None:
    parse: Any
    parse, body = data.draw(st.sampled_from([(parse_add_checkpoint, ADD), (parse_sign_subtree, SIGN)]))
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 46))
    put = data.draw(st.binary(max_size=3) | st.sampled_from([b"=", b"\n", b"=\n", b"A", b"\n\n"]))
    mutated = body[:at] + put + body[at + cut :]
    try:
        parsed = parse(mutated)
    except MalformedSubmission:
        return
    assert again(parsed, mutated) == mutated


hash_line = st.binary(min_size=32, max_size=32).map(base64.b64encode)
odd_line = st.lists(
    st.sampled_from([b"A", b"9", b"E", b"=", b"+", b"\n", b" "]), min_size=43, max_size=46
).map(b"".join)


@given(st.lists(hash_line | odd_line, max_size=4))
def test_hash_lines_decode_as_one_by_one(lines: list[bytes]) -> None:
    body = b"".join([b"old 5\n", *[line + b"\n" for line in lines], b"\n", NOTE])
    expected = reference_hash_lines(body[len(b"old 5\n") : body.index(b"\n\n") + 1].split(b"\n")[:-1])
    try:
        proof = list(parse_add_checkpoint(body).proof)
    except MalformedSubmission:
        # Odd lines may hold an empty line, and then what follows is no checkpoint.
        assert expected is None or b"\n\n" in body[: -len(NOTE) - 1]
        return
    assert proof == expected
