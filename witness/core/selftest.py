"""Known answers for every algorithm the core uses, checked before it serves.

A broken library, a wrong build or a failing machine is noticed here instead of in a signature. The vectors
are our own (made with the development identity below) except where a source is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import mldsa
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from witness.core.selftest_vectors import (
    ECDSA_NOTE,
    ECDSA_VKEY,
    MLDSA44_PUBLIC_SHA256,
    MLDSA44_SEED,
    MLDSA44_SIGNATURE,
)
from witness.tlog import merkle
from witness.tlog.note import SignatureType, make_vkey, parse_note, parse_vkey
from witness.tlog.signature import InvalidNoteSignature, verify_note, verify_signature


class SelfTestFailed(Exception):
    """An algorithm gave a wrong answer; the core does not serve."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"self-test {name} failed: {reason}")
        self.name = name
        self.reason = reason


def run() -> tuple[str, ...]:
    """Runs all self-tests and returns their names.

    Raises:
        SelfTestFailed: one of them gave a wrong answer.
    """
    names = []
    for name, test in _TESTS.items():
        try:
            test()
        except SelfTestFailed:
            raise
        except Exception as error:
            raise SelfTestFailed(name, repr(error)) from error
        names.append(name)
    return tuple(names)


def _require(name: str, condition: object, reason: str) -> None:
    if not condition:
        raise SelfTestFailed(name, reason)


def _sha256() -> None:
    # FIPS 180-4, the three-byte example of its test vectors.
    want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    _require("sha256", hashlib.sha256(b"abc").hexdigest() == want, "wrong digest")


_LONG_LEAVES = ("5051525354555657", "606162636465666768696a6b6c6d6e6f")


def _merkle() -> None:
    # The eight-leaf tree of the Certificate Transparency reference implementation's tests.
    tree = merkle.MemoryTree()
    for leaf in ("", "00", "10", "2021", "3031", "40414243", *_LONG_LEAVES):
        tree.append(bytes.fromhex(leaf))
    for size, want in (
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ):
        _require("merkle", tree.root(size).hex() == want, f"wrong root of {size} leaves")
    proof = merkle.consistency_proof(3, 8, tree.node)
    merkle.verify_consistency(3, 8, tree.root(3), tree.root(8), proof)
    try:
        merkle.verify_consistency(3, 8, tree.root(2), tree.root(8), proof)
    except merkle.InvalidProof:
        return
    raise SelfTestFailed("merkle", "a proof from the wrong root was accepted")


def _ed25519() -> None:
    # RFC 8032, section 7.1, test 2.
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public, secret = crypto_sign_seed_keypair(seed)
    want = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    signature = crypto_sign(b"\x72", secret)[:64]
    _require("ed25519", signature.hex() == want, "wrong signature")
    key = make_vkey("selftest.invalid", SignatureType.ED25519, public)
    _require("ed25519", verify_signature(key, b"\x72", signature), "a good signature was refused")
    _require("ed25519", not verify_signature(key, b"\x73", signature), "a bad signature was accepted")


def _ecdsa() -> None:
    note, key = parse_note(ECDSA_NOTE), parse_vkey(ECDSA_VKEY)
    _require("ecdsa-p256", len(verify_note(note, [key])) == 1, "a good signature was refused")
    try:
        verify_note(parse_note(ECDSA_NOTE.replace(b"\n7\n", b"\n8\n")), [key])
    except InvalidNoteSignature:
        return
    raise SelfTestFailed("ecdsa-p256", "a bad signature was accepted")


def _mldsa44() -> None:
    private = mldsa.MLDSA44PrivateKey.from_seed_bytes(MLDSA44_SEED)
    public = private.public_key()
    digest = hashlib.sha256(public.public_bytes_raw()).hexdigest()
    _require("ml-dsa-44", digest == MLDSA44_PUBLIC_SHA256, "wrong public key")
    public.verify(MLDSA44_SIGNATURE, b"selftest")  # raises if it does not verify
    public.verify(private.sign(b"selftest"), b"selftest")
    try:
        public.verify(MLDSA44_SIGNATURE, b"Selftest")
    except Exception:  # noqa: BLE001 - any refusal is the right answer
        return
    raise SelfTestFailed("ml-dsa-44", "a bad signature was accepted")


_TESTS: dict[str, Callable[[], None]] = {
    "sha256": _sha256,
    "merkle": _merkle,
    "ed25519": _ed25519,
    "ecdsa-p256": _ecdsa,
    "ml-dsa-44": _mldsa44,
}
