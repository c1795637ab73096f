"""The attestation key: what it is made of, what it says, and that it says nothing else."""

from __future__ import annotations

import hashlib
import inspect
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.core.keystore.rigs import IDENTITY, NAME, Rig
from witness.bundles import Options, verify
from witness.cli.key_attest import open_attestation_keys
from witness.core.keystore import attestation, keyring, softkey
from witness.core.keystore.attestation import AttestationKey, serial_of
from witness.core.keystore.attesting import attest, write_attestations
from witness.core.keystore.base import Algorithm, KeyInvalid, KeyLocked, WrongSecret
from witness.core.keystore.keyring import ATTESTATION, SOFT, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.sealing import b64
from witness.core.layout import StateLayout
from witness.tlog.note import SignatureType, make_vkey, parse_note
from witness.tlog.signature import verify_note

SEED = bytes(range(32))
PASSPHRASE = "correct horse"
CHEAP = 2**4


def file(layout: StateLayout, *, seed: bytes | None = SEED, passphrase: str | None = None) -> None:
    softkey.create(
        layout.softkey, name=NAME, identity=IDENTITY, passphrase=passphrase, attestation_seed=seed,
        scrypt_n=CHEAP,
    )  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    (tmp_path / "state").mkdir()
    return StateLayout(tmp_path / "state")


def checked(path: Path) -> set[str]:
    """What `witness verify` finds wrong with an attestation, by the .pub file beside it."""
    pub = path.with_name(path.name.partition(".")[0] + ".pub").read_text().strip()
    from witness.bundles import parse_manifest_key

    options = Options(manifest_keys=(parse_manifest_key(pub),), file_name=path.name)
    return {check.name for check in verify(path.read_bytes(), options).checks if not check.ok}


# --- Names ---


def test_serial_numbers() -> None:
    digest = hashlib.sha256(b"some unique id").hexdigest()[:16].upper()
    assert serial_of("some unique id") == digest
    assert serial_of("720A9DEAD4390C1D") != "720A9DEAD4390C1D"  # a token's, say
    assert serial_of("720A9DEAD4390C1D", "armored-witness") == "720A9DEAD4390C1D"
    assert serial_of("some unique id", "armored-witness") == digest


@pytest.mark.parametrize("dev", [False, True])
def test_the_key_has_the_armored_witness_name(dev: bool) -> None:  # noqa: FBT001
    key = AttestationKey(SEED, "0123456789ABCDEF", dev=dev)
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    name = f"{'DEV:' if dev else ''}AW-ID-Attestation-0123456789ABCDEF"
    assert key.vkey == make_vkey(name, SignatureType.ED25519, public)
    assert SEED.hex() not in repr(key)


def test_it_signs_an_attestation_and_nothing_of_the_callers_choosing() -> None:
    key = AttestationKey(SEED, "0123456789ABCDEF", dev=False)
    witness = softkey.soft_signer(Algorithm.ED25519, NAME, bytes(32)).vkey
    note = parse_note(key.attest(witness, 7))
    assert note.text == f"ArmoredWitness ID attestation v1\n0123456789ABCDEF\n7\n{witness}\n".encode()
    assert [each.key for each in verify_note(note, [key.vkey])] == [key.vkey]
    with pytest.raises(ValueError, match="third line"):
        key.attest(witness, -1)
    # No way in for bytes or texts: every public method takes values that were checked when they were made.
    for name, method in inspect.getmembers(AttestationKey, inspect.isfunction):
        if not name.startswith("_"):
            kinds = {str(p.annotation) for p in inspect.signature(method).parameters.values()}
            assert kinds <= {"<class 'inspect._empty'>", "VerifierKey", "int", "RecordHead"}, name
    assert "crypto_sign(" not in inspect.getsource(attestation).replace(
        inspect.getsource(AttestationKey._note), ""
    )


# --- The key file ---


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_file_keeps_it_with_the_rest(layout: StateLayout, passphrase: str | None) -> None:
    file(layout, passphrase=passphrase)
    public = softkey.read_public(layout.softkey)
    held = softkey.open_keystore(layout.softkey, passphrase).attestation
    assert held is not None
    assert held.vkey == public.attestation == AttestationKey(SEED, serial_of(IDENTITY), dev=False).vkey
    sealed = b64(SEED) not in layout.softkey.read_text()
    assert sealed is (passphrase is not None)
    if passphrase:
        with pytest.raises(KeyLocked):
            softkey.open_keystore(layout.softkey, None)
        with pytest.raises(WrongSecret):
            softkey.open_keystore(layout.softkey, "wrong")
    # Another vkey in the header is noticed, be the file sealed or not.
    text = layout.softkey.read_text()
    other = str(AttestationKey(bytes(32), serial_of(IDENTITY), dev=False).vkey)
    layout.softkey.write_text(text.replace(str(public.attestation), other))
    with pytest.raises((WrongSecret, softkey.KeyFileInvalid)):
        softkey.open_keystore(layout.softkey, passphrase)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_an_old_key_file_gets_one_and_keeps_its_keys(layout: StateLayout, passphrase: str | None) -> None:
    file(layout, seed=None, passphrase=passphrase)
    before = softkey.open_keystore(layout.softkey, passphrase)
    assert before.attestation is None is before.public.attestation
    assert ATTESTATION not in {key.purpose for key in keyring.read(layout).keys}
    made = softkey.add_attestation(layout.softkey, passphrase)
    after = softkey.open_keystore(layout.softkey, passphrase)
    assert [s.vkey for s in after.signers()] == [s.vkey for s in before.signers()]
    assert after.attestation is not None
    assert after.attestation.vkey == made.vkey
    assert after.public.sealed is before.public.sealed
    assert softkey.add_attestation(layout.softkey, passphrase).vkey == made.vkey
    assert stat.S_IMODE(layout.softkey.stat().st_mode) == 0o600


def test_a_key_that_is_added_leaves_it_where_it_is(layout: StateLayout) -> None:
    softkey.create(
        layout.softkey, name=NAME, identity=IDENTITY, passphrase=None, algorithms=("ml-dsa-44",),
        attestation_seed=SEED,
    )  # fmt: skip
    softkey.add_seed(layout.softkey, None, Algorithm.ED25519, bytes(32), name=NAME, identity=IDENTITY)
    opened = softkey.open_keystore(layout.softkey, None)
    assert len(opened.signers()) == 2
    assert opened.attestation is not None
    assert opened.attestation.vkey == AttestationKey(SEED, serial_of(IDENTITY), dev=False).vkey


# --- Rings ---


def test_each_key_is_attested_by_the_key_that_shares_its_place(layout: StateLayout) -> None:
    file(layout)
    ring = keyring.read(layout)
    keys = open_attestation_keys(layout, ring, None)
    assert set(keys) == {SOFT}
    first = attest(ring, keys)
    assert [each.key for each in first] == list(ring.vkeys)
    assert attest(ring, keys) == first  # byte for byte
    paths = write_attestations(layout.attestations, first)
    serial = serial_of(IDENTITY)
    assert [path.name for path in paths] == [
        f"{serial}.witness.0.ed25519", f"{serial}.witness.0.ml-dsa-44"
    ]  # fmt: skip
    assert {checked(path) == set() for path in paths} == {True}
    # A generation more, and a key that a device only signs with.
    entries = tuple(replace(key, generation=1) for key in ring.witness_keys)
    device = DeviceEntry("token", "pkcs11")
    signs = replace(entries[0], how="sign", places=(Place("token"),), generation=2)
    longer = Ring(ring.name, ring.identity, (*ring.devices, device), (signs, *entries))
    assert [(each.generation, each.key) for each in attest(longer, keys)] == [
        (1, key.vkey) for key in entries
    ]
    assert attest(longer, keys, generation=0) == ()
    assert attest(longer, keys, generation=2) == (), "nothing in the token attests"
    beside = AttestationKey(bytes(32), "0123456789ABCDEF", dev=False)
    (of_token,) = attest(longer, {**keys, "token": beside}, generation=2)
    assert (of_token.by, of_token.serial) == (beside.vkey, beside.serial)
    for path in write_attestations(layout.attestations, attest(longer, keys, generation=1)):
        assert checked(path) == set()
    assert len(list(layout.attestations.iterdir())) == 5, "the former ones stay"


def test_another_attestation_key_is_never_used_instead(layout: StateLayout) -> None:
    file(layout)
    ring = keyring.read(layout)
    other = AttestationKey(bytes(32), serial_of(IDENTITY), dev=False).vkey
    swapped = replace(ring, keys=(*ring.witness_keys, KeyEntry(other, ATTESTATION, "soft", (Place(SOFT),))))
    with pytest.raises(KeyInvalid, match="another attestation key"):
        open_attestation_keys(layout, swapped, None)


# --- Devices ---


@pytest.fixture(params=["tpm2", "pkcs11-hmac", "pkcs11-aes-cbc"])
def deriving(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    from tests.core.keystore.rigs import in_use

    yield from in_use(request.param, folder)


def test_a_deriving_device_attests_its_keys(deriving: Rig, folder: Path) -> None:
    layout = deriving.state(folder / "state")
    ring = keyring.read(layout)
    keys = open_attestation_keys(layout, ring, deriving.secret())
    entry = next(key for key in ring.keys if key.purpose == ATTESTATION)
    assert keys[deriving.backend].vkey == entry.vkey
    made = attest(ring, keys)
    assert len(made) == 2
    for path in write_attestations(layout.attestations, made):
        assert checked(path) == set()
    assert {each.generation for each in made} == {key.generation for key in ring.witness_keys}
    # A ring that was written before attestations were names the same key otherwise.
    old = replace(entry, vkey=make_vkey(f"{NAME}/attestation", SignatureType.ED25519, entry.vkey.public_key))
    former = replace(ring, keys=(*ring.witness_keys, old))
    assert attest(former, open_attestation_keys(layout, former, deriving.secret())) == made


def test_it_lives_through_the_generations_of_its_device(tpm: Rig, folder: Path) -> None:
    layout = tpm.state(folder / "state")
    first = keyring.read(layout)
    before = open_attestation_keys(layout, first, None)["tpm2"]
    held = tpm.provide(counter="next")  # retires the identity, and makes the following one
    assert held.attestation is not None
    assert held.attestation.vkey == before.vkey
    second = Ring(NAME, IDENTITY, (held.device,), held.keys)
    made = [*attest(first, {"tpm2": before}), *attest(second, {"tpm2": held.attestation})]
    assert len({each.key for each in made}) == 4
    assert [each.generation for each in made][2:] == [first.witness_keys[0].generation + 1] * 2
    for path in write_attestations(layout.attestations, made):
        assert checked(path) == set()
    # Another TPM has another one.
    tpm.exchange()
    stranger = tpm.provide()
    assert stranger.attestation is not None
    assert stranger.attestation.vkey.public_key != before.vkey.public_key
    with pytest.raises(KeyInvalid, match="another device"):
        open_attestation_keys(layout, first, None)
