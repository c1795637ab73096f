"""Families whose logs hand out proofs themselves: rfc6962, rekor and sigsum, against servers that lie."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from feeders.fetch import HttpFetch
from feeders.kinds import make_source
from feeders.poll import LogPoller
from feeders.proofs import implied_old_root
from feeders.protocol import BadLogData, FeedLog, FetchFailed, NotFound, TooLong, WrongProof
from feeders.states import Status
from feeders.tools import SharedAnswers, Tools
from tests.feeders.world import Clock, JudgingCore, log_of, source_of
from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.simulated_log_server import FolderServer, LoopbackServer, SimulatedLogServer
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.note import SignatureType, parse_note, parse_vkey
from witness.tlog.signature import verify_note

FAMILIES = ["rekor", "rfc6962", "sigsum"]


def source(family: str, server: SimulatedLogServer, fetch: HttpFetch) -> Any:
    return source_of(family, server.url(family), fetch, server.log.vkeys, origin=server.log.origin)


def poller(log: FeedLog, fetch: HttpFetch, core: JudgingCore, tools: Tools | None = None) -> LogPoller:
    return LogPoller(log, make_source(log, tools or Tools(fetch)), core.submit, Clock().now, 600)


@pytest.mark.parametrize("old", range(1, 33))
def test_a_proof_says_what_the_old_root_was(old: int) -> None:
    log = SimulatedLog(size=70)
    fork = log.fork(at=1)
    fork.append(69)
    for new in range(old + 1, 70):
        proof = log.proof(old, new)
        if not old & (old - 1):
            continue
        assert implied_old_root(old, new, proof, log.root(new)) == log.root(old)
        assert implied_old_root(old, new, proof, fork.root(new)) is None
        assert implied_old_root(old, new, proof[:-1], log.root(new)) is None
        assert implied_old_root(old, new, (*proof, proof[0]), log.root(new)) is None
        assert implied_old_root(old, new, (proof[0][:31], *proof[1:]), log.root(new)) is None
    assert implied_old_root(old, 70, (), log.root(70)) is None


@pytest.mark.parametrize("family", FAMILIES)
async def test_serves_a_verifiable_checkpoint_and_proofs(family: str, fetch: HttpFetch) -> None:
    log = log_of(family, size=20)
    async with SimulatedLogServer(log) as server:
        polled = source(family, server, fetch)
        note = parse_note(await polled.fetch_checkpoint())
        assert parse_checkpoint(note.text) == log.value()
        assert [each.key for each in verify_note(note, log.vkeys)] == list(log.vkeys)
        for old, new in combinations(range(1, 21), 2):
            server.forget()
            assert await polled.fetch_consistency_proof(old, log.value(new), log.root(old)) == log.proof(
                old, new
            )
            assert len(server.requests) == 1
            assert await polled.fetch_consistency_proof(old, log.value(new)) == log.proof(old, new)
        for old in (0, 20, 21):
            with pytest.raises(ValueError, match="no consistency proof"):
                await polled.fetch_consistency_proof(old, log.value())


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_log_is_followed_as_it_grows_by_much(family: str, fetch: HttpFetch) -> None:
    log = log_of(family, size=1_000_000_000, huge=True)
    core = JudgingCore()
    async with SimulatedLogServer(log) as server:
        interval = 1e-9  # no answer is young enough to be shared
        feed = FeedLog(log.origin, log.vkeys, family, server.url(family), interval)
        polled = poller(feed, fetch, core)
        for growth in (0, 1, 1000, 1_000_000, 0):
            log.append(growth)
            server.forget()
            await polled.poll()
            assert polled.state.status is Status.CURRENT, polled.state.last_error
            assert core.heads[log.origin] == (log.size, log.root())
            assert len(server.requests) == (2 if growth else 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("old", [1, 5, 8, 12, 16, 19])
async def test_wrong_proofs_are_told_from_forks(family: str, old: int, fetch: HttpFetch) -> None:
    log = log_of(family, size=20)
    async with SimulatedLogServer(log) as server:
        polled = source(family, server, fetch)
        server.faults.wrong_proofs = True
        with pytest.raises(WrongProof, match="does not lead to the root hash"):
            await polled.fetch_consistency_proof(old, log.value(), log.root(old))
        server.faults.wrong_proofs = False
        fork = log.fork(at=0)
        fork.append(20)
        server.log = fork
        if old in (1, 16):  # at 1 no proof shows the old root: it stays undecided
            with suppress(WrongProof):
                proof = await polled.fetch_consistency_proof(old, fork.value(), log.root(old))
                assert proof == fork.proof(old)
        else:
            proof = await polled.fetch_consistency_proof(old, fork.value(), log.root(old))
            assert proof == fork.proof(old), "the core must see what proves the fork"


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_fork_and_an_older_checkpoint_have_their_names(family: str, fetch: HttpFetch) -> None:
    log = log_of(family, size=20)
    core = JudgingCore()
    async with SimulatedLogServer(log) as server:
        polled = poller(FeedLog(log.origin, log.vkeys, family, server.url(family), 0.0001), fetch, core)
        await polled.poll()
        older, fork = log.fork(15), log.fork(7)
        server.log = older
        assert await polled.poll() is Status.STALE
        fork.append(13)
        server.log = fork
        assert await polled.poll() is Status.FORK  # the same size, another root
        fork.append(5)
        assert await polled.poll() is Status.FORK
        assert core.heads[log.origin] == (20, log.root())
        server.log = log
        log.append(1)
        assert await polled.poll() is Status.CURRENT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"status": 500}, FetchFailed),
        ({"status": 404}, NotFound),
        ({"short_by": 3}, BadLogData),
        ({"endless": True}, TooLong),
        ({"gzip_bomb": True}, TooLong),
        ({"checkpoint": b"\xff\xfe"}, BadLogData),
        ({"checkpoint": b"[" * 5000}, BadLogData),
        ({"checkpoint": b"[]"}, BadLogData),
        ({"checkpoint": b"{}"}, BadLogData),
        ({"checkpoint": b""}, BadLogData),
    ],
)
async def test_faulty_servers_have_typed_errors(
    family: str, faults: dict[str, object], error: type[Exception], fetch: HttpFetch
) -> None:
    log = log_of(family, size=20)
    async with SimulatedLogServer(log) as server:
        for name, value in faults.items():
            setattr(server.faults, name, value)
        with pytest.raises(error):
            await source(family, server, fetch).fetch_checkpoint()
        if faults.get("checkpoint") != b"":
            with pytest.raises(error):
                await source(family, server, fetch).fetch_consistency_proof(7, log.value(), log.root(7))


GOOD_STH = {
    "tree_size": 5,
    "timestamp": 1_700_000_000_000,
    "sha256_root_hash": base64.b64encode(bytes(32)).decode(),
    "tree_head_signature": base64.b64encode(b"\x04\x03\x00\x01x").decode(),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tree_size", -1), ("tree_size", "5"), ("tree_size", 2**63), ("tree_size", True), ("tree_size", 5.0),
        ("timestamp", -1), ("timestamp", 2**64), ("timestamp", None),
        ("sha256_root_hash", base64.b64encode(bytes(31)).decode()), ("sha256_root_hash", "é"),
        ("sha256_root_hash", 7), ("tree_head_signature", ""), ("tree_head_signature", "AAAA"),
        ("tree_head_signature", base64.b64encode(b"\x04\x03\x00\x02x").decode()),
    ],
)  # fmt: skip
async def test_tree_heads_of_another_form(name: str, value: object, fetch: HttpFetch) -> None:
    key = SimulatedKey("ct.example", SignatureType.RFC6962).vkey
    for fields, bad in ((GOOD_STH, False), (GOOD_STH | {name: value}, True)):
        async with LoopbackServer(lambda _, fields=fields: json.dumps(fields).encode()) as server:
            polled = source_of("rfc6962", server.base, fetch, (key,), origin="ct.example")
            if bad:
                with pytest.raises(BadLogData):
                    await polled.fetch_checkpoint()
            else:
                assert b"ct.example\n5\n" in await polled.fetch_checkpoint()


@pytest.mark.parametrize(
    "answer",
    [
        "root_hash={0}\nsize=5\nsignature={1}\n", "size=05\nroot_hash={0}\nsignature={1}\n",
        "size=9223372036854775808\nroot_hash={0}\nsignature={1}\n", "size=5\nroot_hash={1}\nsignature={1}\n",
        "size=5\nroot_hash={0}\nsignature={0}\n", "size=5\nroot_hash={0}\nsignature={1}",
        "size=5\nroot_hash={0}\nsignature={1}\nmore=1\n", "size=5\nroot_hash={0}\n",
        "size=5\n\nroot_hash={0}\n",
        "size=٥\nroot_hash={0}\nsignature={1}\n",
    ],
)  # fmt: skip
async def test_sigsum_answers_of_another_form(answer: str, fetch: HttpFetch) -> None:
    key = SimulatedKey("sigsum.example").vkey
    good = "size=5\nroot_hash={0}\nsignature={1}\ncosignature=whatever it says\n"
    for text in (good, answer):
        body = text.format("ab" * 32, "CD" * 64).encode()
        async with LoopbackServer(lambda _, body=body: body) as server:
            polled = source_of("sigsum", server.base, fetch, (key,), origin="sigsum.example")
            if text is good:
                assert b"sigsum.example\n5\n" in await polled.fetch_checkpoint()
            else:
                with pytest.raises(BadLogData):
                    await polled.fetch_checkpoint()


@pytest.mark.parametrize(
    ("family", "type_"), [("rfc6962", SignatureType.RFC6962), ("sigsum", SignatureType.ED25519)]
)
async def test_of_several_keys_the_one_that_signed_is_named(
    family: str, type_: SignatureType, fetch: HttpFetch
) -> None:
    keys = [SimulatedKey("log.example", type_, number) for number in range(3)]
    vkeys = tuple(key.vkey for key in keys)
    for key in keys:
        log = SimulatedLog("log.example", size=9, keys=[key])
        async with SimulatedLogServer(log) as server:
            polled = source_of(family, server.url(family), fetch, vkeys, origin="log.example")
            note = parse_note(await polled.fetch_checkpoint())
            assert [each.key for each in verify_note(note, vkeys)] == [key.vkey]
    async with SimulatedLogServer(log) as server:
        with pytest.raises(BadLogData, match="no key of type"):
            await source_of(family, server.url(family), fetch, (), origin="log.example").fetch_checkpoint()


async def test_the_shards_of_a_rekor_share_one_answer(fetch: HttpFetch) -> None:
    clock = Clock()
    tools = Tools(fetch, fetch.latest, now=clock.now)
    active = log_of("rekor", size=50, origin="rekor.example - 1193050959916656506")
    shards = {str(n): log_of("rekor", size=n, origin=f"rekor.example - {n}") for n in (7, 8)}
    async with SimulatedLogServer(active) as server:
        server.shards = shards
        core = JudgingCore()
        pollers = [
            poller(
                FeedLog(log.origin, log.vkeys, "rekor", server.url("rekor").partition("?")[0], 60),
                fetch,
                core,
                tools,
            )
            for log in (active, *shards.values())
        ]
        for round_ in range(3):
            clock.advance(60)
            active.append(round_)
            await asyncio.gather(*(each.poll() for each in pollers))
            assert [each.state.status for each in pollers] == [Status.CURRENT] * 3
            clock.advance(20)
            await pollers[1].poll()
        infos = [path for path in server.requests if path == "rekor/api/v1/log"]
        assert len(infos) == 3
        assert core.heads[active.origin] == (53, active.root())
        with pytest.raises(BadLogData, match="no shard has the tree ID 9"):
            await source_of("rekor", server.base + "/rekor?treeID=9", fetch).fetch_checkpoint()


async def test_a_shared_failure_is_one_request_too() -> None:
    asked, gate = 0, asyncio.Event()

    async def fails(url: str, limit: int) -> bytes:
        nonlocal asked
        asked += 1
        await gate.wait()
        raise FetchFailed(url, "status 500")

    shared = SharedAnswers(fails)
    tasks = [asyncio.create_task(shared.get("http://x/", 10, 60)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, FetchFailed) for each in outcomes)
    assert asked == 1
    with pytest.raises(FetchFailed):
        await shared.get("http://x/", 10, 60)
    assert asked == 2, "a later one asks anew"


# Real data.


async def test_the_real_rekor_answer(testdata: Path, fetch: HttpFetch) -> None:
    data = json.loads((testdata / "feeders/rekor-v1.json").read_text())
    real, vkey = data["log_info_real"], parse_vkey(data["log_info_real"]["vkey"])
    core = JudgingCore()
    async with LoopbackServer({real["path"][1:]: json.dumps(real["body"]).encode()}.get) as server:
        for shard in (real["body"], *real["body"]["inactiveShards"]):
            origin = f"rekor.sigstore.dev - {shard['treeID']}"
            feed = FeedLog(origin, (vkey,), "rekor", f"{server.base}?treeID={shard['treeID']}", 60)
            polled = poller(feed, fetch, core)
            await polled.poll()
            assert polled.state.status is Status.CURRENT, polled.state.last_error
            assert core.heads[origin] == (shard["treeSize"], bytes.fromhex(shard["rootHash"]))

    proof = data["proof_synthetic"]
    path = proof["path"][1:].replace("<id>", "17")
    async with LoopbackServer({path: json.dumps(proof["body"]).encode()}.get) as server:
        polled = source_of("rekor", f"{server.base}?treeID=17", fetch)
        new = Checkpoint("rekor", 21, bytes.fromhex(proof["body"]["rootHash"]))
        old_root = bytes.fromhex(proof["old_root"])
        found = await polled.fetch_consistency_proof(13, new, old_root)
        assert [each.hex() for each in found] == proof["body"]["hashes"]
        merkle.verify_consistency(13, 21, old_root, new.root, found)


@pytest.mark.parametrize("old", range(1, 11))
async def test_the_generated_pixel_log(testdata: Path, fetch: HttpFetch, old: int) -> None:
    data = json.loads((testdata / "feeders/pixel.json").read_text())["generated"]
    leaves = bytearray()
    for path in sorted((testdata / "logs/pixel/generated-size11/tile/1/0").glob("0??")):
        leaves += path.read_bytes()
    leaves += (testdata / "logs/pixel/generated-size11/tile/1/0/005.p/1").read_bytes()
    tree = merkle.MemoryTree()
    for start in range(0, len(leaves), 32):
        tree.append_hash(bytes(leaves[start : start + 32]))
    assert (tree.size, tree.root()) == (11, base64.b64decode(data["root"]))
    async with FolderServer(testdata / "logs/pixel/generated-size11") as server:
        note = parse_note((testdata / "logs/pixel/generated-size11/checkpoint.txt").read_bytes())
        origin = parse_checkpoint(note.text).origin
        feed = FeedLog(origin, (parse_vkey(data["vkey"]),), "pixel", server.base, 60)
        core = JudgingCore()
        core.heads[origin] = (old, tree.root(old))
        polled = poller(feed, fetch, core)
        await polled.poll()
        assert polled.state.status is Status.CURRENT, polled.state.last_error
        assert core.heads[origin] == (11, tree.root())


JWT_CHECKPOINT = b"""gstatic.com/android/binary_transparency/google1p/jwt/0
234
HpW7vHFFioFiMf0IglK1B3MLk80iaGOC6Ud6Etq038U=

\xe2\x80\x94 gstatic.com/android/binary_transparency/google1p/jwt/0 \
qsuhszBFAiEAomG6In9+okg+Pj1Jw4JpWfignNeNXQweJxoYf9q59GMCIEyy/Ebu096WrCsT9L0Dv5D1EBHzqNQ26A1XcnNESPKX
"""
"""From the tests of github.com/android/android-binary-transparency: a log with tiles of height 8, 2026/01."""


async def test_a_real_checkpoint_of_a_pixel_log_of_height_8(fetch: HttpFetch) -> None:
    import yaml

    listed = yaml.safe_load((Path(__file__).parents[2] / "config/logs.yaml").read_text())["logs"]
    origin = "gstatic.com/android/binary_transparency/google1p/jwt/0"
    (entry,) = (each for each in listed if each["origin"] == origin)
    assert entry["url"].endswith("?height=8")
    core = JudgingCore()
    async with LoopbackServer({"checkpoint.txt": JWT_CHECKPOINT}.get) as server:
        feed = FeedLog(origin, (parse_vkey(entry["vkeys"][0]),), "pixel", f"{server.base}?height=8", 60)
        polled = poller(feed, fetch, core)
        await polled.poll()
        assert polled.state.status is Status.CURRENT, polled.state.last_error
        assert core.heads[origin][0] == 234
