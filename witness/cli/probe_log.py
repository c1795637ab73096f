"""The probe's own log: a tree of identical leaves that grows by one leaf a probe.

All leaves are the same, so that the hash of a complete subtree depends on its height alone: any root and any
proof costs O(log n), and nothing but the key need be kept. Two probes at one time, a probe after a restored
backup, a probe of another machine with the same key: all sign views of the one same tree.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_sign_seed_keypair

from witness.cli.errors import Failure
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.note import (
    ED25519_SEED_SIZE,
    MalformedSignerKey,
    SignatureType,
    SignerKey,
    encode_base64,
    format_note,
    make_vkey,
    parse_signer_key,
)
from witness.tlog.submission import format_add_checkpoint

LEAF: Final = b"witness probe\n"


class ProbeLog:
    """The log of a key: its origin is the key's name."""

    def __init__(self, key: SignerKey) -> None:
        self.key = key
        self.origin = key.name
        self._levels = [merkle.leaf_hash(LEAF)]

    def checkpoint(self, size: int) -> Checkpoint:
        """The checkpoint of a tree size."""
        return Checkpoint(self.origin, size, merkle.tree_root(size, self._node))

    def submission(self, old: int, new: int) -> bytes:
        """The add-checkpoint body (tlog-witness) from one tree size to another."""
        text = self.checkpoint(new).text()
        note = format_note(text, [self.key.sign(text)])
        return format_add_checkpoint(old, merkle.consistency_proof(old, new, self._node), note)

    def _node(self, level: int, _index: int) -> bytes:
        while len(self._levels) <= level:
            self._levels.append(merkle.node_hash(self._levels[-1], self._levels[-1]))
        return self._levels[level]


def open_probe_log(file: Path, origin: str) -> ProbeLog:
    """The log whose key stands in the file, which is made (mode 0600) if it is not there.

    Raises:
        Failure: the file is not one of ours, or of another witness.
        OSError: it cannot be read or written.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        _create(file, origin)
        text = file.read_text(encoding="utf-8")
    try:
        key = parse_signer_key(str(json.loads(text)["signer"]))
    except (ValueError, KeyError, TypeError, MalformedSignerKey) as error:
        raise Failure(f"{file} is not a probe's key file", "remove it: the next probe makes one") from error
    if key.name != origin:
        raise Failure(f"{file} is the key of {key.name!r}", "remove it: the next probe makes one")
    return ProbeLog(key)


def _create(file: Path, origin: str) -> None:
    seed = secrets.token_bytes(ED25519_SEED_SIZE)
    vkey = make_vkey(origin, SignatureType.ED25519, crypto_sign_seed_keypair(seed)[0])
    material = encode_base64(bytes([SignatureType.ED25519]) + seed)
    signer = f"PRIVATE+KEY+{origin}+{vkey.key_id.hex()}+{material}"
    # Written beside its place and linked into it: of two probes at one time one makes the key, whole.
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"signer": signer, "vkey": str(vkey)}, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, file)
        except FileExistsError:
            return
    finally:
        beside.unlink()
