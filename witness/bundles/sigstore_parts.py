"""The form of Sigstore bundles in JSON (sigstore/protobuf-specs, sigstore_bundle.proto), 0.1 to 0.3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.strict_json import MalformedJson, list_of, object_of, text_of
from witness.bundles.strict_json import decode as decode_standard
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.proof import MAX_PROOF_HASHES

_MEDIA_TYPE: Final = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle(?:\+json;version=0\.[123]|\.v0\.3\+json)"
)
_MAX_ENTRIES: Final = 16
_MAX_TIMESTAMPS: Final = 16
_MAX_CHAIN: Final = 16
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_HASHES: Final = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """`dev.sigstore.rekor.v1.InclusionProof`; the checkpoint is empty where there is none."""

    index: int
    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`dev.sigstore.rekor.v1.TransparencyLogEntry`; `promise` is the signed entry timestamp."""

    index: int
    log_id: bytes
    kind: str
    integrated: int
    promise: bytes | None
    proof: InclusionProof | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What was signed.

    Attributes:
        signature: the signature.
        digest: of the artifact, as the bundle hints; None in a DSSE envelope.
        hash: the digest's hash function.
        payload: a DSSE envelope's payload; None without one.
        payload_type: its type.
    """

    signature: bytes
    digest: bytes | None
    hash: str
    payload: bytes | None = None
    payload_type: bytes = b""

    def encoded(self) -> bytes:
        """The bytes that a DSSE envelope's signature is over (PAE, DSSE protocol)."""
        payload = self.payload or b""
        kind = self.payload_type
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Parts:
    """A parsed bundle.

    Attributes:
        entries: the log entries.
        content: what was signed.
        chain: the signer's certificate and perhaps its issuers', in DER; empty where the bundle only hints
            at a key.
        timestamps: RFC 3161 responses in DER.
    """

    entries: tuple[LogEntry, ...]
    content: Content
    chain: tuple[bytes, ...]
    timestamps: tuple[bytes, ...]

    @property
    def certificate(self) -> bytes | None:
        """The signer's certificate; None where the bundle only hints at a key."""
        return self.chain[0] if self.chain else None


def parse_parts(members: dict[str, Any]) -> Parts:
    """Take a JSON object as a bundle; raises MalformedJson."""
    if not _MEDIA_TYPE.fullmatch(text_of(members, "mediaType")):
        raise MalformedJson("an unknown media type or version")
    material = object_of(members, "verificationMaterial")
    chain = _chain(material)
    entries, stamps = list_of(material, "tlogEntries"), []
    if material.get("timestampVerificationData") is not None:
        stamps = list_of(object_of(material, "timestampVerificationData"), "rfc3161Timestamps")
    if len(entries) > _MAX_ENTRIES or len(stamps) > _MAX_TIMESTAMPS:
        raise MalformedJson(f"more than {_MAX_ENTRIES} log entries or {_MAX_TIMESTAMPS} timestamps")
    return Parts(
        tuple([_entry(_object(each, "a log entry")) for each in entries]),
        _content(members),
        chain,
        tuple([_bytes_of(_object(each, "a timestamp"), "signedTimestamp") for each in stamps]),
    )


def _chain(material: dict[str, Any]) -> tuple[bytes, ...]:
    kinds = ("certificate", "x509CertificateChain", "publicKey")
    found = [name for name in kinds if material.get(name) is not None]
    if len(found) != 1:
        raise MalformedJson("not one of certificate, certificate chain and public key")
    if found[0] == "certificate":
        return (_bytes_of(object_of(material, "certificate"), "rawBytes"),)
    if found[0] == "publicKey":
        return ()
    chain = list_of(object_of(material, "x509CertificateChain"), "certificates")
    if not 1 <= len(chain) <= _MAX_CHAIN:
        raise MalformedJson(f"not 1 to {_MAX_CHAIN} certificates in the chain")
    return tuple([_bytes_of(_object(each, "a certificate"), "rawBytes") for each in chain])


def _content(members: dict[str, Any]) -> Content:
    message, envelope = members.get("messageSignature"), members.get("dsseEnvelope")
    if (message is None) == (envelope is None):
        raise MalformedJson("not one of message signature and DSSE envelope")
    if message is not None:
        message = object_of(members, "messageSignature")
        digest, hash_ = None, "sha256"
        if message.get("messageDigest") is not None:
            hinted = object_of(message, "messageDigest")
            hash_ = _HASHES.get(text_of(hinted, "algorithm"), "")
            if not hash_:
                raise MalformedJson("an unknown hash algorithm")
            digest = _bytes_of(hinted, "digest")
        return Content(_bytes_of(message, "signature"), digest, hash_)
    envelope = object_of(members, "dsseEnvelope")
    signatures = list_of(envelope, "signatures")
    if len(signatures) != 1:
        raise MalformedJson("a DSSE envelope has not exactly one signature")
    return Content(
        _bytes_of(_object(signatures[0], "a signature"), "sig"),
        None,
        "sha256",
        _decode(envelope.get("payload"), "payload"),
        text_of(envelope, "payloadType").encode("utf-8", "surrogatepass"),
    )


def _entry(members: dict[str, Any]) -> LogEntry:
    kind = object_of(members, "kindVersion")
    promise = members.get("inclusionPromise")
    return LogEntry(
        _integer(members, "logIndex"),
        _bytes_of(object_of(members, "logId"), "keyId"),
        f"{text_of(kind, 'kind')} {text_of(kind, 'version')}",
        _integer(members, "integratedTime"),
        _bytes_of(object_of(members, "inclusionPromise"), "signedEntryTimestamp")
        if promise is not None
        else None,
        _proof(members),
        _bytes_of(members, "canonicalizedBody"),
    )


def _proof(members: dict[str, Any]) -> InclusionProof | None:
    if members.get("inclusionProof") is None:
        return None
    proof = object_of(members, "inclusionProof")
    hashes = list_of(proof, "hashes")
    if len(hashes) > MAX_PROOF_HASHES:
        raise MalformedJson(f"more than {MAX_PROOF_HASHES} proof hashes")
    # Older bundles of version 0.1 have a proof without a checkpoint.
    signed = proof.get("checkpoint") is not None
    checkpoint = text_of(object_of(proof, "checkpoint"), "envelope") if signed else ""
    return InclusionProof(
        _integer(proof, "logIndex"),
        _integer(proof, "treeSize"),
        _bytes_of(proof, "rootHash"),
        tuple([_decode(each, "a proof hash") for each in hashes]),
        checkpoint.encode("utf-8", "surrogatepass"),
    )


def _integer(members: dict[str, Any], name: str) -> int:
    """An int64 as protobuf's JSON has it, in a string or bare; 0 where left out. Never negative here."""
    value = members.get(name)
    if value is None:
        return 0
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise MalformedJson(f"{name} is no number from 0 to 2^63 - 1")
    return int(text)


def _bytes_of(members: dict[str, Any], name: str) -> bytes:
    return _decode(text_of(members, name), name)


def _decode(value: Any, name: str) -> bytes:
    """Bytes in base64, of the URL-safe alphabet too and without padding (protobuf, ProtoJSON format)."""
    if isinstance(value, str):
        value = value.translate(_URL_SAFE).rstrip("=")
        value += "=" * (-len(value) % 4)
    return decode_standard(value, name)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedJson(f"{what} is no object")
    return value
