"""Whether two checkpoints of a log are of one history, by the log's own tiles; if not, the evidence."""

from __future__ import annotations

from feeders.protocol import BadLogData
from witness.bundles.evidence import FORK, Evidence
from witness.reading.edge import Edge
from witness.reading.heads import Forked, Head, Trust, same_size_check
from witness.reading.log import LogReader
from witness.tlog.merkle import EMPTY_ROOT, InvalidProof, verify_consistency
from witness.tlog.note import encode_base64


async def check_consistent(reader: LogReader, one: Head, other: Head, trust: Trust) -> None:
    """Checks that the larger of two checkpoints extends the smaller.

    Tiles that do not lead to the larger one's root prove nothing, and are no fork.

    Raises:
        Forked: it does not, and the tiles show what it extends instead.
        FetchFailed: the tiles could not be had.
        BadLogData: the tiles do not lead to the larger checkpoint's root.
    """
    same_size_check(one, other, trust)
    old, new = sorted((one, other), key=lambda head: head.size)
    if old.size == new.size:
        return
    if old.size == 0:
        if old.checkpoint.root != EMPTY_ROOT:
            raise BadLogData(reader.url, "a checkpoint of size 0 has not the root of the empty tree")
        return
    edge, proof = await checked_edge(reader, old.size, new)
    contained = edge.root()
    if contained != old.checkpoint.root:
        reason = (
            f"{new.checkpoint.origin} has signed two histories: at size {old.size} it has signed root"
            f" {encode_base64(old.checkpoint.root)}, and its tree of size {new.size} contains"
            f" {encode_base64(contained)}"
        )
        keys = trust.log_keys(new.checkpoint.origin)
        raise Forked(reason, Evidence(FORK, keys, (old.note, new.note), contained, proof))


async def checked_edge(reader: LogReader, size: int, head: Head) -> tuple[Edge, tuple[bytes, ...]]:
    """The edge that a signed checkpoint's tree had at an earlier size, and the proof from there.

    Raises:
        FetchFailed: the tiles could not be had.
        BadLogData: they do not lead to the checkpoint's root.
    """
    edge, proof = await reader.consistency(size, head.size)
    try:
        verify_consistency(size, head.size, edge.root(), head.checkpoint.root, proof)
    except InvalidProof as error:
        reader.forget()
        reason = f"the tiles do not lead to the root hash at size {head.size}: {error.reason}"
        raise BadLogData(reader.url, reason) from error
    return edge, proof
