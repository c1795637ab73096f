"""One bounded, polite GET, against servers that fail in every way."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from feeders.fetch import HttpFetch
from feeders.hosts import HostLimits
from feeders.protocol import BadLogData, FetchFailed, NotFound, TooLong, TooSlow
from tests.simulated_log_server import BOMB_SIZE, LoopbackServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    bodies = {"ten": b"0123456789", "empty": b""}
    async with LoopbackServer(bodies.get) as server:
        yield server


async def test_gives_the_body_and_says_who_asks(server: LoopbackServer, fetch: HttpFetch) -> None:
    assert await fetch(f"{server.base}/ten", 10) == b"0123456789"
    assert await fetch(f"{server.base}/empty", 10) == b""
    assert {headers["User-Agent"] for headers in server.headers} == {"tests (operator@witness.example)"}


async def test_a_body_longer_than_the_limit_is_the_servers_fault(
    server: LoopbackServer, fetch: HttpFetch
) -> None:
    with pytest.raises(BadLogData, match="longer than 9 bytes"):
        await fetch(f"{server.base}/ten", 9)


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 403, 429, 500, 503])
async def test_any_status_but_200_fails(server: LoopbackServer, fetch: HttpFetch, status: int) -> None:
    server.faults.status = status
    with pytest.raises(FetchFailed, match=f"status {status}") as caught:
        await fetch(f"{server.base}/ten", 100)
    assert not isinstance(caught.value, NotFound)


async def test_what_is_not_there_has_a_type_of_its_own(server: LoopbackServer, fetch: HttpFetch) -> None:
    with pytest.raises(NotFound):
        await fetch(f"{server.base}/absent", 100)
    server.faults.status = 410
    with pytest.raises(NotFound):
        await fetch(f"{server.base}/ten", 100)


async def test_an_endless_body_is_dropped(server: LoopbackServer, fetch: HttpFetch) -> None:
    server.faults.endless = True
    with pytest.raises(TooLong, match="longer than 8192 bytes"):
        await fetch(f"{server.base}/ten", 8192)


async def test_a_trickle_ends_at_the_deadline(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    server.faults.trickle = True
    with pytest.raises(TooSlow, match="no complete answer"):
        await HttpFetch(session, "tests", timeout=0.05)(f"{server.base}/ten", 100)


async def test_compressed_bodies_are_understood_and_bounded(server: LoopbackServer, fetch: HttpFetch) -> None:
    server.faults.gzip = True
    assert await fetch(f"{server.base}/ten", 10) == b"0123456789"
    with pytest.raises(BadLogData, match="longer than 9 bytes"):
        await fetch(f"{server.base}/ten", 9)


async def test_a_gzip_bomb_is_harmless(server: LoopbackServer, fetch: HttpFetch) -> None:
    server.faults.gzip_bomb = True
    with pytest.raises(BadLogData):
        await fetch(f"{server.base}/ten", 8192)  # the server makes and keeps its bomb
    tracemalloc.start()
    try:
        with pytest.raises(BadLogData, match="longer than 8192 bytes"):
            await fetch(f"{server.base}/ten", 8192)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOMB_SIZE / 16


async def _raw_server(answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", BadLogData),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello", BadLogData),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", FetchFailed),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", FetchFailed),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", FetchFailed),
        (b"SSH-2.0-OpenSSH\r\n\r\n", FetchFailed),
        (b"", FetchFailed),
    ],
)
async def test_broken_answers_have_typed_errors(
    fetch: HttpFetch, answer: bytes, error: type[Exception]
) -> None:
    server = await _raw_server(answer)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(error):
            await fetch(f"http://127.0.0.1:{port}/checkpoint", 100)


async def test_nobody_there_and_no_url(fetch: HttpFetch) -> None:
    server = await _raw_server(b"")
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    for url in (f"http://127.0.0.1:{port}/", "http://[", "not a url", "ftp://127.0.0.1/", ""):
        with pytest.raises(FetchFailed):
            await fetch(url, 100)


async def test_follows_redirects_within_the_same_server(server: LoopbackServer, fetch: HttpFetch) -> None:
    location = f"{server.base}/ten"
    raw = await _raw_server(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
    async with raw:
        port = raw.sockets[0].getsockname()[1]
        with pytest.raises(FetchFailed, match="more than 3 redirects"):
            await fetch(f"http://127.0.0.1:{port}/here", 100)

    server.faults.redirect = server.base  # to itself, then mended by the first request that arrives
    task = asyncio.create_task(fetch(location, 100))
    while not server.requests:
        await asyncio.sleep(0)
    server.faults.redirect = ""
    assert await task == b"0123456789"
    assert server.requests == ["ten", "ten"]


async def test_does_not_follow_redirects_to_other_plain_servers(
    server: LoopbackServer, fetch: HttpFetch
) -> None:
    async with LoopbackServer(lambda _: b"secret") as inner:
        server.faults.redirect = inner.base
        with pytest.raises(FetchFailed, match="refused to follow a redirect"):
            await fetch(f"{server.base}/ten", 100)
        assert inner.requests == []


async def test_redirects_to_https_are_followed(server: LoopbackServer, fetch: HttpFetch) -> None:
    # Nothing speaks TLS at that port: the connection's failure shows that it was tried.
    server.faults.redirect = server.base.replace("http:", "https:")
    with pytest.raises(FetchFailed, match=r"(?i)ssl"):
        await fetch(f"{server.base}/ten", 100)


@pytest.mark.parametrize("validators", ["etag", "date"])
async def test_what_is_asked_for_again_is_asked_for_on_condition(
    server: LoopbackServer, fetch: HttpFetch, validators: str
) -> None:
    server.validators = validators
    for _ in range(3):
        assert await fetch.latest(f"{server.base}/ten", 10) == b"0123456789"
    assert server.answered_304 == fetch.not_modified == 2
    assert server.bytes_sent == 10
    # What does not change is asked for once, and without condition.
    assert await fetch(f"{server.base}/ten", 10) == b"0123456789"
    assert server.answered_304 == 2


async def test_a_changed_answer_replaces_the_held_one(fetch: HttpFetch) -> None:
    body = [b"one"]
    async with LoopbackServer(lambda _: body[0]) as server:
        server.validators = "etag"
        for text in (b"one", b"two", b"one", b"three"):
            body[0] = text
            assert await fetch.latest(server.base, 10) == text
        assert server.answered_304 == 0
        with pytest.raises(TooLong):
            await fetch.latest(server.base, 4)
        server.validators = ""
        assert await fetch.latest(server.base, 10) == b"three"
        server.validators = "etag"
        assert await fetch.latest(server.base, 10) == b"three"
        assert server.answered_304 == 1, "nothing is held of an answer without a validator"


async def test_held_answers_are_bounded(session: aiohttp.ClientSession) -> None:
    async with LoopbackServer(lambda path: path.encode() * 10) as server:
        server.validators = "etag"
        fetch = HttpFetch(session, "tests", held=100)
        for name in "abcdefghijkl":  # ten bytes each, so two too many
            await fetch.latest(f"{server.base}/{name}", 10)
        for name in "cdefghijkl":
            await fetch.latest(f"{server.base}/{name}", 10)
        assert server.answered_304 == 10
        await fetch.latest(f"{server.base}/a", 10)
        assert server.answered_304 == 10


async def test_304_to_no_question_of_ours_fails(server: LoopbackServer, fetch: HttpFetch) -> None:
    server.faults.status = 304
    with pytest.raises(FetchFailed, match="status 304"):
        await fetch.latest(f"{server.base}/ten", 10)


async def test_one_host_is_asked_by_few_at_a_time(session: aiohttp.ClientSession) -> None:
    busy, most, gate = 0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most
        while await reader.readline() not in (b"\r\n", b""):
            pass
        busy += 1
        most = max(most, busy)
        await gate.wait()
        busy -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        await writer.drain()
        writer.close()

    raw = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with raw:
        port = raw.sockets[0].getsockname()[1]
        fetch = HttpFetch(session, "tests", timeout=5, limits=HostLimits(3, rate=1e6, burst=100))
        tasks = [asyncio.create_task(fetch(f"http://127.0.0.1:{port}/{n}", 10)) for n in range(9)]
        async with asyncio.timeout(5):
            while busy < 3:
                await asyncio.sleep(0.001)
            for _ in range(50):
                await asyncio.sleep(0)
            gate.set()
            assert await asyncio.gather(*tasks) == [b"x"] * 9
    assert most == 3


async def test_waiting_for_our_own_limits_is_not_the_servers_slowness(
    session: aiohttp.ClientSession, server: LoopbackServer
) -> None:
    fetch = HttpFetch(session, "tests", timeout=0.2, limits=HostLimits(1, rate=4.0, burst=1))
    answers = await asyncio.gather(*(fetch(f"{server.base}/ten", 10) for _ in range(3)))
    assert answers == [b"0123456789"] * 3  # the last one waited half a second for its turn
