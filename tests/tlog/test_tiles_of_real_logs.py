"""The tiles of real logs: their roots are those that the logs signed, their proofs verify."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from witness.tlog.merkle import (
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from witness.tlog.tiles import Tile, node_from_tile, tile_for_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from witness.tlog.merkle import NodeLookup


def lookup_in(read: Callable[[Tile], bytes], size: int) -> NodeLookup:
    def lookup(level: int, index: int) -> bytes:
        tile = tile_for_node(level, index, size)
        return node_from_tile(tile, read(tile), level, index)

    return lookup


def checkpoint_in(note: str) -> tuple[int, bytes]:
    _, size, root, _ = note.split("\n", 3)
    return int(size), base64.b64decode(root)


def test_sumdb(testdata: Path) -> None:
    log = testdata / "logs" / "sumdb" / "size11094656"
    proofs = json.loads((log / "proofs.json").read_bytes())
    roots = dict(checkpoint_in(checkpoint["note"]) for checkpoint in proofs["checkpoints"])
    size, root = checkpoint_in((log / "latest").read_text())
    assert roots[size] == root
    assert len(roots) == 2

    def at(size: int) -> NodeLookup:
        return lookup_in(lambda tile: (log / tile.path().replace("tile/", "tile/8/", 1)).read_bytes(), size)

    # Roots recomputed from the tiles are those that sum.golang.org signed, at both sizes.
    assert {size: tree_root(size, at(size)) for size in roots} == roots
    for known in proofs["consistency"]:
        old, new = known["old"], known["new"]
        proof = consistency_proof(old, new, at(new))
        assert [base64.b64encode(value).decode() for value in proof] == known["proof"]
        verify_consistency(old, new, roots[old], roots[new], proof)
    for known in proofs["inclusion"]:
        index, record = (log / known["lookup"]).read_text().split("\n", 1)
        leaf = leaf_hash((record.split("\n\n", 1)[0] + "\n").encode())
        proof = inclusion_proof(int(index), known["size"], at(known["size"]))
        assert [base64.b64encode(value).decode() for value in proof] == known["proof"]
        verify_inclusion(int(index), known["size"], leaf, roots[known["size"]], proof)


def test_tlog_tiles(testdata: Path) -> None:
    origin_hash = hashlib.sha256(b"rome2026h1.example.org").hexdigest()
    log = testdata / "logs" / "tlog-tiles" / "skylight-mirror-300" / origin_hash
    size, root = checkpoint_in((log / "checkpoint").read_text())
    assert size == 300
    lookup = lookup_in(lambda tile: (log / tile.path()).read_bytes(), size)
    assert tree_root(size, lookup) == root
    # (Its entry bundles are placeholders; nothing of theirs can be checked.)
    for old in (1, 255, 256, 257, 299, 300):
        proof = consistency_proof(old, size, lookup)
        verify_consistency(old, size, tree_root(old, lookup), root, proof)


def test_static_ct(testdata: Path) -> None:
    """This log came without a checkpoint and without its level 1; its leaves prove its tiles."""
    log = testdata / "logs" / "static-ct" / "sunlight-navigli2025h2" / "tile"
    size = 3 * 256 + 10
    lookup = lookup_in(lambda tile: (log.parent / tile.path()).read_bytes(), size)
    leaves = []
    for name in ("000", "001", "002", "003.p/10"):
        leaves += _ct_leaves((log / "data" / name).read_bytes())
    assert len(leaves) == size
    assert [leaf_hash(leaf) for leaf in leaves] == [lookup(0, i) for i in range(size)]
    tree = MemoryTree()
    for leaf in leaves:
        tree.append(leaf)
    for level in range(8):
        assert all(lookup(level, i) == tree.node(level, i) for i in range(size >> level))
    # The partial tile is the beginning of the full one that replaced it.
    partial, full = (log / "0/003.p/10").read_bytes(), (log / "0/003").read_bytes()
    assert full.startswith(partial)
    for level in range(4):
        assert node_from_tile(Tile(0, 3), full, level, 768 >> level) == tree.node(level, 768 >> level)


def _ct_leaves(data: bytes) -> Iterator[bytes]:
    """The MerkleTreeLeafs (RFC 6962, section 3.4) of a static-ct data tile."""
    at = 0

    def skip(prefix: int) -> None:
        nonlocal at
        at += prefix + int.from_bytes(data[at : at + prefix])

    while at < len(data):
        first = at
        precertificate = int.from_bytes(data[at + 8 : at + 10]) == 1
        at += 8 + 2 + (32 if precertificate else 0)
        skip(3)  # the certificate, or the TBSCertificate
        skip(2)  # CtExtensions
        yield b"\x00\x00" + data[first:at]
        if precertificate:
            skip(3)
        skip(2)  # the chain's fingerprints
