"""Serverless logs: a folder of static files, as transparency-dev/serverless-log lays them out.

Source: api/layout/README.md and api/state.go of github.com/transparency-dev/serverless-log. The checkpoint
lies at `checkpoint`. Tiles of height 8 lie at `tile/LL/IIII/II/II/II[.ww]` (level, index and, where the
tile is partial, width; hexadecimal) and are text: a line `32` (bytes a hash), a line with the number of
leaves, and one base64 line a node in the order of an in-order walk. The node at height k and index i of
the tile stands at 2^(k+1)*i + 2^k - 1, so leaves stand at the even positions; the line of a node that the
tree does not have yet is empty. Inner nodes follow from the leaves, so only the leaves are taken.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from feeders.tiles import TiledLog
from witness.tlog.merkle import HASH_SIZE
from witness.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, MalformedTile

if TYPE_CHECKING:
    from feeders.geometry import Tile
    from feeders.protocol import FeedLog, LogSource
    from feeders.tools import Tools

_LINE_LENGTH: Final = 45  # 32 bytes in base64, and a newline
_MAX_TILE_SIZE: Final = len("32\n256\n") + (2 * TILE_WIDTH) * _LINE_LENGTH
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,2}")


class ServerlessLayout:
    """A `feeders.tiles.TileLayout`."""

    checkpoint_path = "checkpoint"
    height = TILE_HEIGHT

    def tile_path(self, tile: Tile) -> str:
        """`tile/LL/IIII/II/II/II[.ww]`."""
        index = f"{tile.index:010x}"
        elements = (index[:-6], index[-6:-4], index[-4:-2], index[-2:])
        suffix = "" if tile.is_full else f".{tile.width:02x}"
        return f"tile/{tile.level:02x}/{'/'.join(elements)}{suffix}"

    def tile_limit(self, tile: Tile) -> int:  # noqa: ARG002 - the answer may be wider than what was asked for
        """The size of a full tile: partial ones may be links to the full one that replaced them."""
        return _MAX_TILE_SIZE

    def tile_hashes(self, tile: Tile, body: bytes) -> bytes:
        """The first `tile.width` leaves of the text; a tile with more of them is taken too.

        Raises:
            MalformedTile: the text is not of the form above, or has fewer leaves.
        """
        hash_size, count, *nodes = body.split(b"\n", 2 + 2 * TILE_WIDTH) + [b""] * 2
        if hash_size != b"32":
            raise MalformedTile("the first line is not 32")
        if _COUNT.fullmatch(count) is None or not tile.width <= int(count) <= TILE_WIDTH:
            raise MalformedTile(
                f"the second line is not a number of leaves from {tile.width} to {TILE_WIDTH}"
            )
        leaves = nodes[: 2 * tile.width : 2]
        if len(leaves) != tile.width:
            raise MalformedTile("fewer nodes than the tile has leaves")
        return b"".join(_hash(leaf) for leaf in leaves)


def _hash(line: bytes) -> bytes:
    try:
        value = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise MalformedTile("a leaf's line is not base64") from error
    if len(value) != HASH_SIZE:
        raise MalformedTile(f"a leaf is not {HASH_SIZE} bytes long")
    return value


SERVERLESS: Final = ServerlessLayout()


def serverless_source(log: FeedLog, tools: Tools) -> LogSource:
    """A serverless log, such as the Armory Drive log."""
    return TiledLog(log.url, tools, SERVERLESS)
