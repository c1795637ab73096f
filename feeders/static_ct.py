"""Certificate Transparency logs with the static API: Sunlight's, TesseraCT's and others.

Specification: https://c2sp.org/static-ct-api. Polled is the *monitoring prefix*: its checkpoint, with a
signature of type 0x05, and its tiles are those of tlog-tiles. The origin is the *submission prefix*, which
the checkpoint's signature does not cover: the core compares it, and refuses extension lines.
"""

from __future__ import annotations

from feeders.protocol import FeedLog, LogSource
from feeders.tiles import TLOG_TILES, TiledLog
from feeders.tools import Tools


def static_ct_source(log: FeedLog, tools: Tools) -> LogSource:
    """A static-ct log by its monitoring prefix."""
    return TiledLog(log.url, tools, TLOG_TILES)
