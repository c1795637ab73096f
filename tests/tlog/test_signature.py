from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.tlog.test_note import OTHER_LIMIT, note_bytes
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosigned_message, encode_timestamped
from witness.tlog.note import (
    MalformedNote,
    Note,
    Signature,
    SignatureType,
    format_note,
    make_vkey,
    parse_note,
    parse_signer_key,
    parse_vkey,
)
from witness.tlog.signature import (
    InvalidNoteSignature,
    Verified,
    cosignature_timestamp,
    is_usable_key,
    verify_note,
    verify_signature,
    verify_subtree_signature,
)

if TYPE_CHECKING:
    from pathlib import Path

SIGNER = parse_signer_key("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
KEY = SIGNER.vkey
STRANGER = Signature("stranger", b"abcd", b"x")
CHECKPOINT = Checkpoint("example.com/log", 7, bytes(range(32)))
TEXT = CHECKPOINT.text()
GOOD = SIGNER.sign(TEXT)


def spki(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    signer = ec.generate_private_key(curve)
    return signer, signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# Go refuses a note whose verifier list holds one key twice; here the list is a set of trusted keys.
ONE_KEY_TWICE = {"duplicated verifier used"}


def test_signed_note_vectors(testdata: Path) -> None:
    cases = json.loads((testdata / "notes" / "signed-notes.json").read_text("utf-8"))["cases"]
    seen = set()
    for case in cases:
        name, expect = case["name"], case["expect"]
        keys = [parse_vkey(vkey) for vkey in case["vkeys"]]
        seen.add(name)
        if expect == "malformed" and name not in OTHER_LIMIT:
            with pytest.raises(MalformedNote):
                parse_note(note_bytes(case))
            continue
        note = parse_note(note_bytes(case))
        if expect == "invalid-signature":
            with pytest.raises(InvalidNoteSignature):
                verify_note(note, keys)
            continue
        verified = [f"{v.key.name}+{v.key.key_id.hex()}" for v in verify_note(note, keys)]
        if expect == "ok":
            assert verified == case.get("verified", [f"{keys[0].name}+{keys[0].key_id.hex()}"]), name
        elif name in ONE_KEY_TWICE:
            assert verified == ["EnochRoot+af0cfe78"]
        elif name in OTHER_LIMIT:
            assert verified == (["PeterNeumann+c74f20a3"] if keys else [])
        else:
            assert expect == "unverified-note"
            assert verified == [], name
    assert seen >= OTHER_LIMIT | ONE_KEY_TWICE


def test_real_checkpoints(testdata: Path) -> None:
    folder = testdata / "checkpoints"
    entries = json.loads((folder / "all-known-keys.json").read_text("utf-8")).values()
    keys = {(key.name, key.key_id): key for key in (parse_vkey(entry["vkey"]) for entry in entries)}
    types = set()
    for entry in json.loads((folder / "index.json").read_text("utf-8")):
        note = parse_note((folder / entry["file"]).read_bytes())
        expected = [signature["status"] for signature in entry["signatures"]]
        statuses = []
        for signature in note.signatures:
            key = keys.get((signature.name, signature.key_id))
            if key is None:
                statuses.append("unknown-key")
            else:
                types.add(key.type)
                good = verify_signature(key, note.text, signature.value)
                statuses.append("verified" if good else "INVALID")
        assert statuses == expected, entry["file"]
        if "INVALID" in expected:
            with pytest.raises(InvalidNoteSignature):
                verify_note(note, list(keys.values()))
        else:
            lines = [v.signature for v in verify_note(note, list(keys.values()))]
            pairs = zip(note.signatures, expected, strict=True)
            assert lines == [signature for signature, status in pairs if status == "verified"]
    assert types == set(SignatureType)


def test_unknown_keys_are_ignored_and_no_known_key_is_nobody() -> None:
    note = Note(TEXT, (STRANGER, GOOD))
    assert verify_note(note, [KEY]) == (Verified(KEY, GOOD),)
    assert verify_note(note, []) == ()
    # Sharing the name or the key ID, but not both, makes no known key.
    for other in (Signature(KEY.name, b"abcd", b"x"), Signature("stranger", KEY.key_id, b"x")):
        assert verify_note(Note(TEXT, (other,)), [KEY]) == ()


@pytest.mark.parametrize("order", [1, -1])
def test_a_bad_line_spoils_the_note_beside_a_good_one(order: int) -> None:
    bad = Signature(KEY.name, KEY.key_id, GOOD.value[:-1] + bytes((GOOD.value[-1] ^ 1,)))
    lines = (bad, GOOD)[::order]
    with pytest.raises(InvalidNoteSignature) as caught:
        verify_note(Note(TEXT, lines), [KEY])
    assert (caught.value.name, caught.value.key_id) == (KEY.name, KEY.key_id)
    assert str(caught.value) == "invalid signature by PeterNeumann+c74f20a3"


def test_a_line_with_unused_bits_never_verifies() -> None:
    line = GOOD.line()
    assert line.endswith("=\n")
    last = line[-3]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = line[:-3] + alphabet[alphabet.index(last) + 1] + "=\n"
    note = parse_note(TEXT + b"\n" + loose.encode())
    assert note.signatures[0].value == GOOD.value
    with pytest.raises(InvalidNoteSignature):
        verify_note(note, [KEY])
    assert verify_note(note, []) == ()
    # A stranger's does not matter, whatever the key.
    assert (
        verify_note(parse_note(format_note(TEXT, [GOOD]) + "— x AAAAAQJ=\n".encode()), [KEY])[0].signature
        == GOOD
    )


def test_identical_lines_count_once_and_different_ones_by_one_key_all() -> None:
    assert verify_note(Note(TEXT, (GOOD, STRANGER, GOOD)), [KEY, KEY]) == (Verified(KEY, GOOD),)
    signer, der = spki(ec.SECP256R1())
    key = make_vkey("log", SignatureType.ECDSA, der)
    lines = tuple(Signature("log", key.key_id, signer.sign(TEXT, ec.ECDSA(SHA256()))) for _ in range(2))
    assert lines[0] != lines[1]
    assert [v.signature for v in verify_note(Note(TEXT, lines), [key])] == list(lines)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ecdsa_signs_sha256_on_every_curve(curve: ec.EllipticCurve) -> None:
    signer, der = spki(curve)
    key = make_vkey("log", SignatureType.ECDSA, der)
    assert is_usable_key(key)
    good = signer.sign(TEXT, ec.ECDSA(SHA256()))
    assert verify_signature(key, TEXT, good)
    assert not verify_signature(key, TEXT + b"x\n", good)
    assert not verify_signature(key, TEXT, good + b"\0")
    assert not verify_signature(key, TEXT, signer.sign(TEXT, ec.ECDSA(SHA384())))


def test_keys_that_are_none() -> None:
    _, der = spki(ec.SECP256R1())
    off_curve = make_vkey("log", SignatureType.ECDSA, der[:-1] + bytes((der[-1] ^ 1,)))
    assert not is_usable_key(off_curve)
    assert not verify_signature(off_curve, TEXT, b"x" * 70)
    for point in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        key = make_vkey("log", SignatureType.ED25519, point)
        assert not is_usable_key(key)
        assert not verify_signature(key, TEXT, bytes(64))
    assert is_usable_key(KEY)
    assert is_usable_key(make_vkey("log", SignatureType.COSIGNATURE_MLDSA44, bytes(1312)))


def test_an_ed25519_cosignature_is_no_signature_and_back() -> None:
    cosigner = make_vkey(KEY.name, SignatureType.COSIGNATURE_ED25519, KEY.public_key)
    message = b"cosignature/v1\ntime 5\n" + TEXT
    value = encode_timestamped(5, SIGNER.sign(message).value)
    assert verify_signature(cosigner, TEXT, value)
    assert cosignature_timestamp(cosigner, value) == 5
    assert cosignature_timestamp(KEY, value) is None
    assert not verify_signature(cosigner, TEXT, encode_timestamped(6, value[8:]))
    assert not verify_signature(cosigner, TEXT, GOOD.value)
    assert not verify_signature(KEY, TEXT, value)
    # Extension lines are covered; and only a checkpoint can be cosigned.
    assert not verify_signature(cosigner, TEXT + b"extension\n", value)
    no_checkpoint = SIGNER.sign(b"cosignature/v1\ntime 5\nhello\n").value
    assert not verify_signature(cosigner, b"hello\n", encode_timestamped(5, no_checkpoint))


@pytest.fixture(scope="module")
def mldsa() -> MLDSA44PrivateKey:
    return MLDSA44PrivateKey.from_seed_bytes(bytes(32))


def test_an_mldsa_cosignature_covers_the_name_and_no_extension_lines(mldsa: MLDSA44PrivateKey) -> None:
    public = mldsa.public_key().public_bytes_raw()
    key = make_vkey("w", SignatureType.COSIGNATURE_MLDSA44, public)
    other = make_vkey("v", SignatureType.COSIGNATURE_MLDSA44, public)
    message = cosigned_message("w", 5, CHECKPOINT.origin, 0, 7, CHECKPOINT.root)
    value = encode_timestamped(5, mldsa.sign(message))
    assert verify_signature(key, TEXT, value)
    assert cosignature_timestamp(key, value) == 5
    assert not verify_signature(other, TEXT, value)
    assert verify_signature(key, TEXT + b"extension\n", value)
    assert not verify_signature(key, TEXT, encode_timestamped(5, mldsa.sign(message, b"context")))
    assert not verify_signature(key, b"hello\n", value)
    long = make_vkey("w" * 256, SignatureType.COSIGNATURE_MLDSA44, public)
    assert not verify_signature(long, TEXT, value)


def test_subtree_cosignatures(mldsa: MLDSA44PrivateKey) -> None:
    key = make_vkey("w", SignatureType.COSIGNATURE_MLDSA44, mldsa.public_key().public_bytes_raw())
    fields: dict[str, Any] = {"origin": "o", "start": 4, "end": 6, "root": bytes(32)}
    value = encode_timestamped(0, mldsa.sign(cosigned_message("w", 0, "o", 4, 6, bytes(32))))
    assert verify_subtree_signature(key, value, **fields)
    for change in (
        {"origin": "p"},
        {"start": 5},
        {"end": 7},
        {"root": bytes(31) + b"1"},
        {"root": b""},
        {"end": 3},
    ):
        assert not verify_subtree_signature(key, value, **(fields | change))
    # A timestamp beside a start that is not zero is no message at all.
    assert not verify_subtree_signature(key, encode_timestamped(1, value[8:]), **fields)
    assert not verify_subtree_signature(KEY, value, **fields)
    assert not verify_subtree_signature(key, value[:-1], **fields)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_no_bytes_make_verification_raise(text: bytes, value: bytes) -> None:
    _, der = DER
    keys = [
        KEY,
        make_vkey("log", SignatureType.ECDSA, der),
        make_vkey("w", SignatureType.COSIGNATURE_ED25519, KEY.public_key),
        make_vkey("example.com/log", SignatureType.RFC6962, der),
        make_vkey("w", SignatureType.COSIGNATURE_MLDSA44, bytes(1312)),
    ]
    for key in keys:
        for candidate in (
            value,
            value.ljust(64, b"\0"),
            value.ljust(72, b"\0"),
            b"\0" * 8 + b"\4\3\0" + value,
        ):
            assert not verify_signature(key, text, candidate)
            assert not verify_signature(key, TEXT, candidate)


DER = spki(ec.SECP256R1())
