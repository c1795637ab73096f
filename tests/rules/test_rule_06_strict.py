"""Rule 6: parse strictly, by the letter of the specification, and sign our own re-encoding of what was
understood. Any bytes give a value or the one documented error of that parser, nothing else.

The guard: `parse_add_checkpoint` and `parse_sign_subtree` (witness/tlog/submission.py); `Judge.judge`
(witness/core/judging.py), which signs and stores `checkpoint.text()` with the verified lines alone.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.state import core
from tests.rules.support import RecordingSigner, answer, state, subtree_answer
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.refusals import CoreError, InternalError, MalformedRequest
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import VerifierKey, format_note, parse_note
from witness.tlog.submission import (
    MalformedSubmission,
    format_add_checkpoint,
    parse_add_checkpoint,
    parse_sign_subtree,
)

LOG = SimulatedLog("rule.example/6", size=9)
GOOD = LOG.add_checkpoint(4)
ODD = [b"\n", b" ", b"\r", b"=", b"0", b"+", b"\x00", b"\n\n"]
SUBTREE = LOG.sign_subtree(4, 8, LOG.checkpoint())


def mutations(base: bytes) -> st.SearchStrategy[bytes]:
    """A good body with a few bytes changed, taken out, put in or doubled."""
    spot = st.integers(0, len(base))
    edit = st.one_of(
        st.tuples(st.just("set"), spot, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("cut"), spot, st.binary(min_size=1, max_size=9)),
        st.tuples(
            st.just("put"), spot, st.sampled_from([b"\n", b" ", b"\r", b"=", b"0", b"+", b"\x00", b"\n\n"])
        ),
        st.tuples(st.just("double"), spot, st.binary(min_size=1, max_size=60)),
    )

    def apply(edits: list[tuple[str, int, bytes]]) -> bytes:
        body = base
        for kind, at, data in edits:
            size = len(data)
            if kind == "set":
                body = body[:at] + data + body[at + size :]
            elif kind == "cut":
                body = body[:at] + body[at + size :]
            elif kind == "put":
                body = body[:at] + data + body[at:]
            else:
                body = body[: at + size] + body[at:]
        return body

    return st.lists(edit, min_size=1, max_size=4).map(apply)


@settings(max_examples=300)
@given(st.binary(max_size=300) | mutations(GOOD))
def test_what_parses_is_exactly_what_it_encodes_to(body: bytes) -> None:
    """One meaning, one form: what is accepted, written again, is the same bytes."""
    try:
        parsed = parse_add_checkpoint(body)
    except MalformedSubmission:
        return
    assert parsed.checkpoint.text() == parsed.note.text
    if all(signature.canonical for signature in parsed.note.signatures):
        note = format_note(parsed.checkpoint.text(), parsed.note.signatures)
        assert format_add_checkpoint(parsed.old_size, parsed.proof, note) == body


@settings(max_examples=300)
@given(st.binary(max_size=300) | mutations(SUBTREE))
def test_a_subtree_body_is_a_value_or_the_one_error(body: bytes) -> None:
    try:
        parsed = parse_sign_subtree(body)
    except MalformedSubmission:
        return
    assert parsed.checkpoint.text() == parsed.note.text


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"old 4\n", b"old 04\n"), (b"old 4\n", b"old 4 \n"), (b"old 4\n", b"old +4\n"), (b"\n9\n", b"\n09\n"),
     (b"old 4\n", b"old 4\r\n"), (b"=\n\n", b"\n\n"), (b"old 4\n", b"OLD 4\n")],
)  # fmt: skip
def test_another_form_of_the_same_meaning_is_refused(old: bytes, new: bytes) -> None:
    assert old in GOOD
    with pytest.raises(MalformedSubmission):
        parse_add_checkpoint(GOOD.replace(old, new, 1))


def test_unused_bits_of_a_hash_are_zero() -> None:
    """Base64 that decodes to the same 32 bytes in another way is another body, and refused."""
    line = GOOD.split(b"\n")[1]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for extra in (1, 2, 3):
        twin = line[:42] + bytes([alphabet[alphabet.index(line[42]) + extra]]) + b"="
        assert base64.b64decode(twin) == base64.b64decode(line)
        with pytest.raises(MalformedSubmission):
            parse_add_checkpoint(GOOD.replace(line, twin, 1))


async def test_no_bytes_get_more_than_a_value_or_a_refusal_out_of_the_core(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/6", size=9)
    layout = state(tmp_path, log, algorithms=("ed25519", "ml-dsa-44"))
    async with core(layout) as running:
        bodies = [GOOD[:n] for n in range(0, len(GOOD), 7)] + [SUBTREE[:n] for n in range(0, len(SUBTREE), 7)]
        bodies += [b"", b"\xff" * 50, b"\n" * 1000, b"old 0\n\n" + b"x\n" * 1000, GOOD * 3, GOOD + SUBTREE]
        for body in bodies:
            for got in (await answer(running, body), await subtree_answer(running, body)):
                assert isinstance(got, MalformedRequest), (body, got)
        for body in (GOOD, SUBTREE):
            for got in (await answer(running, body), await subtree_answer(running, body)):
                assert isinstance(got, CoreError)
                assert not isinstance(got, InternalError)


async def test_signed_and_stored_is_our_own_encoding_with_verified_lines_alone(
    tmp_path: Path,
) -> None:
    log = SimulatedLog("rule.example/6", size=9, keys=[SimulatedKey("one"), SimulatedKey("two", number=1)])
    layout = state(tmp_path, log)
    strangers = [SimulatedKey("stranger.example"), SimulatedKey("one", number=7)]
    signed: list[tuple[VerifierKey, bytes]] = []
    async with core(layout, wrap_signer=lambda signer: RecordingSigner(signer, signed)) as running:
        keys = [strangers[0], log.keys[1], strangers[1], log.keys[0], log.keys[1]]
        lines = await answer(running, log.add_checkpoint(0, keys=keys))
        assert isinstance(lines, bytes)
        stored = running.store.cosigned(origin_hash(log.origin))
        assert stored is not None
        assert stored.note == log.checkpoint(keys=[log.keys[1], log.keys[0]])
        assert stored.cosignatures == lines
        assert b"stranger" not in stored.note + stored.cosignatures
        text = log.value().text()
        assert [message.split(b"\n", 2)[2] for _, message in signed] == [text]
        parse_note(stored.note + stored.cosignatures)
