"""Verification of note signatures of all five types. Pure: bytes in, yes or no out.

Types 0x01 and 0x02 sign the note text itself; 0x04 and 0x06 are cosignatures (`witness.tlog.cosignature`),
0x05 is a log's tree head (`witness.tlog.rfc6962`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from witness.tlog import rfc6962
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.cosignature import cosign_message, cosigned_message, parse_timestamped
from witness.tlog.note import (
    ED25519_PUBLIC_KEY_SIZE,
    ED25519_SIGNATURE_SIZE,
    MLDSA44_SIGNATURE_SIZE,
    MalformedNote,
    Note,
    Signature,
    SignatureType,
    VerifierKey,
)

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_LOADED_KEYS = 4096


class InvalidNoteSignature(Exception):
    """A line with a known key's name and key ID does not verify: the note is malformed, all of it."""

    def __init__(self, name: str, key_id: bytes) -> None:
        super().__init__(f"invalid signature by {name}+{key_id.hex()}")
        self.name = name
        self.key_id = key_id


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature line that verified, and the key that it verified with."""

    key: VerifierKey
    signature: Signature


def verify_note(note: Note, keys: Sequence[VerifierKey]) -> tuple[Verified, ...]:
    """Verify every signature of a note that claims to be by one of the keys (signed-note, Signatures).

    Two lines by one key are both verified. Identical lines count once. Should two different keys share
    name and key ID, a line that verifies with either is good.

    Args:
        note: a parsed note.
        keys: the trusted keys.

    Returns:
        The verified lines in the note's order; empty when no line is by a known key, and then the note
        is to be rejected.

    Raises:
        InvalidNoteSignature: a known key's name and key ID, and a signature that does not verify.
    """
    by_id: dict[tuple[str, bytes], list[VerifierKey]] = {}
    for key in keys:
        by_id.setdefault((key.name, key.key_id), []).append(key)
    verified: dict[Signature, Verified] = {}
    for signature in note.signatures:
        # SPEC signed-note: "Verifiers MUST ignore signatures from unknown keys, even if they share a name
        # or ID (but not both) with a known key."
        known = by_id.get((signature.name, signature.key_id))
        if known is None or signature in verified:
            continue
        # SPEC signed-note: "If the key name and ID match a known key, verifiers MUST verify the signature.
        # If a signature from a known key fails to verify, clients SHOULD reject the whole note."
        for key in known:
            if signature.canonical and verify_signature(key, note.text, signature.value):
                verified[signature] = Verified(key, signature)
                break
        else:
            raise InvalidNoteSignature(signature.name, signature.key_id)
    return tuple(verified.values())


def verify_signature(key: VerifierKey, text: bytes, value: bytes) -> bool:
    """Whether a signature value verifies over a note text; false for bytes of any wrong form.

    A true answer does not always cover the whole text: types 0x05 and 0x06 sign what a checkpoint means.
    0x05 leaves the origin out (which must equal the key name) and admits no extension lines. 0x06 leaves
    extension lines out, so that **whoever relays such a note can add and change them**.

    Args:
        key: the key that the line names.
        text: the note text.
        value: what follows the key ID in the signature line.
    """
    if key.type is SignatureType.ED25519:
        return _verify_ed25519(key.public_key, text, value)
    if key.type is SignatureType.ECDSA:
        return _verify_spki(key.public_key, text, value, rfc6962.ECDSA)
    if key.type is SignatureType.RFC6962:
        return _verify_tree_head(key, text, value)
    try:
        stamped = parse_timestamped(value, key.type)
        checkpoint = parse_checkpoint(text)
        message = cosign_message(key, stamped.timestamp, checkpoint, text)
    except (MalformedNote, MalformedCheckpoint, ValueError):
        # ValueError: a cosigner name of more than 255 bytes fits in no cosigned_message.
        return False
    if key.type is SignatureType.COSIGNATURE_ED25519:
        return _verify_ed25519(key.public_key, message, stamped.signature)
    return _verify_mldsa44(key.public_key, message, stamped.signature)


def verify_subtree_signature(
    key: VerifierKey, value: bytes, *, origin: str, start: int, end: int, root: bytes
) -> bool:
    """Whether a 0x06 cosignature verifies over a subtree, `[start, end)` of a log, with its hash.

    False for keys of other types and for bytes and numbers of any wrong form.
    """
    if key.type is not SignatureType.COSIGNATURE_MLDSA44:
        return False
    try:
        stamped = parse_timestamped(value, key.type)
        message = cosigned_message(key.name, stamped.timestamp, origin, start, end, root)
    except (MalformedNote, ValueError):
        return False
    return _verify_mldsa44(key.public_key, message, stamped.signature)


def verify_raw(key: VerifierKey, message: bytes, signature: bytes) -> bool:
    """Whether a cosigner's key (0x04, 0x06) signed a message as it stands; false for any other key."""
    if key.type is SignatureType.COSIGNATURE_ED25519:
        return _verify_ed25519(key.public_key, message, signature)
    if key.type is SignatureType.COSIGNATURE_MLDSA44:
        return _verify_mldsa44(key.public_key, message, signature)
    return False


def cosignature_timestamp(key: VerifierKey, value: bytes) -> int | None:
    """The timestamp of a verified cosignature, POSIX seconds; None for types that are no cosignatures.

    0 means that a 0x06 cosigner says nothing about the largest tree that it has observed.

    Raises:
        MalformedNote: the value is no `timestamped_signature`.
    """
    if key.type not in (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_MLDSA44):
        return None
    return parse_timestamped(value, key.type).timestamp


def is_usable_key(key: VerifierKey) -> bool:
    """Whether the key material is a public key: a point on its curve and in the group of prime order.

    `parse_vkey` looks at the form alone, and a key that is none verifies nothing, which its operator
    would take for a log that signs wrongly. For hands that add keys; never needed for safety.
    """
    if key.type in (SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519):
        return bool(crypto_core_ed25519_is_valid_point(key.public_key))
    if key.type is SignatureType.COSIGNATURE_MLDSA44:
        return True
    return _load_spki(key.public_key) is not None


def _verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    # libsodium reads 32 bytes of key and 64 of signature wherever they end: lengths are checked here.
    if len(signature) != ED25519_SIGNATURE_SIZE or len(public_key) != ED25519_PUBLIC_KEY_SIZE:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def _verify_mldsa44(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != MLDSA44_SIGNATURE_SIZE:
        return False
    try:
        _load_mldsa44(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _verify_tree_head(key: VerifierKey, text: bytes, value: bytes) -> bool:
    try:
        checkpoint = parse_checkpoint(text)
        parsed = rfc6962.parse_note_signature(value)
    except (MalformedCheckpoint, MalformedNote):
        return False
    # SPEC static-ct-api: "The key name of the signature line MUST match the checkpoint origin line."
    if checkpoint.origin != key.name:
        return False
    # SPEC static-ct-api: "A checkpoint signed with this algorithm MUST NOT include any extension lines."
    if checkpoint.extensions:
        return False
    message = rfc6962.tree_head_message(parsed.timestamp, checkpoint.size, checkpoint.root)
    return _verify_spki(key.public_key, message, parsed.signature, parsed.algorithm)


def _verify_spki(spki: bytes, message: bytes, signature: bytes, algorithm: int) -> bool:
    """Verify with SHA-256 whatever the curve, as github.com/transparency-dev/formats does."""
    loaded = _load_spki(spki)
    try:
        if isinstance(loaded, ec.EllipticCurvePublicKey) and algorithm == rfc6962.ECDSA:
            loaded.verify(signature, message, ec.ECDSA(SHA256()))
            return True
        if isinstance(loaded, rsa.RSAPublicKey) and algorithm == rfc6962.RSA:
            loaded.verify(signature, message, padding.PKCS1v15(), SHA256())
            return True
    except InvalidSignature:
        pass
    return False


# Loading a key costs as much as verifying with it. These hold public keys that an operator configured,
# never bytes from the network, and forget the least used beyond the bound.
@lru_cache(maxsize=_LOADED_KEYS)
def _load_spki(spki: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None:
    """The key object, or None for what is no key, off the curve or of another kind."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return key
    return None


@lru_cache(maxsize=_LOADED_KEYS)
def _load_mldsa44(public_key: bytes) -> mldsa.MLDSA44PublicKey:
    return mldsa.MLDSA44PublicKey.from_public_bytes(public_key)
