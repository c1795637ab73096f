"""The framed protocol: values and errors cross it unchanged; any bytes give a value or WireError."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.core import refusals
from witness.core.refusals import BY_CODE, CoreError, InternalError, Refusal, Unavailable
from witness.core.wire import (
    MAX_BODY,
    MAX_REQUEST,
    Changes,
    CoreStatus,
    Cursor,
    FrameReader,
    KeyInfo,
    Kind,
    LockdownStep,
    LogInfo,
    LogPage,
    Verb,
    WireError,
    decode_changes,
    decode_cursor,
    decode_error,
    decode_logs,
    decode_since,
    decode_status,
    encode_error,
    encode_frame,
    encode_since,
    encode_value,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
NUMBER = st.integers(-1, 2**63 - 1)
FACTS: dict[str, st.SearchStrategy[Any]] = {"str": TEXT, "int": NUMBER}


def concrete(family: type[CoreError]) -> list[type[CoreError]]:
    below = family.__subclasses__()
    return [leaf for cls in below for leaf in concrete(cls)] if below else [family]


def errors() -> st.SearchStrategy[CoreError]:
    return st.sampled_from(concrete(CoreError)).flatmap(
        lambda cls: st.builds(
            cls, **{field.name: FACTS[str(field.type)] for field in dataclasses.fields(cls)}
        )
    )


@given(errors())
def test_every_error_crosses_as_itself(error: CoreError) -> None:
    crossed = decode_error(encode_error(error))
    assert type(crossed) is type(error)
    assert crossed == error
    assert str(crossed) == str(error)


def test_every_error_has_a_code_of_its_own() -> None:
    leaves = concrete(CoreError)
    assert sorted(BY_CODE) == sorted(cls.code for cls in leaves)
    assert len({cls.code for cls in leaves}) == len(leaves)
    assert all(issubclass(cls, Refusal | Unavailable) for cls in leaves)
    assert CoreError.code not in BY_CODE


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"null", b'["no-such-code", {}]', b'["stale-old-size", {}]', b'["stale-old-size"]',
     b'["stale-old-size", {"known": 1, "more": 2}]', b'[["stale-old-size"], {}]', b'["malformed", "text"]',
     b"\xff", b"[" * 100_000, b'["__class__", {}]'],
)  # fmt: skip
def test_an_error_that_is_none_becomes_an_internal_error(payload: bytes) -> None:
    assert type(decode_error(payload)) is InternalError


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_an_error(payload: bytes) -> None:
    assert isinstance(decode_error(payload), CoreError)


def some(cls: type[Any], **special: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "str": TEXT, "int": NUMBER, "bool": st.booleans(), "float": st.floats(0, 1e12),
        "str | None": st.none() | TEXT, "int | None": st.none() | NUMBER,
        "float | None": st.none() | st.floats(0, 1e6),
        "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
        "dict[str, int]": st.dictionaries(TEXT, NUMBER, max_size=3),
        "dict[str, float]": st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3),
    }  # fmt: skip
    fields = {
        f.name: special[f.name] if f.name in special else kinds[str(f.type)] for f in dataclasses.fields(cls)
    }
    return st.builds(cls, **fields)


STATUSES = some(
    CoreStatus,
    keys=st.lists(some(KeyInfo), max_size=2).map(tuple),
    lockdown=st.lists(some(LockdownStep), max_size=2).map(tuple),
)
PAGES = some(LogPage, logs=st.lists(some(LogInfo), max_size=2).map(tuple))
CURSORS = some(Cursor)
CHANGES = some(Changes, cursor=CURSORS)


@given(STATUSES)
def test_every_status_crosses(value: CoreStatus) -> None:
    assert decode_status(encode_value(value)) == value


@given(PAGES)
def test_every_page_crosses(value: LogPage) -> None:
    assert decode_logs(encode_value(value)) == value


@given(CHANGES)
def test_all_changes_cross(value: Changes) -> None:
    assert decode_changes(encode_value(value)) == value


@given(CURSORS)
def test_every_cursor_crosses(value: Cursor) -> None:
    assert decode_cursor(encode_value(value)) == value


@given(st.integers(0, 2**59))
def test_every_change_number_crosses(value: int) -> None:
    assert decode_since(encode_since(value)) == value


def test_no_cursor_and_no_change_number_are_empty_payloads() -> None:
    assert decode_cursor(b"") is None
    assert decode_since(b"") == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["cursor", "epoch", "sequence", "origins", "logs", "keys", "vkeys", "more"]),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
DECODERS: list[Callable[[bytes], object]] = [
    decode_status, decode_logs, decode_changes, decode_cursor, decode_since
]  # fmt: skip
UTF_16 = '{"epoch": "x", "sequence": 1}'.encode("utf-16-be")
LONG = b'{"sequence": 1' + b"0" * 5000 + b"}"
HOSTILE = [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"1" * 5000, LONG, UTF_16, b"\x00l"]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: repr(payload[:12]))
def test_hostile_payloads_give_the_one_error(decode: Callable[[bytes], object], payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload)


@pytest.mark.parametrize("decode", DECODERS)
@given(payload=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_value_or_the_one_error(decode: Callable[[bytes], object], payload: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(payload)


FRAMES = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=300)), max_size=6
)


@given(FRAMES)
def test_frames_come_out_as_they_went_in_whole(frames: list[tuple[int, int, bytes]]) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    assert FrameReader(MAX_REQUEST).feed(stream) == frames


@given(FRAMES)
def test_frames_come_out_as_they_went_in_byte_by_byte(frames: list[tuple[int, int, bytes]]) -> None:
    reader, got = FrameReader(MAX_REQUEST), []
    for byte in b"".join(encode_frame(*frame) for frame in frames):
        got += reader.feed(bytes([byte]))
    assert got == frames


@given(FRAMES, st.data())
def test_frames_come_out_as_they_went_in_cut_anywhere(
    frames: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    reader, got = FrameReader(MAX_REQUEST), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert got == frames


@pytest.mark.parametrize("length", [0, 1, 4, MAX_REQUEST + 1, 2**31, 2**32 - 1])
def test_a_hostile_length_is_known_from_the_header_alone(length: int) -> None:
    header = length.to_bytes(4, "big") + bytes(5)
    with pytest.raises(WireError, match=str(length)):
        FrameReader(MAX_REQUEST).feed(header)


def test_the_largest_frame_is_taken_and_one_byte_more_is_not() -> None:
    largest = bytes(MAX_REQUEST - 5)
    assert FrameReader(MAX_REQUEST).feed(encode_frame(1, 1, largest)) == [(1, 1, largest)]
    with pytest.raises(WireError):
        FrameReader(MAX_REQUEST).feed(encode_frame(1, 1, largest + b"x"))
    assert len(largest) >= MAX_BODY, "the largest body fits"


@given(st.lists(st.binary(min_size=1, max_size=64), max_size=20))
def test_any_bytes_are_frames_or_the_one_error(chunks: list[bytes]) -> None:
    reader = FrameReader(4096)
    with contextlib.suppress(WireError):
        for chunk in chunks:
            for _, _, payload in reader.feed(chunk):
                assert len(payload) <= 4096


def test_verbs_and_kinds_are_bytes_that_do_not_change() -> None:
    assert {verb.name: verb.value for verb in Verb} == {
        "ADD_CHECKPOINT": 1, "SIGN_SUBTREE": 2, "CHECKPOINT": 3, "STATUS": 4, "LOGS": 5, "CHANGES": 6,
        "SEEN": 7, "COMPARED": 8,
    }  # fmt: skip
    assert {kind.name: kind.value for kind in Kind} == {"OK": 0, "ERROR": 1}


def test_an_error_with_text_that_has_no_utf8_form_still_crosses() -> None:
    error = refusals.MalformedRequest("\ud800")
    assert decode_error(encode_error(error)) == error
