"""Add-checkpoint bodies for any number of logs, at tree sizes about 1e9, cheaply.

A tree whose leaves are all the same has one hash per level, whatever its size: the complete subtree
of height h is `node(h-1, h-1)`. So the root and the consistency proof of any two sizes cost a few
tens of hashes and no storage, and `witness.tlog.merkle`'s own generators do the work.

All logs share the leaf, hence the roots and proofs of a step; only origin and signature differ. Where
roots must tell the logs apart (the traced run finds each update by its root), `distinct=True` gives
each log a leaf of its own.

Step 0 of a log is its first contact (old size 0, no proof); step s goes from SIZES[s-1] to SIZES[s].
The sizes are those about 1e9 whose binary digits are nearly all ones, in ascending order: these have
the long proofs (28 lines on average) a tree of that size can have.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
from collections.abc import Callable

from nacl import bindings

from witness.tlog import merkle

LEVELS = 31
ED25519_LOG_KEY = b"\x01"


@functools.cache
def sizes() -> tuple[int, ...]:
    """The tree sizes of the chain: 30-bit, odd, top three bits set, at most four zero digits."""
    full = (1 << 30) - 1
    found = (
        full - sum(1 << bit for bit in zeros)
        for count in range(5)
        for zeros in itertools.combinations(range(1, 27), count)
    )
    return tuple(sorted(found))


def lookup_of(leaf: bytes) -> Callable[[int, int], bytes]:
    """The node lookup of the tree in which every leaf is `leaf`."""
    levels = [merkle.leaf_hash(leaf)]
    for _ in range(LEVELS):
        levels.append(merkle.node_hash(levels[-1], levels[-1]))
    return lambda level, _index: levels[level]


def _line(data: bytes) -> bytes:
    return base64.b64encode(data) + b"\n"


class Step:
    """What a step's body holds beside origin and signature; `head` ends before the origin line."""

    __slots__ = ("head", "lines", "tail")

    def __init__(self, lookup: Callable[[int, int], bytes], step: int) -> None:
        new = sizes()[step]
        old = sizes()[step - 1] if step else 0
        proof = merkle.consistency_proof(old, new, lookup) if old else []
        self.lines = len(proof)
        self.head = b"old %d\n" % old + b"".join(map(_line, proof)) + b"\n"
        self.tail = b"\n%d\n" % new + _line(merkle.tree_root(new, lookup))


class Chains:
    """The logs' keys and their bodies; nothing is kept per body, so 100k logs fit easily.

    About 14 us a log to make, and 20 us a body, one Ed25519 signature included.
    """

    def __init__(self, logs: int, *, distinct: bool = False, run: str = "bench") -> None:
        """`run` goes into every origin, so that two runs never share one."""
        self.logs = logs
        self.distinct = distinct
        self._run = run
        self._shared = lookup_of(b"a leaf like every other")
        self._steps: dict[tuple[int, int], Step] = {}
        self._keys: list[tuple[bytes, bytes]] = []  # secret key, key ID
        self._publics: list[bytes] = []
        for log in range(logs):
            seed = hashlib.sha256(b"%s log %d" % (run.encode(), log)).digest()
            public, secret = bindings.crypto_sign_seed_keypair(seed)
            key_id = hashlib.sha256(self.origin(log) + b"\n" + ED25519_LOG_KEY + public).digest()[:4]
            self._keys.append((secret, key_id))
            self._publics.append(public)

    def origin(self, log: int) -> bytes:
        return b"%s.example/log/%06d" % (self._run.encode(), log)

    def vkey(self, log: int) -> str:
        key = base64.b64encode(ED25519_LOG_KEY + self._publics[log])
        return f"{self.origin(log).decode()}+{self._keys[log][1].hex()}+{key.decode()}"

    def log_list(self) -> str:
        """Every log as a `logs/v0` list."""
        entries = (f"\nvkey {self.vkey(log)}\nqpd 2147483647\ncontact none\n" for log in range(self.logs))
        return "logs/v0\n" + "".join(entries)

    def step(self, log: int, step: int) -> Step:
        key = (log if self.distinct else -1, step)
        found = self._steps.get(key)
        if found is None:
            lookup = lookup_of(b"a leaf of log %d" % log) if self.distinct else self._shared
            found = self._steps[key] = Step(lookup, step)
        return found

    def checkpoint_text(self, log: int, step: int) -> bytes:
        """The note text (origin, size and root lines) that step `step` of log `log` submits."""
        return self.origin(log) + self.step(log, step).tail

    def body(self, log: int, step: int) -> bytes:
        """The add-checkpoint body of step `step` of log `log`. IndexError where the chain ends."""
        origin = self.origin(log)
        parts = self.step(log, step)
        text = origin + parts.tail
        secret, key_id = self._keys[log]
        signature = bindings.crypto_sign(text, secret)[:64]
        line = "— ".encode() + origin + b" " + _line(key_id + signature)
        return parts.head + text + b"\n" + line

    def step_of_size(self, size: int) -> int:
        """The step whose new size is `size`; -1 for size 0 (nothing stored)."""
        return sizes().index(size) if size else -1
