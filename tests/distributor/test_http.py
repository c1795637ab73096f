"""One publication over HTTP, against a server that behaves as the real distributor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from distributor.http import MAX_ANSWER, HttpTarget, open_session
from distributor.protocol import PublishFailed, PublishRejected, TargetUnavailable
from tests.distributor.world import WITNESS, Distributor, Fault, ManualClock, cosigned, serving
from witness.tlog.checkpoint import log_id

ORIGIN = "log.example/one"
PATH = f"/distributor/v0/logs/{log_id(ORIGIN)}/byWitness/witness.example%2Fw1/checkpoint"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
async def distributor() -> AsyncIterator[Distributor]:
    async with serving(Distributor([ORIGIN])) as distributor:
        yield distributor


def target(distributor: Distributor, session: aiohttp.ClientSession, timeout: float = 10.0) -> HttpTarget:
    return HttpTarget(distributor.base, WITNESS, session, timeout=timeout, clock=ManualClock())


async def test_put_is_accepted_and_stored(distributor: Distributor, session: aiohttp.ClientSession) -> None:
    note = cosigned(ORIGIN, 5)
    await target(distributor, session).publish(ORIGIN, note)
    assert distributor.stored == {ORIGIN: note}
    assert distributor.requests == [("PUT", PATH)]


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("example.com/w", "example.com%2Fw"),
        ("host:80@here", "host%3A80%40here"),
        ("per%20cent", "per%2520cent"),
        ("question?mark#hash", "question%3Fmark%23hash"),
        ("gärtner", "g%C3%A4rtner"),
        ("plain-Name_1.~", "plain-Name_1.~"),
    ],
)
async def test_name_is_escaped_exactly_once(
    name: str, escaped: str, distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(PublishRejected):  # the distributor knows no such witness
        await HttpTarget(distributor.base, name, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert distributor.requests[0][1].split("/byWitness/")[1] == f"{escaped}/checkpoint"


async def test_base_with_a_path_and_a_slash_at_its_end(session: aiohttp.ClientSession) -> None:
    async with serving(Distributor([ORIGIN], prefix="/prod")) as distributor:
        # A second slash would be answered with a redirect that turns the PUT into a GET.
        await HttpTarget(distributor.base + "/", WITNESS, session).publish(ORIGIN, cosigned(ORIGIN, 1))
        assert distributor.requests == [("PUT", "/prod" + PATH)]


@pytest.mark.parametrize(
    "base",
    [
        "ftp://d.example",
        "d.example",
        "http://",
        "https://u:p@d.example",
        "https://d.example/?a=b",
        "https://d/#f",
    ],
)
async def test_bases_that_are_none(base: str, session: aiohttp.ClientSession) -> None:
    with pytest.raises(ValueError, match="distributor's URL"):
        HttpTarget(base, WITNESS, session)


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_names_that_would_be_steps_in_the_path(name: str, session: aiohttp.ClientSession) -> None:
    with pytest.raises(ValueError, match="under the name"):
        HttpTarget("https://d.example", name, session)


async def test_unknown_log_is_rejected(distributor: Distributor, session: aiohttp.ClientSession) -> None:
    with pytest.raises(PublishRejected) as caught:
        await target(distributor, session).publish("log.example/two", cosigned("log.example/two", 1))
    assert caught.value.reason == "400 failed to update to new checkpoint"
    assert caught.value.origin == "log.example/two"
    assert caught.value.target == distributor.base


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (201, PublishFailed),  # not what success looks like
        (400, PublishRejected),
        (401, PublishRejected),
        (404, PublishRejected),
        (409, PublishRejected),
        (413, PublishRejected),
        (408, PublishFailed),
        (425, PublishFailed),
        (429, TargetUnavailable),
        (500, PublishFailed),
        (502, PublishFailed),
        (503, TargetUnavailable),
    ],
)
async def test_kinds_of_failure(
    status: int, kind: type[PublishFailed], distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    distributor.faults = [Fault(status, body=b"why\r\n\x1b[31m not")]
    with pytest.raises(PublishFailed) as caught:
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert type(caught.value) is kind
    assert caught.value.reason == f"{status} why [31m not"


@pytest.mark.parametrize(
    ("value", "seconds"), [("17", 17.0), ("Tue, 14 Nov 2023 22:15:20 GMT", 120.0), ("x", None)]
)
async def test_retry_after_is_carried(
    value: str, seconds: float | None, distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    distributor.faults = [Fault(503, {"Retry-After": value})]
    with pytest.raises(TargetUnavailable) as caught:
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304])
async def test_redirect_that_changes_the_method_is_an_error(
    status: int, distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    distributor.faults = [Fault(status, {"Location": PATH})]
    with pytest.raises(PublishRejected, match="redirect"):
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert [method for method, _ in distributor.requests] == ["PUT"]
    assert distributor.stored == {}


@pytest.mark.parametrize("status", [307, 308])
async def test_redirect_that_keeps_the_method_is_followed(
    status: int, distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    note = cosigned(ORIGIN, 1)
    distributor.faults = [Fault(status, {"Location": PATH})]
    await target(distributor, session).publish(ORIGIN, note)
    assert distributor.requests == [("PUT", PATH)] * 2  # the escaping survives
    assert distributor.stored == {ORIGIN: note}


async def test_redirect_over_http_to_another_host_is_not_followed(
    distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    async with serving(Distributor([ORIGIN]), host="127.0.0.2") as other:
        distributor.faults = [Fault(307, {"Location": other.base + PATH})]
        with pytest.raises(PublishRejected, match="not followed"):
            await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
        assert other.requests == []


async def test_redirect_to_https_is_followed(
    distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    # Nobody speaks TLS on that port: the connection fails, which shows that it was tried.
    https = distributor.base.replace("http://127.0.0.1", "https://127.0.0.2")
    distributor.faults = [Fault(308, {"Location": https + PATH})]
    with pytest.raises(TargetUnavailable):
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))


@pytest.mark.parametrize(
    "location", ["", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/", "http://[::1/x"]
)
async def test_redirect_to_nowhere(
    location: str, distributor: Distributor, session: aiohttp.ClientSession
) -> None:
    distributor.faults = [Fault(307, {"Location": location} if location else {})]
    with pytest.raises(PublishRejected, match="redirect"):
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))


async def test_redirects_without_end(distributor: Distributor, session: aiohttp.ClientSession) -> None:
    distributor.always = lambda origin: Fault(307, {"Location": PATH})
    with pytest.raises(PublishRejected, match="redirects"):
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert len(distributor.requests) == 4


async def test_answer_is_read_up_to_a_bound(distributor: Distributor, session: aiohttp.ClientSession) -> None:
    distributor.faults = [Fault(500, body=b"x" * (64 * MAX_ANSWER))]
    with pytest.raises(PublishFailed) as caught:
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
    assert len(caught.value.reason) < 300
    # A long answer does not spoil what comes after it.
    await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))


async def test_answer_without_end_costs_neither_memory_nor_time(session: aiohttp.ClientSession) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(PublishFailed, match="500 xxx"):
            await HttpTarget(f"http://127.0.0.1:{port}", WITNESS, session).publish(
                ORIGIN, cosigned(ORIGIN, 1)
            )


async def test_no_answer_in_time(distributor: Distributor, session: aiohttp.ClientSession) -> None:
    distributor.gate = asyncio.Event()
    with pytest.raises(TargetUnavailable, match=r"no answer within 0\.1 s"):
        await target(distributor, session, timeout=0.1).publish(ORIGIN, cosigned(ORIGIN, 1))


async def test_nobody_listens(session: aiohttp.ClientSession) -> None:
    async with serving(Distributor([ORIGIN])) as distributor:
        gone = target(distributor, session)
    with pytest.raises(TargetUnavailable, match="Connect"):
        await gone.publish(ORIGIN, cosigned(ORIGIN, 1))


async def test_what_is_not_http(session: aiohttp.ClientSession) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01\x02 no HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TargetUnavailable):
            await HttpTarget(f"http://127.0.0.1:{port}", WITNESS, session).publish(
                ORIGIN, cosigned(ORIGIN, 1)
            )


async def test_cookies_are_not_kept(session: aiohttp.ClientSession) -> None:
    async with serving(Distributor([ORIGIN]), host="localhost") as distributor:  # addresses have no cookies
        distributor.faults = [Fault(200, {"Set-Cookie": "a=b"})]
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
        await target(distributor, session).publish(ORIGIN, cosigned(ORIGIN, 1))
        assert distributor.cookies == ["", ""]
