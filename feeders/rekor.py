"""Rekor v1: Sigstore's log of signatures until 2025, in shards behind one server.

Source: openapi.yaml of github.com/sigstore/rekor. `GET api/v1/log` tells of all shards: the active one, and
`inactiveShards`. One answer is therefore shared by all shards of a server that are polled. A shard is named
by its tree ID, which the URL gives as `?treeID=…`; else it is the last word of the origin. (Rekor v2 is a
tiled log.)
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from feeders.answers import MAX_PROOF_SIZE, hex_bytes, json_object, text, texts
from feeders.proofs import checked_proof
from feeders.protocol import BadLogData, BadUrl, FeedLog, LogSource
from feeders.tools import Tools
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.submission import MAX_PROOF_LINES

MAX_INFO_SIZE: Final = 256 * 1024
"""Bytes of a log-info answer: some 500 a shard, of which there were three in 2026."""

_SHARED_PART: Final = 0.8
"""The part of a log's interval for which an answer that another shard asked for is good enough. Less than the
shortest jittered interval, so that a shard never meets its own last answer."""
_TREE_ID: Final = re.compile(r"[0-9]{1,20}")


class RekorShard:
    """A `LogSource` for one shard.

    Args:
        base: the server's URL, without query.
        tree_id: the shard's tree ID, decimal.
        interval: seconds between polls of the shard.
        tools: the GET, and answers shared with the other shards.
    """

    def __init__(self, base: str, tree_id: str, interval: float, tools: Tools) -> None:
        self._prefix = base.rstrip("/") + "/api/v1/"
        self._tree_id = tree_id
        self._max_age = _SHARED_PART * interval
        self._tools = tools

    async def fetch_checkpoint(self) -> bytes:
        """See `LogSource.fetch_checkpoint`: `signedTreeHead` of this shard."""
        url = self._prefix + "log"
        info = json_object(url, await self._tools.shared.get(url, MAX_INFO_SIZE, self._max_age))
        shard = self._shard(url, info)
        return text(url, shard, "signedTreeHead").encode("utf-8", "replace")

    def _shard(self, url: str, info: dict[str, Any]) -> dict[str, Any]:
        inactive = info.get("inactiveShards")
        for shard in (info, *(inactive if isinstance(inactive, list) else ())):
            if isinstance(shard, dict) and shard.get("treeID") == self._tree_id:
                return shard
        raise BadLogData(url, f"no shard has the tree ID {self._tree_id}")

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """See `LogSource.fetch_consistency_proof`."""

        async def ask(first: int) -> tuple[bytes, ...]:
            query = f"firstSize={first}&lastSize={checkpoint.size}&treeID={self._tree_id}"
            url = f"{self._prefix}log/proof?{query}"
            fields = json_object(url, await self._tools.fetch(url, MAX_PROOF_SIZE))
            lines = texts(url, fields, "hashes", MAX_PROOF_LINES)
            return tuple(hex_bytes(url, "hashes", line) for line in lines)

        return await checked_proof(self._prefix, old_size, checkpoint, old_root, ask)


def rekor_source(log: FeedLog, tools: Tools) -> LogSource:
    """A shard of a Rekor v1 server.

    Raises:
        BadUrl: neither the URL's query nor the origin names a tree ID.
    """
    parts = urlsplit(log.url)
    named = parse_qs(parts.query).get("treeID") or [log.origin.rpartition(" ")[2]]
    if _TREE_ID.fullmatch(named[0]) is None:
        raise BadUrl(log.url, "a rekor log's URL names its shard: ?treeID=NUMBER")
    base = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return RekorShard(base, named[0], log.interval, tools)
