"""Real logs of the test data, served on loopback: real tiles, real keys, real checkpoints."""

from __future__ import annotations

import base64
import json
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from feeders.kinds import make_source
from feeders.poll import FeedLog, LogPoller, Status
from feeders.tools import Tools
from tests.feeders.world import Clock, JudgingCore, source_of
from tests.simulated_log_server import FolderServer
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.note import parse_note, parse_vkey
from witness.tlog.signature import verify_note

if TYPE_CHECKING:
    from pathlib import Path

    from feeders.fetch import HttpFetch

ASTRA = "astra+cad5a3d2+AZJqeuyE/GnknsCNh1eCtDtwdAwKBddOlS8M2eI1Jt4b"


def checkpoint_of(note: bytes) -> Checkpoint:
    return parse_checkpoint(parse_note(note).text)


def poller(log: FeedLog, fetch: HttpFetch, core: JudgingCore) -> LogPoller:
    return LogPoller(log, make_source(log, Tools(fetch)), core.submit, Clock().now, 600)


async def test_armory_drive(testdata: Path, fetch: HttpFetch) -> None:
    folder = testdata / "logs/serverless/armory-drive-prod2"
    vkey = parse_vkey((folder / "armory-drive-log.pub").read_text().strip())
    async with FolderServer(folder) as server:
        log = FeedLog("Armory Drive Prod 2", (vkey,), "serverless", server.base, 30)
        core = JudgingCore()
        first = poller(log, fetch, core)
        await first.poll()
        assert first.state.status is Status.CURRENT
        head = checkpoint_of((folder / "checkpoint").read_bytes())
        assert core.heads == {"Armory Drive Prod 2": (2, head.root)}
        assert server.requests == ["checkpoint"]

        # From its first leaf: the root of a tree of one leaf is that leaf's hash.
        tile = (folder / "tile/00/0000/00/00/00.01").read_text().splitlines()
        core.heads["Armory Drive Prod 2"] = (1, base64.b64decode(tile[2]))
        server.forget()
        grown = poller(log, fetch, core)
        await grown.poll()
        assert grown.state.status is Status.CURRENT
        assert core.heads["Armory Drive Prod 2"] == (2, head.root)
        assert server.requests == ["checkpoint", "tile/00/0000/00/00/00.02"]


async def test_sum_golang_org(testdata: Path, fetch: HttpFetch) -> None:
    folder = testdata / "logs/sumdb/size11094656"
    proofs = json.loads((folder / "proofs.json").read_text())
    vkey = parse_vkey(proofs["vkey"])
    roots = {(c := checkpoint_of(item["note"].encode())).size: c for item in proofs["checkpoints"]}
    async with FolderServer(folder) as server:
        log = FeedLog(proofs["origin"], (vkey,), "sumdb", server.base + "/", 30)
        source = source_of("sumdb", log.url, fetch)
        for case in proofs["consistency"]:
            old, new = roots[case["old"]], roots[case["new"]]
            expected = tuple(base64.b64decode(line) for line in case["proof"])
            assert await source.fetch_consistency_proof(old.size, new, old.root) == expected
            assert await source.fetch_consistency_proof(old.size, new) == expected

        core = JudgingCore()
        old, new = roots[11094215], roots[11094656]
        core.heads[log.origin] = (old.size, old.root)
        server.forget()
        polled = poller(log, fetch, core)
        await polled.poll()
        assert polled.state.status is Status.CURRENT, polled.state.last_error
        assert core.heads[log.origin] == (new.size, new.root)
        assert len(server.requests) == len(set(server.requests))
        assert set(server.requests) == {
            "latest",
            "tile/8/0/x043/336",  # the old size lies in it
            "tile/8/0/x043/338.p/128",  # the new size's right edge
            "tile/8/1/169.p/74",
            "tile/8/2/000.p/169",
        }


async def test_a_tiled_log(testdata: Path, fetch: HttpFetch) -> None:
    """A mirror's view of a log, signed by the mirror: as good as a log for its tiles."""
    folders = sorted((testdata / "logs/tlog-tiles/skylight-mirror-300").glob("*/checkpoint"))
    assert len(folders) == 1
    mirror = json.loads((folders[0].parent.parent / "mirror.v0.json").read_text())
    (vkey,) = (parse_vkey(text) for text in mirror["verifier_keys"])
    async with FolderServer(folders[0].parent) as server:
        log = FeedLog("rome2026h1.example.org", (vkey,), "tiles", server.base, 30)
        core = JudgingCore()
        polled = poller(log, fetch, core)
        await polled.poll()
        assert polled.state.status is Status.CURRENT, polled.state.last_error

        source = source_of("tiles", server.base, fetch)
        head = checkpoint_of(await source.fetch_checkpoint())
        tree = merkle.MemoryTree()
        leaves = (folders[0].parent / "tile/0/000").read_bytes()
        leaves += (folders[0].parent / "tile/0/001.p/44").read_bytes()
        for start in range(0, len(leaves), 32):
            tree.append_hash(leaves[start : start + 32])
        assert tree.root() == head.root
        for old in range(1, 300):
            proof = await source.fetch_consistency_proof(old, head, tree.root(old))
            assert list(proof) == merkle.consistency_proof(old, 300, tree.node)


async def test_serverless_log_at_all_sizes(testdata: Path, fetch: HttpFetch) -> None:
    folder = testdata / "logs/serverless/serverless-log-testdata"
    vkey = parse_vkey(ASTRA)
    heads: dict[int, Checkpoint] = {}
    for size in range(16):
        note = parse_note((folder / f"checkpoint.{size}").read_bytes())
        assert len(verify_note(note, [vkey])) == 1
        heads[size] = parse_checkpoint(note.text)
        assert heads[size].size == size
    async with FolderServer(folder) as server:
        source = source_of("serverless", server.base, fetch)
        for old, new in combinations(range(1, 16), 2):
            server.forget()
            proof = await source.fetch_consistency_proof(old, heads[new], heads[old].root)
            merkle.verify_consistency(old, new, heads[old].root, heads[new].root, proof)
            assert server.requests == [f"tile/00/0000/00/00/00.{new:02x}"]


@pytest.mark.parametrize("size", range(16))
async def test_serverless_log_is_followed_from_any_size(testdata: Path, fetch: HttpFetch, size: int) -> None:
    folder = testdata / "logs/serverless/serverless-log-testdata"
    async with FolderServer(folder) as server:
        log = FeedLog("example.com/testdata", (parse_vkey(ASTRA),), "serverless", server.base, 30)
        core = JudgingCore()
        polled = poller(log, fetch, core)
        server.faults.checkpoint = (folder / f"checkpoint.{size}").read_bytes()
        await polled.poll()
        assert (polled.state.status, polled.state.size) == (Status.CURRENT, size)
        server.faults.checkpoint = None
        await polled.poll()
        assert (polled.state.status, polled.state.size) == (Status.CURRENT, 15)
        assert [submission.old_size for submission in core.submissions] == ([0, size] if size < 15 else [0])
