"""The Go checksum database, and logs that serve its API.

Source: https://go.dev/design/25530-sumdb and golang.org/x/mod/sumdb. The checkpoint lies at `/latest`, the
tiles of height 8 at `/tile/8/L/NNN[.p/W]`; their hashes are those of tlog-tiles, which was made from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from feeders.tiles import RawTileLayout, TiledLog

if TYPE_CHECKING:
    from feeders.protocol import FeedLog, LogSource
    from feeders.tools import Tools

SUMDB: Final = RawTileLayout(checkpoint_path="latest", prefix="tile/8/")
"""`latest` and `tile/8/<L>/<N>[.p/<W>]`."""


def sumdb_source(log: FeedLog, tools: Tools) -> LogSource:
    """A checksum database, such as https://sum.golang.org."""
    return TiledLog(log.url, tools, SUMDB)
