"""Keys that sign artifacts: of an X.509 certificate or bare, in DER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_MAX_DER: Final = 1 << 16
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
_HASHES: Final[dict[str, type[HashAlgorithm]]] = {"sha256": SHA256, "sha384": SHA384, "sha512": SHA512}
_UNREADABLE: Final = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm)
"""What the library raises for DER that is no certificate or key; some of it only when a part is asked for."""

_P384: Final = 384
_P521: Final = 521


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key; `validity` is its certificate's, in POSIX seconds, None without a certificate."""

    key: PublicKey
    validity: tuple[int, int] | None

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed the data, with the hash that belongs to its kind."""
        hash_: HashAlgorithm = SHA256()
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            hash_ = {_P384: SHA384(), _P521: SHA512()}.get(self.key.curve.key_size, SHA256())
            candidates = {hash_.name: hash_, "sha256": SHA256()}  # many sign with SHA-256 whatever the curve
            return any(self._verifies(signature, data, each) for each in candidates.values())
        return self._verifies(signature, data, hash_)

    def verifies_digest(self, signature: bytes, digest: bytes, hash_: str) -> bool | None:
        """Whether this key signed what has the digest; None where its kind signs no digests."""
        if isinstance(self.key, ed25519.Ed25519PublicKey):
            return None
        algorithm = _HASHES[hash_]()
        if len(digest) != algorithm.digest_size:
            return False
        return self._verifies(signature, digest, Prehashed(algorithm))

    def _verifies(self, signature: bytes, data: bytes, hash_: HashAlgorithm | Prehashed) -> bool:
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, data, ec.ECDSA(hash_))
            elif isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, data, padding.PKCS1v15(), hash_)
            else:
                self.key.verify(signature, data)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True


def load_signing_key(der: bytes) -> SigningKey | None:
    """The key of a certificate or SubjectPublicKeyInfo in DER; None for anything else."""
    from cryptography import x509  # here: it takes a sixth of the command's start, and few bundles need it

    if len(der) > _MAX_DER:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        validity = (
            int(certificate.not_valid_before_utc.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
        )
        return _usable(certificate.public_key(), validity)
    except (*_UNREADABLE, x509.InvalidVersion):
        pass  # not a certificate: perhaps a bare key
    try:
        return _usable(load_der_public_key(der), None)
    except _UNREADABLE:
        return None


def is_root(der: bytes) -> bool:
    """Whether a certificate says that it issued itself."""
    from cryptography import x509  # as above

    if len(der) > _MAX_DER:
        return False
    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.issuer == certificate.subject and bool(certificate.subject.rdns)
    except (*_UNREADABLE, x509.InvalidVersion):
        return False


def _usable(key: object, validity: tuple[int, int] | None) -> SigningKey | None:
    if isinstance(key, rsa.RSAPublicKey) and not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return None
    if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return SigningKey(key, validity)
    return None
