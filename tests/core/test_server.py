"""The core's door, over a real Unix socket: who may come in, and that a connection spoils only itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.core.processes import short_folder
from tests.core.state import Running, core, make_state, trust
from tests.simulated_log import SimulatedLog
from tests.transcripts import check_cosignatures
from witness.core import server as server_module
from witness.core.keystore import softkey
from witness.core.refusals import CoreError, InternalError, MalformedRequest, NoCheckpoint, StaleOldSize
from witness.core.server import CoreServer
from witness.core.status import StatusReporter
from witness.core.wire import (
    MAX_REPLY,
    MAX_REQUEST,
    FrameReader,
    Kind,
    Verb,
    decode_changes,
    decode_error,
    decode_logs,
    decode_status,
    encode_frame,
    encode_since,
)
from witness.tlog.checkpoint import origin_hash

DEADLINE = 20

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")


class Client:
    """An asynchronous connection to the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames = FrameReader(MAX_REPLY)
        self._answers: dict[int, tuple[int, bytes]] = {}
        self.order: list[int] = []

    async def send(self, request_id: int, verb: int, payload: bytes = b"") -> None:
        self.writer.write(encode_frame(request_id, verb, payload))
        await self.writer.drain()

    async def receive(self, request_id: int) -> bytes | CoreError:
        async with asyncio.timeout(DEADLINE):
            while request_id not in self._answers:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionResetError
                for number, kind, payload in self._frames.feed(data):
                    self.order.append(number)
                    self._answers[number] = (kind, payload)
        kind, payload = self._answers.pop(request_id)
        return payload if kind == Kind.OK else decode_error(payload)

    async def ask(self, verb: int, payload: bytes = b"") -> bytes | CoreError:
        await self.send(7, verb, payload)
        return await self.receive(7)

    async def closed(self) -> bool:
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@dataclass
class Served:
    running: Running
    server: CoreServer
    path: Path
    log: SimulatedLog

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(folder: Path, *, logs: int = 1, front_uids: tuple[int, ...] = ()) -> AsyncIterator[Served]:
    layout = make_state(folder)
    all_logs = [SimulatedLog(f"server.example/{n}", size=5) for n in range(logs)]
    trust(layout, *all_logs)
    async with core(layout) as running:
        keystore = softkey.open_keystore(layout.softkey, None)
        reporter = StatusReporter("w", running.witness, keystore, selftests=("one",), started=1.0)
        server = CoreServer(running.witness, running.store, reporter, front_uids=front_uids)
        await server.start(layout.core_socket)
        try:
            yield Served(running, server, layout.core_socket, all_logs[0])
        finally:
            await asyncio.wait_for(server.stop(), DEADLINE)


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    """Both kinds of transports: the process runs on uvloop's."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


async def test_every_verb(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        body = served.log.add_checkpoint(0)
        lines = await client.ask(Verb.ADD_CHECKPOINT, body)
        assert isinstance(lines, bytes)
        check_cosignatures("add-checkpoint", body, lines, served.running.vkeys)
        note = await client.ask(Verb.CHECKPOINT, origin_hash(served.log.origin))
        assert note == served.log.checkpoint() + lines
        request = served.log.sign_subtree(4, 5, served.log.value().text() + b"\n" + lines)
        subtree = await client.ask(Verb.SIGN_SUBTREE, request)
        assert isinstance(subtree, bytes)
        check_cosignatures("sign-subtree", request, subtree, served.running.vkeys)
        status = decode_status(await client.ask(Verb.STATUS))
        assert (status.pid, status.logs, status.heads, status.accepted) == (os.getpid(), 1, 1, 1)
        page = decode_logs(await client.ask(Verb.LOGS, encode_since(0)))
        assert [(log.origin, log.size) for log in page.logs] == [(served.log.origin, 5)]
        assert decode_logs(await client.ask(Verb.LOGS, encode_since(page.change))).logs == ()
        changes = decode_changes(await client.ask(Verb.CHANGES))
        assert changes.origins == (served.log.origin,)


async def test_refusals_cross_as_themselves(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        assert await client.ask(Verb.ADD_CHECKPOINT, served.log.add_checkpoint(3)) == StaleOldSize(0)
        assert await client.ask(Verb.CHECKPOINT, bytes(32)) == NoCheckpoint(bytes(32).hex())
        for odd in (b"", b"x", bytes(5000)):
            assert isinstance(await client.ask(Verb.CHECKPOINT, odd), NoCheckpoint)


@pytest.mark.parametrize("verb", [0, 9, 99, 255])
async def test_an_unknown_verb_is_a_refusal_and_the_connection_lives(tmp_path: Path, verb: int) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        answer = await client.ask(verb, b"anything")
        assert isinstance(answer, MalformedRequest)
        assert str(verb) in answer.reason
        assert isinstance(await client.ask(Verb.STATUS), bytes)


@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        (Verb.LOGS, b"x"), (Verb.LOGS, b"-1"), (Verb.LOGS, b"9" * 19), (Verb.LOGS, b"1" * 5000),
        (Verb.CHANGES, b"x"), (Verb.CHANGES, b"[]"), (Verb.CHANGES, b"[" * 100_000), (Verb.CHANGES, b"\xff"),
        (Verb.CHANGES, b'{"epoch": 1, "sequence": 1}'), (Verb.ADD_CHECKPOINT, b""), (Verb.SIGN_SUBTREE, b""),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
async def test_a_payload_of_another_form_is_malformed(tmp_path: Path, verb: Verb, payload: bytes) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        assert isinstance(await client.ask(verb, payload), MalformedRequest)
        assert isinstance(await client.ask(Verb.STATUS), bytes)


async def test_pages_of_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOGS_PAGE", 3)
    async with serving(tmp_path, logs=8) as served, served.client() as client:
        seen, since, pages = [], 0, []
        while True:
            page = decode_logs(await client.ask(Verb.LOGS, encode_since(since)))
            seen += [log.origin for log in page.logs]
            pages.append(len(page.logs))
            since = page.change
            if not page.more:
                break
        assert pages == [3, 3, 2]
        assert seen == [f"server.example/{n}" for n in range(8)]


BROKEN_FRAMES = {
    "length 0": struct.pack(">IIB", 0, 1, 1),
    "length 4": struct.pack(">IIB", 4, 1, 1),
    "one byte too long": struct.pack(">IIB", MAX_REQUEST + 1, 1, 1),
    "the longest": b"\xff" * 9,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("garbage", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES.keys())
async def test_broken_framing_closes_that_connection_alone(tmp_path: Path, garbage: bytes) -> None:
    async with serving(tmp_path) as served, served.client() as good, served.client() as bad:
        assert isinstance(await good.ask(Verb.STATUS), bytes)
        bad.writer.write(garbage)
        assert await bad.closed()
        assert isinstance(await good.ask(Verb.ADD_CHECKPOINT, served.log.add_checkpoint(0)), bytes)


async def test_the_largest_frame_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        answer = await client.ask(Verb.ADD_CHECKPOINT, b"x" * (MAX_REQUEST - 5))
        assert isinstance(answer, MalformedRequest)


async def test_a_client_that_goes_away_spoils_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with served.client() as client:
            await client.send(1, Verb.ADD_CHECKPOINT, served.log.add_checkpoint(0))
            client.writer.write(encode_frame(2, Verb.STATUS, b"")[:5])  # and half a frame
        async with served.client() as client:
            # Its request is taken up all the same: what it would have been told stands in the state.
            again = served.log.add_checkpoint(5)
            async with asyncio.timeout(DEADLINE):
                while isinstance(await client.ask(Verb.ADD_CHECKPOINT, again), CoreError):
                    await asyncio.sleep(0.01)


async def test_pipelined_requests_are_all_answered_each_once(tmp_path: Path) -> None:
    async with serving(tmp_path, logs=6) as served, served.client() as client:
        logs = [SimulatedLog(f"server.example/{n}", size=5) for n in range(6)]
        frames = []
        for number in range(60):
            verb, payload = [
                (Verb.ADD_CHECKPOINT, logs[number % 6].add_checkpoint(0 if number < 6 else 5)),
                (Verb.STATUS, b""),
                (Verb.LOGS, b"0"),
                (Verb.CHANGES, b""),
                (Verb.CHECKPOINT, bytes(32)),
            ][0 if number < 6 else number % 5]
            frames.append(encode_frame(number, verb, payload))
        client.writer.write(b"".join(frames))
        answers = [await client.receive(number) for number in range(60)]
        assert sorted(client.order) == list(range(60))
        assert all(isinstance(answer, bytes) for answer in answers[:6])
        assert not any(isinstance(answer, InternalError) for answer in answers)


async def test_frames_that_trickle_in_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        for byte in encode_frame(3, Verb.STATUS, b""):
            client.writer.write(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert isinstance(await client.receive(3), bytes)


async def test_a_reader_that_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_BUFFERED_REPLIES", 64 * 1024)
    async with serving(tmp_path) as served, served.client() as good:
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, str(served.path))

        async def flood() -> None:
            frames = encode_frame(1, Verb.STATUS, b"") * 100
            while True:
                await loop.sock_sendall(slow, frames)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await asyncio.wait_for(flood(), DEADLINE)
        slow.close()
        assert isinstance(await good.ask(Verb.STATUS), bytes)


async def test_a_bug_in_one_request_is_an_internal_error_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as served, served.client() as client:

        def bug(_origin_hash: bytes) -> None:
            raise RuntimeError("a secret detail")

        monkeypatch.setattr(served.running.store, "cosigned", bug)
        answer = await client.ask(Verb.CHECKPOINT, bytes(32))
        assert answer == InternalError()
        assert "secret" not in str(answer)
        assert isinstance(await client.ask(Verb.STATUS), bytes)


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(tmp_path / "core.sock"))
    stale.close()
    async with serving(tmp_path) as served, served.client() as client:
        assert isinstance(await client.ask(Verb.STATUS), bytes)


async def test_stopping_sends_what_is_queued_and_closes(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        await client.send(1, Verb.ADD_CHECKPOINT, served.log.add_checkpoint(0))
        while served.running.witness.pending == 0 and served.running.witness.accepted == 0:
            await asyncio.sleep(0)
        await served.running.witness.stop()
        await client.send(2, Verb.ADD_CHECKPOINT, served.log.add_checkpoint(5))
        assert isinstance(await client.receive(1), bytes)
        answer = await client.receive(2)
        assert isinstance(answer, CoreError)
        assert answer.code == "stopping"
        await served.server.stop()
        assert await client.closed()


@pytest.mark.parametrize(("front_uids", "mode"), [((), "0o600"), ((12345,), "0o666")])
async def test_the_sockets_mode(tmp_path: Path, front_uids: tuple[int, ...], mode: str) -> None:
    umask = os.umask(0)
    try:
        async with serving(tmp_path, front_uids=front_uids) as served:
            assert oct(served.path.stat().st_mode & 0o777) == mode
    finally:
        os.umask(umask)


_STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
client.settimeout(20)
try:
    client.connect(sys.argv[1])
    client.sendall(bytes.fromhex("000000050000000104"))  # a status request
    sys.stdout.write("answered" if client.recv(1) else "closed")
except (ConnectionResetError, BrokenPipeError):
    sys.stdout.write("closed")
except PermissionError:
    sys.stdout.write("no permission")
"""


async def _as_user(uid: int, path: Path) -> str:
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable  # one that any user can run
    process = await asyncio.create_subprocess_exec(
        python, "-I", "-c", _STRANGER, str(path), str(uid), stdout=subprocess.PIPE, cwd="/"
    )
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    return out.decode()


@pytest.mark.parametrize(
    ("front_uids", "uid", "want"),
    [((), 54321, "no permission"), ((12345,), 54321, "closed"), ((12345,), 12345, "answered")],
    ids=["nobody is invited", "another is invited", "invited"],
)
async def test_the_peers_user_decides(
    front_uids: tuple[int, ...], uid: int, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with short_folder() as folder:
        folder.chmod(0o755)
        async with serving(folder, front_uids=front_uids) as served, served.client() as good:
            assert await _as_user(uid, served.path) == want
            assert isinstance(await good.ask(Verb.STATUS), bytes)


async def test_even_a_socket_that_is_open_to_all_answers_only_who_may(tmp_path: Path) -> None:
    """The socket's mode is the outer fence; the kernel's word on the peer is the inner."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with short_folder() as folder:
        folder.chmod(0o755)
        async with serving(folder) as served:
            served.path.chmod(0o666)
            assert await _as_user(54321, served.path) == "closed"
