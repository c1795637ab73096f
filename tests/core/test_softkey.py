"""The soft key file: sealed and opened again, and every way in which it may be wrong."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from witness.core.keystore import sealing, softkey
from witness.core.keystore.base import (
    KeyAbsent,
    KeyFileInvalid,
    KeyLocked,
    KeystoreError,
    WrongSecret,
)
from witness.tlog.note import SignatureType, make_vkey, parse_signer_key, parse_vkey
from witness.tlog.signature import verify_signature

NAME, IDENTITY = "keys.example/w", "00ff"
CHEAP = 2**4  # scrypt's cost: what is tested is not its slowness


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "softkey.json"


def create(path: Path, passphrase: str | None = "correct horse", **more: Any):
    fixed = {"name": NAME, "identity": IDENTITY, "passphrase": passphrase, "scrypt_n": CHEAP}
    return softkey.create(path, **fixed, **more)


@pytest.mark.parametrize("passphrase", [None, "", "correct horse", "ключ 🔑", "x" * 5000])
def test_round_trip(path: Path, passphrase: str | None) -> None:
    vkeys = create(path, passphrase)
    assert [key.type for key in vkeys] == [
        SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_MLDSA44
    ]  # fmt: skip
    public = softkey.read_public(path)
    assert (public.name, public.identity, public.vkeys) == (NAME, IDENTITY, vkeys)
    assert public.sealed is (passphrase is not None)
    opened = softkey.open_keystore(path, passphrase)
    assert tuple(signer.vkey for signer in opened.signers()) == vkeys
    assert bool(opened.warnings()) is (passphrase is None)
    assert [(info.vkey, info.state) for info in opened.states()] == [(str(key), "ready") for key in vkeys]


def test_signatures_verify_and_are_of_the_message_alone(path: Path) -> None:
    create(path)
    ed25519, mldsa44 = softkey.open_keystore(path, "correct horse").signers()
    plain = make_vkey(NAME, SignatureType.ED25519, ed25519.vkey.public_key)
    signature = ed25519.sign(b"a message")
    assert len(signature) == 64
    assert verify_signature(plain, b"a message", signature)
    assert not verify_signature(plain, b"another", signature)
    public = mldsa.MLDSA44PublicKey.from_public_bytes(mldsa44.vkey.public_key)
    signature = mldsa44.sign(b"a message")
    assert len(signature) == 2420
    public.verify(signature, b"a message")


@pytest.mark.parametrize("algorithms", [("ed25519",), ("ml-dsa-44",), ("ml-dsa-44", "ed25519")])
def test_the_algorithms_asked_for_in_their_order(path: Path, algorithms: tuple[str, ...]) -> None:
    vkeys = create(path, algorithms=algorithms)
    assert tuple(softkey.algorithm_of(key) for key in vkeys) == algorithms
    opened = softkey.open_keystore(path, "correct horse")
    assert tuple(info.algorithm for info in opened.states()) == algorithms


def test_two_files_share_no_secret_and_no_salt(tmp_path: Path) -> None:
    files = [tmp_path / name / "softkey.json" for name in "ab"]
    keys = [create(file) for file in files]
    assert not set(keys[0]) & set(keys[1])
    contents = [json.loads(file.read_text()) for file in files]
    assert contents[0]["scrypt"]["salt"] != contents[1]["scrypt"]["salt"]
    assert contents[0]["nonce"] != contents[1]["nonce"]


def test_a_sealed_file_holds_no_seed_in_the_clear(path: Path) -> None:
    seed = bytes(range(32))
    create(path, ed25519_seed=seed)
    data = path.read_bytes()
    for form in (seed, seed.hex().encode(), base64.b64encode(seed), base64.b64encode(seed)[:-2]):
        assert form not in data


def test_modes(path: Path) -> None:
    umask = os.umask(0)
    try:
        create(path)
    finally:
        os.umask(umask)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


def test_a_key_file_is_never_overwritten(path: Path) -> None:
    create(path)
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="exists already"):
        create(path, "another")
    assert path.read_bytes() == before
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(KeystoreError, match="exists already"):
        create(path)
    assert not (path.parent / "elsewhere").exists()


def test_import_of_a_go_note_signers_key(path: Path) -> None:
    # The form of golang.org/x/mod/sumdb/note: PRIVATE+KEY+name+hash+base64(0x01 || seed).
    seed = bytes(range(32))
    named = make_vkey(NAME, SignatureType.ED25519, softkey.Ed25519Signer(NAME, seed).vkey.public_key)
    text = f"PRIVATE+KEY+{NAME}+{named.key_id.hex()}+" + base64.b64encode(b"\x01" + seed).decode()
    signer_key = parse_signer_key(text)
    vkeys = create(path, ed25519_seed=signer_key.seed)
    assert vkeys[0].public_key == signer_key.vkey.public_key
    assert vkeys[0].type == SignatureType.COSIGNATURE_ED25519
    assert softkey.open_keystore(path, "correct horse").signers()[0].vkey == vkeys[0]


def test_what_cannot_be_made_leaves_nothing(path: Path) -> None:
    with pytest.raises(KeystoreError, match="unknown key algorithm"):
        create(path, algorithms=("ed25519", "rsa"))
    with pytest.raises(KeystoreError, match="not among the algorithms"):
        create(path, algorithms=("ml-dsa-44",), ed25519_seed=bytes(32))
    assert not path.exists()


def test_absent(path: Path) -> None:
    for opening in (softkey.read_public, lambda p: softkey.open_keystore(p, None)):
        with pytest.raises(KeyAbsent) as caught:
            opening(path)
        assert caught.value.hint
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(KeyAbsent):
        softkey.read_public(path)


def test_locked_and_wrong(path: Path) -> None:
    create(path)
    with pytest.raises(KeyLocked) as caught:
        softkey.open_keystore(path, None)
    assert "WITNESS_PASSPHRASE" in caught.value.hint
    for wrong in ("", "Correct horse", "correct horse\n", "correct horse "):
        with pytest.raises(WrongSecret):
            softkey.open_keystore(path, wrong)
    assert softkey.open_keystore(path, "correct horse").public.sealed


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _flip(text: str, at: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[at] ^= 1
    return base64.b64encode(data).decode()


def _other_vkeys(content: dict[str, Any]) -> None:
    content["vkeys"].reverse()


SEALED_TAMPERING: dict[str, tuple[Callable[[dict[str, Any]], None], type[KeystoreError]]] = {
    "first byte of the ciphertext": (lambda c: c.update(sealed=_flip(c["sealed"], 0)), WrongSecret),
    "a byte in its middle": (lambda c: c.update(sealed=_flip(c["sealed"], 60)), WrongSecret),
    "last byte of the tag": (lambda c: c.update(sealed=_flip(c["sealed"], -1)), WrongSecret),
    "ciphertext cut short": (lambda c: c.update(sealed=c["sealed"][:-4]), KeyFileInvalid),
    "no ciphertext": (lambda c: c.update(sealed=""), WrongSecret),
    "ciphertext that is not base64": (lambda c: c.update(sealed="!" * 40), KeyFileInvalid),
    "ciphertext that is no text": (lambda c: c.update(sealed=5), KeyFileInvalid),
    "nonce": (lambda c: c.update(nonce=_flip(c["nonce"], 3)), WrongSecret),
    "nonce of another length": (lambda c: c.update(nonce="AAAA"), KeyFileInvalid),
    "no nonce": (lambda c: c.pop("nonce"), KeyFileInvalid),
    "salt": (lambda c: c["scrypt"].update(salt=_flip(c["scrypt"]["salt"], 0)), WrongSecret),
    "salt of another length": (lambda c: c["scrypt"].update(salt="AAAA"), KeyFileInvalid),
    "cost": (lambda c: c["scrypt"].update(n=CHEAP * 2), WrongSecret),
    "block size": (lambda c: c["scrypt"].update(r=4), WrongSecret),
    "parallelism": (lambda c: c["scrypt"].update(p=2), WrongSecret),
    "a further scrypt parameter": (lambda c: c["scrypt"].update(x=1), WrongSecret),
    "no scrypt": (lambda c: c.pop("scrypt"), KeyFileInvalid),
    "identity": (lambda c: c.update(identity="ffff"), WrongSecret),
    "the order of the vkeys": (_other_vkeys, WrongSecret),
    "one vkey less": (lambda c: c["vkeys"].pop(), WrongSecret),
    "a further field": (lambda c: c.update(more="x"), WrongSecret),
}


@pytest.mark.parametrize(("change", "error"), SEALED_TAMPERING.values(), ids=SEALED_TAMPERING.keys())
def test_a_sealed_file_that_was_changed(
    path: Path, change: Callable[[dict[str, Any]], None], error: type[KeystoreError]
) -> None:
    create(path)
    rewrite(path, change)
    with pytest.raises(KeystoreError) as caught:
        softkey.open_keystore(path, "correct horse")
    # A ciphertext that was cut may stay base64 or not; either way it does not open.
    assert isinstance(caught.value, (error, WrongSecret))


HOSTILE_SCRYPT = [
    {"n": 2**21}, {"n": 2**40}, {"n": 0}, {"n": 1}, {"n": -16}, {"n": 3}, {"n": 2**17 + 1}, {"r": 0},
    {"r": 17}, {"r": 2**30}, {"p": 0}, {"p": 5}, {"p": -1}, {"n": "16"}, {"n": 16.0}, {"r": None}, {"p": [1]},
]  # fmt: skip


@pytest.mark.parametrize("parameters", HOSTILE_SCRYPT, ids=str)
def test_hostile_scrypt_parameters_are_refused_before_they_cost_anything(
    path: Path, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(path)
    rewrite(path, lambda c: c["scrypt"].update(parameters))

    def spent(**_parameters: object) -> None:
        raise AssertionError("scrypt was run")

    monkeypatch.setattr(sealing, "Scrypt", spent)
    with pytest.raises(KeyFileInvalid, match="scrypt"):
        softkey.open_keystore(path, "correct horse")


def _seed(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda c: c["seeds"].update(ed25519=value)


UNSEALED_FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "another seed": _seed(base64.b64encode(bytes(32)).decode()),
    "a short seed": _seed(base64.b64encode(bytes(31)).decode()),
    "a seed that is not base64": _seed("!"),
    "a seed that is no text": _seed(None),
    "a seed less": lambda c: c["seeds"].pop("ml-dsa-44"),
    "no seeds": lambda c: c.pop("seeds"),
    "seeds of another kind": lambda c: c.update(seeds=[1]),
    "another format": lambda c: c.update(format="tlog-witness softkey v2"),
    "another name": lambda c: c.update(name="other.example"),
    "a name that is no text": lambda c: c.update(name=5),
    "no identity": lambda c: c.pop("identity"),
    "no vkeys": lambda c: c.update(vkeys=[]),
    "vkeys of another kind": lambda c: c.update(vkeys="x"),
    "a malformed vkey": lambda c: c["vkeys"].__setitem__(0, "x+y"),
    "a log's vkey": lambda c: c["vkeys"].__setitem__(
        0, str(make_vkey(NAME, SignatureType.ED25519, parse_vkey(c["vkeys"][0]).public_key))
    ),
}


@pytest.mark.parametrize("change", UNSEALED_FAULTS.values(), ids=UNSEALED_FAULTS.keys())
def test_an_unsealed_file_that_does_not_fit_together(
    path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    create(path, None)
    rewrite(path, change)
    with pytest.raises(KeyFileInvalid):
        softkey.open_keystore(path, None)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200) | st.sampled_from([b"[" * 60_000, b" " * 200_000, b"{" * 9, b"\xff" * 9]))
def test_any_bytes_are_a_key_file_or_the_one_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "softkey.json"
    file.write_bytes(data)
    for opening in (softkey.read_public, lambda p: softkey.open_keystore(p, "x")):
        with pytest.raises(KeyFileInvalid):
            opening(file)


def test_no_representation_shows_a_seed(path: Path) -> None:
    create(path, ed25519_seed=b"\xab" * 32)
    opened = softkey.open_keystore(path, "correct horse")
    shown = repr(opened) + repr(opened.signers()) + repr(opened.public) + repr(opened.states())
    assert "abab" not in shown.lower()
    assert "\\xab" * 4 not in shown
