"""A transparency log you can corrupt: it appends, forks, rolls back, signs wrongly and stalls.

Everything is deterministic: keys, leaves and roots follow from the log's origin, so that a failure
repeats. (ECDSA and ML-DSA signatures are randomised; nobody may compare their bytes.)

    log = SimulatedLog("example.com/log", size=7)
    log.append(3)
    body = log.add_checkpoint(old=7)      # tlog-witness body: old size, proof, signed checkpoint
    liar = log.fork(at=5); liar.append(9) # same keys, same first five leaves, another history

`SimulatedLog(..., huge=True)` has runs of identical leaves, so that roots and proofs at sizes around
1e9 cost O(log n). `tests.simulated_log_server` serves a log over HTTP on loopback.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message, encode_timestamped
from witness.tlog.note import Signature, SignatureType, VerifierKey, format_note, make_vkey
from witness.tlog.rfc6962 import tree_head_message
from witness.tlog.submission import format_add_checkpoint, format_sign_subtree

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMESTAMP = 1_700_000_000
"""The second in which simulated logs sign, for the key types whose signatures carry a time."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class SimulatedKey:
    """A signing key of any of the five types, made from its name, type and number alone."""

    def __init__(self, name: str, type_: SignatureType = SignatureType.ED25519, number: int = 0) -> None:
        self.name = name
        self.type = SignatureType(type_)
        seed = hashlib.sha256(f"simulated key {number} of type {int(type_)} of {name}".encode()).digest()
        match self.type:
            case SignatureType.ED25519 | SignatureType.COSIGNATURE_ED25519:
                ed_key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
                self._sign = ed_key.sign
                public = ed_key.public_key().public_bytes_raw()
            case SignatureType.ECDSA | SignatureType.RFC6962:
                ec_key = ec.derive_private_key(
                    int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1()
                )
                self._sign = lambda message: ec_key.sign(message, ec.ECDSA(hashes.SHA256()))
                public = ec_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            case SignatureType.COSIGNATURE_MLDSA44:
                pq_key = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
                self._sign = pq_key.sign
                public = pq_key.public_key().public_bytes_raw()
        self.vkey: VerifierKey = make_vkey(name, self.type, public)

    def sign(self, checkpoint: Checkpoint, *, wrongly: bool = False, timestamp: int = TIMESTAMP) -> Signature:
        """The signature line of this key over a checkpoint; `wrongly` flips a bit at its end."""
        text = checkpoint.text()
        match self.type:
            case SignatureType.ED25519 | SignatureType.ECDSA:
                value = self._sign(text)
            case SignatureType.COSIGNATURE_ED25519:
                value = encode_timestamped(timestamp, self._sign(cosignature_v1_message(timestamp, text)))
            case SignatureType.COSIGNATURE_MLDSA44:
                message = cosigned_message(
                    self.name, timestamp, checkpoint.origin, 0, checkpoint.size, checkpoint.root
                )
                value = encode_timestamped(timestamp, self._sign(message))
            case SignatureType.RFC6962:
                der = self._sign(tree_head_message(timestamp * 1000, checkpoint.size, checkpoint.root))
                # static-ct-api: timestamp, SHA-256 (4), ECDSA (3), length, signature
                value = struct.pack(">QBBH", timestamp * 1000, 4, 3, len(der)) + der
        if wrongly:
            value = value[:-1] + bytes([value[-1] ^ 1])
        return Signature(self.name, self.vkey.key_id, value)


class _Tree(Protocol):
    size: int

    def extend(self, count: int, branch: str) -> None: ...
    def cut(self, size: int) -> _Tree: ...
    def node(self, level: int, index: int) -> bytes: ...


class _DistinctLeaves:
    """Every leaf its own: mistakes in an index show. For trees of some ten thousand leaves."""

    def __init__(self) -> None:
        self.size = 0
        self._tree = merkle.MemoryTree()

    def extend(self, count: int, branch: str) -> None:
        for index in range(self.size, self.size + count):
            self._tree.append(f"leaf {index} of {branch}".encode())
        self.size += count

    def cut(self, size: int) -> _DistinctLeaves:
        shorter = _DistinctLeaves()
        for index in range(size):
            shorter._tree.append_hash(self._tree.node(0, index))
        shorter.size = size
        return shorter

    def node(self, level: int, index: int) -> bytes:
        return self._tree.node(level, index)


class _RunsOfLeaves:
    """Runs of identical leaves: any node in O(levels * runs), at any size."""

    def __init__(self) -> None:
        self.size = 0
        self._runs: list[tuple[int, str]] = []  # (end of the run, its branch)
        self._perfect: dict[tuple[str, int], bytes] = {}  # the full subtree of a level within one run

    def extend(self, count: int, branch: str) -> None:
        self.size += count
        if self._runs and self._runs[-1][1] == branch:
            self._runs.pop()
        self._runs.append((self.size, branch))

    def cut(self, size: int) -> _RunsOfLeaves:
        shorter = _RunsOfLeaves()
        for end, branch in self._runs:
            if shorter.size < size:
                shorter.extend(min(end, size) - shorter.size, branch)
        return shorter

    def node(self, level: int, index: int) -> bytes:
        start, end = index << level, (index + 1) << level
        assert end <= self.size, f"node {level}/{index} is not complete at size {self.size}"
        run_end, branch = next(run for run in self._runs if run[0] > start)
        if end <= run_end:
            return self._full(branch, level)
        return merkle.node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def _full(self, branch: str, level: int) -> bytes:
        if (branch, level) not in self._perfect:
            below = self._full(branch, level - 1) if level else b""
            self._perfect[branch, level] = (
                merkle.node_hash(below, below) if level else merkle.leaf_hash(f"leaf of {branch}".encode())
            )
        return self._perfect[branch, level]


class SimulatedLog:
    """A log with its keys. The attributes named as faults make it lie until they are reset.

    `size` and everything derived is what the log publishes; a stalled log grows without publishing.
    It is a `feeders.protocol.LogSource` too, so that a polling loop can be tested without HTTP.
    """

    def __init__(
        self,
        origin: str = "simulated.example/log",
        *,
        size: int = 0,
        keys: Sequence[SimulatedKey] | None = None,
        huge: bool = False,
    ) -> None:
        self.origin = origin
        if keys is None:  # key names have neither spaces nor plus signs, which origins may have
            keys = (SimulatedKey(origin.replace(" ", "-").replace("+", "-")),)
        self.keys: tuple[SimulatedKey, ...] = tuple(keys)
        self.branch = origin
        self._tree: _Tree = _RunsOfLeaves() if huge else _DistinctLeaves()
        self._published = 0
        # Faults.
        self.stalled = False  # grows, but keeps publishing the old checkpoint
        self.sign_wrongly = False  # every signature fails to verify
        self.wrong_root = False  # signs a root that is no tree's
        self.extensions: tuple[str, ...] = ()  # extension lines of every checkpoint
        if size:
            self.append(size)

    # What the log is.

    @property
    def size(self) -> int:
        """The size of the checkpoint that the log publishes now."""
        return self._published

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        return tuple(key.vkey for key in self.keys)

    def node(self, level: int, index: int) -> bytes:
        """The hash of the complete subtree [index<<level, (index+1)<<level): a `merkle.NodeLookup`."""
        return self._tree.node(level, index)

    def root(self, size: int | None = None) -> bytes:
        return merkle.tree_root(self.size if size is None else size, self.node)

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The raw hashes of a tlog-tiles tile: 32 * width bytes."""
        return b"".join(self.node(8 * level, 256 * index + i) for i in range(width))

    # What the log does.

    def append(self, count: int = 1) -> int:
        """Add leaves and publish, unless stalled; returns the size published."""
        self._tree.extend(count, self.branch)
        if not self.stalled:
            self._published = self._tree.size
        return self.size

    def resume(self) -> int:
        """End a stall: publish what has grown meanwhile."""
        self.stalled = False
        self._published = self._tree.size
        return self.size

    def fork(self, at: int, branch: str = "fork") -> SimulatedLog:
        """Another history under the same keys: the first `at` leaves are shared, later ones differ."""
        other = SimulatedLog(self.origin, keys=self.keys)
        other.branch = f"{self.branch}, {branch} at {at}"
        other._tree = self._tree.cut(at)
        other._published = at
        return other

    def roll_back(self, size: int) -> None:
        """Forget the leaves from `size` on. The same leaves come back when it grows again."""
        self._tree = self._tree.cut(size)
        self._published = size

    # What the log says.

    def value(self, size: int | None = None) -> Checkpoint:
        """The checkpoint of a size (default: the published one), with the log's faults."""
        size = self.size if size is None else size
        root = hashlib.sha256(b"no tree has this root").digest() if self.wrong_root else self.root(size)
        return Checkpoint(self.origin, size, root, self.extensions)

    def sign(self, checkpoint: Checkpoint, *, keys: Sequence[SimulatedKey] | None = None) -> bytes:
        """A signed note of any checkpoint by the log's keys (or by others)."""
        signers = self.keys if keys is None else keys
        return format_note(
            checkpoint.text(), [key.sign(checkpoint, wrongly=self.sign_wrongly) for key in signers]
        )

    def checkpoint(self, size: int | None = None, *, keys: Sequence[SimulatedKey] | None = None) -> bytes:
        """The signed checkpoint of a size, as a log serves it."""
        return self.sign(self.value(size), keys=keys)

    def proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """The consistency proof between two sizes; empty for old 0 and for equal sizes."""
        new = self.size if new is None else new
        return tuple(merkle.consistency_proof(old, new, self.node)) if 0 < old < new else ()

    def add_checkpoint(
        self,
        old: int = 0,
        new: int | None = None,
        *,
        proof: Sequence[bytes] | None = None,
        keys: Sequence[SimulatedKey] | None = None,
    ) -> bytes:
        """A tlog-witness add-checkpoint body from an old size to a new one (default: the published)."""
        lines = self.proof(old, new) if proof is None else proof
        return format_add_checkpoint(old, tuple(lines), self.checkpoint(new, keys=keys))

    def sign_subtree(self, start: int, end: int, signed_note: bytes, size: int | None = None) -> bytes:
        """A tlog-witness sign-subtree body for [start, end) of the tree of `size`, with the cosigned note."""
        size = self.size if size is None else size
        root = merkle.subtree_root(start, end, self.node)
        proof = tuple(merkle.subtree_consistency_proof(start, end, size, self.node))
        return format_sign_subtree(start, end, root, proof, signed_note)

    # feeders.protocol.LogSource

    async def fetch_checkpoint(self) -> bytes:
        return self.checkpoint()

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        return self.proof(old_size, checkpoint.size)
