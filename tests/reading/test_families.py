"""How entries are written: exactly so, or not at all."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.reading.edge import Edge
from witness.reading.families import FAMILIES, MalformedEntries, lookup_path, split_bundle, split_records
from witness.tlog.merkle import MemoryTree, leaf_hash, root_nodes


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(-1, 1))
def test_a_bundle_is_exactly_its_entries(entries: list[bytes], off: int) -> None:
    body = b"".join(len(each).to_bytes(2) + each for each in entries)
    assert split_bundle(body, len(entries)) == tuple(entries)
    if off and len(entries) + off >= 0:
        with pytest.raises(MalformedEntries):
            split_bundle(body, len(entries) + off)
    with pytest.raises(MalformedEntries):
        split_bundle(body + b"\0", len(entries))
    if body:
        with pytest.raises(MalformedEntries):
            split_bundle(body[:-1], len(entries))


@given(st.binary(max_size=80), st.integers(0, 5))
def test_any_bytes_give_entries_or_the_one_error(body: bytes, count: int) -> None:
    for family in FAMILIES.values():
        if family.span > 1:
            with contextlib.suppress(MalformedEntries):
                assert len(family.split(body, count)) == count


@pytest.mark.parametrize("end", [b"\n", b""], ids=["with the last empty line", "without it"])
def test_records(end: bytes) -> None:
    body = b"a v1 h1:x\na v1/go.mod h1:y\n\nb v2 h1:z\n" + end
    assert split_records(body, 2) == (b"a v1 h1:x\na v1/go.mod h1:y\n", b"b v2 h1:z\n")
    for count in (1, 3):
        with pytest.raises(MalformedEntries):
            split_records(body, count)


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n", b"a", b"a\n\n\n\nb\n\n"])
def test_no_records(body: bytes) -> None:
    for count in (0, 1, 2):
        with pytest.raises(MalformedEntries):
            split_records(body, count)


def test_paths() -> None:
    assert FAMILIES["tiles"].entries_path(1234067, 256) == "tile/entries/x001/x234/067"
    assert FAMILIES["tiles"].entries_path(0, 17) == "tile/entries/000.p/17"
    assert FAMILIES["sumdb"].entries_path(1234, 256) == "tile/8/data/x001/234"
    assert FAMILIES["serverless"].entries_path(0x1234, 1) == "seq/00/00/00/12/34"
    record = b"github.com/AuroraYolo/moody v0.2.0 h1:x=\n"
    assert lookup_path(record, b"") == "lookup/github.com/!aurora!yolo/moody@v0.2.0"
    assert lookup_path(b"no module line", b"") is None


@given(st.integers(0, 70), st.integers(0, 70))
def test_an_edge_is_the_tree(before: int, more: int) -> None:
    tree = MemoryTree()
    leaves = [leaf_hash(b"%d" % index) for index in range(before + more)]
    for leaf in leaves:
        tree.append_hash(leaf)
    edge = Edge().grown(leaves[:before])
    assert edge.root() == tree.root(before)
    edge = edge.grown(leaves[before:])
    assert (edge.size, edge.root()) == (before + more, tree.root())
    assert edge.hashes == tuple(tree.node(*place) for place in root_nodes(edge.size))


def test_hashes_that_are_no_edge() -> None:
    for size, hashes in ((1, ()), (2, (bytes(32), bytes(32))), (1, (b"short",))):
        with pytest.raises(ValueError, match="hash"):
            Edge(size, hashes)
