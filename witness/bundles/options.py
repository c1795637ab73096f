"""What the reader of a bundle trusts, and what the bundle is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from witness.bundles.report import Learned
from witness.tlog.note import (
    ED25519_PUBLIC_KEY_SIZE,
    MalformedVKey,
    VerifierKey,
    decode_base64,
    parse_vkey,
)
from witness.tlog.policy import LOG_TYPES, WITNESS_TYPES, Dialect, Policy, cosigner_key, sigsum_log_key

MAX_CLOCK_LEAD: Final = 300
"""Seconds that a cosignature may be ahead of our clock when its age matters."""

_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_SSH_PREFIX: Final = "ssh-ed25519 "
_SSH_HEAD: Final = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"


@dataclass(frozen=True, slots=True)
class RawKey:
    """An Ed25519 public key without a name, 32 bytes: how Sigsum writes its submitters' keys."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What `verify` judges by. Everything that is given is held to: nothing is quietly left out.

    Attributes:
        policy: logs, witnesses and the quorum.
        logs: keys of logs, besides the policy's. With `origin`, they are that log's; without, each
            signs for the origin of its own name.
        witnesses: keys of witnesses that must all have cosigned, besides the policy's quorum.
        origin: the origin that the checkpoint must have.
        entry: the entry that must be in the log, as the log's leaf has it (of Sigsum: the file that was
            logged, or its 32-byte message).
        leaf_hash: the same by its hash, 32 bytes.
        artifacts: contents by name: release files, firmware, tiles, look-ups, whatever the format says
            the hash of. One that the bundle says nothing about is a failure.
        manifest_keys: keys that must sign the entry itself (a release manifest, an attestation, a leaf).
        trusted_root: a Sigstore trusted root, JSON.
        previous: what was trusted before.
        previous_must_match: whether a bundle of another log than `previous` fails (a file that the reader
            named), or is met for the first time (a store of many logs).
        max_age: most seconds since a cosignature was made; None for no limit.
        now: our clock, POSIX seconds; needed with `max_age`.
        file_name: the bundle's own file name, where its format says something in it.
    """

    policy: Policy | None = None
    logs: tuple[VerifierKey, ...] = ()
    witnesses: tuple[VerifierKey, ...] = ()
    origin: str | None = None
    entry: bytes | None = None
    leaf_hash: bytes | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    manifest_keys: tuple[VerifierKey | RawKey, ...] = ()
    trusted_root: bytes | None = None
    previous: Learned | None = None
    previous_must_match: bool = True
    max_age: int | None = None
    now: int | None = None
    file_name: str | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None and (self.now is None or self.max_age < 0):
            raise ValueError("a maximum age needs our clock, and is not negative")
        if self.leaf_hash is not None and len(self.leaf_hash) != 32:  # noqa: PLR2004 - SHA-256
            raise ValueError("a leaf hash has 32 bytes")


def parse_log_key(text: str) -> VerifierKey:
    """A log's key: a vkey, or a Sigsum log's key in hex or OpenSSH's form.

    Raises:
        MalformedVKey: it is none, or of a type that does not sign for logs.
    """
    raw = _raw_key(text)
    key = parse_vkey(text) if raw is None else sigsum_log_key(raw)
    if key.type not in LOG_TYPES:
        raise MalformedVKey(f"a key of type 0x{key.type:02x} does not sign for a log")
    return key


def parse_witness_key(text: str, dialect: Dialect = Dialect.C2SP) -> VerifierKey:
    """A witness's vkey; in the transparency-dev dialect, one of type 0x01 stands for that of type 0x04.

    Raises:
        MalformedVKey: it is none, or of a type that does not cosign.
    """
    key = parse_vkey(text)
    if dialect is Dialect.TRANSPARENCY_DEV:
        key = cosigner_key(key)
    if key.type not in WITNESS_TYPES:
        raise MalformedVKey(f"a key of type 0x{key.type:02x} does not cosign")
    return key


def parse_manifest_key(text: str) -> VerifierKey | RawKey:
    """The key of who signs entries: a vkey, or an Ed25519 key in hex or OpenSSH's form.

    Raises:
        MalformedVKey: it is none.
    """
    raw = _raw_key(text)
    return parse_vkey(text) if raw is None else RawKey(raw)


def _raw_key(text: str) -> bytes | None:
    if _HEX_KEY.fullmatch(text):
        return bytes.fromhex(text)
    if not text.startswith(_SSH_PREFIX):
        return None
    try:
        blob = decode_base64(text[len(_SSH_PREFIX) :].partition(" ")[0].encode("ascii"))
    except ValueError as error:
        raise MalformedVKey("not an OpenSSH public key") from error
    if not blob.startswith(_SSH_HEAD) or len(blob) != len(_SSH_HEAD) + ED25519_PUBLIC_KEY_SIZE:
        raise MalformedVKey("not an OpenSSH Ed25519 public key")
    return blob[len(_SSH_HEAD) :]
