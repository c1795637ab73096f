"""Android's binary transparency logs: images of Pixel phones, and Google's applications on them.

Source: https://developers.google.com/android/binary_transparency/tile and the verifier that Android
publishes (github.com/android/android-binary-transparency, verifier_tools). The checkpoint lies at
`checkpoint.txt`. Tiles are named as golang.org/x/mod/sumdb/tlog names them, `tile/H/L/NNN[.p/W]`. The first
logs have tiles of height 1, at most two hashes each; later ones height 8, which the log's URL says with
`?height=8`. (The newest shards follow tlog-tiles instead: their feeder is `tiles`.)
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from feeders.protocol import BadUrl, FeedLog, LogSource
from feeders.tiles import RawTileLayout, TiledLog
from feeders.tools import Tools

LAYOUTS: Final = {height: RawTileLayout("checkpoint.txt", f"tile/{height}/", height) for height in (1, 8)}
"""Layout by tile height."""


def pixel_source(log: FeedLog, tools: Tools) -> LogSource:
    """A log of Android's, with tiles of height 1, or 8 where the URL's query says so.

    Raises:
        BadUrl: the query is something else.
    """
    parts = urlsplit(log.url)
    wish = parse_qs(parts.query, keep_blank_values=True)
    height = wish.pop("height", ["1"])
    if wish or height not in (["1"], ["8"]):
        raise BadUrl(log.url, "a pixel log's URL has no query but height=1 or height=8")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return TiledLog(url, tools, LAYOUTS[int(height[0])])
