"""Succession statements: what they say, who signed, and that they are nothing else."""

from __future__ import annotations

import base64
import dataclasses
import hashlib

import pytest
from nacl.signing import VerifyKey

from witness.bundles import MalformedBundle, Options, verify
from witness.core.keystore.authorise import parse_message, parse_statement
from witness.core.keystore.base import Algorithm, KeyRefused, Signer
from witness.core.keystore.softkey import soft_signer
from witness.core.keystore.stating import state_succession
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import Signature, SignatureType, VerifierKey, format_note, make_vkey, parse_note
from witness.tlog.policy import parse_policy
from witness.tlog.signature import verify_note
from witness.tlog.succession import MalformedSuccession, Succession, parse_succession, statement_key_id

NAME = "witness.example/w1"
NOW = 1_800_000_000


def pair(first: int, name: str = NAME) -> tuple[Signer, Signer]:
    return (
        soft_signer(Algorithm.ED25519, name, bytes([first]) * 32),
        soft_signer(Algorithm.MLDSA44, name, bytes([first + 1]) * 32),
    )


OLD, NEW, STRANGER = pair(1), pair(3), pair(5)
NOTE = state_succession(OLD, NEW, NOW).note
SAID = parse_succession(parse_note(NOTE).text)


def trusting(*signers: Signer, **more: object) -> Options:
    return Options(witnesses=tuple(each.vkey for each in signers), **more)  # type: ignore[arg-type]


def failed(note: bytes, options: Options) -> set[str]:
    return {check.name for check in verify(note, options).checks if not check.ok}


@pytest.mark.parametrize("trusted", [OLD, OLD[:1], OLD[1:]])
def test_an_old_key_is_enough(trusted: tuple[Signer, ...]) -> None:
    report = verify(NOTE, trusting(*trusted))
    assert report.verified
    assert report.format == "witness-succession"
    told = [check.detail for check in report.checks if check.name == "new key"]
    assert told == [str(each.vkey) for each in NEW]


def test_a_policy_that_knows_an_old_key_is_enough() -> None:
    policy = parse_policy(f"witness w {OLD[0].vkey}\nquorum w\n".encode())
    assert verify(NOTE, Options(policy=policy)).verified


@pytest.mark.parametrize("trusted", [(), NEW, STRANGER, (OLD[0], NEW[0]), (OLD[0], STRANGER[0])])
def test_nothing_less_is(trusted: tuple[Signer, ...]) -> None:
    assert failed(NOTE, trusting(*trusted)) == {"old key"}


def test_the_time_is_held_to() -> None:
    assert verify(NOTE, trusting(*OLD, max_age=60, now=NOW + 60)).verified
    assert failed(NOTE, trusting(*OLD, max_age=60, now=NOW + 61)) == {"age"}


def test_anyones_claim_to_be_the_successor_fails() -> None:
    """New keys that did not sign, and a statement that only the new keys signed."""
    text = SAID.text()
    lines = parse_note(NOTE).signatures
    assert failed(format_note(text, lines[:3]), trusting(*OLD)) == {"new key"}
    assert failed(format_note(text, lines[2:]), trusting(*OLD)) == {"old key"}
    forged = state_succession(STRANGER, NEW, NOW).note
    assert failed(forged, trusting(*OLD)) == {"old key"}


def test_one_bad_line_of_a_known_key_spoils_it() -> None:
    lines = parse_note(NOTE).signatures
    bad = dataclasses.replace(lines[0], value=bytes(64))
    assert failed(format_note(SAID.text(), [bad, *lines]), trusting(*OLD)) == {"old key"}
    assert failed(format_note(SAID.text(), [bad, *lines[1:]]), trusting(OLD[1])) == {"old key"}


def test_any_note_tool_verifies_an_ed25519_line() -> None:
    """As a plain note key of type 0x01: verified here by nothing of the statement's own code."""
    for signer in (OLD[0], NEW[0]):
        plain = make_vkey(NAME, SignatureType.ED25519, signer.vkey.public_key)
        assert len(verify_note(parse_note(NOTE), [plain])) == 1
        line = next(each for each in parse_note(NOTE).signatures if each.key_id == plain.key_id)
        VerifyKey(plain.public_key).verify(parse_note(NOTE).text, line.value)


def test_the_mldsa_key_id_is_the_documented_one() -> None:
    key = OLD[1].vkey
    data = NAME.encode() + b"\n\xfftlog-witness/succession/ml-dsa-44" + key.public_key
    assert statement_key_id(key) == hashlib.sha256(data).digest()[:4]


def test_it_is_no_checkpoint_and_no_cosignature() -> None:
    text = SAID.text()
    with pytest.raises(MalformedCheckpoint):
        parse_checkpoint(text)
    for signer in (*OLD, *NEW):
        with pytest.raises(KeyRefused):
            parse_message(signer.vkey, text)
        # Nor do cosignature lines of the same keys, over the same text, count as a statement's.
        assert verify_note(parse_note(NOTE), [signer.vkey]) == ()


def test_a_cosigners_signature_over_something_else_is_no_statement() -> None:
    other = b"cosignature/v1\ntime 5\nlog.example\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    value = OLD[0].sign(other)
    note = format_note(SAID.text(), [Signature(NAME, statement_key_id(OLD[0].vkey), value)])
    assert "old key" in failed(note, trusting(OLD[0]))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"name ", b"name  "),
        lambda text: text.replace(b" v1\n", b" v2\n", 1),
        lambda text: text.replace(b"time 18", b"time 018"),
        lambda text: text.replace(b"time 1800000000", b"time 0"),
        lambda text: text.replace(b"old ", b"older ", 1),
        lambda text: text.replace(b"time", b"name again\ntime"),
        lambda text: text + b"more\n",
        lambda text: text.replace(b"name witness", b"name another"),
        lambda text: b"\n".join([*text.split(b"\n")[:2], *reversed(text.split(b"\n")[2:-2]), b"time 5", b""]),
        lambda text: text.replace(text.split(b"\n")[4], text.split(b"\n")[2].replace(b"old", b"new")),
        lambda text: b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"new")),
    ],
)
def test_there_is_one_way_of_writing(change: object) -> None:
    changed = change(SAID.text())  # type: ignore[operator]
    assert changed != SAID.text()
    with pytest.raises(MalformedSuccession):
        parse_succession(changed)
    if changed.startswith(b"tlog-witness succession v1\n"):
        with pytest.raises(MalformedBundle, match="witness-succession"):
            verify(format_note(changed, parse_note(NOTE).signatures), trusting(*OLD))


def test_it_names_witness_keys_of_its_own_name_alone() -> None:
    log = make_vkey(NAME, SignatureType.ED25519, OLD[0].vkey.public_key)
    for old, new in (
        ((log,), SAID.new),
        (SAID.old, ()),
        (SAID.old, SAID.old),
        ((pair(7, "b")[0].vkey,), SAID.new),
    ):
        with pytest.raises(MalformedSuccession):
            Succession(NAME, old, new, NOW)


def test_a_worker_signs_only_statements_about_its_key() -> None:
    assert parse_statement(OLD[0].vkey, SAID.text()) == SAID
    assert parse_statement(NEW[1].vkey, SAID.text()) == SAID
    for key, message in ((STRANGER[0].vkey, SAID.text()), (OLD[0].vkey, b"anything else")):
        with pytest.raises(KeyRefused):
            parse_statement(key, message)


class Refusing:
    """A key behind a key door."""

    def __init__(self, vkey: VerifierKey) -> None:
        self.vkey = vkey

    def sign(self, message: bytes) -> bytes:
        raise KeyRefused("asked to sign what is no cosignature message")


def test_an_old_key_that_cannot_sign_is_told_and_one_must() -> None:
    stated = state_succession((OLD[0], Refusing(OLD[1].vkey)), NEW, NOW)
    assert len(stated.unsigned) == 1
    assert verify(stated.note, trusting(OLD[0])).verified
    assert failed(stated.note, trusting(OLD[1])) == {"old key"}
    with pytest.raises(Exception, match="no old key signs"):
        state_succession((Refusing(OLD[0].vkey),), NEW, NOW)
    with pytest.raises(KeyRefused):
        state_succession(OLD, (Refusing(NEW[0].vkey),), NOW)


def test_the_base64_of_a_line_holds_what_is_documented() -> None:
    line = NOTE.split(b"\n\n")[-1].split(b"\n")[0]
    body = base64.b64decode(line.split(b" ")[-1])
    assert body[:4] == statement_key_id(OLD[0].vkey)
    assert len(body) == 4 + 64
