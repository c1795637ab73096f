"""Other implementations' Merkle vectors, real trees, and the draft's accumulated vectors."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from witness.tlog.merkle import (
    InvalidProof,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    is_valid_subtree,
    leaf_hash,
    subtree_consistency_proof,
    subtree_root,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)

if TYPE_CHECKING:
    from pathlib import Path

VECTORS = {"consistency": 98, "inclusion": 98, "subtreeconsistency": 118, "subtreeinclusion": 204}

EMPTY_OLD_TREE = {
    # The vectors refuse every old size of 0, except between empty trees, and look at no root then. What
    # tlog-witness wants is narrower: "the empty tree is consistent with any tree, so no proof is
    # necessary", where the empty tree is the one whose root is the hash of the empty string.
    "consistency/additional/size1-is-zero-and-size2-is-not-zero.json": (True, "true empty root"),
    "consistency/additional/size1-is-zero-and-does-not-equal-size2.json": (False, "not the empty root"),
    "consistency/additional/sizes-are-equal-zero-and-proof-is-empty.json": (False, "not the empty root"),
}

EMPTY_SUBTREES = {
    # Older drafts had no empty subtrees; since -06 [x, x) is valid, consistent with every tree if its
    # hash is that of the empty string, without a proof, and whatever the tree's root may be.
    f"subtreeconsistency/additional/subtree-is-empty-{name}proof-is-empty.json": (
        True,
        "draft, 4.4.3, step 2",
    )
    for name in (
        "subtree-root-valid-",
        "subtree-root-valid-tree-root-random-",
        "sizes-are-equal-one-subtree-root-valid-",
        "sizes-are-equal-one-subtree-root-valid-tree-root-random-",
        "sizes-are-equal-zero-subtree-root-valid-",
        "sizes-are-equal-zero-subtree-root-valid-tree-root-random-",
    )
}

NOT_HASHES = {
    # Equal sizes, equal roots, no proof: but the "roots" are 12 bytes of text, and we take hashes only.
    "subtreeconsistency/additional/sizes-are-equal-one-and-proof-is-empty.json": (False, "12-byte roots"),
}

EXPLAINED = EMPTY_OLD_TREE | EMPTY_SUBTREES | NOT_HASHES


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def verify(kind: str, vector: dict[str, Any]) -> None:
    proof = [decoded(line) for line in vector["proof"] or []]
    match kind:
        case "consistency":
            roots = decoded(vector["root1"]), decoded(vector["root2"])
            verify_consistency(vector["size1"], vector["size2"], *roots, proof)
        case "inclusion":
            hashes = decoded(vector["leafHash"]), decoded(vector["root"])
            verify_inclusion(vector["leafIdx"], vector["treeSize"], *hashes, proof)
        case "subtreeconsistency":
            roots = decoded(vector["root1"]), decoded(vector["root2"])
            verify_subtree_consistency(vector["start"], vector["end"], vector["size"], *roots, proof)
        case "subtreeinclusion":
            hashes = decoded(vector["leafHash"]), decoded(vector["root"])
            verify_subtree_inclusion(vector["leafIdx"], vector["start"], vector["end"], *hashes, proof)
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("kind", VECTORS)
def test_transparency_dev_merkle(testdata: Path, kind: str) -> None:
    folder = testdata / "merkle" / "transparency-dev-merkle"
    accepted = {}
    wanted = {}
    for file in sorted((folder / kind).rglob("*.json")):
        name = str(file.relative_to(folder))
        vector = json.loads(file.read_bytes())
        wanted[name] = not vector["wantErr"]
        try:
            verify(kind, vector)
            accepted[name] = True
        except InvalidProof:
            accepted[name] = False
    explained = {name: answer for name, (answer, _) in EXPLAINED.items() if name.startswith(kind + "/")}
    assert accepted == wanted | explained
    assert len(accepted) == VECTORS[kind]


def test_which_vectors_we_answer_otherwise(testdata: Path) -> None:
    folder = testdata / "merkle" / "transparency-dev-merkle"
    wanted = {name: not json.loads((folder / name).read_bytes())["wantErr"] for name in EXPLAINED}
    assert {name for name, (answer, _) in EXPLAINED.items() if answer != wanted[name]} == {
        "consistency/additional/size1-is-zero-and-size2-is-not-zero.json",
        "subtreeconsistency/additional/sizes-are-equal-one-and-proof-is-empty.json",
    }
    assert len(EMPTY_OLD_TREE) + len(EMPTY_SUBTREES) == 9


@pytest.mark.parametrize("validity", ["valid", "invalid"])
def test_sigsum_rs_inclusion(testdata: Path, validity: str) -> None:
    vectors = json.loads((testdata / "merkle" / "sigsum-rs" / f"inclusion-{validity}.json").read_bytes())
    answers = Counter()
    for vector in vectors:
        hashes = decoded(vector["leaf_hash"]), decoded(vector["root_hash"])
        proof = [decoded(line) for line in vector["inclusion_path"]]
        try:
            verify_inclusion(vector["leaf_index"], vector["tree_size"], *hashes, proof)
            answers["valid"] += 1
        except InvalidProof:
            answers["invalid"] += 1
    assert answers == {validity: 4}


def test_a_real_serverless_log(testdata: Path) -> None:
    log = testdata / "logs" / "serverless" / "serverless-log-testdata"
    roots = {}
    for size in range(16):
        _, size_line, root_line, _ = (log / f"checkpoint.{size}").read_text().split("\n", 3)
        assert size_line == str(size)
        roots[size] = decoded(root_line)
    tree = MemoryTree()
    for index in range(15):
        tree.append((log / "seq" / "00" / "00" / "00" / "00" / f"{index:02x}").read_bytes())
    assert {size: tree.root(size) for size in range(16)} == roots
    for n, root in roots.items():
        for m in range(n + 1):
            verify_consistency(m, n, roots[m], root, consistency_proof(m, n, tree.node))
        for index in range(n):
            leaf = tree.node(0, index)
            verify_inclusion(index, n, leaf, root, inclusion_proof(index, n, tree.node))


ACCUMULATED_MAX = 130
"""The draft's appendix "Subtree Test Vectors" hashes all outputs for sizes up to this."""


@pytest.fixture(scope="module")
def tree() -> MemoryTree:
    tree = MemoryTree()
    for value in range(ACCUMULATED_MAX):
        tree.append(bytes([value]))
    return tree


@pytest.fixture(scope="module")
def subtrees(tree: MemoryTree) -> dict[tuple[int, int], bytes]:
    return {
        (start, end): subtree_root(start, end, tree.node)
        for end in range(ACCUMULATED_MAX + 1)
        for start in range(end + 1)
        if is_valid_subtree(start, end)
    }


def test_subtree_hashes(subtrees: dict[tuple[int, int], bytes]) -> None:
    rolling = hashlib.sha256()
    for (start, end), value in subtrees.items():
        rolling.update(f"[{start}, {end}) {value.hex()}\n".encode())
    assert rolling.hexdigest() == "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"


def test_subtree_inclusion_proofs(tree: MemoryTree, subtrees: dict[tuple[int, int], bytes]) -> None:
    rolling = hashlib.sha256()
    for (start, end), value in subtrees.items():

        def lookup(level: int, index: int, first: int = start) -> bytes:
            return tree.node(level, index + (first >> level))

        for index in range(start, end):
            proof = inclusion_proof(index - start, end - start, lookup)
            verify_subtree_inclusion(index, start, end, leaf_hash(bytes([index])), value, proof)
            line = " ".join([f"{index} [{start}, {end})", *(p.hex() for p in proof)])
            rolling.update(f"{line}\n".encode())
    assert rolling.hexdigest() == "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"


def test_subtree_consistency_proofs(tree: MemoryTree, subtrees: dict[tuple[int, int], bytes]) -> None:
    rolling = hashlib.sha256()
    for n in range(ACCUMULATED_MAX + 1):
        root = tree.root(n)
        for (start, end), value in subtrees.items():
            if end > n:
                break
            proof = subtree_consistency_proof(start, end, n, tree.node)
            verify_subtree_consistency(start, end, n, value, root, proof)
            line = " ".join([f"[{start}, {end}) {n}", *(p.hex() for p in proof)])
            rolling.update(f"{line}\n".encode())
    assert rolling.hexdigest() == "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74"
