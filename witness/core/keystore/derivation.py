"""Note keys out of a device's secret: which diversifier, and what becomes of the 32 bytes that come back.

A deriving device answers a diversifier with 32 bytes that only this device can make. A *scheme* says which
diversifier belongs to which purpose, and turns the answer into the seed of a note key. Schemes are pure, so
that they can be held to known answers without any device.

Two schemes:

- `witness-v1`, ours. The purpose is a text, `tlog-witness/v1/<purpose>/<generation>`, with `DEV:` before it
  for an identity that is for development. The diversifier is its SHA-256. The seed is HKDF-SHA256 (RFC 5869)
  of the device's answer, salted with the device's unique ID, with the text as info.
- `armored-witness`, of the Armored Witness (armored-witness-applet, trusted_applet/key.go, and
  armored-witness-os, trusted_os/rpc.go), byte for byte, so that its identities can be reproduced from a
  known device secret. It has no ML-DSA key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from witness.core.keystore.base import Algorithm, KeyInvalid
from witness.core.keystore.words import ADJECTIVES, NOUNS

SECRET_SIZE: Final = 32
"""Bytes of a device's answer to a diversifier."""
SEED_SIZE: Final = 32
"""Bytes of an Ed25519 seed (RFC 8032) and of an ML-DSA-44 seed (FIPS 204)."""
DEV: Final = "DEV:"
"""What marks an identity for development, in its diversifiers and in its name."""


class Purpose(StrEnum):
    """What a derived key is for. No two purposes share a diversifier."""

    WITNESS_ED25519 = "witness-ed25519"
    WITNESS_MLDSA44 = "witness-ml-dsa-44"
    ATTESTATION = "attestation"
    NAME = "name"


WITNESS_PURPOSES: Final = {
    Algorithm.ED25519: Purpose.WITNESS_ED25519,
    Algorithm.MLDSA44: Purpose.WITNESS_MLDSA44,
}
"""The purpose of a witness's key, by its algorithm."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which of a device's identities.

    Attributes:
        unique_id: the device's unique ID, as it tells it.
        generation: counts a device's identities; a retired one is followed by the next.
        dev: an identity for development.
        parameters: what else a scheme wants to know, by name.
    """

    unique_id: str
    generation: int
    dev: bool
    parameters: Mapping[str, str]


class Scheme(Protocol):
    """A way from purposes to diversifiers, and from a device's answers to seeds."""

    def diversifier(self, purpose: Purpose, identity: Identity) -> bytes:
        """What the device is asked with: 32 bytes.

        Raises:
            KeyInvalid: the scheme has no key for this purpose, or lacks a parameter.
        """
        ...

    def seed(self, purpose: Purpose, identity: Identity, secret: bytes) -> bytes:
        """The 32-byte seed of the key, out of the device's 32-byte answer."""
        ...


class WitnessV1:
    """Our own scheme."""

    def diversifier(self, purpose: Purpose, identity: Identity) -> bytes:
        """SHA-256 of the purpose's text."""
        return hashlib.sha256(self.text(purpose, identity)).digest()

    def seed(self, purpose: Purpose, identity: Identity, secret: bytes) -> bytes:
        """HKDF-SHA256: salt the unique ID, info the purpose's text."""
        return self._expand(purpose, identity, secret, SEED_SIZE)

    def name(self, identity: Identity, secret: bytes) -> str:
        """A readable name, out of the answer to the diversifier of `Purpose.NAME`.

        Three words of 256 each, one byte a word, so that no name is likelier than another: 2^24 names, and
        an even chance of two alike only among some 4,800 devices. It is a nickname; the key is the identity.
        """
        picks = self._expand(Purpose.NAME, identity, secret, 3)
        words = (ADJECTIVES[picks[0]], NOUNS[picks[1]], NOUNS[picks[2]])
        return f"{DEV if identity.dev else ''}witness-{'-'.join(words)}"

    @staticmethod
    def text(purpose: Purpose, identity: Identity) -> bytes:
        """The purpose's text. The attestation key has no generation: it is the device's for life."""
        prefix = DEV if identity.dev else ""
        if purpose is Purpose.ATTESTATION:
            return f"{prefix}tlog-witness/v1/{purpose}".encode()
        return f"{prefix}tlog-witness/v1/{purpose}/{identity.generation}".encode()

    def _expand(self, purpose: Purpose, identity: Identity, secret: bytes, size: int) -> bytes:
        return _hkdf(secret, identity.unique_id, self.text(purpose, identity), size)


class ArmoredWitness:
    """The Armored Witness's scheme.

    Its parameter `applet` is the vkey text of whoever signs the applet's firmware: its OS binds keys to it.
    The unique ID is the serial number, in upper-case hexadecimal.
    """

    _NAME_SEED = 8

    def diversifier(self, purpose: Purpose, identity: Identity) -> bytes:
        """SHA256(SHA256(applet vkey) || SHA256(text)[:16]): the applet's and the OS's share (rpc.go)."""
        applet = identity.parameters.get("applet")
        if applet is None:
            raise KeyInvalid(
                "the scheme armored-witness needs the applet's verifier key", "give it as applet=VKEY"
            )
        short = hashlib.sha256(self.text(purpose, identity)).digest()[:16]
        return hashlib.sha256(hashlib.sha256(applet.encode()).digest() + short).digest()

    def seed(self, purpose: Purpose, identity: Identity, secret: bytes) -> bytes:
        """From the HKDF stream (no info): bytes 8 to 40 for the witness key, 0 to 32 for the others.

        Go evaluates the arguments of `note.GenerateKey(r, keyName(r))` from the left, and the name takes the
        stream's first eight bytes before the key's seed is read.
        """
        stream = _hkdf(secret, identity.unique_id, b"", self._NAME_SEED + SEED_SIZE)
        if purpose is Purpose.WITNESS_ED25519:
            return stream[self._NAME_SEED :]
        return stream[:SEED_SIZE]

    def name_seed(self, identity: Identity, secret: bytes) -> bytes:
        """The eight bytes that seed its name generator (a little-endian integer for Go's math/rand)."""
        return _hkdf(secret, identity.unique_id, b"", self._NAME_SEED)

    @staticmethod
    def text(purpose: Purpose, identity: Identity) -> bytes:
        """The purpose's text (key.go).

        Raises:
            KeyInvalid: it has no key for this purpose.
        """
        prefix = DEV if identity.dev else ""
        if purpose is Purpose.WITNESS_ED25519:
            return f"{prefix}WitnessKey-id:{identity.generation}".encode()
        if purpose is Purpose.ATTESTATION:
            return f"{prefix}ID-Attestation".encode()
        raise KeyInvalid(
            f"the scheme armored-witness has no key for the purpose {purpose}",
            "the scheme witness-v1 has; or make a witness with --algorithm ed25519 only",
        )


OUR_SCHEME: Final = "witness-v1"
ARMORED_WITNESS: Final = "armored-witness"
SCHEMES: Final[Mapping[str, Callable[[], Scheme]]] = {
    OUR_SCHEME: WitnessV1,
    ARMORED_WITNESS: ArmoredWitness,
}


def scheme(name: str) -> Scheme:
    """A scheme by its name.

    Raises:
        KeyInvalid: there is none.
    """
    if name not in SCHEMES:
        raise KeyInvalid(f"unknown derivation scheme {name!r}", f"known: {', '.join(SCHEMES)}")
    return SCHEMES[name]()


def caam_derive(master: bytes, diversifier: bytes) -> bytes:
    """What the Armored Witness's CAAM answers: AES-256-CMAC key diversification (NXP AN10922, section 2.4).

    Args:
        master: the device's 32-byte secret (BKEK); on a part whose fuses are not blown, a public test vector.
        diversifier: what is asked.

    Returns:
        CMAC(master, 0x41 || diversifier) || CMAC(master, 0x42 || diversifier): 32 bytes.
    """
    halves = []
    for constant in (b"\x41", b"\x42"):
        mac = CMAC(AES(master))
        mac.update(constant + diversifier)
        halves.append(mac.finalize())
    return b"".join(halves)


def _hkdf(secret: bytes, salt: str, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt.encode(), info).derive(secret)
