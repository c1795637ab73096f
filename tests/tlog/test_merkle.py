"""Every tree up to 64 leaves: proofs against a recursive reference, and each proof mutated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest

from tests.tlog.merkle_reference import Reference, bit_ceil, shape, valid_subtree
from witness.tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    InvalidProof,
    MemoryTree,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    is_valid_subtree,
    leaf_hash,
    node_hash,
    root_nodes,
    subtree_consistency_proof,
    subtree_root,
    tree_root,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)

MAX = 64
SUBTREE_MAX = 32
INPUTS = [b"leaf %d" % i for i in range(MAX + 2)]
REFERENCE = Reference(INPUTS)
OTHER = hashlib.sha256(b"not in any tree").digest()


def grown(size: int) -> MemoryTree:
    tree = MemoryTree()
    for data in INPUTS[:size]:
        tree.append(data)
    return tree


def flip(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value) ^ 1 << bit).to_bytes(len(value))


def accepts(verify: Callable[..., None], *arguments: object) -> bool:
    try:
        verify(*arguments)
    except InvalidProof:
        return False
    return True


def mutations(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Proofs other than this one, none of which may verify in its place."""
    for i, value in enumerate(proof):
        rest = proof[i + 1 :]
        for bit in (0, 7, 128, 255, (37 * i + 11) % 256):
            yield [*proof[:i], flip(value, bit), *rest]
        yield [*proof[:i], *rest]
        yield [*proof[: i + 1], value, *rest]
        yield [*proof[:i], value[:-1], *rest]
        yield [*proof[:i], value + b"\x00", *rest]
        yield [*proof[:i], b"", *rest]
        yield [*proof[:i], OTHER, *proof[i:]]
        if rest:
            yield [*proof[:i], rest[0], value, *rest[1:]]
            # The same bytes, parted elsewhere.
            yield [*proof[:i], value[:-1], value[-1:] + rest[0], *rest[1:]]
    yield [*proof, OTHER]
    yield [*proof, EMPTY_ROOT]
    yield [*proof, bytes(HASH_SIZE)]
    if len(proof) > 1:
        yield proof[::-1]
        yield []


def test_hashes_have_the_prefixes_of_rfc_6962() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    # The leaf hash of no bytes is a published constant of Certificate Transparency implementations.
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert (
        node_hash(b"N123", b"N456").hex()
        == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )


def test_the_tree_grows_by_its_definition() -> None:
    tree = MemoryTree()
    assert (tree.size, tree.root()) == (0, EMPTY_ROOT)
    for size, data in enumerate(INPUTS, start=1):
        assert tree.append(data) == size - 1
        assert (tree.size, tree.root()) == (size, REFERENCE.mth(0, size))
    for size in range(len(INPUTS) + 1):
        assert tree.root(size) == tree_root(size, tree.node) == REFERENCE.mth(0, size)


def test_a_tree_of_hashes_is_the_tree_of_the_data() -> None:
    tree = MemoryTree()
    for i, data in enumerate(INPUTS):
        assert tree.append_hash(leaf_hash(data)) == i
    assert tree.root() == REFERENCE.mth(0, len(INPUTS))
    with pytest.raises(ValueError, match="32 bytes"):
        tree.append_hash(b"short")
    assert tree.size == len(INPUTS)


def test_nodes_that_are_not_there() -> None:
    tree = grown(6)
    assert tree.node(1, 2) == REFERENCE.mth(4, 6)
    assert tree.node(2, 0) == REFERENCE.mth(0, 4)
    for level, index in ((0, 6), (1, 3), (2, 1), (3, 0), (-1, 0), (0, -1), (1, -1)):
        with pytest.raises(KeyError):
            tree.node(level, index)
    for size in (-1, 7):
        with pytest.raises(ValueError, match="6 leaves"):
            tree.root(size)


def test_every_consistency_proof_and_none_of_its_mutations() -> None:
    tree = grown(MAX)
    for n in range(1, MAX + 1):
        new_root = REFERENCE.mth(0, n)
        for m in range(1, n + 1):
            old_root = REFERENCE.mth(0, m)
            proof = consistency_proof(m, n, tree.node)
            assert proof == REFERENCE.proof(m, n)
            verify_consistency(m, n, old_root, new_root, proof)
            verify_consistency(m, n, old_root, new_root, tuple(proof))
            for wrong in mutations(proof):
                assert not accepts(verify_consistency, m, n, old_root, new_root, wrong), (m, n)


def test_consistency_with_wrong_roots() -> None:
    tree = grown(MAX)
    for n in range(1, MAX + 1):
        new_root = tree.root(n)
        for m in range(1, n + 1):
            old_root = tree.root(m)
            proof = consistency_proof(m, n, tree.node)
            for wrong in (flip(old_root, (m * 7 + n) % 256), OTHER, EMPTY_ROOT, old_root[:-1], b""):
                assert not accepts(verify_consistency, m, n, wrong, new_root, proof), (m, n)
            for wrong in (flip(new_root, (m * 7 + n) % 256), OTHER, EMPTY_ROOT, new_root + b"\x00", b""):
                assert not accepts(verify_consistency, m, n, old_root, wrong, proof), (m, n)
            assert accepts(verify_consistency, m, n, new_root, old_root, proof) == (m == n)


def test_consistency_with_wrong_sizes_follows_the_shape_of_the_proof() -> None:
    tree = grown(MAX)
    passed = 0
    for n in range(1, MAX + 1):
        for m in range(1, n):
            proof = consistency_proof(m, n, tree.node)
            roots = tree.root(m), tree.root(n)
            near = [(m + i, n + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
            for wrong_m, wrong_n in [*near, (n, m), (0, n), (n, n), (m, m), (-m, n), (m, -n), (m, 2 * n)]:
                same = 0 < wrong_m < wrong_n and shape(0, wrong_m, wrong_n) == shape(0, m, n)
                assert accepts(verify_consistency, wrong_m, wrong_n, *roots, proof) == same, (m, n)
                passed += same
    # Both answers occur, or this test would say less than it seems to.
    assert passed > 0


def test_consistency_from_the_empty_tree_needs_no_proof() -> None:
    tree = grown(5)
    for n in range(6):
        assert consistency_proof(0, n, tree.node) == []
        verify_consistency(0, n, EMPTY_ROOT, tree.root(n), [])
        assert not accepts(verify_consistency, 0, n, EMPTY_ROOT, tree.root(n), [OTHER])
        assert not accepts(verify_consistency, 0, n, OTHER, tree.root(n), [])
    assert not accepts(verify_consistency, 0, 0, EMPTY_ROOT, OTHER, [])
    assert not accepts(verify_consistency, 0, 0, OTHER, OTHER, [])


def test_every_inclusion_proof_and_none_of_its_mutations() -> None:
    tree = grown(MAX)
    for n in range(1, MAX + 1):
        root = REFERENCE.mth(0, n)
        for index in range(n):
            leaf = leaf_hash(INPUTS[index])
            proof = inclusion_proof(index, n, tree.node)
            assert proof == REFERENCE.path(index, 0, n)
            verify_inclusion(index, n, leaf, root, proof)
            for wrong in mutations(proof):
                assert not accepts(verify_inclusion, index, n, leaf, root, wrong), (index, n)
            assert not accepts(verify_inclusion, index, n, flip(leaf, n), root, proof)
            assert not accepts(verify_inclusion, index, n, leaf, flip(root, index), proof)
            assert not accepts(verify_inclusion, index, n, leaf[1:], root, proof)
            near = [(index + i, n + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
            for i, size in [*near, (index, 0), (n, n), (-1, n), (index + n, n), (index, -n), (index, 2 * n)]:
                same = 0 <= i < size and shape(i, i + 1, size) == shape(index, index + 1, n)
                assert accepts(verify_inclusion, i, size, leaf, root, proof) == same, (index, n, i, size)


def test_which_intervals_are_subtrees() -> None:
    for end in range(-2, 70):
        for start in range(-2, 70):
            assert is_valid_subtree(start, end) == valid_subtree(start, end), (start, end)
    # The draft's own examples, and its case of overflow.
    assert is_valid_subtree(4, 8)
    assert is_valid_subtree(8, 13)
    assert not is_valid_subtree(1, 5)
    assert not is_valid_subtree(7, 9)
    assert is_valid_subtree(0, 2**63 + 1)
    assert not is_valid_subtree(2**63, 2**64 + 1)
    assert is_valid_subtree(2**63, 2**64)
    assert bit_ceil(0) == 1


def test_every_subtree_proof_and_none_of_its_mutations() -> None:
    tree = grown(SUBTREE_MAX)
    for n in range(SUBTREE_MAX + 1):
        root = REFERENCE.mth(0, n)
        for end in range(n + 1):
            for start in range(end + 1):
                if not valid_subtree(start, end):
                    with pytest.raises(ValueError, match="not a subtree"):
                        subtree_consistency_proof(start, end, n, tree.node)
                    assert not accepts(verify_subtree_consistency, start, end, n, EMPTY_ROOT, root, [])
                    continue
                subtree = REFERENCE.mth(start, end)
                assert subtree_root(start, end, tree.node) == subtree
                proof = subtree_consistency_proof(start, end, n, tree.node)
                assert proof == REFERENCE.subtree_proof(start, end, n)
                claim = start, end, n, subtree, root
                verify_subtree_consistency(*claim, proof)
                for wrong in mutations(proof):
                    assert not accepts(verify_subtree_consistency, *claim, wrong), claim
                assert not accepts(verify_subtree_consistency, *claim[:3], flip(subtree, n), root, proof)
                assert not accepts(verify_subtree_consistency, *claim[:3], subtree[:-1], root, proof)
                # An empty subtree is consistent with every tree, so its proof says nothing of the root.
                empty = start == end
                assert accepts(verify_subtree_consistency, *claim[:3], subtree, flip(root, n), proof) == empty


def test_subtree_consistency_with_wrong_indices_follows_the_shape_of_the_proof() -> None:
    tree = grown(SUBTREE_MAX)
    steps = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    for n in range(1, SUBTREE_MAX + 1):
        for end in range(1, n + 1):
            for start in (s for s in range(end) if valid_subtree(s, end)):
                proof = subtree_consistency_proof(start, end, n, tree.node)
                roots = subtree_root(start, end, tree.node), tree.root(n)
                for i, j, k in steps:
                    a, b, size = start + i, end + j, n + k
                    fits = a < b <= size and valid_subtree(a, b)
                    same = fits and shape(a, b, size) == shape(start, end, n)
                    assert accepts(verify_subtree_consistency, a, b, size, *roots, proof) == same, (a, b)


def test_every_subtree_inclusion_proof() -> None:
    for end in range(1, SUBTREE_MAX + 1):
        for start in (s for s in range(end) if valid_subtree(s, end)):
            root = REFERENCE.mth(start, end)
            for index in range(start, end):
                leaf = leaf_hash(INPUTS[index])
                proof = REFERENCE.path(index - start, start, end)
                verify_subtree_inclusion(index, start, end, leaf, root, proof)
                for wrong in mutations(proof):
                    assert not accepts(verify_subtree_inclusion, index, start, end, leaf, root, wrong)
            for outside in (start - 1, end):
                assert not accepts(verify_subtree_inclusion, outside, start, end, OTHER, root, [])
        assert not accepts(verify_subtree_inclusion, end, end, end, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not accepts(verify_subtree_inclusion, 2, 1, 5, OTHER, OTHER, [OTHER, OTHER])


def test_the_two_verifiers_of_consistency_agree() -> None:
    tree = grown(MAX)
    for n in range(1, MAX + 1):
        for m in range(1, n + 1):
            proof = consistency_proof(m, n, tree.node)
            for candidate in (proof, *mutations(proof)):
                claim = tree.root(m), tree.root(n), candidate
                assert accepts(verify_consistency, m, n, *claim) == accepts(
                    verify_subtree_consistency, 0, m, n, *claim
                )


def test_the_nodes_announced_are_those_looked_up() -> None:
    tree = grown(MAX)
    looked_up: list[tuple[int, int]] = []

    def lookup(level: int, index: int) -> bytes:
        looked_up.append((level, index))
        return tree.node(level, index)

    def noted(make: Callable[..., object], *arguments: object) -> set[tuple[int, int]]:
        looked_up.clear()
        make(*arguments, lookup)
        return set(looked_up)

    for n in range(MAX + 1):
        assert noted(tree_root, n) == set(root_nodes(n))
        assert len(root_nodes(n)) == n.bit_count()
        for m in range(n + 1):
            nodes = consistency_nodes(m, n)
            assert noted(consistency_proof, m, n) == set(nodes)
            assert len(nodes) == len(set(nodes))
            if m < n:
                assert noted(inclusion_proof, m, n) == set(inclusion_nodes(m, n))


def test_what_cannot_be_made_is_a_value_error() -> None:
    tree = grown(8)
    for m, n in ((5, 4), (-1, 4), (-2, -1), (1, 0)):
        with pytest.raises(ValueError, match="subtree"):
            consistency_proof(m, n, tree.node)
        with pytest.raises(ValueError, match="subtree"):
            consistency_nodes(m, n)
    for index, n in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="subtree"):
            inclusion_proof(index, n, tree.node)
        with pytest.raises(ValueError, match="subtree"):
            inclusion_nodes(index, n)
    for start, end in ((1, 5), (5, 4), (-4, 0)):
        with pytest.raises(ValueError, match="subtree"):
            subtree_root(start, end, tree.node)
    with pytest.raises(ValueError, match="subtree"):
        tree_root(-1, tree.node)
    with pytest.raises(KeyError):
        consistency_proof(4, 9, tree.node)
