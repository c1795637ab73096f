"""The head of a record of events: one way to write it, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import MalformedNote
from witness.tlog.record_head import RecordHead, parse_record_head, recognises

DIGEST = "ab" * 32
TEXT = (
    "tlog-witness record head v1\nwitness w.example/1\nidentity 00ff\nentry 12\n"
    f"hash {DIGEST}\ntime 1800000000\n"
).encode()
HEAD = RecordHead("w.example/1", "00ff", 12, DIGEST, 1_800_000_000)


def test_written_and_read() -> None:
    assert HEAD.text() == TEXT
    assert parse_record_head(TEXT) == HEAD
    assert recognises(TEXT)
    assert not recognises(b"tlog-witness record head v2\n")


_NO_NAME = ("Cs", "Zs", "Zl", "Zp", "Cc")
_HEADS = st.builds(
    RecordHead,
    name=st.text(
        st.characters(min_codepoint=33, exclude_categories=_NO_NAME, exclude_characters="+"),
        min_size=1,
    ),
    identity=st.text("0123456789abcdef", min_size=1, max_size=64),
    number=st.integers(1, 10**18 - 1),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    time=st.integers(0, 10**18 - 1),
)  # fmt: skip


@given(_HEADS)
def test_every_head_is_read_back_and_is_no_checkpoint(head: RecordHead) -> None:
    assert parse_record_head(head.text()) == head
    with pytest.raises(MalformedCheckpoint):
        parse_checkpoint(head.text())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v1", "v2"), ("w.example/1", "w example"), ("w.example/1", ""), ("w.example/1", "w\nidentity 1"),
        ("00ff", "00FF"), ("00ff", "0" * 65), ("entry 12", "entry 0"), ("entry 12", "entry 012"),
        ("entry 12", "entry -1"), ("entry 12", "entry 1" + "0" * 18), ("entry 12", "entry " + "1" * 5000),
        (DIGEST, DIGEST.upper()), (DIGEST, DIGEST[2:]), ("time 1", "time 01"), ("time ", "time"),
        ("\nhash", "\n\nhash"), ("00\n", "00"), ("00\n", "00\n\n"), ("witness ", "witness\t"),
    ],
)  # fmt: skip
def test_anything_else_is_none(old: str, new: str) -> None:
    changed = TEXT.replace(old.encode(), new.encode(), 1)
    assert changed != TEXT
    with pytest.raises(MalformedNote):
        parse_record_head(changed)


def test_no_field_brings_a_line_of_its_own() -> None:
    for fields in (
        {"name": "w\nentry 99"}, {"identity": "00\n"}, {"digest": DIGEST + "\n"}, {"number": 0}, {"time": -1},
        {"name": "two words"}, {"name": ""},
    ):  # fmt: skip
        whole = {"name": "w", "identity": "00", "number": 1, "digest": DIGEST, "time": 0, **fields}
        with pytest.raises(ValueError, match="no "):
            RecordHead(**whole)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_the_one_error(data: bytes) -> None:
    for text in (data, TEXT[:40] + data, TEXT + data):
        try:
            parse_record_head(text)
        except MalformedNote:
            continue
