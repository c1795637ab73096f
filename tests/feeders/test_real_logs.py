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
from tests.simulated_log import SimulatedKey
from tests.simulated_log_server import FolderServer, LoopbackServer
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.note import SignatureType, format_note, parse_note, parse_vkey
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


async def test_real_checkpoints_of_static_ct_logs(testdata: Path, fetch: HttpFetch) -> None:
    """Each one with a signature of type 0x05 whose key is known is taken, and cosigned as a first contact."""
    known = json.loads((testdata / "checkpoints/all-known-keys.json").read_text())
    taken = set()
    for entry in json.loads((testdata / "checkpoints/index.json").read_text()):
        keys = [f"{each['name']}+{each['key_id']}" for each in entry["signatures"] if each["type"] == 5]
        vkeys = tuple(parse_vkey(known[key]["vkey"]) for key in keys if key in known)
        if not vkeys:
            continue
        note = (testdata / "checkpoints" / entry["file"]).read_bytes()
        async with LoopbackServer({"checkpoint": note}.get) as server:
            core = JudgingCore()
            polled = poller(FeedLog(entry["origin"], vkeys, "static-ct", server.base, 30), fetch, core)
            await polled.poll()
            assert polled.state.status is Status.CURRENT, polled.state.last_error
            assert core.heads[entry["origin"]][0] == entry["size"]
            taken.add(entry["origin"])
    assert len(taken) >= 3


async def test_real_tiles_of_a_static_ct_log(testdata: Path, fetch: HttpFetch) -> None:
    """Sunlight's own tiles of its first 1,024 entries; the level above and the checkpoints are made here."""
    folder = testdata / "logs/static-ct/sunlight-navigli2025h2/tile/0"
    tree = merkle.MemoryTree()
    leaves = b"".join((folder / f"00{n}").read_bytes() for n in range(4))
    for start in range(0, len(leaves), 32):
        tree.append_hash(leaves[start : start + 32])
    assert tree.size == 1024
    assert (folder / "003.p/10").read_bytes() == leaves[768 * 32 : 778 * 32]
    key = SimulatedKey("navigli2025h2.example", SignatureType.RFC6962)
    head = [778]

    def serve(path: str) -> bytes | None:
        if path == "checkpoint":
            checkpoint = Checkpoint(key.name, head[0], tree.root(head[0]))
            return format_note(checkpoint.text(), [key.sign(checkpoint)])
        if path.startswith("tile/1/000.p/"):
            return b"".join(tree.node(8, n) for n in range(int(path.rpartition("/")[2])))
        file = folder.parent.parent / path
        return file.read_bytes() if file.is_file() else None

    async with LoopbackServer(serve) as server:
        core = JudgingCore()
        polled = poller(FeedLog(key.name, (key.vkey,), "static-ct", server.base, 30), fetch, core)
        for old in (700, 778):
            core.heads[key.name] = (old, tree.root(old))
            head[0] = 778 if old < 778 else 1024
            assert await polled.poll() is Status.CURRENT, polled.state.last_error
            assert core.heads[key.name] == (head[0], tree.root(head[0]))
        assert "tile/0/003.p/10" in server.requests
        assert server.requests[-2:] == ["checkpoint", "tile/0/003"]  # the edge at 778 was known
