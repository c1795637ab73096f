"""Signed notes: text that one or more keys have signed (https://c2sp.org/signed-note).

A note is a text ending in a newline, an empty line, and signature lines::

    This is an example message.

    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAl…

Parsing says nothing about validity: `witness.tlog.signature` verifies. Whatever is accepted here and
can be verified encodes back to the same bytes: base64 is canonical (padded, unused bits zero), hex lowercase.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from witness.tlog.spki import is_ec_spki, is_rsa_spki

MAX_SIGNATURES = 128
"""Most signature lines in one note (signed-note, Format: a limit SHOULD be, and MUST allow 16)."""

KEY_ID_SIZE = 4
ED25519_PUBLIC_KEY_SIZE = 32
ED25519_SEED_SIZE = 32
ED25519_SIGNATURE_SIZE = 64
MLDSA44_PUBLIC_KEY_SIZE = 1312
MLDSA44_SIGNATURE_SIZE = 2420

_CONTROLS = bytes(byte for byte in range(0x20) if byte != ord("\n"))
_EM_DASH_SPACE = "— ".encode()
# No control character (they may not stand in a note), no plus sign, no character with the Unicode
# property White_Space, no lone surrogate (it has no UTF-8 form).
_KEY_NAME = re.compile(
    "[^\\x00-\\x20+\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ud800-\\udfff]+\\Z"
)
_LOWER_HEX_KEY_ID = re.compile(r"[0-9a-f]{8}\Z")


class MalformedNote(Exception):
    """These bytes are no signed note, no signature line or no signature body; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedVKey(Exception):
    """This text is no verifier key; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownKeyType(MalformedVKey):
    """A well-formed verifier key of a signature type that is not known here; `type` is its byte."""

    def __init__(self, type_byte: int) -> None:
        super().__init__(f"unknown signature type 0x{type_byte:02x}")
        self.type = type_byte


class MalformedSignerKey(Exception):
    """This text is no signer key; `reason` says why, and never shows the key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SignatureType(IntEnum):
    """The signature type identifier bytes that are verified here (signed-note, Signature types)."""

    ED25519 = 0x01
    ECDSA = 0x02
    COSIGNATURE_ED25519 = 0x04
    RFC6962 = 0x05
    COSIGNATURE_MLDSA44 = 0x06


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not yet verified.

    Attributes:
        name: the key name: not empty, without Unicode spaces and plus signs.
        key_id: four bytes.
        value: what follows the key ID, at least one byte; its form is the signature type's affair.
        canonical: false when the unused bits of the line's base64 are not zero. RFC 4648, section 3.5,
            lets decoders refuse that, and other implementations do not. Refusing the note would let a
            stranger's line spoil it, so such a line is ignored if the key is unknown and never
            verifies if it is known (`verify_note`).

    Raises:
        MalformedNote: when made of anything else.
    """

    name: str
    key_id: bytes
    value: bytes
    canonical: bool = True

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise MalformedNote("bad key name in a signature line")
        if len(self.key_id) != KEY_ID_SIZE or not self.value:
            raise MalformedNote("signature shorter than five bytes")

    def line(self) -> str:
        """The signature line, with its newline; raises MalformedNote if it was not canonical."""
        if not self.canonical:
            raise MalformedNote("signature line: base64 is not canonical")
        return f"— {self.name} {encode_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note as parsed: `text` ends in a newline; no signature has been verified."""

    text: bytes
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A verifier key (vkey): who signs, by which algorithm, with which key.

    Attributes:
        name: the key name.
        key_id: four bytes, always the ones that `key_id_for` computes.
        type: the signature type.
        public_key: the key material without the type byte: 32 bytes (0x01, 0x04), 1312 bytes (0x06),
            or SubjectPublicKeyInfo in DER (0x02, 0x05).

    Raises:
        MalformedVKey: when the fields do not fit together.
    """

    name: str
    key_id: bytes
    type: SignatureType
    public_key: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise MalformedVKey("bad key name")
        _check_public_key(self.type, self.public_key)
        # SPEC signed-note: "The key name and ID MUST match those used in the signatures."
        # A key ID that is not the hash would never match a line, or match another key's: refused.
        if self.key_id != key_id_for(self.name, self.type, self.public_key):
            raise MalformedVKey("the key ID is not that of this name and key")

    def __str__(self) -> str:
        """The text form, exactly what `parse_vkey` takes."""
        material = encode_base64(bytes([self.type]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{material}"


@dataclass(frozen=True, slots=True)
class SignerKey:
    """An Ed25519 note signer of type 0x01 (a log's key, in tests and tools; never a witness's).

    Attributes:
        name: the key name.
        key_id: four bytes.
        seed: the 32-byte Ed25519 private key; never shown.
    """

    name: str
    key_id: bytes
    seed: bytes = field(repr=False)

    @property
    def vkey(self) -> VerifierKey:
        """The verifier key that belongs to this signer."""
        return make_vkey(self.name, SignatureType.ED25519, crypto_sign_seed_keypair(self.seed)[0])

    def sign(self, text: bytes) -> Signature:
        """Sign a note text (bytes ending in a newline); Ed25519 is deterministic."""
        secret = crypto_sign_seed_keypair(self.seed)[1]
        return Signature(self.name, self.key_id, crypto_sign(text, secret)[:ED25519_SIGNATURE_SIZE])


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: bytes) -> bytes:
    """Decode canonical standard base64 (RFC 4648, section 4): padded, unused bits zero.

    Raises:
        ValueError: for anything that `encode_base64` does not produce.
    """
    try:
        data = a2b_base64(text, strict_mode=True)
    except Base64Error as error:
        raise ValueError("not base64") from error
    # Strict mode lets the unused bits of the last character pass; comparing leaves one encoding a value.
    if b2a_base64(data, newline=False) != text:
        raise ValueError("base64 is not canonical")
    return data


def is_key_name(name: str) -> bool:
    """Whether a text may be a key name (signed-note, Format)."""
    # SPEC signed-note: "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus
    # (U+002B) characters."
    return _KEY_NAME.match(name) is not None


def has_control(data: bytes) -> bool:
    """Whether there is an ASCII control character (below U+0020) other than newline."""
    return len(data.translate(None, _CONTROLS)) != len(data)


def check_text(data: bytes) -> None:
    """Raise MalformedNote unless the bytes are valid UTF-8 without control characters but newline."""
    # SPEC signed-note: "Signed notes MUST be valid UTF-8 and MUST NOT contain any ASCII control
    # characters (those below U+0020) other than newline."
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNote("not valid UTF-8") from error
    if has_control(data):
        raise MalformedNote("contains an ASCII control character")


def parse_note(data: bytes) -> Note:
    """Parse a signed note (signed-note, Format). The caller bounds the size.

    Raises:
        MalformedNote: for anything else, including more than 128 signature lines.
    """
    check_text(data)
    # SPEC signed-note: "The note text MAY contain empty lines; the text is separated from the
    # signatures by the last empty line in the note."
    end = data.rfind(b"\n\n")
    if end < 0:
        raise MalformedNote("no empty line between text and signatures")
    return Note(data[: end + 1], _signature_lines(data[end + 2 :]))


def parse_signature_lines(data: bytes) -> tuple[Signature, ...]:
    """Parse one or more signature lines: the answer to add-checkpoint or sign-subtree (tlog-witness).

    Raises:
        MalformedNote: for anything else, including more than 128 lines.
    """
    check_text(data)
    return _signature_lines(data)


def _signature_lines(block: bytes) -> tuple[Signature, ...]:
    if not block:
        raise MalformedNote("no signature line")
    if block[-1:] != b"\n":
        raise MalformedNote("the last signature line has no newline")
    # SPEC signed-note: "Verifiers SHOULD apply a maximum limit to the number of signatures in a note …
    # but MUST accept at least up to 16 signatures."
    if block.count(b"\n") > MAX_SIGNATURES:
        raise MalformedNote(f"more than {MAX_SIGNATURES} signature lines")
    return tuple([_signature_line(line) for line in block[:-1].split(b"\n")])


def _signature_line(line: bytes) -> Signature:
    # SPEC signed-note: "signature lines of this form: em dash (U+2014), space (U+0020), key name,
    # space, base64-encoded signature, newline."
    if not line.startswith(_EM_DASH_SPACE):
        raise MalformedNote("a line after the text is no signature line")
    name, _, encoded = line[len(_EM_DASH_SPACE) :].partition(b" ")
    try:
        body = a2b_base64(encoded, strict_mode=True)
    except Base64Error as error:
        raise MalformedNote("signature line: not base64") from error
    canonical = b2a_base64(body, newline=False) == encoded
    return Signature(name.decode("utf-8"), body[:KEY_ID_SIZE], body[KEY_ID_SIZE:], canonical)


def format_note(text: bytes, signatures: Iterable[Signature]) -> bytes:
    """Encode a note; `parse_note` gives the same text and signatures back.

    Raises:
        MalformedNote: the text does not end in a newline or may not stand in a note, there is no
            signature or more than 128, or one that was not canonical.
    """
    check_text(text)
    if text[-1:] != b"\n":
        raise MalformedNote("the text does not end in a newline")
    lines = [signature.line() for signature in signatures]
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        raise MalformedNote(f"{len(lines)} signatures: a note has 1 to {MAX_SIGNATURES}")
    return text + b"\n" + "".join(lines).encode("utf-8")


def key_id_for(name: str, signature_type: SignatureType, public_key: bytes) -> bytes:
    """The four bytes of the key ID of a name and key.

    Args:
        name: the key name.
        signature_type: decides the rule.
        public_key: the key material as `VerifierKey` has it.
    """
    if signature_type is SignatureType.ECDSA:
        # SPEC signed-note, 0x02: "the key ID for these signatures is the truncated SHA-256 hash of the
        # DER encoded public key in SPKI format." The name is not part of it.
        return sha256(public_key).digest()[:KEY_ID_SIZE]
    if signature_type is SignatureType.RFC6962:
        # SPEC static-ct-api: "the key name, a newline character (0x0A), the signature type identifier
        # byte 0x05, and the 32-byte RFC 6962 LogID", which is the SHA-256 hash of the SPKI.
        public_key = sha256(public_key).digest()
    return sha256(name.encode("utf-8") + bytes((0x0A, signature_type)) + public_key).digest()[:KEY_ID_SIZE]


def make_vkey(name: str, signature_type: SignatureType, public_key: bytes) -> VerifierKey:
    """The verifier key of a name and key material; raises MalformedVKey when they may not be one."""
    if not is_key_name(name):
        raise MalformedVKey("bad key name")
    return VerifierKey(name, key_id_for(name, signature_type, public_key), signature_type, public_key)


def parse_vkey(text: str) -> VerifierKey:
    """Parse `<key name>+<hex of the key ID>+<base64 of type and key>` (signed-note, Verifier keys).

    Whether an elliptic curve point lies on its curve is not checked here: see
    `witness.tlog.signature.is_usable_key`.

    Raises:
        UnknownKeyType: a signature type that is not known here.
        MalformedVKey: for anything else, including a key ID that is not the recomputed one.
    """
    try:
        name, key_id, material = _split_key(text)
    except ValueError as error:
        raise MalformedVKey(str(error)) from error
    try:
        signature_type = SignatureType(material[0])
    except ValueError as error:
        raise UnknownKeyType(material[0]) from error
    return VerifierKey(name, key_id, signature_type, material[1:])


def parse_signer_key(text: str) -> SignerKey:
    """Parse `PRIVATE+KEY+<name>+<hex key ID>+<base64 of 0x01 and seed>`, as Go's note package writes it.

    Raises:
        MalformedSignerKey: for anything else.
    """
    prefix = "PRIVATE+KEY+"
    if not text.startswith(prefix):
        raise MalformedSignerKey("does not begin with PRIVATE+KEY+")
    try:
        name, key_id, material = _split_key(text[len(prefix) :])
    except ValueError:
        raise MalformedSignerKey("not of the form name, key ID and key, joined by plus signs") from None
    if material[0] != SignatureType.ED25519 or len(material) != 1 + ED25519_SEED_SIZE:
        raise MalformedSignerKey("not an Ed25519 note signer")
    key = SignerKey(name, key_id, material[1:])
    if key.vkey.key_id != key_id:
        raise MalformedSignerKey("the key ID is not that of this name and key")
    return key


def _split_key(text: str) -> tuple[str, bytes, bytes]:
    """Name, key ID and material (the type byte and at least one more) of a key's text, or ValueError."""
    name, _, rest = text.partition("+")
    key_id, plus, encoded = rest.partition("+")
    if not plus:
        raise ValueError("not three parts joined by plus signs")
    if not is_key_name(name):
        raise ValueError("bad key name")
    # SPEC signed-note: "The hex encoding of a positive integer is the fixed length lowercase Base 16
    # encoding of its zero-padded big endian representation."
    if not _LOWER_HEX_KEY_ID.match(key_id):
        raise ValueError("the key ID is not eight lowercase hex digits")
    if not encoded.isascii():
        raise ValueError("not base64")
    material = decode_base64(encoded.encode("ascii"))
    if len(material) <= 1:
        raise ValueError("no key material")
    return name, bytes.fromhex(key_id), material


def _check_public_key(signature_type: SignatureType, public_key: bytes) -> None:
    if signature_type in (SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519):
        fits = len(public_key) == ED25519_PUBLIC_KEY_SIZE
    elif signature_type is SignatureType.COSIGNATURE_MLDSA44:
        fits = len(public_key) == MLDSA44_PUBLIC_KEY_SIZE
    elif signature_type is SignatureType.ECDSA:
        # SPEC signed-note, 0x02: "The ECDSA curve MUST be one of NIST P-256, NIST P-384, or NIST P-521".
        fits = is_ec_spki(public_key)
    else:
        # RFC 6962, section 2.1.4: "A log MUST use either elliptic curve signatures using the NIST P-256
        # curve … or RSA signatures … with … at least 2048 bits".
        fits = is_ec_spki(public_key) or is_rsa_spki(public_key)
    if not fits:
        raise MalformedVKey(f"no key material of type 0x{signature_type:02x}")
