"""Feeding witnesses over tlog-witness: sizes learnt by 409, proofs shared, each answer told by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from feeders.feeding import Feed
from feeders.fetch import HttpFetch
from feeders.kinds import make_source
from feeders.protocol import FeedLog
from feeders.states import Status
from feeders.tools import Tools
from feeders.witness_client import MAX_ANSWER, WitnessClient
from tests.feeders.world import Clock, JudgingCore
from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.core.refusals import (
    CoreError,
    CoreUnreachable,
    InvalidProof,
    MalformedRequest,
    NoTrustedSignature,
    Overloaded,
    Refusal,
    RootMismatch,
    StaleOldSize,
    UnknownOrigin,
)
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.note import SignatureType


class HttpWitness:
    """A witness that judges, behind HTTP. `answer` is given instead of its own, while it is set."""

    def __init__(self, name: str) -> None:
        self.core = JudgingCore()
        self.key = SimulatedKey(name, SignatureType.COSIGNATURE_ED25519)
        self.answer: tuple[int, str, bytes] | None = None
        self.requests = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/w"
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        assert (request.method, request.path) == ("POST", "/w/add-checkpoint")
        self.requests += 1
        if self.answer is not None:
            status, type_, body = self.answer
            return web.Response(status=status, headers={"Content-Type": type_}, body=body)
        try:
            await self.core.submit(await request.read())
        except StaleOldSize as error:
            return web.Response(
                status=409, headers={"Content-Type": "text/x.tlog.size"}, body=b"%d\n" % error.known
            )
        except (RootMismatch, InvalidProof) as error:
            return web.Response(status=422, text=str(error))
        submission = self.core.submissions[-1]
        line = self.key.sign(submission.checkpoint).line()
        return web.Response(body=line.encode())


def feed_of(
    server: SimulatedLogServer, session: aiohttp.ClientSession, clock: Clock, urls: list[str]
) -> Feed:
    fetch = HttpFetch(session, "tests")
    log = FeedLog(server.log.origin, server.log.vkeys, "tiles", server.url("tiles"), 60)
    witnesses = [WitnessClient(session, url, "tests") for url in urls]
    source = make_source(log, Tools(fetch, fetch.latest))
    return Feed(log, source, witnesses, now=clock.now, refresh=600)


async def test_several_witnesses_are_fed_and_share_what_is_asked_of_the_log(
    session: aiohttp.ClientSession,
) -> None:
    clock, log = Clock(), SimulatedLog("log.example", size=700)
    one, two, three = (HttpWitness(f"witness.example/{n}") for n in range(3))
    two.core.heads["log.example"] = three.core.heads["log.example"] = (300, log.root(300))
    async with (
        one.serving() as a,
        two.serving() as b,
        three.serving() as c,
        SimulatedLogServer(log) as server,
    ):
        feed = feed_of(server, session, clock, [a, b, c])
        answers = await feed.round()
        assert [(each.witness, each.status, each.size) for each in answers] == [
            (url, Status.CURRENT, 700) for url in (a, b, c)
        ]
        assert [each.signatures[0].name for each in answers] == [w.key.name for w in (one, two, three)]
        assert [w.requests for w in (one, two, three)] == [1, 2, 2]  # the size is learnt by a 409
        assert len(server.requests) == len(set(server.requests)), "nothing was asked for twice"

        server.forget()
        clock.advance(60)
        assert [each.signatures for each in await feed.round()] == [()] * 3  # unchanged
        assert server.requests == ["tiles/checkpoint"]
        assert [w.requests for w in (one, two, three)] == [1, 2, 2]

        log.append(5)
        server.forget()
        await feed.round()
        assert len(server.requests) == 2
        assert [w.requests for w in (one, two, three)] == [2, 3, 3]

        clock.advance(601)  # for a cosignature with a fresh timestamp
        assert all(each.signatures for each in await feed.round())


async def test_a_witness_that_fails_harms_no_other_and_is_left_alone_for_a_while(
    session: aiohttp.ClientSession,
) -> None:
    clock, log = Clock(), SimulatedLog("log.example", size=7)
    good, bad = HttpWitness("witness.example/good"), HttpWitness("witness.example/bad")
    bad.answer = (500, "text/plain", b"broken\n")
    async with good.serving() as a, bad.serving() as b, SimulatedLogServer(log) as server:
        feed = feed_of(server, session, clock, [a, b])
        for n in range(4):
            log.append(1)
            answers = {each.witness: each for each in await feed.round()}
            assert answers[a].status is Status.CURRENT
            assert answers[b].status is Status.WITNESS_UNAVAILABLE
            assert "status 500: broken" in answers[b].reason
            clock.advance(5 * 2**n - 0.1)
            assert [each.witness for each in await feed.round()] == [a]
            clock.advance(0.2)
        bad.answer = None
        assert [each.status for each in await feed.round()] == [Status.CURRENT] * 2
        assert bad.core.heads["log.example"][0] == log.size


async def test_a_fork_is_named_for_the_witness_that_saw_the_other_history(
    session: aiohttp.ClientSession,
) -> None:
    log = SimulatedLog("log.example", size=7)
    fork = log.fork(3)
    fork.append(9)
    seen, new = HttpWitness("witness.example/seen"), HttpWitness("witness.example/new")
    seen.core.heads["log.example"] = (7, log.root(7))
    async with seen.serving() as a, new.serving() as b, SimulatedLogServer(fork) as server:
        answers = await feed_of(server, session, Clock(), [a, b]).round()
        assert [each.status for each in answers] == [Status.FORK, Status.CURRENT]


BODY_LOG = SimulatedLog("log.example", size=7)
LINE = SimulatedKey("w.example").sign(Checkpoint("log.example", 7, BODY_LOG.root())).line().encode()
TEXT = "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("status", "type_", "body", "error"),
    [
        (400, TEXT, b"bad\n", MalformedRequest),
        (403, TEXT, b"", NoTrustedSignature("log.example")),
        (404, TEXT, b"", UnknownOrigin("log.example")),
        (409, "text/x.tlog.size", b"17\n", StaleOldSize(17)),
        (409, "text/x.tlog.size", b"0\n", StaleOldSize(0)),
        (409, "text/x.tlog.size", b"17", CoreUnreachable),
        (409, "text/x.tlog.size", b"017\n", CoreUnreachable),
        (409, "text/x.tlog.size", b"9223372036854775808\n", CoreUnreachable),
        (409, "text/x.tlog.size; charset=utf-8", b"17\n", CoreUnreachable),
        (422, TEXT, b"no\n", InvalidProof(3, 7, "no")),
        (429, TEXT, b"", Overloaded(1)),
        (500, TEXT, b"", CoreUnreachable),
        (302, TEXT, b"", CoreUnreachable),
        (200, TEXT, b"", CoreUnreachable),
        (200, TEXT, b"no signature\n", CoreUnreachable),
        (200, TEXT, LINE * (MAX_ANSWER // len(LINE) + 1), CoreUnreachable),
    ],
)
async def test_each_answer_is_a_typed_error(
    session: aiohttp.ClientSession, status: int, type_: str, body: bytes, error: CoreError | type[CoreError]
) -> None:
    witness = HttpWitness("w.example")
    witness.answer = (status, type_, body)
    async with witness.serving() as url:
        client = WitnessClient(session, url, "tests")
        with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
            await client.add_checkpoint(BODY_LOG.add_checkpoint(3))
        if not isinstance(error, type):
            assert caught.value == error
        assert client.signatures == ()
        witness.answer = (200, TEXT, LINE)
        assert await client.add_checkpoint(BODY_LOG.add_checkpoint(3)) == LINE
        assert [each.name for each in client.signatures] == ["w.example"]


async def test_nobody_there_is_an_error_of_the_world(session: aiohttp.ClientSession) -> None:
    async with HttpWitness("w").serving() as url:
        pass
    with pytest.raises(CoreUnreachable):
        await WitnessClient(session, url, "tests").add_checkpoint(BODY_LOG.add_checkpoint())
    assert not issubclass(CoreUnreachable, Refusal)
