"""Trust policies: which logs and witnesses are known, and which cosignatures make a checkpoint valid.

Specification: https://c2sp.org/tlog-policy. Two older dialects with the same grammar are read on request:
Sigsum's (raw keys in hex; sigsum-go doc/policy.md), and transparency-dev's (keys of type 0x01 for
witnesses, comments after the items, names that are keywords refused).

A policy only says what a valid checkpoint is. Who may sign the entry itself is the application's affair.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from witness.tlog.note import (
    ED25519_PUBLIC_KEY_SIZE,
    MalformedVKey,
    SignatureType,
    VerifierKey,
    is_key_name,
    make_vkey,
    parse_vkey,
)

NONE: Final = "none"
"""The predefined name of the quorum that asks for no cosignature."""

MAX_POLICY_SIZE: Final = 1 << 20
"""Bytes of a policy file."""

MAX_DEFINITIONS: Final = 1024
"""Logs, witnesses and groups in one policy, of each (tlog-policy: at least 32 SHOULD be supported)."""

LOG_TYPES: Final = (
    SignatureType.ED25519,
    SignatureType.ECDSA,
    SignatureType.RFC6962,
    SignatureType.COSIGNATURE_MLDSA44,
)
"""Signature types that sign for a log. 0x06 may: its message names the log, and a log may be its own
cosigner (tlog-cosignature, ML-DSA-44). 0x04 signs `cosignature/v1`, which only ever speaks for a witness."""

WITNESS_TYPES: Final = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_MLDSA44)
"""Signature types of cosignatures (tlog-cosignature)."""

SIGSUM_ORIGIN: Final = "sigsum.org/v1/tree/"
"""A Sigsum log's origin and key name: this, and the hex of its public key's SHA-256 (Sigsum's log.md)."""

_ITEM: Final = re.compile(rb"[^ \t]+")
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,3}")
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_KEYWORDS: Final = ("log", "witness", "group", "quorum", "any", "all", NONE)


class MalformedPolicy(Exception):
    """The policy is not of the form the specification gives.

    Attributes:
        line: counted from 1; 0 where the fault is what the whole file lacks.
        reason: what is wrong.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


class Dialect(StrEnum):
    """How a policy file is written."""

    C2SP = "c2sp"
    SIGSUM = "sigsum"
    TRANSPARENCY_DEV = "transparency-dev"


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log whose checkpoints are accepted.

    Attributes:
        key: its key; the name is the origin of its checkpoints.
        url: where it is reached; empty where the policy does not say. Others' text, unescaped.
    """

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness.

    Attributes:
        name: what quorum and groups call it; opaque octets, those beyond UTF-8 as lone surrogates.
        type: the signature type of its cosignatures, 0x04 or 0x06.
        public_key: the key material.
        key: the verifier key; None in the Sigsum dialect, which leaves the key name out.
        url: where it is reached; empty where the policy does not say. Others' text, unescaped.
    """

    name: str
    type: SignatureType
    public_key: bytes
    key: VerifierKey | None = None
    url: str = ""

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the public key: how Sigsum's formats name a key."""
        return hashlib.sha256(self.public_key).digest()

    def key_named(self, name: str) -> VerifierKey | None:
        """The verifier key under which a signature line of this key name can be this witness's, or None."""
        if self.key is not None:
            return self.key if self.key.name == name else None
        return make_vkey(name, self.type, self.public_key) if is_key_name(name) else None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """A group: it has witnessed a checkpoint when `threshold` of its `members` have."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as parsed; groups stand in the file's order, so that each comes after its members.

    Attributes:
        logs: the accepted logs; perhaps none.
        witnesses: the known witnesses; perhaps none.
        groups: the groups.
        quorum: the name of a witness or group, or `none`.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str

    def satisfied(self, witnesses: Collection[str]) -> bool:
        """Whether the quorum holds when the witnesses of these names have cosigned.

        Each name stands in at most one group, and each group is evaluated once, so no witness counts twice.
        """
        if self.quorum == NONE:
            return True
        holds = {witness.name for witness in self.witnesses}.intersection(witnesses)
        for group in self.groups:
            if sum(member in holds for member in group.members) >= group.threshold:
                holds.add(group.name)
        return self.quorum in holds

    def quorum_text(self) -> str:
        """The quorum in words, for people: `2 of 3 in public`, one level deep."""
        for group in self.groups:
            if group.name == self.quorum:
                return f"{group.threshold} of {len(group.members)} in {group.name}"
        return "no witness" if self.quorum == NONE else self.quorum


def sigsum_log_key(public_key: bytes) -> VerifierKey:
    """The verifier key of a Sigsum log, 32 bytes of Ed25519 public key: its name is the log's origin.

    Raises:
        MalformedVKey: not 32 bytes.
    """
    origin = SIGSUM_ORIGIN + hashlib.sha256(public_key).hexdigest()
    return make_vkey(origin, SignatureType.ED25519, public_key)


def cosigner_key(key: VerifierKey) -> VerifierKey:
    """The key of type 0x04 that witnesses of the transparency-dev kind publish as one of type 0x01."""
    if key.type is not SignatureType.ED25519:
        return key
    return make_vkey(key.name, SignatureType.COSIGNATURE_ED25519, key.public_key)


def parse_policy(data: bytes, dialect: Dialect = Dialect.C2SP) -> Policy:
    """Parse a policy file. A last line without a newline is read as one with it.

    Raises:
        MalformedPolicy: for anything else, with the line.
    """
    if len(data) > MAX_POLICY_SIZE:
        raise MalformedPolicy(0, f"{len(data)} bytes, more than {MAX_POLICY_SIZE}")
    reader = _Reader(dialect)
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        # SPEC tlog-policy: "the allowed octet values are 0x09 (tab), 0x0A (newline), 0x20-0x7E, and
        # 0x80-0xFF." In comments too.
        control = _FORBIDDEN.search(line)
        if control is not None:
            raise MalformedPolicy(number, f"control character 0x{control[0][0]:02x}")
        if dialect is Dialect.TRANSPARENCY_DEV:
            line = line.partition(b"#")[0]  # noqa: PLW2901 - what is left of the line
        # SPEC tlog-policy: "the items on each line are separated by "whitespace", which in this
        # specification means sequences of ASCII space and tab characters *only*."
        # Opaque octets: the escape keeps names that are not UTF-8 apart, and no key name may hold it.
        items = [item.decode("utf-8", "surrogateescape") for item in _ITEM.findall(line)]
        if not items or items[0].startswith("#"):
            continue
        try:
            reader.line(items)
        except ValueError as error:
            raise MalformedPolicy(number, str(error)) from error
        except MalformedVKey as error:
            raise MalformedPolicy(number, f"key: {error.reason}") from error
    # SPEC tlog-policy: "A policy file must include exactly one quorum line."
    if reader.quorum is None:
        raise MalformedPolicy(0, "no quorum line")
    return Policy(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)


class _Reader:
    """What the lines so far have defined; `line` raises ValueError or MalformedVKey on a bad one."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.logs: list[PolicyLog] = []
        self.witnesses: list[PolicyWitness] = []
        self.groups: list[PolicyGroup] = []
        self.quorum: str | None = None
        self._names: set[str] = {NONE}
        self._members: set[str] = set()
        self._log_keys: set[bytes] = set()
        self._witness_keys: set[bytes] = set()
        self._lines: dict[str, Callable[[Sequence[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }

    def line(self, items: Sequence[str]) -> None:
        read = self._lines.get(items[0])
        if read is None:
            raise ValueError("not a log, witness, group or quorum line")
        read(items[1:])
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > MAX_DEFINITIONS:
            raise ValueError(f"more than {MAX_DEFINITIONS} {items[0]} lines")

    def _log(self, items: Sequence[str]) -> None:
        if len(items) not in (1, 2):
            raise ValueError("a log line has a key and perhaps a URL")
        raw = self.dialect is Dialect.SIGSUM
        key = sigsum_log_key(_hex_key(items[0])) if raw else parse_vkey(items[0])
        # SPEC tlog-policy: "Log and witness keys must use a signature type approprate respective function"
        if key.type not in LOG_TYPES:
            raise ValueError(f"a key of type 0x{key.type:02x} does not sign for a log")
        # SPEC tlog-policy: "Duplicate logs, i.e., multiple log lines with the same public key, are not
        # allowed."
        if key.public_key in self._log_keys:
            raise ValueError("duplicate log: this public key stands on an earlier line")
        self._log_keys.add(key.public_key)
        self.logs.append(PolicyLog(key, items[1] if len(items) > 1 else ""))

    def _witness(self, items: Sequence[str]) -> None:
        if len(items) not in (2, 3):
            raise ValueError("a witness line has a name, a key and perhaps a URL")
        name, url = items[0], items[2] if len(items) > 2 else ""  # noqa: PLR2004
        if self.dialect is Dialect.SIGSUM:
            material = _hex_key(items[1])
            witness = PolicyWitness(name, SignatureType.COSIGNATURE_ED25519, material, None, url)
        else:
            key = parse_vkey(items[1])
            if self.dialect is Dialect.TRANSPARENCY_DEV:
                key = cosigner_key(key)
            if key.type not in WITNESS_TYPES:
                raise ValueError(f"a key of type 0x{key.type:02x} does not cosign")
            witness = PolicyWitness(name, key.type, key.public_key, key, url)
        # SPEC tlog-policy: "Duplicate witnesses, i.e., multiple witness lines with the same public key,
        # are not allowed."
        if witness.public_key in self._witness_keys:
            raise ValueError("duplicate witness: this public key stands on an earlier line")
        self._define(name)
        self._witness_keys.add(witness.public_key)
        self.witnesses.append(witness)

    def _group(self, items: Sequence[str]) -> None:
        # SPEC tlog-policy: "At least one member must be listed (i.e., n >= 1)."
        if len(items) < 3:  # noqa: PLR2004
            raise ValueError("a group line has a name, a threshold and at least one member")
        name, threshold, members = items[0], items[1], tuple(items[2:])
        # SPEC tlog-policy: "The `any` variant is a shorthand for k = 1, and the `all` variant is a
        # shorthand for k = n. If k is given numerically, it must be written in decimal".
        if threshold == "any":
            k = 1
        elif threshold == "all":
            k = len(members)
        elif _THRESHOLD.fullmatch(threshold):
            k = int(threshold)
        else:
            raise ValueError("the threshold is not any, all or a positive decimal number")
        # SPEC tlog-policy: "it is required that 1 <= k <= n."
        if k > len(members):
            raise ValueError(f"a threshold of {k} with {len(members)} members")
        used = set(self._members)
        for member in members:
            # SPEC tlog-policy: "The special name `none` … is invalid as a group member."
            if member == NONE:
                raise ValueError("none is no group member")
            # SPEC tlog-policy: "a group definition can only refer to names defined on preceding lines."
            if member not in self._names:
                raise ValueError(f"{_shown(member)} is not defined on an earlier line")
            # SPEC tlog-policy: "Each defined name can be listed as a group member at most once."
            if member in used:
                raise ValueError(f"{_shown(member)} is a group member already")
            used.add(member)
        self._define(name)
        self._members = used
        self.groups.append(PolicyGroup(name, k, members))

    def _quorum(self, items: Sequence[str]) -> None:
        if len(items) != 1:
            raise ValueError("a quorum line has one name")
        if self.quorum is not None:
            raise ValueError("a second quorum line")
        # SPEC tlog-policy: "the quorum line must specify a witness or group defined earlier."
        if items[0] not in self._names:
            raise ValueError(f"{_shown(items[0])} is not defined on an earlier line")
        self.quorum = items[0]

    def _define(self, name: str) -> None:
        # SPEC tlog-policy: "Witnesses and groups share a single namespace. The special name `none` is
        # predefined".
        if name in self._names:
            raise ValueError(f"{_shown(name)} is defined already")
        if self.dialect is Dialect.TRANSPARENCY_DEV and name in _KEYWORDS:
            raise ValueError(f"{name} is a keyword")
        self._names.add(name)


def _hex_key(text: str) -> bytes:
    # SPEC sigsum policy: "Public keys are written in raw hex representation, case insensitive."
    if not _HEX_KEY.fullmatch(text):
        raise ValueError(f"not a public key of {ED25519_PUBLIC_KEY_SIZE} bytes in hex")
    return bytes.fromhex(text)


def _shown(name: str) -> str:
    return repr(name)[1:-1]
