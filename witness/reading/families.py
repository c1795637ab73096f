"""Where logs of a family keep their entries, and how these are written. Pure.

| kind | checkpoint and tiles | entries |
|---|---|---|
| tiles | c2sp.org/tlog-tiles | `tile/entries/<N>[.p/<W>]`: each a big-endian uint16 length and the entry |
| sumdb | golang.org/x/mod/sumdb | `tile/8/data/<N>[.p/<W>]`: records, each with an empty line after it |
| serverless | transparency-dev/serverless-log | `seq/NN/NN/NN/NN/NN`: one file an entry |

The hash tiles are the feeders' affair; their layouts are used as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from feeders.geometry import Tile as AnyTile
from feeders.serverless import SERVERLESS
from feeders.sumdb import SUMDB
from feeders.tiles import TLOG_TILES, TileLayout
from witness.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, index_path

MAX_ENTRY_SIZE: Final = 1 << 20
"""Bytes of an entry that is a resource by itself (serverless)."""

MAX_BUNDLE_SIZE: Final = TILE_WIDTH * (2 + 0xFFFF)
"""Bytes of a full bundle: tlog-tiles' length prefix allows no more, and sumdb's records are far shorter."""

_MODULE_LINE: Final = re.compile(rb"([^\s]+) (v[^\s/]+)(?:/go\.mod)? h1:")
_HEX_INDEX: Final = re.compile(rb"[0-9a-f]{1,10}\n?")
_UPPER: Final = re.compile(r"[A-Z]")


class MalformedEntries(Exception):
    """A bundle of entries is not of the form that its family gives; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Family:
    """What a family of logs differs in.

    Attributes:
        kind: its name, as for feeders.
        layout: its checkpoint and hash tiles.
        span: entries in one full resource: 256, or 1.
        entries_path: (number of the resource, entries in it) -> its path; fewer than `span`: a partial one.
        entries_limit: bytes of such a resource, at most.
        split: (body, number of entries) -> exactly so many entries; raises MalformedEntries.
        finder: (entry or None, leaf hash) -> the path of a resource that names its index, or None.
        found: the body of that resource -> the index; raises MalformedEntries.
    """

    kind: str
    layout: TileLayout
    span: int
    entries_path: Callable[[int, int], str]
    entries_limit: int
    split: Callable[[bytes, int], tuple[bytes, ...]]
    finder: Callable[[bytes | None, bytes], str | None]
    found: Callable[[bytes], int]

    def tile_path(self, tile: Tile) -> str:
        """The path of a hash tile."""
        return self.layout.tile_path(_any(tile))

    def tile_limit(self, tile: Tile) -> int:
        """The most bytes that its resource may have."""
        return self.layout.tile_limit(_any(tile))

    def tile_hashes(self, tile: Tile, body: bytes) -> bytes:
        """The tile's raw hashes; raises `witness.tlog.tiles.MalformedTile`."""
        return self.layout.tile_hashes(_any(tile), body)


def _any(tile: Tile) -> AnyTile:
    return AnyTile(TILE_HEIGHT, tile.level, tile.index, tile.width)


# --- tlog-tiles ---


def split_bundle(body: bytes, count: int) -> tuple[bytes, ...]:
    """The entries of an entry bundle (tlog-tiles, Log entries).

    Raises:
        MalformedEntries: the body is not exactly `count` entries.
    """
    # SPEC tlog-tiles: "Entry bundles are sequences of big-endian uint16 length-prefixed log entries."
    entries: list[bytes] = []
    at = 0
    for _ in range(count):
        end = at + 2 + int.from_bytes(body[at : at + 2])
        if at + 2 > len(body) or end > len(body):
            raise MalformedEntries(f"ends within entry {len(entries)} of {count}")
        entries.append(body[at + 2 : end])
        at = end
    if at != len(body):
        raise MalformedEntries(f"{len(body) - at} bytes after {count} entries")
    return tuple(entries)


def _bundle_path(prefix: str) -> Callable[[int, int], str]:
    def path(number: int, width: int) -> str:
        suffix = "" if width == TILE_WIDTH else f".p/{width}"
        return f"{prefix}{index_path(number)}{suffix}"

    return path


# --- sumdb ---


def split_records(body: bytes, count: int) -> tuple[bytes, ...]:
    r"""The records of a data tile: each ends in `\n`, and an empty line stands after it.

    golang.org/x/mod/sumdb: "Data tiles contain formatted records without the first line with record ID."
    Some databases leave the last empty line out.

    Raises:
        MalformedEntries: the body is not exactly `count` records.
    """
    whole = body if body.endswith(b"\n\n") else body + b"\n"
    records = whole.split(b"\n\n")
    if records.pop() or len(records) != count or not all(records):
        raise MalformedEntries(f"not {count} records, each with an empty line after it")
    return tuple([record + b"\n" for record in records])


def lookup_path(record: bytes | None, leaf_hash: bytes) -> str | None:  # noqa: ARG001 - a finder's shape
    """Where a checksum database tells a record's number: `lookup/<module>@<version>`, escaped.

    golang.org/x/mod/module, EscapePath: an upper case letter is written as `!` and its lower case.
    """
    match = _MODULE_LINE.match(record) if record is not None else None
    if match is None:
        return None
    try:
        module, version = match[1].decode("ascii"), match[2].decode("ascii")
    except UnicodeDecodeError:
        return None
    return f"lookup/{_escaped(module)}@{_escaped(version)}"


def _escaped(text: str) -> str:
    return _UPPER.sub(lambda letter: "!" + letter[0].lower(), text)


def _lookup_number(body: bytes) -> int:
    number = body.partition(b"\n")[0]
    if not number.isdigit() or len(number) > 18:  # noqa: PLR2004 - below 2^63
        raise MalformedEntries("a look-up without a record number")
    return int(number)


# --- serverless ---


def _sequence_path(number: int, width: int) -> str:  # noqa: ARG001 - always 1
    digits = f"{number:010x}"
    return "seq/" + "/".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _leaf_path(entry: bytes | None, leaf_hash: bytes) -> str:  # noqa: ARG001 - a finder's shape
    digits = leaf_hash.hex()
    return f"leaves/{digits[:2]}/{digits[2:4]}/{digits[4:6]}/{digits[6:]}"


def _leaf_number(body: bytes) -> int:
    if not _HEX_INDEX.fullmatch(body):
        raise MalformedEntries("a leaf's file without an index in hexadecimal")
    return int(body, 16)


def _one_entry(body: bytes, count: int) -> tuple[bytes, ...]:
    if count != 1:
        raise ValueError("a resource of one entry")
    return (body,)


def _nowhere(entry: bytes | None, leaf_hash: bytes) -> str | None:  # noqa: ARG001 - a finder's shape
    return None


def _nothing(body: bytes) -> int:  # noqa: ARG001 - never called: nothing is asked for
    raise MalformedEntries("this family names no index")


FAMILIES: Final[dict[str, Family]] = {
    family.kind: family
    for family in (
        Family(
            "tiles",
            TLOG_TILES,
            TILE_WIDTH,
            _bundle_path("tile/entries/"),
            MAX_BUNDLE_SIZE,
            split_bundle,
            _nowhere,
            _nothing,
        ),
        Family(
            "sumdb",
            SUMDB,
            TILE_WIDTH,
            _bundle_path("tile/8/data/"),
            MAX_BUNDLE_SIZE,
            split_records,
            lookup_path,
            _lookup_number,
        ),
        Family(
            "serverless", SERVERLESS, 1, _sequence_path, MAX_ENTRY_SIZE, _one_entry, _leaf_path, _leaf_number
        ),
    )
}
"""The families whose entries can be read, by kind."""
