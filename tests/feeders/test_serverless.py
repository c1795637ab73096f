"""The text of serverless tiles, and their paths."""

from __future__ import annotations

import base64

import pytest

from feeders.serverless import SERVERLESS
from witness.tlog.tiles import MalformedTile, Tile

HASHES = [bytes([i]) * 32 for i in range(256)]
LINES = [base64.b64encode(value).decode() for value in HASHES]


def text(count: str, *lines: str, size: str = "32") -> bytes:
    return "\n".join([size, count, *lines, ""]).encode()


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 1), "tile/00/0000/00/00/00.01"),
        (Tile(0, 0), "tile/00/0000/00/00/00"),
        (Tile(0xEF & 0x3F, 0x123456789, 0xAB), "tile/2f/0123/45/67/89.ab"),  # the layout's own example
        (Tile(1, 0x12345678, 255), "tile/01/0012/34/56/78.ff"),
        (Tile(7, 0x123456789ABC), "tile/07/123456/78/9a/bc"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert SERVERLESS.tile_path(tile) == path


def test_leaves_stand_at_the_even_positions() -> None:
    body = text("3", LINES[0], LINES[100], LINES[1], "", LINES[2])
    assert SERVERLESS.tile_hashes(Tile(0, 0, 3), body) == b"".join(HASHES[:3])
    assert SERVERLESS.tile_hashes(Tile(0, 0, 2), body) == b"".join(HASHES[:2])
    full = text("256", *[line for leaf in LINES for line in (leaf, "")])
    assert SERVERLESS.tile_hashes(Tile(0, 0), full) == b"".join(HASHES)
    assert len(full) <= SERVERLESS.tile_limit(Tile(0, 0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"32",
        b"32\n",
        b"32\n3",
        b"\n" * 1000,
        text("2", LINES[0], "", LINES[1]),  # fewer leaves than asked for
        text("257", *LINES, *LINES),
        text("03", LINES[0], "", LINES[1], "", LINES[2]),
        text("-3", LINES[0], "", LINES[1], "", LINES[2]),
        text("３", LINES[0], "", LINES[1], "", LINES[2]),
        text("3", LINES[0], "", LINES[1], "", LINES[2], size="33"),
        text("3", LINES[0], "", LINES[1]),
        text("3", LINES[0], "", LINES[1], "", ""),
        text("3", LINES[0], "", LINES[1], "", LINES[2][:-4]),
        text("3", LINES[0], "", LINES[1], "", LINES[2] + "AAAA"),
        text("3", LINES[0], "", LINES[1], "", "!" + LINES[2][1:]),
        text("3", LINES[0], "", LINES[1], "", LINES[2] + "\r"),
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedTile):
        SERVERLESS.tile_hashes(Tile(0, 0, 3), body)
