"""Devices' attestations: the Armored Witness's real ones, made ones, and what is wrong with others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bundles.world import LOG, MAKER, W1, outcome, signed
from tests.simulated_log import SimulatedKey
from witness.bundles import Learned, Options, RawKey, verify
from witness.tlog.attestation import attestation_text, parse_attestation
from witness.tlog.note import SignatureType, VerifierKey, make_vkey, parse_vkey

DEVICE = SimulatedKey("AW-ID-Attestation-0123456789ABCDEF")


def attestation(
    kind: str = "ID",
    serial: str = "0123456789ABCDEF",
    counter: str = "3",
    identity: str = "",
    key: SimulatedKey = DEVICE,
) -> bytes:
    identity = identity or (str(LOG.vkey) if kind == "ID" else "ab" * 32)
    text = f"ArmoredWitness {kind} attestation v1\n{serial}\n{counter}\n{identity}\n"
    return signed(text.encode(), key)


def test_attestations() -> None:
    options = Options(manifest_keys=(DEVICE.vkey,), file_name="0123456789ABCDEF.witness.3")
    assert not outcome(attestation(), options)
    assert not outcome(attestation("BastionID"), replace(options, file_name="0123456789ABCDEF.bastion.3"))
    assert outcome(attestation(), replace(options, file_name="0123456789ABCDEF.bastion.3")) == {"file name"}
    assert outcome(attestation(), replace(options, file_name="0123456789ABCDEF.witness.2")) == {"file name"}
    assert outcome(attestation(), replace(options, file_name="0123456789ABCDEE.witness.3")) == {"file name"}
    assert not outcome(attestation(), replace(options, file_name=None))
    assert outcome(attestation(), replace(options, manifest_keys=(MAKER.vkey,))) == {"device signature"}
    assert outcome(attestation(), replace(options, manifest_keys=(RawKey(bytes(32)),))) == {
        "device signature"
    }
    # Signed by the device's key, but about another device.
    other = attestation(serial="0123456789ABCDEE")
    assert outcome(other, replace(options, file_name=None)) == {"device signature"}
    # The identity was renewed more often when we last looked.
    last = Learned((), {"0123456789ABCDEF witness": "4"})
    assert outcome(attestation(), replace(options, previous=last)) == {"version"}
    assert not outcome(attestation(counter="10"), replace(options, previous=last, file_name=None))


@pytest.mark.parametrize(
    "data",
    [
        attestation(serial="0123456789abcdef"),
        attestation(serial="123"),
        attestation(counter="03"),
        attestation(counter="-1"),
        attestation(identity="no vkey"),
        attestation("BastionID", identity="AB" * 32),
        attestation(identity=f"{LOG.vkey}\nfifth line"),
        b"ArmoredWitness ID attestation v1\n",
    ],
)
def test_malformed_attestations(data: bytes) -> None:
    assert outcome(data, Options(manifest_keys=(DEVICE.vkey,))) == {"malformed"}


def test_the_file_of_a_second_key_is_told_by_its_algorithm() -> None:
    options = Options(manifest_keys=(DEVICE.vkey,))
    mldsa44 = SimulatedKey("w.example/1", SignatureType.COSIGNATURE_MLDSA44)
    for key, right, wrong in ((W1, "ed25519", "ml-dsa-44"), (mldsa44, "ml-dsa-44", "ed25519")):
        data = attestation(identity=str(key.vkey))
        for name, faults in (
            (f"0123456789ABCDEF.witness.3.{right}", set()),
            (f"0123456789ABCDEF.witness.3.{wrong}", {"file name"}),
            (f"0123456789ABCDEF.witness.2.{right}", {"file name"}),
            (f"0123456789ABCDEE.witness.3.{right}", {"file name"}),
            ("0123456789ABCDEF.witness.3", set()),
        ):
            assert outcome(data, replace(options, file_name=name)) == faults, name
    bastion = attestation("BastionID")
    assert outcome(bastion, replace(options, file_name="0123456789ABCDEF.bastion.3.ed25519")) == {"file name"}


def test_a_witness_that_was_named_is_the_one_attested() -> None:
    options = Options(manifest_keys=(DEVICE.vkey,), witnesses=(W1.vkey,))
    assert not outcome(attestation(identity=str(W1.vkey)), options)
    plain = make_vkey(W1.vkey.name, SignatureType.ED25519, W1.vkey.public_key)  # as upstream writes it
    assert not outcome(attestation(identity=str(plain)), options)
    other = make_vkey("another", W1.vkey.type, W1.vkey.public_key)
    for stranger in (LOG.vkey, other):
        assert outcome(attestation(identity=str(stranger)), options) == {"identity"}
    assert outcome(attestation("BastionID"), options) == {"identity"}


def test_a_development_device_vouches_for_its_like_only() -> None:
    device = SimulatedKey("DEV:AW-ID-Attestation-0123456789ABCDEF")
    identity = SimulatedKey("DEV:ArmoredWitness-lucky-cat")
    options = Options(manifest_keys=(device.vkey,))
    report = verify(attestation(identity=str(identity.vkey), key=device), options)
    assert report.verified
    assert any("DEV:" in sentence for sentence in report.unchecked)
    assert outcome(attestation(key=device), options) == {"development"}
    assert not outcome(attestation("BastionID", key=device), options)
    # A device's own key is not the development key of the same serial number, nor the other way round.
    assert outcome(attestation(key=device), Options(manifest_keys=(DEVICE.vkey,))) == {"device signature"}
    assert outcome(attestation(), options) == {"device signature"}


def test_what_we_write_is_what_is_read() -> None:
    text = attestation_text("0123456789ABCDEF", 12, W1.vkey)
    assert text == f"ArmoredWitness ID attestation v1\n0123456789ABCDEF\n12\n{W1.vkey}\n".encode()
    says = parse_attestation(text)
    assert (says.kind, says.serial, says.counter, says.identity) == (
        "witness", "0123456789ABCDEF", "12", str(W1.vkey)
    )  # fmt: skip
    for serial, counter in (("0123456789abcdef", 0), ("0", 0), ("0123456789ABCDEF\n0", 0), ("0" * 16, -1)):
        with pytest.raises(ValueError, match="line"):
            attestation_text(serial, counter, W1.vkey)


def real_keys(testdata: Path) -> dict[str, VerifierKey]:
    """The devices' keys, by serial number."""
    known = json.loads((testdata / "checkpoints/all-known-keys.json").read_text())
    found = {}
    for text in (each["vkey"] for each in known.values()):
        name = text.partition("+")[0]
        if name.startswith("AW-ID-Attestation-") and parse_vkey(text).type is SignatureType.ED25519:
            found[name.removeprefix("AW-ID-Attestation-")] = parse_vkey(text)
    return found


def test_real_attestations(testdata: Path) -> None:
    keys = real_keys(testdata)
    found = list((testdata / "proofs/armored-witness/device-attestations").iterdir())
    assert len(found) == 23
    for path in found:
        data, serial = path.read_bytes(), path.name.partition(".")[0]
        options = Options(manifest_keys=(keys[serial],), file_name=path.name)
        assert not outcome(data, options), path.name
        # What upstream's parser does not look at (devices/devices.go): the names.
        for name in (f"0123456789ABCDEF.{path.name.partition('.')[2]}", path.name[:-1] + "1"):
            assert outcome(data, replace(options, file_name=name)) == {"file name"}
        others = tuple(key for other, key in keys.items() if other != serial)
        assert outcome(data, replace(options, manifest_keys=others)) == {"device signature"}
