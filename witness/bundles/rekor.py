"""What Rekor's entries say: which artifact, signature and key an entry's body is about.

Kinds: hashedrekord and dsse 0.0.1 (rekor, pkg/types), both in 0.0.2 (rekor-tiles, api/proto/rekor/v2), and
intoto 0.0.1 and 0.0.2. Other kinds are included in the log all the same; what they are about is not compared.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.strict_json import (
    MalformedJson,
    bytes_of,
    decode,
    list_of,
    object_of,
    parse_object,
    text_of,
)

_PEM: Final = re.compile(rb"\s*-----BEGIN ([A-Z ]+)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----\s*")
_HASHES: Final = {"sha256": "sha256", "SHA2_256": "sha256", "sha384": "sha384", "SHA2_384": "sha384",
                  "sha512": "sha512", "SHA2_512": "sha512"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest: `hash` is a name of hashlib's."""

    hash: str
    value: bytes


@dataclass(frozen=True, slots=True)
class RekorEntry:
    """An entry's body as parsed.

    Attributes:
        kind: such as `hashedrekord 0.0.1`.
        artifact: digest of what the signature is over (in a DSSE envelope, of its encoding before signing).
        payload: digest of a DSSE envelope's payload.
        signatures: the signatures; empty where the kind is not read here.
        verifiers: for each signature the certificate or public key in DER.
    """

    kind: str
    artifact: Digest | None = None
    payload: Digest | None = None
    signatures: tuple[bytes, ...] = ()
    verifiers: tuple[bytes, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether what the entry is about was understood."""
        return bool(self.signatures)


def parse_entry(body: bytes) -> RekorEntry:
    """Parse an entry's body.

    Raises:
        MalformedJson: it is none.
    """
    members = parse_object(body)
    kind = f"{text_of(members, 'kind')} {text_of(members, 'apiVersion')}"
    read = _KINDS.get(kind)
    return RekorEntry(kind) if read is None else read(kind, object_of(members, "spec"))


def _hashedrekord_1(kind: str, spec: dict[str, Any]) -> RekorEntry:
    signature = object_of(spec, "signature")
    return RekorEntry(
        kind,
        artifact=_hex_digest(object_of(object_of(spec, "data"), "hash")),
        signatures=(bytes_of(signature, "content"),),
        verifiers=(_der(bytes_of(object_of(signature, "publicKey"), "content")),),
    )


def _hashedrekord_2(kind: str, spec: dict[str, Any]) -> RekorEntry:
    inner = object_of(spec, "hashedRekordV002")
    signature = object_of(inner, "signature")
    return RekorEntry(
        kind,
        artifact=_digest(object_of(inner, "data")),
        signatures=(bytes_of(signature, "content"),),
        verifiers=(_verifier(signature),),
    )


def _dsse_1(kind: str, spec: dict[str, Any]) -> RekorEntry:
    signatures = [_object(each) for each in list_of(spec, "signatures")]
    return RekorEntry(
        kind,
        payload=_hex_digest(object_of(spec, "payloadHash")),
        signatures=tuple([bytes_of(each, "signature") for each in signatures]),
        verifiers=tuple([_der(bytes_of(each, "verifier")) for each in signatures]),
    )


def _dsse_2(kind: str, spec: dict[str, Any]) -> RekorEntry:
    inner = object_of(spec, "dsseV002")
    signatures = [_object(each) for each in list_of(inner, "signatures")]
    return RekorEntry(
        kind,
        payload=_digest(object_of(inner, "payloadHash")),
        signatures=tuple([bytes_of(each, "content") for each in signatures]),
        verifiers=tuple([_verifier(each) for each in signatures]),
    )


def _intoto_2(kind: str, spec: dict[str, Any]) -> RekorEntry:
    content = object_of(spec, "content")
    signatures = [_object(each) for each in list_of(object_of(content, "envelope"), "signatures")]
    return RekorEntry(
        kind,
        payload=_hex_digest(object_of(content, "payloadHash")),
        # The signature is in base64 twice: once as DSSE has it, once as the entry's JSON has bytes.
        signatures=tuple([decode(bytes_of(each, "sig").decode("latin-1"), "sig") for each in signatures]),
        verifiers=tuple([_der(bytes_of(each, "publicKey")) for each in signatures]),
    )


_KINDS: Final = {
    "hashedrekord 0.0.1": _hashedrekord_1,
    "hashedrekord 0.0.2": _hashedrekord_2,
    "dsse 0.0.1": _dsse_1,
    "dsse 0.0.2": _dsse_2,
    "intoto 0.0.2": _intoto_2,
}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedJson("a signature is no object")
    return value


def _hash(members: dict[str, Any]) -> str:
    found = _HASHES.get(text_of(members, "algorithm"))
    if found is None:
        raise MalformedJson("an unknown hash algorithm")
    return found


def _hex_digest(members: dict[str, Any]) -> Digest:
    try:
        return Digest(_hash(members), bytes.fromhex(text_of(members, "value")))
    except ValueError as error:
        raise MalformedJson("a digest is not hex") from error


def _digest(members: dict[str, Any]) -> Digest:
    return Digest(_hash(members), bytes_of(members, "digest"))


def _verifier(signature: dict[str, Any]) -> bytes:
    verifier = object_of(signature, "verifier")
    name = "x509Certificate" if verifier.get("x509Certificate") is not None else "publicKey"
    return bytes_of(object_of(verifier, name), "rawBytes")


def _der(pem: bytes) -> bytes:
    """The first block of PEM, decoded."""
    match = _PEM.match(pem)
    if match is None:
        raise MalformedJson("not PEM")
    try:
        return a2b_base64(b"".join(match[2].split()), strict_mode=True)
    except Base64Error as error:
        raise MalformedJson("not PEM") from error
