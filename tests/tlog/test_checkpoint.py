from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.checkpoint import (
    Checkpoint,
    MalformedCheckpoint,
    log_id,
    origin_hash,
    parse_checkpoint,
    parse_size,
)
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import parse_note

if TYPE_CHECKING:
    from pathlib import Path

ROOT = bytes(range(32))
ROOT64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
GOOD = f"example.com/log\n7\n{ROOT64}\n".encode()


def bodies(testdata: Path) -> Any:
    return json.loads((testdata / "notes" / "checkpoint-bodies.json").read_text("utf-8"))


def test_real_checkpoints(testdata: Path) -> None:
    index = json.loads((testdata / "checkpoints" / "index.json").read_text("utf-8"))
    assert len(index) > 60
    for entry in index:
        text = parse_note((testdata / "checkpoints" / entry["file"]).read_bytes()).text
        checkpoint = parse_checkpoint(text)
        assert checkpoint.text() == text
        assert (checkpoint.origin, checkpoint.size) == (entry["origin"], entry["size"])
        assert len(checkpoint.extensions) == entry["extension_lines"]


# The Go library that these bodies come from takes hashes of any length, and empty extension lines.
# C2SP wants the root of an RFC 6962 tree, which has 32 bytes, and extension lines that are not empty.
NOT_C2SP = {"valid one", "valid with trailing data", "multiple extension lines", "trailing empty lines"}


def test_checkpoint_bodies(testdata: Path) -> None:
    cases = bodies(testdata)["cases"]
    assert {case["desc"] for case in cases if case["ok"]} == NOT_C2SP
    for case in cases:
        with pytest.raises(MalformedCheckpoint):
            parse_checkpoint(case["body"].encode())
        if case["ok"]:
            # With 32 bytes of hash they are what they were taken for, but for the empty lines.
            origin, size, _, *extensions = case["body"].split("\n")
            body = "\n".join([origin, size, ROOT64, *extensions]).encode()
            if case["desc"] == "trailing empty lines":
                with pytest.raises(MalformedCheckpoint, match="empty extension line"):
                    parse_checkpoint(body)
            else:
                assert parse_checkpoint(body).text() == body


def test_origin_lengths(testdata: Path) -> None:
    spelled = {"a*255": "a" * 255, "a*256": "a" * 256, "é*127+a (255 bytes)": "é" * 127 + "a"}
    spelled["é*128 (256 bytes)"] = "é" * 128
    for label, accepted in bodies(testdata)["origin_length"]["cases"]:
        origin = spelled.get(label, label)
        body = f"{origin}\n7\n{ROOT64}\n".encode()
        if accepted:
            assert parse_checkpoint(body) == Checkpoint(origin, 7, ROOT)
        else:
            with pytest.raises(MalformedCheckpoint):
                parse_checkpoint(body)


def test_log_ids(testdata: Path) -> None:
    for origin, expected in bodies(testdata)["log_id"]["cases"]:
        assert log_id(origin) == expected


def test_the_origin_hash_is_plain_sha256() -> None:
    assert origin_hash("é").hex() == hashlib.sha256(b"\xc3\xa9").hexdigest()


@pytest.mark.parametrize(
    ("text", "checkpoint"),
    [
        (GOOD, Checkpoint("example.com/log", 7, ROOT)),
        (GOOD + b"one\n two\n", Checkpoint("example.com/log", 7, ROOT, ("one", " two"))),
        (GOOD.replace(b"\n7\n", b"\n0\n"), Checkpoint("example.com/log", 0, ROOT)),
        (
            GOOD.replace(b"\n7\n", b"\n9223372036854775807\n"),
            Checkpoint("example.com/log", MAX_TREE_SIZE, ROOT),
        ),
        # "clients MUST NOT assume that the origin is following this format"
        (
            b" go.sum + tree\xc2\xa0\n7\n" + ROOT64.encode() + b"\n",
            Checkpoint(" go.sum + tree\u00a0", 7, ROOT),
        ),
    ],
)
def test_both_directions(text: bytes, checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(text) == checkpoint
    assert checkpoint.text() == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n\n",
        GOOD[:-1],
        b"\n" + GOOD,
        GOOD + b"\n",
        GOOD + b"x",
        GOOD + b"x\n\ny\n",
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"example", b"exa\tmple"),
        GOOD.replace(b"example", b"exa\xffmple"),
        GOOD + b"ex\x01t\n",
        GOOD.replace(b"\n7\n", b"\n\n"),
        GOOD.replace(b"\n7\n", b"\n07\n"),
        GOOD.replace(b"\n7\n", b"\n00\n"),
        GOOD.replace(b"\n7\n", b"\n+7\n"),
        GOOD.replace(b"\n7\n", b"\n-7\n"),
        GOOD.replace(b"\n7\n", b"\n-0\n"),
        GOOD.replace(b"\n7\n", b"\n 7\n"),
        GOOD.replace(b"\n7\n", b"\n7 \n"),
        GOOD.replace(b"\n7\n", b"\n7_0\n"),
        GOOD.replace(b"\n7\n", b"\n0x7\n"),
        GOOD.replace(b"\n7\n", "\n\u0667\n".encode()),  # ARABIC-INDIC DIGIT SEVEN, which int() takes
        GOOD.replace(b"\n7\n", b"\n9223372036854775808\n"),
        GOOD.replace(b"\n7\n", b"\n" + b"9" * 5000 + b"\n"),
        GOOD.replace(b"h8=", b"h8"),
        GOOD.replace(b"h8=", b"h9="),  # the same 32 bytes, unused bits not zero
        GOOD.replace(b"h8=", b"h8=="),
        GOOD.replace(b"h8=", b"h8= "),
        GOOD.replace(b"AAEC", b""),
        GOOD.replace(b"AAEC", b"AAECAAEC"),
        GOOD.replace(b"AAEC", b"AA-_"),
    ],
)
def test_malformed_checkpoints(text: bytes) -> None:
    with pytest.raises(MalformedCheckpoint):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "fields",
    [
        ("", 7, ROOT),
        ("a\nb", 7, ROOT),
        ("a\rb", 7, ROOT),
        ("\ud800", 7, ROOT),
        ("a" * 256, 7, ROOT),
        ("a", -1, ROOT),
        ("a", MAX_TREE_SIZE + 1, ROOT),
        ("a", 7, ROOT[:-1]),
        ("a", 7, ROOT + b"\0"),
        ("a", 7, ROOT, ("",)),
        ("a", 7, ROOT, ("ok", "b\nc")),
        ("a", 7, ROOT, ("\ud800",)),
    ],
)
def test_a_checkpoint_that_has_no_text_cannot_be_made(fields: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedCheckpoint):
        Checkpoint(*fields)


@pytest.mark.parametrize("digits", [b"", b"1\n", b"01", b"1e3", b"9223372036854775808", b"9" * 20])
def test_what_is_no_size(digits: bytes) -> None:
    with pytest.raises(ValueError, match=r"decimal|larger"):
        parse_size(digits)


lines = st.text(st.characters(exclude_categories=["Cs"]).filter(lambda c: c >= " "), min_size=1, max_size=60)


@given(lines, st.integers(0, MAX_TREE_SIZE), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_what_is_encoded_parses_to_the_same(
    origin: str, size: int, root: bytes, extensions: list[str]
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.text()) == checkpoint


@given(st.binary(max_size=150))
def test_any_bytes_are_a_checkpoint_or_malformed(data: bytes) -> None:
    for text in (data, GOOD[:20] + data, GOOD + data):
        try:
            assert parse_checkpoint(text).text() == text
        except MalformedCheckpoint:
            continue


@given(st.integers(0, len(GOOD)), st.integers(0, 3), st.binary(max_size=3))
def test_a_mutated_checkpoint_is_refused_or_encodes_back(at: int, cut: int, put: bytes) -> None:
    text = GOOD[:at] + put + GOOD[at + cut :]
    try:
        checkpoint = parse_checkpoint(text)
    except MalformedCheckpoint:
        return
    assert checkpoint.text() == text
