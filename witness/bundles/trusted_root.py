"""Sigstore trusted roots (sigstore/protobuf-specs, sigstore_trustroot.proto): the logs in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from witness.bundles.strict_json import MalformedJson, bytes_of, list_of, object_of, parse_object, text_of
from witness.tlog.note import MalformedVKey, SignatureType, VerifierKey, make_vkey

_MEDIA_TYPES: Final = (
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
)
_ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
_SCHEME: Final = re.compile(r"\Ahttps?://")
_TREE_ID: Final = re.compile(r" - [0-9]{1,20}")
_MAX_LOGS: Final = 256


@dataclass(frozen=True, slots=True)
class RootLog:
    """A log of the root.

    Attributes:
        key: its key; the name is the log's host and path, the key name of its checkpoints.
        log_id: the identifier that entries name it by, 32 bytes or 4.
        start: first second of the key's validity, POSIX.
        end: last second of the key's validity; None while it is in use.
    """

    key: VerifierKey
    log_id: bytes
    start: float
    end: float | None

    def valid_at(self, when: float) -> bool:
        """Whether the key was valid then; the period includes both its ends."""
        return self.start <= when and (self.end is None or when <= self.end)


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The logs of a trusted root whose keys are of a type known here."""

    logs: tuple[RootLog, ...]

    def keys_for(self, origin: str) -> list[VerifierKey]:
        """The keys that may sign for an origin: a log's name, or in Rekor v1 that and ` - ` and a tree ID."""
        return [
            log.key
            for log in self.logs
            if origin.startswith(log.key.name)
            and (origin == log.key.name or _TREE_ID.fullmatch(origin[len(log.key.name) :]))
        ]

    def by_id(self, log_id: bytes) -> list[RootLog]:
        """The logs of an identifier."""
        return [log for log in self.logs if log.log_id == log_id]

    def by_key(self, keys: list[VerifierKey]) -> list[RootLog]:
        """The logs of some of these keys."""
        return [log for log in self.logs if log.key in keys]


def parse_trusted_root(data: bytes) -> TrustedRoot:
    """Parse a trusted root. A log whose key is of a type not known here is left out: it is not trusted.

    Raises:
        MalformedJson: for anything else; a validity without its start makes the whole root malformed.
    """
    members = parse_object(data)
    if text_of(members, "mediaType") not in _MEDIA_TYPES:
        raise MalformedJson("not a trusted root's media type")
    found = list_of(members, "tlogs")
    if len(found) > _MAX_LOGS:
        raise MalformedJson(f"more than {_MAX_LOGS} logs")
    logs = [_log(each) for each in found]
    return TrustedRoot(tuple([log for log in logs if log is not None]))


def _log(members: Any) -> RootLog | None:
    if not isinstance(members, dict):
        raise MalformedJson("a log is no object")
    name = _SCHEME.sub("", text_of(members, "baseUrl")).rstrip("/")
    public_key = object_of(members, "publicKey")
    period = object_of(public_key, "validFor")
    start = _time(text_of(period, "start"))
    end = _time(text_of(period, "end")) if period.get("end") is not None else None
    key = _key(name, bytes_of(public_key, "rawBytes"))
    if key is None:
        return None
    return RootLog(key, bytes_of(object_of(members, "logId"), "keyId"), start, end)


def _key(name: str, spki: bytes) -> VerifierKey | None:
    try:
        if spki.startswith(_ED25519_SPKI):
            return make_vkey(name, SignatureType.ED25519, spki[len(_ED25519_SPKI) :])
        return make_vkey(name, SignatureType.ECDSA, spki)
    except MalformedVKey:
        return None


def _time(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedJson("not a time") from error
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
