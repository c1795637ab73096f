"""The Go checksum database: look-ups by tiles, go.sum lines by look-ups, and many at once."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest

from tests.bundles.world import SUMDB_ORIGIN, Log, outcome, sumdb_key, sumdb_tiles
from tests.simulated_log import SimulatedKey
from witness.bundles import MalformedBundle, Options, trust_in, verify
from witness.bundles.sumdb import needed_tiles, verify_lookups
from witness.tlog.merkle import leaf_hash
from witness.tlog.tiles import parse_tile_path

KEY = SimulatedKey("sum.example")


def record(number: int) -> bytes:
    digest = "A" * 40 + f"{number:03d}"
    module = f"example.com/m v1.{number}.0"
    return f"{module} h1:{digest}=\n{module}/go.mod h1:{digest}=\n".encode()


class Database(Log):
    def __init__(self, size: int) -> None:
        super().__init__([record(number) for number in range(size)], KEY, SUMDB_ORIGIN)

    def lookup(self, number: int, size: int | None = None) -> bytes:
        return b"%d\n%b\n%b" % (number, self.leaves[number], self.note(size))

    def tile(self, path: str) -> bytes:
        tile = parse_tile_path(path.replace("tile/8/", "tile/"))
        return b"".join(
            self.tree.node(8 * tile.level, 256 * tile.index + position) for position in range(tile.width)
        )

    def tiles(self, lookup: bytes) -> dict[str, bytes]:
        return {path: self.tile(path) for path in needed_tiles(lookup)}


OPTIONS = Options(logs=(KEY.vkey,), origin=SUMDB_ORIGIN)
DATABASE = Database(600)


@pytest.mark.parametrize("number", [0, 255, 256, 511, 512, 599])
def test_lookups(number: int) -> None:
    data = DATABASE.lookup(number)
    tiles = DATABASE.tiles(data)
    assert not outcome(data, replace(OPTIONS, artifacts=tiles))
    for path in tiles:
        fewer = {each: content for each, content in tiles.items() if each != path}
        assert outcome(data, replace(OPTIONS, artifacts=fewer)) == {"inclusion"}, path
        broken = tiles | {path: bytes(len(tiles[path]))}
        assert outcome(data, replace(OPTIONS, artifacts=broken)) == {"inclusion"}, path
    assert outcome(data, OPTIONS) == {"inclusion"}  # a signed head beside a record proves nothing


def test_a_forged_record_beside_a_real_head() -> None:
    data = DATABASE.lookup(7).replace(b"v1.7.0 h1:A", b"v1.7.0 h1:B")
    assert outcome(data, replace(OPTIONS, artifacts=DATABASE.tiles(data))) == {"inclusion"}
    beyond = b"600\n" + DATABASE.lookup(7).partition(b"\n")[2]
    assert outcome(beyond, replace(OPTIONS, artifacts=DATABASE.tiles(DATABASE.lookup(7)))) == {"inclusion"}


def test_wider_tiles_serve_for_narrower_ones() -> None:
    data = DATABASE.lookup(550, 560)
    tiles = DATABASE.tiles(DATABASE.lookup(550))
    assert not outcome(data, replace(OPTIONS, artifacts=tiles))
    assert "tile/8/0/002.p/88" in tiles
    assert "tile/8/0/002.p/48" in needed_tiles(data)


def test_tiles_of_another_form() -> None:
    data = DATABASE.lookup(0)
    tiles = DATABASE.tiles(data)
    for name, content in (
        ("tile/8/x", b""),
        ("tile/8/0/000", b"short"),
        ("tile/0/000", bytes(8192)),
        ("other", b""),
    ):
        assert f"artifact {name}" in outcome(data, replace(OPTIONS, artifacts=tiles | {name: content}))


def test_real_lookups_by_real_tiles(testdata: Path) -> None:
    folder = testdata / "logs/sumdb/size11094656"
    options = Options(logs=(sumdb_key(),), origin=SUMDB_ORIGIN, artifacts=sumdb_tiles(folder))
    proofs = {each["lookup"]: each for each in json.loads((folder / "proofs.json").read_text())["inclusion"]}
    for path in (folder / "lookup").rglob("*@*"):
        data = path.read_bytes()
        entry = proofs[str(path.relative_to(folder))]
        report = verify(data, options)
        assert report.verified
        assert any(f"entry {entry['index']} of " in check.detail for check in report.checks)
        for needed in needed_tiles(data):
            assert (folder / needed).exists()


def test_quoted_lookups_without_tiles(testdata: Path) -> None:
    table = json.loads((testdata / "proofs/sumdb/lookups.json").read_text())
    options = Options(logs=(sumdb_key(),), origin=SUMDB_ORIGIN)
    for entry in table["lookups"]:
        data = entry["response"].encode()
        assert outcome(data, replace(options, entry=entry["record"].encode())) == {"inclusion"}
        steps = {check.name: check.ok for check in verify(data, options).checks}
        assert steps["log signature"] is (entry["signature"] == "verified")
        assert trust_in(data).checkpoints[0].split(b"\n")[1] == str(entry["tree_size"]).encode()


def test_the_given_entry_is_the_record() -> None:
    data = DATABASE.lookup(3)
    options = replace(OPTIONS, artifacts=DATABASE.tiles(data))
    assert not outcome(data, replace(options, entry=record(3)))
    assert not outcome(data, replace(options, leaf_hash=leaf_hash(record(3))))
    assert outcome(data, replace(options, entry=record(4))) == {"entry"}


def test_go_sum() -> None:
    lookups = {f"m{number}": DATABASE.lookup(number) for number in (3, 400)}
    tiles = {path: each for lookup in lookups.values() for path, each in DATABASE.tiles(lookup).items()}
    options = replace(OPTIONS, artifacts=lookups | tiles)
    assert not outcome(record(3) + record(400), options)
    assert not outcome(record(400).splitlines()[1] + b"\n" + record(3), options)
    assert outcome(record(3) + record(4), options) == {"line"}
    assert outcome(record(3), replace(OPTIONS, artifacts=lookups)) == {"inclusion", "line"}
    assert outcome(record(3), replace(options, artifacts=options.artifacts | {"x": b"no look-up"})) == {
        "artifact x"
    }
    assert outcome(record(3), OPTIONS) == {"line"}
    assert outcome(record(3) + b"garbage\n", options) == {"malformed"}
    assert outcome(record(3) + b"\n", options) == {"malformed"}


def test_two_roots_in_one_go() -> None:
    fork = Database(600)
    fork.leaves[9] = b"x"
    forked = Log(fork.leaves, KEY, SUMDB_ORIGIN)
    lookup = b"3\n%b\n%b" % (record(3), forked.note())
    options = replace(OPTIONS, artifacts={"a": DATABASE.lookup(3), "b": lookup} | DATABASE.tiles(lookup))
    assert "consistency" in outcome(record(3), options)


def test_malformed() -> None:
    good = DATABASE.lookup(3)
    for data in (
        good.replace(b"3\n", b"03\n", 1),
        good.replace(b"3\n", b"9223372036854775808\n", 1),
        good.partition(b"\n\n")[0] + b"\n",
        good.replace(b"example.com", b"exampl\xff.com", 1),
    ):
        assert outcome(data, OPTIONS) == {"malformed"}


def test_many_in_one_call() -> None:
    """The generator keeps nothing: it is fed and read one by one."""
    numbers = [*range(600), *repeat(5, 400)]
    tiles = {}
    for number in (0, 255, 256, 511, 512, 599):
        tiles |= DATABASE.tiles(DATABASE.lookup(number))
    lookups = [DATABASE.lookup(number) for number in numbers]
    lookups[77] = lookups[77].replace(b"h1:A", b"h1:B", 1)
    reports = list(verify_lookups(iter(lookups), replace(OPTIONS, artifacts=tiles)))
    assert [report.verified for report in reports] == [at != 77 for at in range(len(numbers))]
    alone = [verify(lookup, replace(OPTIONS, artifacts=tiles)) for lookup in lookups[:100]]
    assert reports[:100] == alone
    with pytest.raises(MalformedBundle):
        list(verify_lookups([b"x"], OPTIONS))
