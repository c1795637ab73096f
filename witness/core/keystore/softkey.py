"""The soft key backend: seeds in a file, sealed with a passphrase or, with a warning, not.

The file is JSON. Its header (name, identity, vkeys) is readable by anybody who can read the file, so that
`witness keys list` needs no passphrase. The seeds are sealed, and the header is authenticated with them
(`witness.core.keystore.sealing`).

Beside the witness's keys it holds the seed of the attestation key (`witness.core.keystore.attestation`).
Files made before there was one have none; `witness keys attest` adds it.

What this protects against: a copy of the file alone. What it does not: whoever can read this process's
memory, or the passphrase beside the file.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair

from witness.core.keystore.attestation import AttestationKey, serial_of
from witness.core.keystore.base import (
    COSIGNATURE_TYPES,
    Algorithm,
    KeyFileInvalid,
    KeystoreError,
    Signer,
)
from witness.core.keystore.derivation import DEV
from witness.core.keystore.sealing import (
    FORMAT,
    SCRYPT_N,
    b64,
    bytes_of,
    fsync_folder,
    read_file,
    seal,
    unseal,
    write_new,
)
from witness.core.wire import KeyInfo, LockdownStep
from witness.tlog.note import MalformedVKey, VerifierKey, make_vkey, parse_vkey

SEED_SIZE = 32
_ATTESTATION = "attestation"


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What a key file tells without its passphrase; `attestation` is None in a file that has no such key."""

    name: str
    identity: str
    vkeys: tuple[VerifierKey, ...]
    sealed: bool
    attestation: VerifierKey | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """The seeds in a key file: by algorithm, in the order of its vkeys, and the attestation key's."""

    seeds: dict[Algorithm, bytes] = field(repr=False)
    attestation_seed: bytes | None = field(repr=False)


class Ed25519Signer:
    """Ed25519 by libsodium (RFC 8032)."""

    __slots__ = ("_secret", "vkey")

    def __init__(self, name: str, seed: bytes) -> None:
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.vkey = make_vkey(name, COSIGNATURE_TYPES[Algorithm.ED25519], public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return crypto_sign(message, self._secret)[:crypto_sign_BYTES]

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes for another purpose, from which the key cannot be told."""
        return _derive(self._secret[:SEED_SIZE], purpose)


class MLDSA44Signer:
    """ML-DSA-44 by OpenSSL (FIPS 204, hedged, empty context)."""

    __slots__ = ("_key", "vkey")

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
        public = self._key.public_key().public_bytes_raw()
        self.vkey = make_vkey(name, COSIGNATURE_TYPES[Algorithm.MLDSA44], public)

    def sign(self, message: bytes) -> bytes:
        """2420 bytes."""
        return self._key.sign(message)

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes for another purpose, from which the key cannot be told."""
        return _derive(self._key.private_bytes_raw(), purpose)


_SIGNERS: dict[Algorithm, type[Ed25519Signer | MLDSA44Signer]] = {
    Algorithm.ED25519: Ed25519Signer,
    Algorithm.MLDSA44: MLDSA44Signer,
}


def soft_signer(algorithm: Algorithm, name: str, seed: bytes) -> Signer:
    """A key in this process's memory, from its 32-byte seed."""
    return _SIGNERS[algorithm](name, seed)


class SoftKeystore:
    """An opened key file."""

    def __init__(
        self,
        public: PublicKeys,
        signers: tuple[Ed25519Signer | MLDSA44Signer, ...],
        attestation: AttestationKey | None = None,
    ) -> None:
        self._public = public
        self._signers = signers
        self.attestation = attestation
        """The key that lives as long as the file; None in a file that has none."""

    @property
    def public(self) -> PublicKeys:
        """The file's header."""
        return self._public

    def signers(self) -> tuple[Signer, ...]:
        """The keys that sign."""
        return self._signers

    def states(self) -> tuple[KeyInfo, ...]:
        """Every key, ready: an opened soft key cannot go away."""
        detail = "sealed" if self._public.sealed else "not sealed"
        return tuple(
            KeyInfo(str(signer.vkey), algorithm_of(signer.vkey), "softkey", "ready", detail)
            for signer in self._signers
        )

    def drivers(self) -> tuple[LockdownStep, ...]:
        """None: there is no device."""
        return ()

    def warnings(self) -> tuple[str, ...]:
        """That the file is not sealed, if so."""
        if self._public.sealed:
            return ()
        return ("the key file is not sealed: whoever can read it can sign as this witness",)


def attestation_key(name: str, identity: str, seed: bytes) -> AttestationKey:
    """The attestation key of a key file.

    Args:
        name: the witness's name; one for development is marked.
        identity: the identifier that the file carries, which stands for a device's unique ID.
        seed: 32 bytes.
    """
    return AttestationKey(seed, serial_of(identity), dev=name.startswith(DEV))


def algorithm_of(vkey: VerifierKey) -> str:
    """The configuration's name of a witness key's algorithm.

    Raises:
        KeyFileInvalid: it is no witness key.
    """
    for algorithm, signature_type in COSIGNATURE_TYPES.items():
        if vkey.type == signature_type:
            return algorithm.value
    raise KeyFileInvalid(f"{vkey.name}+{vkey.key_id.hex()} is not a witness's key")


def create(
    path: Path,
    *,
    name: str,
    identity: str,
    passphrase: str | None,
    algorithms: tuple[str, ...] = (Algorithm.ED25519.value, Algorithm.MLDSA44.value),
    ed25519_seed: bytes | None = None,
    attestation_seed: bytes | None = None,
    scrypt_n: int = SCRYPT_N,
) -> tuple[VerifierKey, ...]:
    """Makes a key file with fresh seeds, mode 0600 in a folder of mode 0700.

    Args:
        path: where; nothing may stand there.
        name: the witness's key name.
        identity: the random identifier that the database carries too.
        passphrase: what seals the seeds; None leaves them unsealed.
        algorithms: which keys to make, in the order of their cosignatures.
        ed25519_seed: 32 bytes of an existing key, instead of a fresh one.
        attestation_seed: 32 bytes of the attestation key; None makes a file without one. It is kept through
            all generations of an identity: that is what it is for.
        scrypt_n: scrypt's cost; smaller only in tests.

    Returns:
        The vkeys, in the order of `algorithms`.

    Raises:
        KeystoreError: something stands there, or an algorithm is unknown.
        OSError: it cannot be written.
    """
    seeds: dict[Algorithm, bytes] = {}
    for text in algorithms:
        try:
            algorithm = Algorithm(text)
        except ValueError as error:
            raise KeystoreError(f"unknown key algorithm {text!r}", "known: ed25519, ml-dsa-44") from error
        seeds[algorithm] = secrets.token_bytes(SEED_SIZE)
    if ed25519_seed is not None:
        if Algorithm.ED25519 not in seeds:
            raise KeystoreError("an Ed25519 key is imported, but ed25519 is not among the algorithms")
        seeds[Algorithm.ED25519] = ed25519_seed
    content, vkeys = _content(
        name, identity, seeds, passphrase, scrypt_n=scrypt_n, attestation_seed=attestation_seed
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        write_new(path, content)
    except FileExistsError as error:
        raise KeystoreError(f"{path} exists already", "a key file is never overwritten") from error
    fsync_folder(path.parent)
    return vkeys


def add_seed(
    path: Path,
    passphrase: str | None,
    algorithm: Algorithm,
    seed: bytes,
    *,
    name: str,
    identity: str,
) -> None:
    """Puts one more key into a key file, or makes the file; keys that are in it stay what they are.

    The file is replaced whole, and sealed as before; the passphrase of one that is made here seals it.

    Raises:
        KeystoreError: the file does not open, is another witness's, or has a key of the algorithm.
        OSError: it cannot be written; then the old one stands.
    """
    seeds = {algorithm: seed}
    attestation_seed = None
    if path.exists():
        file = KeyFile(path)
        if (file.public.name, file.public.identity) != (name, identity):
            raise KeyFileInvalid(f"{path} belongs to {file.public.name} ({file.public.identity})")
        secrets_of = file.secrets(passphrase)
        if algorithm in secrets_of.seeds:
            raise KeystoreError(f"{path} has an {algorithm} key already", "a key is never overwritten")
        seeds |= secrets_of.seeds
        attestation_seed = secrets_of.attestation_seed
        passphrase = passphrase if file.public.sealed else None
    _replace(path, name, identity, seeds, attestation_seed, passphrase)


def add_attestation(path: Path, passphrase: str | None) -> AttestationKey:
    """Puts an attestation key into a key file that has none; all else in it stays what it is.

    Returns:
        The new key, or the one that is there.

    Raises:
        KeystoreError: the file does not open.
        OSError: it cannot be written; then the old one stands.
    """
    file = KeyFile(path)
    public, held = file.public, file.secrets(passphrase)
    seed = held.attestation_seed
    if seed is None:
        seed = secrets.token_bytes(SEED_SIZE)
        passphrase = passphrase if public.sealed else None
        _replace(path, public.name, public.identity, held.seeds, seed, passphrase)
    return attestation_key(public.name, public.identity, seed)


def _replace(  # noqa: PLR0917 - what a file is made of
    path: Path,
    name: str,
    identity: str,
    seeds: Mapping[Algorithm, bytes],
    attestation_seed: bytes | None,
    passphrase: str | None,
) -> None:
    ordered = {each: seeds[each] for each in Algorithm if each in seeds}
    content, _ = _content(
        name, identity, ordered, passphrase, scrypt_n=SCRYPT_N, attestation_seed=attestation_seed
    )
    building = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        write_new(building, content)
        building.rename(path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _content(
    name: str,
    identity: str,
    seeds: Mapping[Algorithm, bytes],
    passphrase: str | None,
    *,
    scrypt_n: int,
    attestation_seed: bytes | None,
) -> tuple[dict[str, Any], tuple[VerifierKey, ...]]:
    vkeys = tuple(_SIGNERS[algorithm](name, seed).vkey for algorithm, seed in seeds.items())
    header: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "identity": identity,
        "vkeys": [str(vkey) for vkey in vkeys],
    }
    held = {a.value: b64(seed) for a, seed in seeds.items()}
    if attestation_seed is not None:
        header[_ATTESTATION] = str(attestation_key(name, identity, attestation_seed).vkey)
        held[_ATTESTATION] = b64(attestation_seed)
    if passphrase is None:
        content = {**header, "seeds": held}
    else:
        content = seal(header, held, passphrase, scrypt_n=scrypt_n)
    return content, vkeys


def read_public(path: Path) -> PublicKeys:
    """What a key file tells without its passphrase.

    Raises:
        KeyAbsent: there is no such file.
        KeyFileInvalid: it is not of a form this program knows.
    """
    return _public(read_file(path))


def open_keystore(path: Path, passphrase: str | None) -> SoftKeystore:
    """Opens a key file.

    Raises:
        KeyAbsent: there is no such file.
        KeyLocked: it is sealed and no passphrase is given.
        WrongSecret: the passphrase does not open it.
        KeyFileInvalid: it is not of a form this program knows, or its seeds are not those of its vkeys.
    """
    return KeyFile(path).open(passphrase)


class KeyFile:
    """A key file that was read, and may be opened later, when the process can read no files any more.

    Raises:
        KeyAbsent: there is no such file.
        KeyFileInvalid: it is not of a form this program knows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = read_file(path)
        self.public = _public(self._content)

    def open(self, passphrase: str | None) -> SoftKeystore:
        """Opens it; see `open_keystore`."""
        public, held = self.public, self.secrets(passphrase)
        signers = []
        for vkey, (algorithm, seed) in zip(public.vkeys, held.seeds.items(), strict=True):
            signer = _SIGNERS[algorithm](public.name, seed)
            if signer.vkey != vkey:
                raise KeyFileInvalid(
                    f"the {algorithm} seed in {self._path} is not that of {vkey.name}+{vkey.key_id.hex()}"
                )
            signers.append(signer)
        attestation = None
        if held.attestation_seed is not None:
            attestation = attestation_key(public.name, public.identity, held.attestation_seed)
            if attestation.vkey != public.attestation:
                raise KeyFileInvalid(f"the attestation seed in {self._path} is not that of its vkey")
        return SoftKeystore(public, tuple(signers), attestation)

    def secrets(self, passphrase: str | None) -> Secrets:
        """All seeds, those of the witness's keys in the order of the vkeys.

        Raises:
            KeystoreError: as `open_keystore`.
        """
        public = self.public
        seeds = unseal(self._content, passphrase) if public.sealed else self._content.get("seeds")
        if not isinstance(seeds, dict):
            raise KeyFileInvalid(f"{self._path} holds no seeds")
        algorithms = [Algorithm(algorithm_of(vkey)) for vkey in public.vkeys]
        return Secrets(
            {algorithm: bytes_of(seeds, algorithm.value, SEED_SIZE) for algorithm in algorithms},
            bytes_of(seeds, _ATTESTATION, SEED_SIZE) if public.attestation is not None else None,
        )


def _public(content: Mapping[str, Any]) -> PublicKeys:
    name, identity, texts = content.get("name"), content.get("identity"), content.get("vkeys")
    if not isinstance(name, str) or not isinstance(identity, str) or not isinstance(texts, list) or not texts:
        raise KeyFileInvalid("the key file lacks its name, identity or vkeys")
    told = content.get(_ATTESTATION)
    try:
        vkeys = tuple(parse_vkey(str(text)) for text in texts)
        attestation = parse_vkey(str(told)) if told is not None else None
    except MalformedVKey as error:
        raise KeyFileInvalid(f"the key file names a malformed vkey: {error}") from error
    if any(vkey.name != name for vkey in vkeys):
        raise KeyFileInvalid("the key file names keys of another witness")
    return PublicKeys(name, identity, vkeys, "sealed" in content, attestation)


def _derive(seed: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, None, purpose.encode()).derive(seed)
