"""Proofs are made for every family, of every source's cosignatures, and only if they verify."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from feeders.protocol import BadLogData, FetchFailed
from tests.reading.world import (
    TestWitness,
    World,
    contents,
    cosigned,
    entry_log,
    policy_of,
    reader,
    sources_of,
    trust_of,
    witness_key,
)
from tests.simulated_log_server import FolderServer
from witness.bundles import Options, verify
from witness.bundles.evidence import format_evidence
from witness.reading.families import FAMILIES
from witness.reading.heads import BadHead, Forked, Trust
from witness.reading.log import LogReader, NotInLog
from witness.reading.making import Made, Maker, NotWitnessed, Wanted, read_entry
from witness.tlog.merkle import leaf_hash
from witness.tlog.note import SignatureType, parse_note, parse_vkey
from witness.tlog.policy import parse_policy
from witness.tlog.proof import parse_proof

if TYPE_CHECKING:
    from pathlib import Path

    from feeders.fetch import HttpFetch
    from witness.reading.post import HttpPost

FAMILY_NAMES = ("tiles", "sumdb", "serverless")
KEYS = [witness_key(f"witness.example/w{number}") for number in range(3)]


def verified(made: Made, trust: Trust, entry: bytes) -> bool:
    return verify(made.proof, dataclasses.replace(trust.options, entry=entry)).verified


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
async def test_every_family_by_index_and_by_content(fetch: HttpFetch, family: str, size: int) -> None:
    log = entry_log(size)
    trust = trust_of(log)
    async with World(log) as world:
        log_reader = reader(world, family, fetch)
        for index in {0, size // 2, size - 1}:
            entry = contents(log)[index]
            for wanted in (
                Wanted(index=index),
                Wanted(entry=entry),
                Wanted(leaf_hash=leaf_hash(entry)),
                Wanted(index=index, entry=entry, extra=b"more"),
            ):
                made = await Maker(log_reader, trust, sources_of(fetch), wanted).make(1)
                assert (made.index, made.size) == (index, size)
                assert verified(made, trust, entry)
                assert not verified(made, trust, entry + b"!")
                assert parse_proof(made.proof).extra == wanted.extra
                assert await read_entry(log_reader, made) == entry


@pytest.mark.parametrize("family", FAMILY_NAMES)
async def test_partial_tiles_and_bundles_that_are_gone(fetch: HttpFetch, family: str) -> None:
    log = entry_log(300)
    async with World(log) as world:
        world.note = log.checkpoint()
        log.append(300)
        # What the full ones have replaced; at level 1 there is none yet.
        world.hidden = {
            "tiles/tile/0/001.p/44",
            "tiles/tile/entries/001.p/44",
            "sumdb/tile/8/0/001.p/44",
            "sumdb/tile/8/data/001.p/44",
            "serverless/tile/00/0000/00/00/01.2c",
        }
        made = await Maker(
            reader(world, family, fetch), trust_of(log), sources_of(fetch), Wanted(index=299)
        ).make(1)
        assert made.size == 300
        assert world.hidden.intersection(world.requests)
        assert await read_entry(reader(world, family, fetch), made) == contents(log)[299]


async def test_an_entry_that_is_not_there(fetch: HttpFetch) -> None:
    log = entry_log(600)
    async with World(log) as world:
        for wanted, said in (
            (Wanted(index=600), "600 entries, none with index 600"),
            (Wanted(entry=b"strange"), "among all 600 entries"),
            (Wanted(entry=contents(log)[0], search=100), "the 344 newest of 600"),
        ):
            maker = Maker(reader(world, "tiles", fetch), trust_of(log), sources_of(fetch), wanted)
            with pytest.raises(NotInLog, match=said):
                await maker.make(1)


async def test_an_index_and_another_content(fetch: HttpFetch) -> None:
    log = entry_log(5)
    async with World(log) as world:
        wanted = Wanted(index=2, entry=contents(log)[3])
        with pytest.raises(Exception, match="inclusion: leaf") as caught:
            await Maker(reader(world, "tiles", fetch), trust_of(log), sources_of(fetch), wanted).make(1)
        assert type(caught.value).__name__ == "NotVerified"


async def test_the_checkpoints_own_cosignatures_are_enough(fetch: HttpFetch) -> None:
    log = entry_log(9)
    async with World(log) as world:
        stranger = witness_key("stranger.example/w")
        world.note = cosigned(log, KEYS[0], stranger, KEYS[1])
        trust = trust_of(log, KEYS, 2)
        sources = sources_of(fetch, distributors=(world.distributor(),), monitoring=(world.witness_url(0),))
        made = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=4)).make(1)
        assert verified(made, trust, contents(log)[4])
        assert not [path for path in world.requests if path[:1] in "dw"]
        # A line that could not be verified is not passed on.
        names = [line.name for line in parse_note(parse_proof(made.proof).checkpoint).signatures]
        assert names == [log.keys[0].name, KEYS[0].name, KEYS[1].name]


async def test_distributors_checkpoint_n(fetch: HttpFetch) -> None:
    log = entry_log(9)
    async with World(log) as world:
        world.distributed["checkpoint.2"] = cosigned(log, KEYS[0], KEYS[2])
        log.append(3)  # the log has grown since: the proof is in the tree that was witnessed
        trust = trust_of(log, KEYS, 2)
        sources = sources_of(fetch, distributors=(world.distributor(),))
        made = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=4)).make(1)
        assert made.size == 9
        assert verified(made, trust, contents(log)[4])
        with pytest.raises(NotWitnessed, match="size 12 is not witnessed"):
            await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=10)).make(1)


async def test_distributors_by_witness_are_merged(fetch: HttpFetch) -> None:
    log = entry_log(9)
    async with World(log) as world:
        # The distributor counts strangers too, so that its N is not ours.
        world.distributed["checkpoint.2"] = cosigned(log, KEYS[0], witness_key("stranger.example/w"))
        for key in KEYS[:2]:
            world.distributed[f"byWitness/{key.name}/checkpoint"] = cosigned(log, key)
        trust = trust_of(log, KEYS, 2)
        sources = sources_of(fetch, distributors=(world.distributor(),))
        made = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=4)).make(1)
        assert verified(made, trust, contents(log)[4])


async def test_witnesses_are_asked_to_cosign(fetch: HttpFetch, post: HttpPost) -> None:
    log = entry_log(300)
    keys = [KEYS[0], witness_key("witness.example/pq", SignatureType.COSIGNATURE_MLDSA44)]
    witnesses = [TestWitness(key) for key in keys]
    witnesses[0].answer(log.add_checkpoint(0, 300))  # one has seen an earlier tree
    log.append(400)
    async with World(log, witnesses) as world:
        trust = trust_of(log, keys, 2)
        urls = (world.witness_url(0), world.witness_url(1))
        sources = sources_of(fetch, post, monitoring=urls, submission=urls)
        made = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=650)).make(1)
        assert made.size == 700
        assert verified(made, trust, contents(log)[650])
        assert world.requests.count("w0/add-checkpoint") == 2  # told 300, then with a proof
        assert world.requests.count("w1/add-checkpoint") == 1
        # Now they serve it themselves, and nobody is asked to sign again.
        world.forget()
        again = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=650)).make(1)
        assert again.size == 700
        assert not [path for path in world.requests if path.endswith("add-checkpoint")]


async def test_waiting_for_the_policy(fetch: HttpFetch) -> None:
    log = entry_log(9)
    async with World(log) as world:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 2:
                world.distributed["checkpoint.1"] = cosigned(log, KEYS[0])

        sources = sources_of(fetch, distributors=(world.distributor(),))
        maker = Maker(reader(world, "tiles", fetch), trust_of(log, KEYS, 1), sources, Wanted(index=4))
        assert (await maker.make(5, sleep)).size == 9
        assert len(slept) == 2


async def test_old_cosignatures_do_not_count(fetch: HttpFetch) -> None:
    log = entry_log(9)
    policy = parse_policy(policy_of(log, KEYS, 1).encode())
    trust = Trust(Options(policy=policy, max_age=3600, now=0))
    async with World(log) as world:
        sources = sources_of(fetch, distributors=(world.distributor(),))
        world.distributed["checkpoint.1"] = cosigned(log, KEYS[0], timestamp=1_000_000)
        maker = Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=4))
        assert (await maker.make(1, now=lambda: 1_003_600.0)).size == 9
        with pytest.raises(NotWitnessed, match="does not count"):
            await maker.make(1, now=lambda: 1_003_601.0)


async def test_one_source_cannot_spoil_another(fetch: HttpFetch, post: HttpPost) -> None:
    log = entry_log(9)
    other = entry_log(9, "other.example/log")
    forger = dataclasses.replace(
        KEYS[0].sign(log.value()), value=KEYS[0].sign(log.value(), wrongly=True).value
    )
    note = parse_note(log.checkpoint())
    bad_line = note.text + b"\n" + note.signatures[0].line().encode() + forger.line().encode()
    async with World(log, [TestWitness(KEYS[1])]) as world:
        urls = (world.witness_url(0),)
        sources = sources_of(
            fetch, post, distributors=("http://127.0.0.1:1", world.distributor()), submission=urls
        )
        trust = trust_of(log, KEYS, 1)
        for lie in (
            bad_line,
            other.checkpoint(),
            b"no note",
            log.checkpoint(keys=[witness_key("x.example")]),
        ):
            world.distributed["checkpoint.1"] = lie
            world.witnesses[0].head = (0, b"")
            world.witnesses[0].head = TestWitness(KEYS[1]).head
            made = await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=4)).make(1)
            assert verified(made, trust, contents(log)[4])
            assert len(made.told) >= 2  # the dead distributor, and the lie


async def test_bad_checkpoints(fetch: HttpFetch) -> None:
    log = entry_log(9)
    async with World(log) as world:
        maker = Maker(reader(world, "tiles", fetch), trust_of(log), sources_of(fetch), Wanted(index=4))
        for lie in (entry_log(9, "other.example/log").checkpoint(), b"no note"):
            world.note = lie
            with pytest.raises(BadHead):
                await maker.make(1)
        world.note = None
        log.sign_wrongly = True
        with pytest.raises(BadHead):
            await maker.make(1)
        world.faults.status = 500
        with pytest.raises(FetchFailed):
            await maker.make(1)


async def test_tiles_and_entries_that_do_not_fit(fetch: HttpFetch) -> None:
    log = entry_log(300)
    async with World(log) as world:
        maker = Maker(reader(world, "tiles", fetch), trust_of(log), sources_of(fetch), Wanted(index=4))
        world.faults.tiles_only = world.faults.wrong_tiles = True
        with pytest.raises(BadLogData, match="do not lead"):
            await maker.make(1)
        world.faults.wrong_tiles = False
        made = await Maker(
            reader(world, "tiles", fetch), trust_of(log), sources_of(fetch), Wanted(index=4)
        ).make(1)
        world.wrong_entries = True
        with pytest.raises(BadLogData, match="another leaf hash"):
            await read_entry(reader(world, "tiles", fetch), made)


@pytest.mark.parametrize(("witnessed", "at"), [(300, 299), (256, 255), (64, 1), (299, 256)])
async def test_a_log_that_shows_others_another_history(fetch: HttpFetch, witnessed: int, at: int) -> None:
    log = entry_log(300)
    fork = log.fork(at)
    fork.append(witnessed - at)
    trust = trust_of(log, KEYS, 1)
    async with World(log) as world:
        world.distributed["checkpoint.1"] = cosigned(fork, KEYS[0])
        sources = sources_of(fetch, distributors=(world.distributor(),))
        with pytest.raises(Forked) as caught:
            await Maker(reader(world, "tiles", fetch), trust, sources, Wanted(index=0)).make(1)
    evidence = format_evidence(caught.value.evidence)
    report = verify(evidence, Options(logs=log.vkeys))
    assert report.verified, report.checks


# --- Real logs ---


async def test_armory_drive(testdata: Path, fetch: HttpFetch) -> None:
    folder = testdata / "logs/serverless/armory-drive-prod2"
    vkey = parse_vkey((folder / "armory-drive-log.pub").read_text().strip())
    trust = Trust(Options(logs=(vkey,), origin="Armory Drive Prod 2"))
    async with FolderServer(folder) as server:
        log = LogReader(server.base, FAMILIES["serverless"], fetch)
        for index in range(2):
            entry = (folder / f"seq/00/00/00/00/{index:02x}").read_bytes()
            made = await Maker(log, trust, sources_of(fetch), Wanted(entry=entry)).make(1)
            assert made.index == index
            assert verified(made, trust, entry)
            assert await read_entry(log, made) == entry


async def test_sum_golang_org(testdata: Path, fetch: HttpFetch) -> None:
    folder = testdata / "logs/sumdb/size11094656"
    proofs = json.loads((folder / "proofs.json").read_text())
    trust = Trust(Options(logs=(parse_vkey(proofs["vkey"]),), origin=proofs["origin"]))
    async with FolderServer(folder) as server:
        log = LogReader(server.base, FAMILIES["sumdb"], fetch)
        made = 0
        for file in sorted((folder / "lookup").rglob("*@*")):
            number, _, rest = file.read_bytes().partition(b"\n")
            record = rest.partition(b"\n\n")[0] + b"\n"
            try:
                proof = await Maker(log, trust, sources_of(fetch), Wanted(entry=record)).make(1)
            except FetchFailed:
                continue  # the test data has the tiles of one of them only
            assert proof.index == int(number)
            assert verified(proof, trust, record)
            made += 1
        assert made


async def test_a_tiled_log_whose_entries_are_fakes(testdata: Path, fetch: HttpFetch) -> None:
    """A mirror in the test data: its tiles are a log's, its entry bundles a line of text."""
    (checkpoint,) = (testdata / "logs/tlog-tiles/skylight-mirror-300").glob("*/checkpoint")
    mirror = json.loads((checkpoint.parent.parent / "mirror.v0.json").read_text())
    (key,) = mirror["verifier_keys"]
    trust = Trust(Options(logs=(parse_vkey(key),), origin="rome2026h1.example.org"))
    async with FolderServer(checkpoint.parent) as server:
        log = LogReader(server.base, FAMILIES["tiles"], fetch)
        for index in (0, 255, 256, 299):
            made = await Maker(log, trust, sources_of(fetch), Wanted(index=index)).make(1)
            options = dataclasses.replace(trust.options, leaf_hash=made.leaf_hash)
            assert verify(made.proof, options).verified
            with pytest.raises(BadLogData, match="malformed entries"):
                await read_entry(log, made)
