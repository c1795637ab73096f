from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.note import (
    MalformedSignerKey,
    MalformedVKey,
    SignatureType,
    UnknownKeyType,
    VerifierKey,
    encode_base64,
    format_note,
    is_key_name,
    key_id_for,
    make_vkey,
    parse_signer_key,
    parse_vkey,
)

if TYPE_CHECKING:
    from pathlib import Path

NEUMANN_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"


def load(testdata: Path, name: str) -> Any:
    return json.loads((testdata / "notes" / name).read_text("utf-8"))


# What C2SP's text decides where the vectors leave it open (`"valid": null`).
OPEN_VKEYS = {
    # Listed as valid in a test of transparency-dev/formats, with a key ID that is not the hash.
    "test+5893dc2c": MalformedVKey,
    # Base64 of plus signs: type 0xfb, key ID 00000000.
    "example.com/foo+00000000": UnknownKeyType,
}


def test_vkey_vectors(testdata: Path) -> None:
    cases = load(testdata, "vkeys.json")["cases"]
    assert {case["valid"] for case in cases} == {True, False, None}
    for case in cases:
        text = case["vkey"]
        if case["valid"]:
            assert str(parse_vkey(text)) == text
        elif case["valid"] is None:
            (error,) = [error for start, error in OPEN_VKEYS.items() if text.startswith(start)]
            with pytest.raises(error):
                parse_vkey(text)
        else:
            with pytest.raises(MalformedVKey):
                parse_vkey(text)


def test_every_known_key_parses_and_encodes_back(testdata: Path) -> None:
    for name in ("keys.json", "all-known-keys.json"):
        keys = json.loads((testdata / "checkpoints" / name).read_text("utf-8"))
        for label, entry in keys.items():
            key = parse_vkey(entry["vkey"])
            assert str(key) == entry["vkey"]
            assert f"{key.name}+{key.key_id.hex()}" == label


def test_a_note_key_becomes_a_cosigner_key(testdata: Path) -> None:
    conversions = load(testdata, "vkeys.json")["conversions"]
    assert len(conversions) == 3
    for case in conversions:
        key = parse_vkey(case["from_0x01"])
        assert key.type is SignatureType.ED25519
        cosigner = make_vkey(key.name, SignatureType.COSIGNATURE_ED25519, key.public_key)
        assert str(cosigner) == case["to_0x04"]


@pytest.mark.parametrize(
    ("parse", "text", "error"),
    [(parse_vkey, NEUMANN_VKEY, MalformedVKey), (parse_signer_key, NEUMANN_SKEY, MalformedSignerKey)],
)
def test_no_mangled_key_parses(parse: Any, text: str, error: type[Exception]) -> None:
    # The rule of Go's TestNewVerifier and TestNewSigner.
    parse(text)
    for start in range(len(text)):
        for end in range(start, len(text) + (start > 0)):
            with pytest.raises(error):
                parse(text[start:end])
    for at in range(len(text)):
        with pytest.raises(error):
            parse(text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        NEUMANN_VKEY.replace("c74f20a3", "C74F20A3"),
        NEUMANN_VKEY.replace("c74f20a3", "0xc74f20"),
        NEUMANN_VKEY + "=",
        NEUMANN_VKEY + "\n",
        " " + NEUMANN_VKEY,
        NEUMANN_VKEY.replace("ARpc", "AR\u00e9c"),
        NEUMANN_VKEY.replace("Peter", "\ud800"),
        "a+00000000+",
        "a+00000000+AQ==",
    ],
)
def test_malformed_vkeys(text: str) -> None:
    with pytest.raises(MalformedVKey):
        parse_vkey(text)


def test_an_unknown_type_says_so() -> None:
    with pytest.raises(UnknownKeyType) as caught:
        parse_vkey("a+00000000+" + encode_base64(b"\xfa" + bytes(32)))
    assert caught.value.type == 0xFA


def test_a_verifier_key_cannot_contradict_itself() -> None:
    key = parse_vkey(NEUMANN_VKEY)
    with pytest.raises(MalformedVKey, match="key ID"):
        VerifierKey(key.name, bytes(4), key.type, key.public_key)
    with pytest.raises(MalformedVKey, match="name"):
        make_vkey("a b", key.type, key.public_key)
    for signature_type in SignatureType:
        with pytest.raises(MalformedVKey, match="material"):
            make_vkey(key.name, signature_type, bytes(31))


def test_ecdsa_keys_of_the_three_curves_and_no_other() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def spki(key: Any) -> bytes:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]

    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        der = spki(ec.generate_private_key(curve))
        key = make_vkey("log", SignatureType.ECDSA, der)
        assert parse_vkey(str(key)) == key
        assert key_id_for("another name", SignatureType.ECDSA, der) == key.key_id
        with pytest.raises(MalformedVKey):
            make_vkey("log", SignatureType.ECDSA, der + b"\0")
    rsa_der = spki(rsa.generate_private_key(65537, 2048))
    for der in (spki(ec.generate_private_key(ec.SECP256K1())), rsa_der):
        with pytest.raises(MalformedVKey):
            make_vkey("log", SignatureType.ECDSA, der)
    log = make_vkey("log", SignatureType.RFC6962, rsa_der)
    assert parse_vkey(str(log)) == log
    small = spki(rsa.generate_private_key(65537, 1024))
    with pytest.raises(MalformedVKey):
        make_vkey("log", SignatureType.RFC6962, small)


def test_a_signer_key_signs_as_go_does(testdata: Path) -> None:
    vector = load(testdata, "signed-notes.json")["signing"]
    key = parse_signer_key(vector["skey"])
    text = vector["text"].encode()
    assert format_note(text, [key.sign(text)]) == vector["want"].encode()
    assert str(key.vkey) == NEUMANN_VKEY


def test_published_signer_keys_belong_to_their_vkeys(testdata: Path) -> None:
    quorum = load(testdata, "checkpoint-bodies.json")["parse_checkpoint_quorum"]
    for name, text in quorum["skeys"].items():
        assert str(parse_signer_key(text).vkey) == quorum["keys"][name]


def test_a_seed_is_never_shown() -> None:
    key = parse_signer_key(NEUMANN_SKEY)
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)
    with pytest.raises(MalformedSignerKey) as caught:
        parse_signer_key(NEUMANN_SKEY[:-1])
    assert "AYEK" not in str(caught.value)


names = st.text(min_size=1, max_size=20).filter(is_key_name)


@given(st.text(max_size=80) | st.text("+0123456789abcdefAQ=/", max_size=80))
def test_any_text_is_a_key_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedVKey):
        assert str(parse_vkey(text)) == text
    for candidate in (text, "PRIVATE+KEY+" + text):
        try:
            parse_signer_key(candidate)
        except MalformedSignerKey:
            continue


@given(
    names,
    st.sampled_from([SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519]),
    st.binary(min_size=32, max_size=32),
)
def test_vkeys_parse_to_the_same(name: str, signature_type: SignatureType, public_key: bytes) -> None:
    key = make_vkey(name, signature_type, public_key)
    assert parse_vkey(str(key)) == key
