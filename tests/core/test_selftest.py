"""The self-tests pass here, and each of them can fail."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from witness.core import selftest
from witness.core.selftest import SelfTestFailed
from witness.tlog import merkle


def test_all_pass_here() -> None:
    assert selftest.run() == ("sha256", "merkle", "ed25519", "ecdsa-p256", "ml-dsa-44")


class WrongSHA256:
    def __init__(self, data: bytes = b"") -> None:
        self._digest = hashlib.sha256(data + b"!")

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class WrongHashlib:
    sha256 = WrongSHA256


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def accept(*_arguments: object) -> Any:
    return True


def accept_note(_note: object, keys: list[object]) -> list[object]:
    return list(keys)


class AcceptingMLDSA:
    """An ML-DSA whose keys are right and which accepts every signature."""

    class MLDSA44PrivateKey:
        @staticmethod
        def from_seed_bytes(seed: bytes) -> Any:
            from cryptography.hazmat.primitives.asymmetric import mldsa

            real = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)

            class Public:
                public_bytes_raw = staticmethod(real.public_key().public_bytes_raw)
                verify = staticmethod(accept)

            class Private:
                sign = staticmethod(real.sign)
                public_key = Public

            return Private()


FAULTS: dict[str, tuple[str, str, Any]] = {
    "a wrong hash function": ("sha256", "hashlib", WrongHashlib),
    "a wrong leaf of the vector": ("merkle", "_LONG_LEAVES", ("5051525354555657", "00")),
    "a proof verifier that accepts all": ("merkle", "merkle.verify_consistency", accept),
    "a wrong tree": ("merkle", "merkle.node_hash", lambda left, right: merkle.leaf_hash(left + right)),
    "a wrong Ed25519 key": ("ed25519", "crypto_sign_seed_keypair", lambda _seed: (bytes(32), bytes(64))),
    "a wrong Ed25519 signature": ("ed25519", "crypto_sign", lambda message, _key: bytes(64) + message),
    "an Ed25519 verifier that accepts all": ("ed25519", "verify_signature", accept),
    "an Ed25519 verifier that refuses all": ("ed25519", "verify_signature", lambda *_: False),
    "a wrong ECDSA vector": ("ecdsa-p256", "ECDSA_NOTE", selftest.ECDSA_NOTE.replace(b"\n7\n", b"\n9\n")),
    "another ECDSA key": ("ecdsa-p256", "ECDSA_VKEY", "x+00000000+AQ=="),
    "a note verifier that accepts all": ("ecdsa-p256", "verify_note", accept_note),
    "a note verifier that knows nobody": ("ecdsa-p256", "verify_note", lambda *_: ()),
    "another ML-DSA seed": ("ml-dsa-44", "MLDSA44_SEED", bytes(32)),
    "another ML-DSA public key": ("ml-dsa-44", "MLDSA44_PUBLIC_SHA256", "0" * 64),
    "a wrong ML-DSA signature": ("ml-dsa-44", "MLDSA44_SIGNATURE", flipped(selftest.MLDSA44_SIGNATURE, 99)),
    "an ML-DSA verifier that accepts all": ("ml-dsa-44", "mldsa", AcceptingMLDSA),
}


@pytest.mark.parametrize(("name", "target", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_each_can_fail(name: str, target: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"witness.core.selftest.{target}", fault)
    with pytest.raises(SelfTestFailed) as caught:
        selftest.run()
    assert caught.value.name == name
    assert name in str(caught.value)


def test_every_self_test_has_a_fault_that_fails_it() -> None:
    assert {name for name, _, _ in FAULTS.values()} == set(selftest.run())
