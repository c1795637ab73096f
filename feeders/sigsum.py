"""Sigsum logs, over their ASCII API.

Specification: log.md of https://git.glasklar.is/sigsum/project/documentation, sections 2.2 (formats), 3.1
(get-tree-head) and 3.3 (get-consistency-proof). What a log signs is a checkpoint: its origin is
`sigsum.org/v1/tree/` and the hash of its key in lowercase hexadecimal.
"""

from __future__ import annotations

import re
from typing import Final

from feeders.answers import MAX_PROOF_SIZE, hex_bytes
from feeders.proofs import checked_proof
from feeders.protocol import BadLogData, FeedLog, LogSource
from feeders.tools import Tools
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import Signature, SignatureType, format_note
from witness.tlog.signature import verify_signature
from witness.tlog.submission import MAX_PROOF_LINES

MAX_TREE_HEAD_SIZE: Final = 64 * 1024
"""Bytes of a get-tree-head answer: some 250, and 230 for each witness's cosignature."""

_SIGNATURE_SIZE: Final = 64
# Section 2.2.1: "a sequence of one or more ASCII decimal digits, regex 0|[1-9][0-9]*".
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class SigsumLog:
    """A `LogSource` over Sigsum's API.

    Args:
        log: its URL is the log's base URL.
        tools: the GET.
    """

    def __init__(self, log: FeedLog, tools: Tools) -> None:
        self._log = log
        self._prefix = log.url.rstrip("/") + "/"
        self._tools = tools
        self._keys = [key for key in log.vkeys if key.type is SignatureType.ED25519]

    async def fetch_checkpoint(self) -> bytes:
        """See `LogSource.fetch_checkpoint`: the tree head as the checkpoint that the signature covers.

        The witnesses' cosignatures are left out: they name keys by hashes, and nobody here asks for them.
        """
        url = self._prefix + "get-tree-head"
        pairs = _pairs(url, await self._tools.latest(url, MAX_TREE_HEAD_SIZE))
        names = [name for name, _ in pairs]
        head = ["size", "root_hash", "signature"]
        if names[:3] != head or any(name != "cosignature" for name in names[3:]):
            raise BadLogData(
                url, "not a tree head: size, root_hash, signature and cosignatures in this order"
            )
        size = pairs[0][1]
        if _NUMBER.fullmatch(size) is None or int(size) > MAX_TREE_SIZE:
            raise BadLogData(url, "size is not a tree size")
        root = hex_bytes(url, "root_hash", pairs[1][1])
        value = hex_bytes(url, "signature", pairs[2][1], _SIGNATURE_SIZE)
        if not self._keys:
            raise BadLogData(url, "no key of type 0x01 is configured for this log")
        text = Checkpoint(self._log.origin, int(size), root).text()
        key = self._keys[0]
        if len(self._keys) > 1:
            key = next((each for each in self._keys if verify_signature(each, text, value)), key)
        return format_note(text, [Signature(key.name, key.key_id, value)])

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """See `LogSource.fetch_consistency_proof`."""

        async def ask(first: int) -> tuple[bytes, ...]:
            url = f"{self._prefix}get-consistency-proof/{first}/{checkpoint.size}"
            pairs = _pairs(url, await self._tools.fetch(url, MAX_PROOF_SIZE))
            if len(pairs) > MAX_PROOF_LINES or any(name != "node_hash" for name, _ in pairs):
                raise BadLogData(url, "not a proof: node_hash lines alone")
            return tuple(hex_bytes(url, "node_hash", value) for _, value in pairs)

        return await checked_proof(self._prefix, old_size, checkpoint, old_root, ask)


def _pairs(url: str, body: bytes) -> list[tuple[str, str]]:
    """The lines `Key=Value` of an answer (section 2.2.1)."""
    try:
        lines = body.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise BadLogData(url, "the answer is not ASCII") from error
    if lines.pop() != "":
        raise BadLogData(url, "the answer does not end with a new line")
    pairs = []
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals:
            raise BadLogData(url, "a line without an equal sign")
        pairs.append((name, value))
    return pairs


def sigsum_source(log: FeedLog, tools: Tools) -> LogSource:
    """A Sigsum log."""
    return SigsumLog(log, tools)
