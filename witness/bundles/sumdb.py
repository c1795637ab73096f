"""The Go checksum database: look-ups and go.sum lines (golang.org/x/mod/sumdb; go.dev/ref/mod).

A look-up is the record's number, the record, an empty line, and a signed tree head. The head's signature
says nothing about the record beside it: only the tree's hashes do. These come as tiles among the artifacts,
under the paths that the database serves them at (`tile/8/0/x021/020`), or, for a record, as a tlog-proof.
A look-up without them is not verified.

go.sum lines are verified when each stands in a record that is: give the look-ups as artifacts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from witness.bundles.judge import INCLUSION, Head, Judge
from witness.bundles.options import Options
from witness.bundles.report import Learned, MalformedBundle, Report
from witness.tlog.merkle import (
    MAX_TREE_SIZE,
    inclusion_nodes,
    inclusion_proof,
    leaf_hash,
)
from witness.tlog.note import MalformedNote, check_text
from witness.tlog.tiles import MalformedTile, Tile, node_from_tile, parse_tile_path, tile_for_node, tiles_for

LOOKUP: Final = "sumdb-lookup"
GO_SUM: Final = "go.sum"

MAX_LINES: Final = 1 << 16
"""Most lines of a go.sum file."""

_PREFIX: Final = "tile/8/"
_KEPT_NODES: Final = 1 << 16
_ID: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_LINE: Final = re.compile(rb"([^\s]+) (v[^\s/]+)(/go\.mod)? (h1:[A-Za-z0-9+/]{43}=)")


@dataclass(frozen=True, slots=True)
class SumdbLookup:
    """A parsed look-up.

    Attributes:
        id: the record's number, which is its index in the log.
        record: the record's lines, each with its newline: the log's leaf.
        tree: the signed tree head.
    """

    id: int
    record: bytes
    tree: bytes
    format: str = LOOKUP

    def judge(self, judge: Judge) -> None:
        """The tree head, and the record in it."""
        _judge_lookup(judge, self, TileSet(judge))

    def learned(self) -> Learned:
        """The tree head."""
        return Learned((self.tree,))


@dataclass(frozen=True, slots=True)
class GoSum:
    """Parsed go.sum lines, without newlines."""

    lines: tuple[bytes, ...]
    format: str = GO_SUM

    def judge(self, judge: Judge) -> None:
        """Every line stands in a record of a look-up that verifies."""
        tiles = TileSet(judge)
        proven: set[bytes] = set()
        for name, content in judge.options.artifacts.items():
            if name.startswith("tile/"):
                continue
            try:
                lookup = parse_lookup(content)
            except MalformedBundle:
                continue  # not a look-up: it stays unused, and the report says so
            judge.artifact(name)
            if _judge_lookup(judge, lookup, tiles):
                proven.update(lookup.record.split(b"\n"))
        missing = [line for line in self.lines if line not in proven]
        for line in missing:
            judge.check("line", False, f"in no verified record: {line.decode('utf-8', 'replace')}")
        if not missing:
            judge.check("lines", True, f"all {len(self.lines)} stand in verified records")

    def learned(self) -> Learned:
        """Nothing: go.sum carries no tree head."""
        return Learned()


class TileSet:
    """The given tiles. What they say is believed only once a root hash bears it out."""

    def __init__(self, judge: Judge) -> None:
        """Takes the tiles out of a judge's artifacts."""
        self._tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
        for name in judge.options.artifacts:
            content = judge.artifact(name) if name.startswith("tile/") else None
            if content is not None:
                self._add(judge, name, content)
        self.node = lru_cache(maxsize=_KEPT_NODES)(self._node)

    def _add(self, judge: Judge, name: str, content: bytes) -> None:
        try:
            tile = parse_tile_path("tile/" + name.removeprefix(_PREFIX))
        except MalformedTile as error:
            judge.check(f"artifact {name}", False, error.reason)
            return
        if not name.startswith(_PREFIX) or len(content) != tile.data_length:
            judge.check(f"artifact {name}", False, f"expected {tile.data_length} bytes, found {len(content)}")
            return
        # Of one place the widest tile has all that the others have.
        kept = self._tiles.get((tile.level, tile.index))
        if kept is None or kept[0].width < tile.width:
            self._tiles[tile.level, tile.index] = (tile, content)

    def _node(self, level: int, index: int) -> bytes:
        # At the least size that has the node, its tile is the one of its place.
        place = tile_for_node(level, index, (index + 1) << level)
        kept = self._tiles.get((place.level, place.index))
        if kept is None or kept[0].width < place.width:
            raise KeyError(_path(place))
        return node_from_tile(*kept, level, index)


def _path(tile: Tile) -> str:
    return _PREFIX + tile.path().removeprefix("tile/")


def needed_tiles(data: bytes) -> tuple[str, ...]:
    """The tiles that verifying a look-up needs, as the database's paths; none for anything else.

    Where the tree has grown since, the full tile of the same place serves as well.
    """
    try:
        lookup = parse_lookup(data)
        size = _tree_size(lookup.tree)
    except MalformedBundle:
        return ()
    if not lookup.id < size <= MAX_TREE_SIZE:
        return ()
    return tuple(_path(tile) for tile in tiles_for(inclusion_nodes(lookup.id, size), size))


def _tree_size(tree: bytes) -> int:
    number = tree.split(b"\n", 2)[1:2]
    if not number or not _ID.fullmatch(number[0]):
        raise MalformedBundle(LOOKUP, "the tree head has no size")
    return int(number[0])


def verify_lookups(lookups: Iterable[bytes], options: Options) -> Iterator[Report]:
    """Verify many look-ups by the same tiles, one report each, in their order.

    Memory does not grow with their number: tiles are read once, and hashes made of them are kept up to a
    bound. Neither does the work repeat: a tree head's signature is checked once for all in a row that
    carry it.

    Raises:
        MalformedBundle: at one that is no look-up.
    """
    first = Judge(LOOKUP, options)
    tiles = TileSet(first)
    tree, head, before = b"", None, first
    for data in lookups:
        lookup = parse_lookup(data)
        if head is None or lookup.tree != tree:
            before = first.again()
            tree, head = lookup.tree, before.head(lookup.tree)
        judge = before.again()
        _judge_record(judge, lookup, head, tiles)
        yield judge.report()


def _judge_lookup(judge: Judge, lookup: SumdbLookup, tiles: TileSet) -> bool:
    checks = len(judge.checks)
    head = judge.head(lookup.tree)
    _judge_record(judge, lookup, head, tiles)
    return all(check.ok for check in judge.checks[checks:])


def _judge_record(judge: Judge, lookup: SumdbLookup, head: Head | None, tiles: TileSet) -> None:
    judge.same_entry(lookup.record)
    leaf = leaf_hash(lookup.record)
    size = head.checkpoint.size if head is not None else 0
    if lookup.id >= size:
        judge.check(INCLUSION, False, f"expected a tree with a record {lookup.id}, found size {size}")
        return
    try:
        proof = inclusion_proof(lookup.id, size, tiles.node)
    except KeyError as error:
        detail = (
            f"a signed tree head says nothing of the record beside it; expected {error.args[0]}, not given"
        )
        judge.check(INCLUSION, False, detail)
        return
    judge.inclusion(lookup.id, leaf, proof, head)


def recognises_lookup(data: bytes) -> bool:
    """Whether the bytes begin as a look-up: a number, then a go.sum line."""
    lines = data.split(b"\n", 2)
    return len(lines) > 2 and _ID.fullmatch(lines[0]) is not None and _LINE.fullmatch(lines[1]) is not None  # noqa: PLR2004


def recognises_go_sum(data: bytes) -> bool:
    """Whether the first line is a go.sum line."""
    return _LINE.fullmatch(data.partition(b"\n")[0]) is not None


def parse_lookup(data: bytes) -> SumdbLookup:
    """Parse a look-up; raises MalformedBundle."""
    number, _, rest = data.partition(b"\n")
    if not _ID.fullmatch(number) or int(number) > MAX_TREE_SIZE:
        raise MalformedBundle(LOOKUP, "the first line is no record number")
    # SPEC golang.org/x/mod/sumdb/tlog, ParseRecord: a record's text is valid UTF-8, has no empty line, and
    # ends at the first one.
    text, separator, tree = rest.partition(b"\n\n")
    record = text + b"\n"
    if not separator or not text or not tree:
        raise MalformedBundle(LOOKUP, "no record with a tree head after it")
    try:
        check_text(record)
    except MalformedNote as error:
        raise MalformedBundle(LOOKUP, f"the record: {error.reason}") from error
    return SumdbLookup(int(number), record, tree)


def parse_go_sum(data: bytes) -> GoSum:
    """Parse go.sum lines; raises MalformedBundle."""
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_LINES:
        raise MalformedBundle(GO_SUM, f"{len(lines)} lines, more than {MAX_LINES}")
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            raise MalformedBundle(GO_SUM, f"line {number} is no go.sum line")
    return GoSum(tuple(lines))
