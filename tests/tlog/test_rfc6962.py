from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import (
    MalformedNote,
    Signature,
    SignatureType,
    format_note,
    key_id_for,
    make_vkey,
    parse_note,
    parse_vkey,
)
from witness.tlog.rfc6962 import (
    ECDSA,
    RSA,
    NoteSignature,
    encode_note_signature,
    parse_note_signature,
    tree_head_message,
)
from witness.tlog.signature import verify_note, verify_signature

if TYPE_CHECKING:
    from pathlib import Path

ROOT = bytes(range(32))


def spki(public_key: Any) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]


def test_an_sth_becomes_a_checkpoint(testdata: Path) -> None:
    vector = json.loads((testdata / "notes" / "rfc6962-sth.json").read_text("utf-8"))
    sth, key = vector["sth"], parse_vkey(vector["vkey"])
    root = base64.b64decode(sth["sha256_root_hash"])
    text = Checkpoint(key.name, sth["tree_size"], root).text()
    value = encode_note_signature(sth["timestamp"], base64.b64decode(sth["tree_head_signature"]))
    data = format_note(text, [Signature(key.name, key.key_id, value)])
    assert data == vector["checkpoint"].encode()
    (verified,) = verify_note(parse_note(data), [key])
    assert parse_note_signature(verified.signature.value).timestamp == sth["timestamp"]


def test_the_key_id_hashes_the_log_id() -> None:
    der = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    expected = hashlib.sha256(b"log\n\x05" + hashlib.sha256(der).digest()).digest()[:4]
    assert key_id_for("log", SignatureType.RFC6962, der) == expected


def test_the_tree_head_layout() -> None:
    message = tree_head_message(0x0102030405060708, 9, ROOT)
    assert message.hex() == "0001" + "0102030405060708" + "0000000000000009" + ROOT.hex()


@pytest.mark.parametrize(
    "fields", [(-1, 0, ROOT), (2**64, 0, ROOT), (0, -1, ROOT), (0, MAX_TREE_SIZE + 1, ROOT), (0, 0, ROOT[1:])]
)
def test_tree_heads_that_are_not_made(fields: Any) -> None:
    with pytest.raises(ValueError, match=r"range|bytes"):
        tree_head_message(*fields)


@pytest.mark.parametrize("algorithm", [RSA, ECDSA])
@pytest.mark.parametrize("timestamp", [0, 1711642477482, 2**64 - 1])
def test_note_signatures_both_ways(timestamp: int, algorithm: int) -> None:
    digitally_signed = bytes((4, algorithm, 0, 3)) + b"sig"
    value = encode_note_signature(timestamp, digitally_signed)
    assert value == timestamp.to_bytes(8, "big") + digitally_signed
    assert parse_note_signature(value) == NoteSignature(timestamp, algorithm, b"sig")


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"\x04\x03\x00",
        b"\x04\x03\x00\x00",  # an empty signature
        b"\x04\x03\x00\x02s",
        b"\x04\x03\x00\x02sss",
        b"\x05\x03\x00\x02ss",  # SHA-384
        b"\x04\x02\x00\x02ss",  # DSA
        b"\x04\x00\x00\x02ss",
    ],
)
def test_malformed_note_signatures(tail: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_note_signature(bytes(8) + tail)
    with pytest.raises(MalformedNote):
        encode_note_signature(0, tail)


def test_a_timestamp_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="timestamp"):
        encode_note_signature(2**64, b"\x04\x03\x00\x01s")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_what_a_tree_head_signature_covers(kind: str) -> None:
    checkpoint = Checkpoint("log", 7, ROOT)
    message = tree_head_message(5, 7, ROOT)
    if kind == "ecdsa":
        signer = ec.generate_private_key(ec.SECP256R1())
        key = make_vkey("log", SignatureType.RFC6962, spki(signer.public_key()))
        signature, algorithm, other = signer.sign(message, ec.ECDSA(SHA256())), ECDSA, RSA
    else:
        rsa_signer = rsa.generate_private_key(65537, 2048)
        key = make_vkey("log", SignatureType.RFC6962, spki(rsa_signer.public_key()))
        signature, algorithm, other = rsa_signer.sign(message, padding.PKCS1v15(), SHA256()), RSA, ECDSA

    def value(timestamp: int, algorithm: int) -> bytes:
        head = timestamp.to_bytes(8, "big") + bytes((4, algorithm))
        return head + len(signature).to_bytes(2, "big") + signature

    good = value(5, algorithm)
    assert verify_signature(key, checkpoint.text(), good)
    assert not verify_signature(key, checkpoint.text(), value(6, algorithm))
    assert not verify_signature(key, checkpoint.text(), value(5, other))
    assert not verify_signature(key, checkpoint.text(), good + b"\0")
    assert not verify_signature(key, Checkpoint("log", 8, ROOT).text(), good)
    assert not verify_signature(key, Checkpoint("log", 7, bytes(32)).text(), good)
    # "A TreeHeadSignature does not cover the log's identity": the name must, and no line may be added.
    assert not verify_signature(key, Checkpoint("other", 7, ROOT).text(), good)
    assert not verify_signature(key, Checkpoint("log", 7, ROOT, ("x",)).text(), good)
    assert not verify_signature(key, b"log\n7\n", good)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_note_signature_or_malformed(value: bytes) -> None:
    for candidate in (value, bytes(8) + b"\x04\x03\x00" + value):
        try:
            parsed = parse_note_signature(candidate)
        except MalformedNote:
            continue
        assert encode_note_signature(parsed.timestamp, candidate[8:]) == candidate
