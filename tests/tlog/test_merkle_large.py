"""Trees too large to build: their leaves are all alike but for a few, so that every node is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from witness.tlog.merkle import (
    HASH_SIZE,
    MAX_TREE_SIZE,
    InvalidProof,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    subtree_consistency_proof,
    subtree_root,
    tree_root,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)

if TYPE_CHECKING:
    from witness.tlog.merkle import NodeLookup

ALIKE = [leaf_hash(b"alike")]
while len(ALIKE) < 64:
    ALIKE.append(node_hash(ALIKE[-1], ALIKE[-1]))

# Mostly near powers of two, where the off-by-one errors live, and anything else up to the limit.
SIZES = st.one_of(
    st.integers(1, MAX_TREE_SIZE),
    st.builds(
        lambda exponent, step: min(max((1 << exponent) + step, 1), MAX_TREE_SIZE),
        st.integers(0, 63),
        st.integers(-3, 3),
    ),
    st.integers(1, 300),
)


class Sparse:
    """A tree of any size whose leaves are alike, but for those at the indices given."""

    def __init__(self, special: dict[int, bytes]) -> None:
        self.special = {index: leaf_hash(data) for index, data in special.items()}
        self.look_ups = 0

    def lookup(self, level: int, index: int) -> bytes:
        self.look_ups += 1
        return self._node(level, index)

    def _node(self, level: int, index: int) -> bytes:
        if not any(leaf >> level == index for leaf in self.special):
            return ALIKE[level]
        if level == 0:
            return self.special[index]
        return node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))

    def leaf(self, index: int) -> bytes:
        return self._node(0, index)


@st.composite
def old_and_new(draw: st.DrawFn) -> tuple[int, int]:
    new = draw(SIZES)
    old = draw(st.one_of(st.integers(1, new), SIZES.filter(lambda size: size <= new) | st.just(new)))
    return old, new


@st.composite
def subtrees(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(SIZES)
    level = draw(st.integers(0, (size - 1).bit_length()))
    start = draw(st.integers(0, (size - 1) >> level)) << level
    end = draw(st.integers(start + 1, min(start + (1 << level), size)))
    return start, end, size


@given(old_and_new(), st.data())
def test_consistency(sizes: tuple[int, int], data: st.DataObject) -> None:
    old, new = sizes
    special = {data.draw(st.integers(0, new - 1)): b"%d" % i for i in range(3)}
    tree = Sparse(special)
    old_root, new_root = tree_root(old, tree.lookup), tree_root(new, tree.lookup)
    tree.look_ups = 0
    proof = consistency_proof(old, new, tree.lookup)
    # One hash a level and the one it starts from. Only above 2^62 leaves can these be more than the 63 lines
    # that tlog-witness allows.
    assert len(proof) <= (new - 1).bit_length() + 1
    assert tree.look_ups <= 126
    verify_consistency(old, new, old_root, new_root, proof)
    verify_subtree_consistency(0, old, new, old_root, new_root, proof)


@given(old_and_new(), st.data())
def test_a_rewritten_leaf_has_no_consistency_proof(sizes: tuple[int, int], data: st.DataObject) -> None:
    """The promise itself: what was in the old tree cannot be another leaf in the new one."""
    old, new = sizes
    rewritten = data.draw(st.integers(0, old - 1))
    honest, forked = Sparse({rewritten: b"once"}), Sparse({rewritten: b"other"})
    old_root, new_root = tree_root(old, honest.lookup), tree_root(new, forked.lookup)
    for lookup in (honest.lookup, forked.lookup):
        with pytest.raises(InvalidProof):
            verify_consistency(old, new, old_root, new_root, consistency_proof(old, new, lookup))


@given(old_and_new(), st.data())
def test_a_mutated_proof_fails(sizes: tuple[int, int], data: st.DataObject) -> None:
    old, new = sizes
    tree = Sparse({0: b"first", old - 1: b"last of the old tree", new - 1: b"last of the new tree"})
    roots = tree_root(old, tree.lookup), tree_root(new, tree.lookup)
    proof = consistency_proof(old, new, tree.lookup)
    wrong = list(proof)
    kind = data.draw(st.sampled_from(["flip", "drop", "insert"] if proof else ["insert"]))
    at = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    if kind == "flip":
        bit = data.draw(st.integers(0, 8 * HASH_SIZE - 1))
        wrong[at] = (int.from_bytes(wrong[at]) ^ 1 << bit).to_bytes(HASH_SIZE)
    elif kind == "drop":
        del wrong[at]
    else:
        wrong.insert(at, data.draw(st.sampled_from([*proof, *ALIKE[:3], *roots])))
    with pytest.raises(InvalidProof):
        verify_consistency(old, new, *roots, wrong)


@given(subtrees(), st.data())
def test_subtrees(subtree: tuple[int, int, int], data: st.DataObject) -> None:
    start, end, size = subtree
    index = data.draw(st.integers(start, end - 1))
    tree = Sparse({index: b"this one", data.draw(st.integers(0, size - 1)): b"another"})
    part, root = subtree_root(start, end, tree.lookup), tree_root(size, tree.lookup)
    tree.look_ups = 0
    proof = subtree_consistency_proof(start, end, size, tree.lookup)
    assert tree.look_ups <= 126
    verify_subtree_consistency(start, end, size, part, root, proof)
    verify_inclusion(index, size, tree.leaf(index), root, inclusion_proof(index, size, tree.lookup))

    within = inclusion_proof(index - start, end - start, _shifted(tree.lookup, start))
    verify_subtree_inclusion(index, start, end, tree.leaf(index), part, within)

    rewritten = Sparse({index: b"rewritten"})
    with pytest.raises(InvalidProof):
        verify_subtree_consistency(start, end, size, subtree_root(start, end, rewritten.lookup), root, proof)
    with pytest.raises(InvalidProof):
        verify_subtree_inclusion(index, start, end, rewritten.leaf(index), part, within)


def _shifted(lookup: NodeLookup, start: int) -> NodeLookup:
    return lambda level, index: lookup(level, index + (start >> level))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=200), st.data())
@settings(max_examples=50)
def test_trees_of_any_leaves(leaves: list[bytes], data: st.DataObject) -> None:
    tree = MemoryTree()
    for leaf in leaves:
        tree.append(leaf)
    new = data.draw(st.integers(1, len(leaves)))
    old = data.draw(st.integers(0, new))
    verify_consistency(old, new, tree.root(old), tree.root(new), consistency_proof(old, new, tree.node))
    index = data.draw(st.integers(0, new - 1))
    proof = inclusion_proof(index, new, tree.node)
    verify_inclusion(index, new, leaf_hash(leaves[index]), tree.root(new), proof)


@given(
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.lists(st.sampled_from([ALIKE[0], ALIKE[1], b"", b"short"]), max_size=70),
)
def test_any_arguments_give_none_or_invalid_proof(a: int, b: int, c: int, proof: list[bytes]) -> None:
    """Nothing else comes out, and nothing runs on: these numbers do not verify."""
    for root in (ALIKE[0], b""):
        with pytest.raises(InvalidProof):
            verify_consistency(a, b, root, root + b"x", proof)
        with pytest.raises(InvalidProof):
            verify_inclusion(a, b, root, root + b"x", proof)
        with pytest.raises(InvalidProof):
            verify_subtree_consistency(a, b, c, root, root + b"x", proof)
        with pytest.raises(InvalidProof):
            verify_subtree_inclusion(a, b, c, root, root + b"x", proof)
