"""The HTTP carrier on loopback: exact bytes, bounded reading, shedding, draining."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from tests.front.fake_core import COSIGNATURES, LOG, FakeCore, serving, submission
from tests.front.serving import ConnectedFake, fronting, response
from witness.core import refusals
from witness.front import door as door_module
from witness.front.client import CoreClient
from witness.front.service import CannotListen, FrontService
from witness.front.settings import FrontSettings

LIMIT = 128 * 1024
ORIGIN_HASH = hashlib.sha256(LOG.origin.encode()).hexdigest()


def request_bytes(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /add-checkpoint HTTP/1.1", "Host: w", f"Content-Length: {length or len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def send_until_cut_off(writer: asyncio.StreamWriter, piece: bytes) -> int:
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 1 << 30:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    return sent


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_a_submission_goes_to_the_core_and_its_cosignatures_come_back() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        for path in ("/add-checkpoint", "/sign-subtree"):
            status, headers, body = await front.post(path, submission())
            assert (status, body) == (200, COSIGNATURES)
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert core.bodies == [submission()] * 2


async def test_a_conflict_is_exactly_these_bytes() -> None:
    async with fronting(ConnectedFake(answer=refusals.StaleOldSize(known=20852163))) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(submission()))
        status, headers, body = await response(reader)
        assert status == "HTTP/1.1 409 Conflict"
        assert "Content-Type: text/x.tlog.size" in headers
        assert [h for h in headers if h.lower().startswith("content-type")] == [
            "Content-Type: text/x.tlog.size"
        ]
        assert body == b"20852163\n"
        assert "Content-Length: 9" in headers
        writer.close()


async def test_a_connection_is_kept_through_answers_of_every_kind() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        reader, writer = await front.open()
        answers: list[bytes | refusals.CoreError] = [
            COSIGNATURES,
            refusals.StaleOldSize(known=1),
            refusals.InvalidSignature(key_name="l", key_id="00"),
            refusals.CoreUnreachable(reason="r"),
            COSIGNATURES,
        ]
        for answer, expected in zip(answers, (200, 409, 403, 503, 200), strict=True):
            core.answer = answer
            writer.write(request_bytes(submission()))
            status, headers, _ = await response(reader)
            assert int(status.split()[1]) == expected
            assert "Connection: close" not in headers
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with fronting(ConnectedFake()) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(submission()) + b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        assert (await response(reader))[2] == COSIGNATURES
        assert (await response(reader))[2] == b"ok\n"
        writer.close()


async def test_nothing_names_software_or_versions() -> None:
    async with fronting(ConnectedFake()) as front:
        for raw in (
            b"GET / HTTP/1.1\r\nHost: w\r\n\r\n",
            b"GET /nowhere HTTP/1.1\r\nHost: w\r\n\r\n",
            b"\x16\x03\x01 no HTTP at all\r\n\r\n",
            b"GET / HTTP/1.1\r\nBad Header\r\n\r\n",
            b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: x\r\n\r\n",
        ):
            reader, writer = await front.open()
            writer.write(raw)
            status, headers, body = await response(reader)
            assert [h for h in headers if h.startswith("Server")] == ["Server: witness"]
            for said in (status.encode(), "\n".join(headers).encode(), body):
                assert b"aiohttp" not in said.lower()
                assert b"python/" not in said.lower()
            writer.close()


async def test_what_is_no_http_gets_one_line_and_the_end() -> None:
    async with fronting(ConnectedFake()) as front:
        reader, writer = await front.open()
        writer.write(b"\x16\x03\x01\x02 <script>\r\n\r\n")
        status, _, body = await response(reader)
        assert status.split()[1] == "400"
        assert body == b"malformed HTTP request\n"
        assert await reader.read() == b""
        writer.close()


async def test_a_bug_in_a_handler_is_500_and_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = ConnectedFake()

    async def bug(_body: bytes) -> bytes:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(core, "add_checkpoint", bug)
    async with fronting(core) as front:
        status, _, body = await front.post("/add-checkpoint", submission())
        assert status == 500
        assert b"secret" not in body
        assert body.count(b"\n") == 1
        assert "a handler failed" in caplog.text
        assert front.service.door.in_flight == 0


# ---- bodies


@pytest.mark.parametrize("size", [0, 1, 70_000, LIMIT])
async def test_bodies_up_to_the_limit_arrive_whole(size: int) -> None:
    core = ConnectedFake()
    body = bytes(i % 251 for i in range(size))
    async with fronting(core) as front:
        assert (await front.post("/add-checkpoint", body))[0] == 200
        assert core.bodies == [body]


async def test_a_body_in_pieces_and_in_chunks_arrives_whole() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        reader, writer = await front.open()
        raw = request_bytes(submission())
        for at in range(0, len(raw), 7):
            writer.write(raw[at : at + 7])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await response(reader))[0].split()[1] == "200"
        writer.write(
            b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nold 4\r\n"
        )
        writer.write(b"2\r\n2\n\r\n0\r\n\r\n")
        assert (await response(reader))[0].split()[1] == "200"
        assert core.bodies == [submission(), b"old 42\n"]
        writer.close()


async def test_a_declared_body_over_the_limit_is_refused_before_it_comes() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(b"old", length=LIMIT + 1))  # and nothing follows
        status, headers, body = await response(reader)
        assert status.split()[1] == "413"
        assert "Connection: close" in headers
        assert body == b"the body is larger than 131072 bytes\n"
        writer.close()
        assert core.bodies == []
        assert (
            await front.metric("witness_http_requests_total", endpoint="add-checkpoint", outcome="too-large")
            == 1
        )


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_reading_is_bounded_also_when_refusing(coding: str) -> None:
    """An endless body: the sender is cut off after a bounded number of bytes."""
    chunked = coding == "chunked"
    core = ConnectedFake()
    async with fronting(core) as front:
        _, writer = await front.open()
        if chunked:
            writer.write(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            writer.write(request_bytes(b"", length=1 << 40))
        piece = b"x" * 65536
        sent = await send_until_cut_off(writer, b"10000\r\n" + piece + b"\r\n" if chunked else piece)
        # What both kernels' buffers hold comes on top of what is read.
        assert sent < 64 * 1024 * 1024
        writer.close()
        assert core.bodies == []


async def test_a_body_that_does_not_come_times_out() -> None:
    core = ConnectedFake()
    async with fronting(core, body_timeout=0.05) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(b"old 4", length=100))
        status, headers, body = await response(reader)
        assert status.split()[1] == "408"
        assert "Connection: close" in headers
        assert body == b"the body did not arrive within 0.05 s\n"
        assert await reader.read() == b""
        writer.close()
        assert core.bodies == []


async def test_a_broken_transfer_coding_is_refused() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        reader, writer = await front.open()
        writer.write(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        writer.write(b"zz\r\nno length\r\n")
        status, _, body = await response(reader)
        assert status.split()[1] == "400"
        assert body.count(b"\n") == 1
        assert await reader.read() == b""
        writer.close()
        assert core.bodies == []


async def test_a_sender_that_goes_away_leaves_nothing_behind() -> None:
    core = ConnectedFake()
    async with fronting(core, max_reading=1) as front:
        carrier = front.service._public
        _, writer = await front.open()
        writer.write(request_bytes(b"old 4", length=100))
        await until(lambda: carrier._reading == 1)
        writer.close()
        await until(lambda: carrier._reading == 0)
        assert (await front.post("/add-checkpoint", submission()))[0] == 200
        assert core.bodies == [submission()]


async def test_a_sender_that_resets_the_connection_is_no_bug_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fronting(ConnectedFake(), body_limit=200) as front:
        for length in (100, 1000):  # while the body is read, and while it is refused
            _, writer = await front.open()
            writer.write(request_bytes(b"old", length=length))
            await writer.drain()
            writer.transport.abort()
        assert (await front.post("/add-checkpoint", b"old 0"))[0] in (200, 400)
        await until(lambda: front.service._public._reading == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_bodies_are_never_unpacked() -> None:
    core = ConnectedFake()
    packed = gzip.compress(submission())
    async with fronting(core) as front:
        await front.post("/add-checkpoint", packed, headers={"Content-Encoding": "gzip"})
        assert core.bodies == [packed]


async def test_expecting_continue_is_answered_by_it_or_by_the_refusal() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(b"", "Expect: 100-continue", length=len(submission())))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(submission())
        assert (await response(reader))[2] == COSIGNATURES
        writer.write(request_bytes(b"", "Expect: 100-continue", length=LIMIT + 1))
        assert (await response(reader))[0].split()[1] == "413"
        assert await reader.read() == b""
        writer.close()


# ---- load


async def test_one_request_more_than_may_wait_is_shed_before_its_body_is_read() -> None:
    core = ConnectedFake(held=asyncio.Event())
    async with fronting(core, max_in_flight=2) as front:
        waiting = [asyncio.create_task(front.post("/add-checkpoint", b"%d" % i)) for i in range(2)]
        await core.wait_asked(2)
        assert await front.metric("witness_http_in_flight") == 2
        reader, writer = await front.open()
        writer.write(request_bytes(b"", length=1000))  # the headers alone
        status, headers, body = await response(reader)
        assert status.split()[1] == "429"
        assert "Retry-After: 1" in headers
        assert body.startswith(b"overloaded")
        # The body may still come, and the connection stays of use.
        writer.write(b"x" * 1000)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        assert (await response(reader))[2] == b"ok\n"
        assert len(core.bodies) == 2
        assert core.held is not None
        core.held.set()
        assert [status for status, _, _ in await asyncio.gather(*waiting)] == [200, 200]
        assert (await front.post("/add-checkpoint", submission()))[0] == 200
        assert await front.metric("witness_http_shed_total") == 1
        writer.close()


async def test_slow_senders_do_not_take_the_places_of_quick_ones() -> None:
    core = ConnectedFake()
    async with fronting(core, max_in_flight=1, max_reading=2) as front:
        carrier = front.service._public
        slow = [await front.open() for _ in range(2)]
        for _, writer in slow:
            writer.write(request_bytes(b"old", length=1000))
        await until(lambda: carrier._reading == 2)
        reader, writer = await front.open()
        writer.write(request_bytes(submission()))
        assert (await response(reader))[0].split()[1] == "200"
        writer.write(request_bytes(b"old", length=1000))
        assert (await response(reader))[0].split()[1] == "429"
        for _, used in [*slow, (reader, writer)]:
            used.close()


async def test_the_whole_way_over_the_core_socket(tmp_path: Path) -> None:
    path = tmp_path / "core.sock"
    core = FakeCore()
    client = CoreClient(str(path))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.run())
        async with fronting(client) as front:
            status, headers, body = await front.post("/add-checkpoint", submission())
            assert (status, headers["Retry-After"]) == (503, "1")
            assert body == b"the witness's core does not answer: not connected\n"
            assert (await front.get("/healthz"))[0] == 503
            assert await front.metric("witness_core_connected") == 0
            async with serving(core, path):
                await client.wait_connected()
                assert await front.metric("witness_core_connected") == 1
                assert (await front.post("/add-checkpoint", submission()))[2] == COSIGNATURES
                assert (await front.get("/healthz"))[0] == 200
        await client.close()


# ---- monitors


async def test_monitors_get_checkpoints_with_tags_for_anybodys_browser() -> None:
    core = ConnectedFake()
    core.checkpoints[bytes.fromhex(ORIGIN_HASH)] = b"the note\n"
    async with fronting(core) as front:
        path = f"/{ORIGIN_HASH}/checkpoint"
        status, headers, body = await front.get(path)
        assert (status, body) == (200, b"the note\n")
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["Cache-Control"] == "public, max-age=10"
        assert headers["Access-Control-Allow-Origin"] == "*"
        tag = headers["ETag"]
        status, headers, body = await front.get(path, headers={"If-None-Match": tag})
        assert (status, body, headers["ETag"]) == (304, b"", tag)
        assert (await front.get(path, headers={"If-None-Match": '"other"'}))[0] == 200
        assert (await front.get(path + "?now=1"))[2] == b"the note\n"


async def test_head_is_get_without_the_body() -> None:
    core = ConnectedFake()
    core.checkpoints[bytes.fromhex(ORIGIN_HASH)] = b"the note\n"
    async with fronting(core) as front:
        reader, writer = await front.open()
        writer.write(f"HEAD /{ORIGIN_HASH}/checkpoint HTTP/1.1\r\nHost: w\r\n\r\n".encode())
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        status, headers = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n", 1)
        assert status.split()[1] == "200"
        assert "Content-Length: 9" in headers
        assert "ETag" in headers
        assert (await response(reader))[2] == b"ok\n"  # directly behind the head
        writer.close()


@pytest.mark.parametrize(
    "path",
    [
        f"/{ORIGIN_HASH.upper()}/checkpoint",
        f"/{ORIGIN_HASH}/checkpoint/",
        f"/{ORIGIN_HASH}",
        f"//{ORIGIN_HASH}/checkpoint",
        f"/x/{ORIGIN_HASH}/checkpoint",
        f"/{ORIGIN_HASH[:-1]}/checkpoint",
        "/checkpoint",
        "//checkpoint",
        "/nowhere",
    ],
)
async def test_other_paths_are_not_found(path: str) -> None:
    core = ConnectedFake()
    core.checkpoints[bytes.fromhex(ORIGIN_HASH)] = b"the note\n"
    async with fronting(core) as front:
        reader, writer = await front.open()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: w\r\n\r\n".encode())
        status, headers, body = await response(reader)
        assert status.split()[1] == "404"
        assert "Content-Type: text/plain; charset=utf-8" in headers
        assert body.count(b"\n") == 1
        writer.close()


async def test_the_absolute_form_is_understood() -> None:
    async with fronting(ConnectedFake()) as front:
        reader, writer = await front.open()
        writer.write(b"GET http://witness.example/healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        assert (await response(reader))[2] == b"ok\n"
        writer.close()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/add-checkpoint", "POST"),
        ("PUT", "/add-checkpoint", "POST"),
        ("GET", "/sign-subtree", "POST"),
        ("POST", f"/{ORIGIN_HASH}/checkpoint", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
async def test_wrong_methods_are_told_the_right_ones(method: str, path: str, allow: str) -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        status, headers, body = await front.ask(method, path)
        assert (status, headers["Allow"]) == (405, allow)
        assert body.count(b"\n") == 1
        assert core.bodies == []


# ---- listeners


async def test_the_operators_endpoints_stand_apart_when_they_are_given_a_listener() -> None:
    async with fronting(ConnectedFake(), operator_listen=("127.0.0.1:0",)) as front:
        public, operator = front.urls
        for path, on_public, on_operator in (
            ("/healthz", 200, 200),
            ("/readyz", 404, 200),
            ("/metrics", 404, 200),
            ("/status.json", 404, 200),
            ("/", 200, 404),
            ("/about", 200, 404),
            (f"/{ORIGIN_HASH}/checkpoint", 404, 404),
        ):
            front.url = public
            assert (await front.get(path))[0] == on_public
            front.url = operator
            assert (await front.get(path))[0] == on_operator
        assert (await front.post("/add-checkpoint", b""))[0] == 404
        front.url = public
        assert b"metrics" not in (await front.get("/"))[2]


async def test_a_prefix_goes_before_everything_public(tmp_path: Path) -> None:
    core = ConnectedFake()
    core.checkpoints[bytes.fromhex(ORIGIN_HASH)] = b"the note\n"
    async with fronting(core, prefix="/a/w") as front:
        assert (await front.post("/a/w/add-checkpoint", submission()))[0] == 200
        assert (await front.post("/add-checkpoint", submission()))[0] == 404
        assert (await front.get(f"/a/w/{ORIGIN_HASH}/checkpoint"))[2] == b"the note\n"
        assert (await front.get(f"/{ORIGIN_HASH}/checkpoint"))[0] == 404
        assert (await front.get("/a/w/"))[0] == 200
        status, headers, _ = await front.get("/a/w")
        assert (status, headers["Location"]) == (308, "/a/w/")


async def test_unix_sockets_serve_the_public_and_the_operator(tmp_path: Path) -> None:
    public, operator = tmp_path / "public.sock", tmp_path / "front.sock"
    for _ in range(2):  # a second start finds the place free
        async with fronting(
            ConnectedFake(), listen=(f"unix:{public}",), operator_socket=str(operator)
        ) as front:
            assert front.urls == [f"unix:{public}", f"unix:{operator}"]
            assert operator.stat().st_mode & 0o777 == 0o600
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(public))) as client,
                client.post("http://w/add-checkpoint", data=submission()) as reply,
            ):
                assert await reply.read() == COSIGNATURES
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(operator))) as client,
                client.get("http://w/status.json") as reply,
            ):
                assert (await reply.json())["core"]["name"] == "witness.example/w1"
        assert not public.exists()
        assert not operator.exists()


async def test_several_addresses_and_families() -> None:
    listen = ("127.0.0.1:0", "[::1]:0")
    try:
        probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    probe.close()
    async with fronting(ConnectedFake(), listen=listen) as front:
        assert len(front.urls) == 2
        assert front.urls[1].startswith("http://[::1]:")
        for url in front.urls:
            front.url = url
            assert (await front.get("/healthz"))[0] == 200


async def test_an_address_that_is_taken_is_an_error_of_its_own() -> None:
    async with fronting(ConnectedFake()) as front:
        taken = front.url.removeprefix("http://")
        settings = FrontSettings(name="w", core_socket="", listen=("127.0.0.1:0", taken))
        second = FrontService(settings, ConnectedFake(), CollectorRegistry())
        with pytest.raises(CannotListen) as caught:
            await second.run(asyncio.Event())
        assert caught.value.address == taken


# ---- stopping


async def test_stopping_answers_what_is_in_flight_and_closes_the_idle() -> None:
    core = ConnectedFake(held=asyncio.Event())
    async with fronting(core) as front:
        idle_reader, idle_writer = await front.open()
        idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")
        await response(idle_reader)
        reader, writer = await front.open()
        writer.write(request_bytes(submission()))
        await core.wait_asked(1)
        slow_reader, slow_writer = await front.open()
        slow_writer.write(request_bytes(submission()[:5], length=len(submission())))
        await until(lambda: front.service._public._reading == 1)
        front.stop.set()
        await until(lambda: front.service._public._draining)
        with pytest.raises(ConnectionRefusedError):
            await front.open()
        slow_writer.write(submission()[5:])
        await core.wait_asked(2)
        assert core.held is not None
        core.held.set()
        for answered in (reader, slow_reader):
            status, headers, body = await response(answered)
            assert (status.split()[1], body) == ("200", COSIGNATURES)
            assert "Connection: close" in headers
            assert await answered.read() == b""
        assert await idle_reader.read() == b""
        for used in (writer, slow_writer, idle_writer):
            used.close()


async def test_stopping_does_not_wait_for_ever() -> None:
    core = ConnectedFake(held=asyncio.Event())
    async with fronting(core, drain_timeout=0.05) as front:
        reader, writer = await front.open()
        writer.write(request_bytes(submission()))
        await core.wait_asked(1)
        front.stop.set()
        assert await reader.read() == b""
        writer.close()


async def test_cancelling_the_service_drains_too() -> None:
    core = ConnectedFake(held=asyncio.Event())
    async with fronting(core) as front:
        pass
    settings = FrontSettings(name="w", core_socket="", listen=("127.0.0.1:0",))
    service = FrontService(settings, core, CollectorRegistry())
    running = asyncio.create_task(service.run(asyncio.Event()))
    front.url = (await service.listening())[0].url
    reader, writer = await front.open()
    writer.write(request_bytes(submission()))
    await core.wait_asked(1)
    running.cancel()
    await until(lambda: service._public._draining)
    assert core.held is not None
    core.held.set()
    assert (await response(reader))[2] == COSIGNATURES
    with pytest.raises(asyncio.CancelledError):
        await running
    writer.close()


# ---- logging


async def test_stale_sizes_are_debug_forks_are_errors_and_bad_signatures_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = ConnectedFake()
    caplog.set_level(logging.DEBUG, logger=door_module.__name__)
    async with fronting(core) as front:
        for answer, level in (
            (refusals.StaleOldSize(known=77), logging.DEBUG),
            (refusals.UnknownOrigin(origin="evil\nline"), logging.DEBUG),
            (refusals.InvalidSignature(key_name="log", key_id="0a0a0a0a"), logging.WARNING),
            (refusals.RootMismatch(origin="log.example/one", size=43), logging.ERROR),
        ):
            caplog.clear()
            core.answer = answer
            await front.post("/add-checkpoint", submission(old=41))
            (record,) = [r for r in caplog.records if r.name == door_module.__name__]
            assert record.levelno == level
            assert answer.code in record.getMessage()
            assert "\n" not in record.getMessage()
            if isinstance(answer, refusals.StaleOldSize):
                assert "old 41" in record.getMessage()
                assert "known=77" in record.getMessage()
                assert "log.example/one" in record.getMessage()


async def test_the_same_bad_signature_again_and_again_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    core = ConnectedFake(answer=refusals.InvalidSignature(key_name="log", key_id="0a0a0a0a"))
    async with fronting(core) as front:
        for _ in range(20):
            await front.post("/add-checkpoint", submission())
        core.answer = refusals.InvalidSignature(key_name="other", key_id="0a0a0a0a")
        await front.post("/add-checkpoint", submission())
        assert len([r for r in caplog.records if r.name == door_module.__name__]) == 2
