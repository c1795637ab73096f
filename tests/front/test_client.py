"""The client of the core: pairs replies, fails fast, comes back, never repeats a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from tests.front.fake_core import COSIGNATURES, LOG, STATUS, FakeCore, FakeServer, serving
from witness.core.refusals import (
    CoreError,
    CoreUnreachable,
    InternalError,
    Overloaded,
    RootMismatch,
    StaleOldSize,
)
from witness.core.wire import MAX_REPLY, Changes, Core, Cursor, Kind, Verb, encode_error, encode_frame
from witness.front import client as client_module
from witness.front.client import CoreClient, connect_once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "core.sock"


@contextlib.asynccontextmanager
async def running(path: Path, *, deadline: float = 10.0) -> AsyncIterator[CoreClient]:
    client = CoreClient(str(path), deadline=deadline)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.run())
        await client.wait_connected()
        yield client
        await client.close()


async def reconnected(client: CoreClient, server: FakeServer, accepted: int) -> None:
    while server.accepted < accepted or not client.connected:
        await asyncio.sleep(0)


async def test_every_verb_comes_back_as_the_core_answered(path: Path) -> None:
    core = FakeCore()
    core.checkpoints[b"\x07" * 32] = b"note"
    async with serving(core, path), running(path) as client:
        speaks: Core = client
        assert await speaks.add_checkpoint(b"body") == COSIGNATURES
        assert await speaks.sign_subtree(b"other") == COSIGNATURES
        assert await speaks.checkpoint(b"\x07" * 32) == b"note"
        assert await speaks.status() == STATUS
        assert (await speaks.logs()).logs == (LOG,)
        assert (await speaks.logs(1)).logs == ()
        assert await speaks.changes() == Changes(Cursor("epoch", 1), more=False, origins=(LOG.origin,))
        assert (await speaks.changes(Cursor("epoch", 1))).cursor == Cursor("epoch", 1)
        assert core.bodies == [b"body", b"other"]


@pytest.mark.parametrize("error", [StaleOldSize(known=12), RootMismatch(origin="l", size=3), InternalError()])
async def test_refusals_arrive_as_the_core_raised_them(path: Path, error: CoreError) -> None:
    async with serving(FakeCore(answer=error), path), running(path) as client:
        with pytest.raises(type(error)) as caught:
            await client.add_checkpoint(b"")
        assert caught.value == error


async def test_replies_pair_by_id_in_any_order(path: Path) -> None:
    held: list[tuple[int, bytes]] = []

    def backwards(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        held.append((request_id, payload))
        if len(held) == 20:
            frames = [encode_frame(i, Kind.OK, b"for " + p) for i, p in reversed(held)]
            transport.write(b"".join(frames))

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = backwards
        bodies = [b"%d" % i for i in range(20)]
        replies = await asyncio.gather(*(client.add_checkpoint(body) for body in bodies))
        assert replies == [b"for " + body for body in bodies]


async def test_requests_of_one_turn_leave_in_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FakeCore(), path) as server, running(path) as client:
        connection = client._connection
        assert connection is not None
        real = cast("asyncio.Transport", connection._transport)
        writes: list[bytes] = []

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

            def write(self, data: bytes) -> None:
                writes.append(data)
                real.write(data)

        monkeypatch.setattr(connection, "_transport", Counting())
        await asyncio.gather(*(client.add_checkpoint(b"x") for _ in range(50)))
        assert len(writes) == 1
        assert sum(server.reads) == 50


async def test_a_reply_in_single_bytes_is_put_together(path: Path) -> None:
    def drip(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        async def write() -> None:
            for byte in encode_frame(request_id, Kind.OK, b"whole"):
                transport.write(bytes([byte]))
                await asyncio.sleep(0)

        server.tasks.add(asyncio.get_running_loop().create_task(write()))

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = drip
        assert await client.add_checkpoint(b"") == b"whole"


async def test_without_a_core_requests_fail_at_once_and_connecting_goes_on(path: Path) -> None:
    client = CoreClient(str(path))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.run())
        await asyncio.sleep(0)
        assert not client.connected
        with pytest.raises(CoreUnreachable):
            await client.status()
        async with serving(FakeCore(), path):
            await client.wait_connected()
            assert await client.status() == STATUS
            await client.close()


async def test_what_is_in_flight_when_the_connection_breaks_fails_and_is_not_sent_again(path: Path) -> None:
    core = FakeCore(held=asyncio.Event())
    async with serving(core, path) as server, running(path) as client:
        asked = [asyncio.create_task(client.add_checkpoint(b"%d" % i)) for i in range(3)]
        await core.wait_asked(3)
        server.connections[0].abort()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in results] == [CoreUnreachable] * 3
        await reconnected(client, server, 2)
        core.held = None
        assert await client.add_checkpoint(b"again") == COSIGNATURES
        assert core.bodies == [b"0", b"1", b"2", b"again"]


async def test_a_restarted_core_is_found_again(path: Path) -> None:
    client = CoreClient(str(path))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.run())
        for _ in range(3):
            async with serving(FakeCore(), path):
                await client.wait_connected()
                assert await client.status() == STATUS
            while client.connected:
                await asyncio.sleep(0)
            with pytest.raises(CoreUnreachable):
                await client.status()
        await client.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        (MAX_REPLY + 1).to_bytes(4, "big") + b"\0" * 5,
        (4).to_bytes(4, "big") + b"\0" * 5,
        encode_frame(0, 7, b"a kind that is none"),
    ],
)
async def test_broken_frames_end_the_connection_and_a_new_one_is_made(path: Path, nonsense: bytes) -> None:
    def reply(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        transport.write(nonsense)

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = reply
        with pytest.raises(CoreUnreachable, match="framing"):
            await client.add_checkpoint(b"")
        server.script = None
        await reconnected(client, server, 2)
        assert await client.add_checkpoint(b"") == COSIGNATURES


@pytest.mark.parametrize("verb", ["status", "logs", "changes"])
async def test_an_answer_that_is_no_such_value_is_unavailable(path: Path, verb: str) -> None:
    def reply(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        transport.write(encode_frame(request_id, Kind.OK, b'{"name": 1}'))

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = reply
        with pytest.raises(CoreUnreachable, match="not understood"):
            await getattr(client, verb)()
        assert client.connected


async def test_an_error_reply_that_is_none_is_an_internal_error(path: Path) -> None:
    def reply(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        transport.write(encode_frame(request_id, Kind.ERROR, b'["no-such-code", {}]'))

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = reply
        with pytest.raises(InternalError):
            await client.add_checkpoint(b"")


async def test_the_deadline_fails_one_request_and_its_late_reply_is_nobodys(path: Path) -> None:
    late: list[tuple[int, asyncio.Transport]] = []

    def mute_first(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        if payload == b"mute":
            late.append((request_id, transport))
        else:
            for held, to in late:
                to.write(encode_frame(held, Kind.OK, b"too late"))
            transport.write(encode_frame(request_id, Kind.OK, b"mine"))

    async with serving(FakeCore(), path) as server, running(path, deadline=0.05) as client:
        server.script = mute_first
        for _ in range(2):  # the timer is armed anew after it has fired
            with pytest.raises(CoreUnreachable, match="no reply within"):
                await client.add_checkpoint(b"mute")
        assert await client.add_checkpoint(b"answer") == b"mine"
        assert server.accepted == 1


async def test_a_cancelled_caller_leaves_nothing_behind(path: Path) -> None:
    core = FakeCore(held=asyncio.Event())
    async with serving(core, path), running(path) as client:
        asked = asyncio.create_task(client.add_checkpoint(b""))
        await core.wait_asked(1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert client._connection is not None
        assert client._connection._waiting == {}
        assert core.held is not None
        core.held.set()
        assert await client.add_checkpoint(b"") == COSIGNATURES


async def test_close_fails_what_is_in_flight_and_ends_run(path: Path) -> None:
    core = FakeCore(held=asyncio.Event())
    async with serving(core, path):
        client = CoreClient(str(path))
        runs = asyncio.create_task(client.run())
        await client.wait_connected()
        asked = asyncio.create_task(client.add_checkpoint(b""))
        await core.wait_asked(1)
        await client.close()
        with pytest.raises(CoreUnreachable):
            await asked
        await runs
        with pytest.raises(CoreUnreachable):
            await client.status()


async def test_cancelling_run_fails_what_is_in_flight(path: Path) -> None:
    core = FakeCore(held=asyncio.Event())
    async with serving(core, path):
        client = CoreClient(str(path))
        runs = asyncio.create_task(client.run())
        await client.wait_connected()
        asked = asyncio.create_task(client.add_checkpoint(b""))
        await core.wait_asked(1)
        runs.cancel()
        with pytest.raises(asyncio.CancelledError):
            await runs
        with pytest.raises(CoreUnreachable):
            await asked
        assert not client.connected


async def test_a_core_that_hangs_up_on_us_is_asked_ever_more_slowly(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float | None] = []
    real = asyncio.timeout

    def recording(delay: float | None) -> asyncio.Timeout:
        if delay != client_module.DEADLINE:
            delays.append(delay)
        return real(0.001 if delay != client_module.DEADLINE else delay)

    loop = asyncio.get_running_loop()

    class HangUp(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    server = await loop.create_unix_server(HangUp, str(path))
    client = CoreClient(str(path))
    monkeypatch.setattr(asyncio, "timeout", recording)
    runs = asyncio.create_task(client.run())
    while len(delays) < 10:
        await asyncio.sleep(0)
    await client.close()
    await runs
    server.close()
    assert delays[0] == client_module.FIRST_RETRY <= 0.05
    assert delays[1] == 2 * client_module.FIRST_RETRY
    assert max(d for d in delays if d is not None) == client_module.MAX_RETRY


async def test_a_core_that_does_not_read_does_not_fill_our_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_QUEUED", 1000)
    core = FakeCore(held=asyncio.Event())
    async with serving(core, path), running(path) as client:
        asked = [asyncio.create_task(client.add_checkpoint(b"x" * 400)) for _ in range(4)]
        results = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        refused = [task.exception() for task in results[0]]
        assert refused == [Overloaded(retry_after=1)]
        assert core.held is not None
        core.held.set()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_connect_once(path: Path) -> None:
    with pytest.raises(CoreUnreachable):
        async with connect_once(str(path)):
            pass
    async with serving(FakeCore(), path) as server:
        async with connect_once(str(path)) as client:
            assert await client.status() == STATUS
            server.connections[0].abort()
            while client.connected:
                await asyncio.sleep(0)
            with pytest.raises(CoreUnreachable):
                await client.status()
        assert server.accepted == 1


async def test_request_ids_wrap(path: Path) -> None:
    seen: list[int] = []

    def record(request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        seen.append(request_id)
        assert verb == Verb.ADD_CHECKPOINT
        transport.write(encode_frame(request_id, Kind.ERROR, encode_error(StaleOldSize(known=1))))

    async with serving(FakeCore(), path) as server, running(path) as client:
        server.script = record
        assert client._connection is not None
        client._connection._next_id = 0xFFFFFFFF
        for _ in range(2):
            with pytest.raises(StaleOldSize):
                await client.add_checkpoint(b"")
        assert seen == [0xFFFFFFFF, 0]
