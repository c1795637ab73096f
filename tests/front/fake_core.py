"""A core for the front's tests: the real framing over a real Unix socket, scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from witness.core.refusals import CoreError, NoCheckpoint
from witness.core.wire import (
    MAX_REQUEST,
    Changes,
    CoreStatus,
    Cursor,
    FrameReader,
    KeyInfo,
    Kind,
    LogInfo,
    LogPage,
    Verb,
    decode_cursor,
    decode_since,
    encode_error,
    encode_frame,
    encode_value,
)

COSIGNATURES = "— witness.example/w1 AAAA\n".encode()

STATUS = CoreStatus(
    name="witness.example/w1",
    version="0.1.0",
    pid=1,
    started=1_700_000_000.0,
    ready=True,
    reasons=(),
    warnings=(),
    keys=(
        KeyInfo("witness.example/w1+1f1f1f1f+BAAA", "ed25519", "soft", "ready"),
        KeyInfo("witness.example/w1+2f2f2f2f+BgAA", "ml-dsa-44", "soft", "ready"),
    ),
    logs=1,
    heads=1,
    pending=0,
    last_issued=1_700_000_100,
    accepted=7,
    commits=3,
    contradictions=0,
    refusals={"stale-old-size": 2},
    stages={"queue": 0.5, "judge": 0.25, "commit": 1.5},
    selftests=("ed25519",),
)

LOG = LogInfo(
    origin="log.example/one",
    vkeys=("log.example/one+0a0a0a0a+AQAA",),
    disabled=False,
    feeder="none",
    url=None,
    interval=None,
    qpd=8640,
    contact=None,
    size=42,
    timestamp=1_700_000_100,
)


def submission(origin: str = "log.example/one", old: int = 42) -> bytes:
    """The shape of an add-checkpoint body; the fake core judges nothing."""
    return f"old {old}\n\n{origin}\n43\nAAAA\n\n— {origin} AAAA\n".encode()


@dataclass
class FakeCore:
    """Implements `Core` in memory. Tests set what it answers, and may hold answers back.

    `held` is an event that add_checkpoint waits for when set to one; `asked` counts requests that arrived.
    """

    status_value: CoreStatus = STATUS
    log_values: tuple[LogInfo, ...] = (LOG,)
    answer: bytes | CoreError = COSIGNATURES
    checkpoints: dict[bytes, bytes] = field(default_factory=dict)
    held: asyncio.Event | None = None
    status_error: CoreError | None = None
    bodies: list[bytes] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    page_size: int = 100
    status_calls: int = 0
    logs_calls: int = 0

    async def wait_asked(self, count: int) -> None:
        """Returns once add_checkpoint was asked `count` times in all."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.bodies) >= count)

    async def add_checkpoint(self, body: bytes) -> bytes:
        async with self.arrived:
            self.bodies.append(body)
            self.arrived.notify_all()
        if self.held is not None:
            await self.held.wait()
        if isinstance(self.answer, CoreError):
            raise self.answer
        return self.answer

    async def sign_subtree(self, body: bytes) -> bytes:
        return await self.add_checkpoint(body)

    async def checkpoint(self, origin_hash: bytes) -> bytes:
        try:
            return self.checkpoints[origin_hash]
        except KeyError:
            raise NoCheckpoint(origin_hash=origin_hash.hex()) from None

    async def status(self) -> CoreStatus:
        self.status_calls += 1
        if self.status_error is not None:
            raise self.status_error
        return dataclasses.replace(self.status_value, logs=len(self.log_values))

    async def logs(self, since: int = 0) -> LogPage:
        self.logs_calls += 1
        end = min(since + self.page_size, len(self.log_values))
        return LogPage(change=end, more=end < len(self.log_values), logs=self.log_values[since:end])

    async def changes(self, cursor: Cursor | None = None) -> Changes:
        return Changes(Cursor("epoch", 1), more=False, origins=tuple(log.origin for log in self.log_values))


class FakeServer:
    """Serves a `FakeCore` at a socket. `connections` are the open transports, newest last.

    `script`, when set, takes over: it is called with each request frame and the transport.
    """

    def __init__(self, core: FakeCore, path: Path) -> None:
        self.core = core
        self.path = path
        self.connections: list[asyncio.Transport] = []
        self.accepted = 0
        self.reads: list[int] = []
        self.script: Callable[[int, int, bytes, asyncio.Transport], None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Session(self), str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for transport in self.connections:
            transport.abort()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def respond(self, request_id: int, verb: int, payload: bytes, transport: asyncio.Transport) -> None:
        try:
            reply = await _VERBS[Verb(verb)](self.core, payload)
        except CoreError as error:
            transport.write(encode_frame(request_id, Kind.ERROR, encode_error(error)))
        else:
            transport.write(encode_frame(request_id, Kind.OK, reply))


class _Session(asyncio.Protocol):
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.reader = FrameReader(MAX_REQUEST)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self.server.connections.append(self.transport)
        self.server.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.remove(self.transport)

    def data_received(self, data: bytes) -> None:
        frames = self.reader.feed(data)
        self.server.reads.append(len(frames))
        for frame in frames:
            if self.server.script is not None:
                self.server.script(*frame, self.transport)
                continue
            task = asyncio.get_running_loop().create_task(self.server.respond(*frame, self.transport))
            self.server.tasks.add(task)
            task.add_done_callback(self.server.tasks.discard)


async def _status(core: FakeCore, payload: bytes) -> bytes:
    return encode_value(await core.status())


async def _logs(core: FakeCore, payload: bytes) -> bytes:
    return encode_value(await core.logs(decode_since(payload)))


async def _changes(core: FakeCore, payload: bytes) -> bytes:
    return encode_value(await core.changes(decode_cursor(payload)))


_VERBS: dict[Verb, Callable[[FakeCore, bytes], Awaitable[bytes]]] = {
    Verb.ADD_CHECKPOINT: FakeCore.add_checkpoint,
    Verb.SIGN_SUBTREE: FakeCore.sign_subtree,
    Verb.CHECKPOINT: FakeCore.checkpoint,
    Verb.STATUS: _status,
    Verb.LOGS: _logs,
    Verb.CHANGES: _changes,
}


@contextlib.asynccontextmanager
async def serving(core: FakeCore, path: Path) -> AsyncIterator[FakeServer]:
    server = FakeServer(core, path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
