"""Logs with leaves of one's choosing, their witnesses, and bundles made of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulated_log import TIMESTAMP, SimulatedKey
from witness.bundles import MalformedBundle, Options, Report, verify
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.note import Signature, SignatureType, VerifierKey, format_note, parse_vkey
from witness.tlog.policy import parse_policy
from witness.tlog.proof import Proof, format_proof

SUMDB_VKEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB_ORIGIN = "go.sum database tree"

W1 = SimulatedKey("w1.example", SignatureType.COSIGNATURE_ED25519)
W2 = SimulatedKey("w2.example", SignatureType.COSIGNATURE_MLDSA44)
W3 = SimulatedKey("w3.example", SignatureType.COSIGNATURE_ED25519)
MAKER = SimulatedKey("maker.example")
LOG = SimulatedKey("log.example")

POLICY = parse_policy(
    f"log {LOG.vkey}\nwitness one {W1.vkey}\nwitness two {W2.vkey}\nwitness three {W3.vkey}\n"
    "group g 2 one two three\nquorum g\n".encode()
)


class Log:
    """A log of given leaves."""

    def __init__(self, leaves: Iterable[bytes], key: SimulatedKey = LOG, origin: str | None = None) -> None:
        self.leaves = list(leaves)
        self.key = key
        self.origin = origin or key.name
        self.tree = merkle.MemoryTree()
        for leaf in self.leaves:
            self.tree.append(leaf)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self.leaves) if size is None else size
        return Checkpoint(self.origin, size, self.tree.root(size))

    def note(
        self, size: int | None = None, witnesses: Sequence[SimulatedKey] = (), timestamp: int = TIMESTAMP
    ) -> bytes:
        checkpoint = self.checkpoint(size)
        lines = [
            self.key.sign(checkpoint),
            *(each.sign(checkpoint, timestamp=timestamp) for each in witnesses),
        ]
        return format_note(checkpoint.text(), lines)

    def path(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        size = len(self.leaves) if size is None else size
        return tuple(merkle.inclusion_proof(index, size, self.tree.node))

    def proof(
        self,
        index: int,
        size: int | None = None,
        witnesses: Sequence[SimulatedKey] = (),
        extra: bytes | None = None,
        timestamp: int = TIMESTAMP,
    ) -> bytes:
        note = self.note(size, witnesses, timestamp)
        return format_proof(Proof(index, self.path(index, size), note, extra))


def signed(text: bytes, *keys: SimulatedKey) -> bytes:
    """A note of any text, signed by keys of type 0x01."""
    return format_note(text, [Signature(key.name, key.vkey.key_id, key._sign(text)) for key in keys])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ten() -> Log:
    return Log(b"entry %d" % index for index in range(10))


@dataclass(frozen=True)
class Good:
    """A bundle that verifies, and the options it does so by."""

    name: str
    data: bytes
    options: Options


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.ok}


def outcome(data: bytes, options: Options) -> set[str]:
    """The names of the failed checks; `malformed` when there is no report."""
    try:
        return failed(verify(data, options))
    except MalformedBundle:
        return {"malformed"}


def armory(log: Log, release: bytes) -> bytes:
    leaves = [b64(merkle.leaf_hash(leaf)) for leaf in log.leaves]
    members = {"NewCheckpoint": b64(log.note()), "FirmwareRelease": b64(release), "LeafHashes": leaves}
    return json.dumps(members, indent=1).encode()


def release(imx: bytes = b"imx", revision: str = "v2022.01.01", **others: bytes) -> bytes:
    artifacts = {"armory-drive.imx": imx, **others}
    hashes = {name: b64(hashlib.sha256(content).digest()) for name, content in artifacts.items()}
    members = {"description": "d", "platform_id": "p", "revision": revision, "artifact_sha256": hashes}
    return signed(json.dumps(members, indent=1).encode() + b"\n", MAKER)


def manifest(
    firmware: bytes = b"firmware",
    *,
    component: str = "TRUSTED_APPLET",
    version: str = "1.2.3",
    schema: Any = 0,
    hab: bytes | None = None,
    keys: Sequence[SimulatedKey] = (MAKER,),
) -> bytes:
    members: dict[str, Any] = {
        "schema_version": schema,
        "component": component,
        "git": {"tag_name": version, "commit_fingerprint": "00" * 20},
        "build": {"tamago_version": "1.22.0"},
        "output": {"firmware_digest_sha256": b64(hashlib.sha256(firmware).digest())},
    }
    if hab is not None:
        members["hab"] = {"target": "ci", "signature_digest_sha256": b64(hashlib.sha256(hab).digest())}
    return signed(json.dumps(members, indent=1).encode() + b"\n", *keys)


def firmware_bundle(log: Log, index: int, firmware: bytes | None = b"firmware", **others: Any) -> bytes:
    members = {
        "Checkpoint": b64(log.note(witnesses=(W1, W3))),
        "Index": index,
        "InclusionProof": [b64(each) for each in log.path(index)],
        "Manifest": b64(log.leaves[index]),
        "Firmware": b64(firmware) if firmware is not None else None,
        "HABSignature": None,
        **others,
    }
    return json.dumps(members).encode()


def sigsum_proof(log: Log, index: int, message: bytes, submitter: SimulatedKey, version: int = 2) -> bytes:
    """The proof of a leaf that `sigsum_leaf` made, cosigned by W1."""
    checkpoint = log.checkpoint()
    leaf = log.leaves[index]
    witness = hashlib.sha256(W1.vkey.public_key).hexdigest()
    cosignature = W1.sign(checkpoint).value
    short = hashlib.sha256(message).digest()[:2].hex() + " " if version == 1 else ""
    lines = [
        f"version={version}",
        f"log={hashlib.sha256(log.key.vkey.public_key).hexdigest()}",
        f"leaf={short}{leaf[96:].hex()} {leaf[32:96].hex()}",
        "",
        f"size={checkpoint.size}",
        f"root_hash={checkpoint.root.hex()}",
        f"signature={log.key.sign(checkpoint).value.hex()}",
        f"cosignature={witness} {int.from_bytes(cosignature[:8], 'big')} {cosignature[8:].hex()}",
    ]
    if checkpoint.size > 1:
        lines += ["", f"leaf_index={index}", *(f"node_hash={each.hex()}" for each in log.path(index))]
    return "\n".join(lines).encode() + b"\n"


def sigsum_leaf(message: bytes, submitter: SimulatedKey) -> bytes:
    checksum = hashlib.sha256(message).digest()
    signature = submitter._sign(b"sigsum.org/v1/tree-leaf\x00" + checksum)
    return checksum + signature + hashlib.sha256(submitter.vkey.public_key).digest()


def sumdb_tiles(folder: Path) -> dict[str, bytes]:
    """The tiles of a database on disk, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "tile").rglob("*")
        if path.is_file()
    }


def sumdb_key() -> VerifierKey:
    return parse_vkey(SUMDB_VKEY)
