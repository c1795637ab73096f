from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.note import (
    MAX_SIGNATURES,
    MalformedNote,
    Note,
    Signature,
    decode_base64,
    encode_base64,
    format_note,
    is_key_name,
    parse_note,
    parse_signature_lines,
)

if TYPE_CHECKING:
    from pathlib import Path

LINE = "— example.com/foo AAAAAQI=\n"
GOOD = f"one\n\ntwo\n\n{LINE}".encode()


def load(testdata: Path, name: str) -> Any:
    return json.loads((testdata / "notes" / name).read_text("utf-8"))


def note_bytes(case: dict[str, Any]) -> bytes:
    return base64.b64decode(case["note_base64"]) if "note_base64" in case else case["note"].encode()


# Ours allows 128 signature lines where Go's library stops at 100; the specification leaves the number open.
OTHER_LIMIT = {"101 signatures, known key", "101 signatures, no known key"}


def test_signed_note_vectors_have_the_expected_form(testdata: Path) -> None:
    cases = load(testdata, "signed-notes.json")["cases"]
    assert len(cases) > 20
    for case in cases:
        data = note_bytes(case)
        if case["expect"] == "malformed" and case["name"] not in OTHER_LIMIT:
            with pytest.raises(MalformedNote):
                parse_note(data)
        else:
            note = parse_note(data)
            assert format_note(note.text, note.signatures) == data, case["name"]


def test_real_checkpoints_parse_and_encode_back(testdata: Path) -> None:
    index = json.loads((testdata / "checkpoints" / "index.json").read_text("utf-8"))
    for entry in index:
        data = (testdata / "checkpoints" / entry["file"]).read_bytes()
        note = parse_note(data)
        assert format_note(note.text, note.signatures) == data
        assert [(s.name, s.key_id.hex(), len(s.value)) for s in note.signatures] == [
            (s["name"], s["key_id"], s["sig_len"]) for s in entry["signatures"]
        ]


def test_the_last_empty_line_separates() -> None:
    note = parse_note(GOOD)
    assert note == Note(b"one\n\ntwo\n", (Signature("example.com/foo", b"\x00\x00\x00\x01", b"\x02"),))
    assert format_note(note.text, note.signatures) == GOOD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text\n" + LINE.encode(),  # no empty line
        b"\n" + LINE.encode(),  # no text at all, not even a newline
        GOOD[:-1],  # no final newline
        GOOD + b"\n",  # the last empty line ends the note: no signature behind it
        GOOD + b"junk\n",
        GOOD.replace(b"\n", b"\r\n"),
        b"\x00" + GOOD,
        b"\t" + GOOD,
        b"\x1f" + GOOD,
        b"\xff" + GOOD,
        b"\xed\xa0\x80" + GOOD,  # a surrogate in UTF-8
        b"\xc0\x8a" + GOOD,  # an overlong newline
    ],
)
def test_malformed_notes(data: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_note(data)


def test_a_text_of_one_newline_and_the_character_u007f_are_allowed() -> None:
    assert parse_note(b"\n\n" + LINE.encode()).text == b"\n"
    # "ASCII control characters (those below U+0020)": U+007F is not one of them.
    assert parse_note(b"\x7f\n\n" + LINE.encode()).text == b"\x7f\n"


@pytest.mark.parametrize(
    "line",
    [
        "- example.com/foo AAAAAQI=",  # hyphen
        "– example.com/foo AAAAAQI=",  # en dash
        "—example.com/foo AAAAAQI=",
        "—  example.com/foo AAAAAQI=",
        " — example.com/foo AAAAAQI=",
        "— example.com/foo",
        "— example.com/foo ",
        "— AAAAAQI=",
        "—  AAAAAQI=",
        "— example.com/foo  AAAAAQI=",
        "— example.com/foo AAAAAQI= ",
        "— example.com/foo AAAAAQI= x",
        "— example.com/f+o AAAAAQI=",
        "— example.com/f\u00a0o AAAAAQI=",
        "— example.com/f\u2028o AAAAAQI=",
        "— example.com/f\u3000o AAAAAQI=",
        "— example.com/foo AAAAAQI",  # unpadded
        "— example.com/foo AAAAAQI==",
        "— example.com/foo AAAAAQ==AAAA",
        "— example.com/foo AAAA_-I=",  # the URL alphabet
        "— example.com/foo AAAA\u00e9QI=",
        "— example.com/foo AAAAAA==",  # a key ID alone: one byte too few
        "— example.com/foo =",
    ],
)
def test_malformed_signature_lines(line: str) -> None:
    with pytest.raises(MalformedNote):
        parse_note(f"text\n\n{line}\n".encode())
    with pytest.raises(MalformedNote):
        parse_signature_lines(f"{line}\n".encode())


def test_a_line_with_unused_bits_spoils_no_note_and_encodes_nothing() -> None:
    (signature,) = parse_signature_lines("— example.com/foo AAAAAQJ=\n".encode())
    assert signature == Signature("example.com/foo", b"\x00\x00\x00\x01", b"\x02", canonical=False)
    assert parse_note("text\n\n— example.com/foo AAAAAQJ=\n".encode()).signatures == (signature,)
    with pytest.raises(MalformedNote, match="canonical"):
        signature.line()
    with pytest.raises(MalformedNote, match="canonical"):
        format_note(b"text\n", [signature])


def test_five_bytes_are_the_shortest_signature() -> None:
    (signature,) = parse_signature_lines("— a AAAAAAA=\n".encode())
    assert signature == Signature("a", bytes(4), b"\x00")
    assert signature.line() == "— a AAAAAAA=\n"


@pytest.mark.parametrize(
    "bad", [b"", b"\n", LINE.encode()[:-1], LINE.encode() + b"\n", b"\n" + LINE.encode()]
)
def test_an_answer_is_signature_lines_alone(bad: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_signature_lines(bad)


def test_several_lines_keep_their_order() -> None:
    lines = [Signature(f"w{n}", bytes((0, 0, 0, n)), bytes((n,))) for n in range(MAX_SIGNATURES)]
    data = "".join(signature.line() for signature in lines).encode()
    assert parse_signature_lines(data) == tuple(lines)
    assert parse_note(b"text\n\n" + data).signatures == tuple(lines)


def test_more_than_128_lines_are_refused() -> None:
    lines = [Signature("w", bytes(4), b"x")] * (MAX_SIGNATURES + 1)
    data = "".join(signature.line() for signature in lines).encode()
    with pytest.raises(MalformedNote, match="128"):
        parse_signature_lines(data)
    with pytest.raises(MalformedNote, match="128"):
        format_note(b"text\n", lines)


@pytest.mark.parametrize("text", [b"", b"text", b"a\x00\n", b"\xff\n", b"a\r\n"])
def test_a_note_that_could_not_be_parsed_is_not_made(text: bytes) -> None:
    with pytest.raises(MalformedNote):
        format_note(text, [Signature("a", bytes(4), b"x")])


def test_a_note_without_signatures_is_not_made() -> None:
    with pytest.raises(MalformedNote):
        format_note(b"text\n", [])


@pytest.mark.parametrize(
    ("name", "key_id", "value"),
    [
        ("", bytes(4), b"x"),
        ("a b", bytes(4), b"x"),
        ("a\n", bytes(4), b"x"),
        ("a", bytes(3), b"x"),
        ("a", bytes(4), b""),
    ],
)
def test_a_signature_that_has_no_line_cannot_be_made(name: str, key_id: bytes, value: bytes) -> None:
    with pytest.raises(MalformedNote):
        Signature(name, key_id, value)


def test_key_names_over_every_code_point() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        allowed = code >= 0x20 and not char.isspace() and char != "+" and not 0xD800 <= code < 0xE000
        assert is_key_name(f"a{char}b") is allowed, hex(code)
        assert is_key_name(char) is allowed, hex(code)
    assert not is_key_name("")
    assert not is_key_name("a\n")


@pytest.mark.parametrize(
    ("text", "data"),
    [(b"", b""), (b"AA==", b"\0"), (b"AAA=", b"\0\0"), (b"AAAA", b"\0\0\0"), (b"+/+/", b"\xfb\xff\xbf")],
)
def test_canonical_base64(text: bytes, data: bytes) -> None:
    assert decode_base64(text) == data
    assert encode_base64(data) == text.decode()


@pytest.mark.parametrize(
    "text",
    [
        b"A",
        b"AA",
        b"AA=",
        b"AB==",
        b"AAB=",
        b"AA==\n",
        b" AA==",
        b"A A==",
        b"AA==AA==",
        b"====",
        b"-_-_",
        b"\xff",
    ],
)
def test_base64_that_is_not_canonical(text: bytes) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_base64(text)


@given(st.binary(max_size=12) | st.text("AQgw+/=\n", max_size=12).map(str.encode))
def test_base64_has_one_encoding(text: bytes) -> None:
    try:
        data = decode_base64(text)
    except ValueError:
        return
    assert base64.b64encode(data) == text


names = st.text(min_size=1, max_size=20).filter(is_key_name)
signatures = st.builds(
    Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80)
)
texts = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda c: c == "\n" or c >= " "), max_size=60
).map(lambda text: f"{text}\n".encode())


@given(texts, st.lists(signatures, min_size=1, max_size=5))
def test_what_is_formatted_parses_to_the_same(text: bytes, lines: list[Signature]) -> None:
    assert parse_note(format_note(text, lines)) == Note(text, tuple(lines))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_or_malformed(data: bytes) -> None:
    for parse in (parse_note, parse_signature_lines):
        try:
            parse(data)
        except MalformedNote:
            continue


@given(st.data())
def test_a_mutated_note_is_refused_or_encodes_back(data: st.DataObject) -> None:
    note = data.draw(st.sampled_from([GOOD, b"text\n\n" + LINE.encode() * 3]))
    at = data.draw(st.integers(0, len(note)))
    cut = data.draw(st.integers(0, 3))
    mutated = note[:at] + data.draw(st.binary(max_size=3)) + note[at + cut :]
    try:
        parsed = parse_note(mutated)
    except MalformedNote:
        return
    if all(signature.canonical for signature in parsed.signatures):
        assert format_note(parsed.text, parsed.signatures) == mutated
