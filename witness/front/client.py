"""The core, seen from the front: the `Core` protocol spoken over the core's Unix socket.

The rules of this file:

- One connection, many requests: each has an id, replies pair by it and come in any order.
- Frames that are queued during one turn of the event loop leave in one write.
- A request is sent once. When the connection breaks, what was in flight fails with `CoreUnreachable` and is
  never sent again behind the caller's back: whether the core has acted on it is unknown, and only the caller
  knows whether asking again makes sense (tlog-witness clients do, with the size the 409 names).
- While there is no connection, a request fails at once. Nothing queues for a core that is not there.
- Callers see `Refusal` and `Unavailable`, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, TypeVar, cast

from witness.core.refusals import CoreUnreachable, Overloaded
from witness.core.wire import (
    MAX_REPLY,
    Changes,
    CoreStatus,
    Cursor,
    FrameReader,
    Kind,
    LogPage,
    Verb,
    WireError,
    decode_changes,
    decode_error,
    decode_logs,
    decode_status,
    encode_frame,
    encode_seen,
    encode_since,
    encode_value,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE = 3.0
"""Seconds a request may wait for its reply. Logs give all their witnesses about one second."""
FIRST_RETRY = 0.02
"""Seconds before the first new attempt after a connection broke or could not be made."""
MAX_RETRY = 1.0
"""Seconds between attempts, at most; the delay doubles up to it."""
MAX_QUEUED = 32 * 1024 * 1024
"""Bytes that may wait to be written to a core that does not read."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class CoreClient:
    """The core behind a Unix socket; implements `witness.core.wire.Core`.

    `run()` keeps the connection; it belongs in the caller's TaskGroup. Requests may be made from any task of
    the same event loop.

    Args:
        path: the core's socket.
        deadline: seconds a request may wait for its reply.
    """

    def __init__(self, path: str, *, deadline: float = DEADLINE) -> None:
        self._path = path
        self._deadline = deadline
        self._connection: _Connection | None = None
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a request would be sent now."""
        return self._connection is not None

    async def wait_connected(self) -> None:
        """Returns once there is a connection; a caller that cannot wait for ever brings its own timeout."""
        await self._arrived.wait()

    async def run(self) -> None:
        """Connects, and connects again whenever the connection breaks, until `close()` or cancellation.

        The first attempt after a break comes after `FIRST_RETRY` seconds, later ones at doubling delays up to
        `MAX_RETRY`.
        """
        delay = FIRST_RETRY
        told = False
        try:
            while not self._closing.is_set():
                try:
                    connection = await _open(self._path, self._deadline, self._forget)
                except OSError as error:
                    # One line a state, not one an attempt: a core that is down stays down for many attempts.
                    if not told:
                        _log.warning("core unreachable socket=%s reason=%s", self._path, error)
                        told = True
                else:
                    _log.info("core connected socket=%s", self._path)
                    self._adopt(connection)
                    await connection.ended.wait()
                    if self._closing.is_set():
                        return
                    told = False
                    _log.warning("core connection lost socket=%s reason=%s", self._path, connection.reason)
                    # A core that hangs up on us before its first answer (it refuses our credentials, say) is
                    # no success: the delay goes on growing.
                    if connection.answered:
                        delay = FIRST_RETRY
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._closing.wait()
                delay = min(delay * 2, MAX_RETRY)
        finally:
            self._drop()

    async def close(self) -> None:
        """Ends the connection and `run()`; what is in flight fails with `CoreUnreachable`."""
        self._closing.set()
        self._drop()

    async def add_checkpoint(self, body: bytes) -> bytes:
        """The cosignature lines for an add-checkpoint body (tlog-witness, add-checkpoint)."""
        return await self._request(Verb.ADD_CHECKPOINT, body)

    async def sign_subtree(self, body: bytes) -> bytes:
        """The cosignature lines for a sign-subtree body (tlog-witness, sign-subtree)."""
        return await self._request(Verb.SIGN_SUBTREE, body)

    async def checkpoint(self, origin_hash: bytes) -> bytes:
        """The latest cosigned checkpoint, as a note, by the 32-byte SHA-256 of its origin."""
        return await self._request(Verb.CHECKPOINT, origin_hash)

    async def status(self) -> CoreStatus:
        """How the core is."""
        return _decoded(decode_status, await self._request(Verb.STATUS, b""))

    async def logs(self, since: int = 0) -> LogPage:
        """Configured logs that changed after change number `since`, a page at a time."""
        return _decoded(decode_logs, await self._request(Verb.LOGS, encode_since(since)))

    async def changes(self, cursor: Cursor | None = None) -> Changes:
        """Heads that moved since the cursor, a page at a time."""
        asked = encode_value(cursor) if cursor is not None else b""
        return _decoded(decode_changes, await self._request(Verb.CHANGES, asked))

    async def seen(self, source: str, note: bytes) -> bool:
        """Shows a copy of a checkpoint that was found in the world; whether it carries our cosignature."""
        return await self._request(Verb.SEEN, encode_seen(source, note)) != b""

    async def compared(self) -> None:
        """Says that everybody was asked for copies."""
        await self._request(Verb.COMPARED, b"")

    async def _request(self, verb: Verb, payload: bytes) -> bytes:
        connection = self._connection
        if connection is None:
            raise CoreUnreachable("not connected")
        return await connection.request(verb, payload)

    def _adopt(self, connection: _Connection) -> None:
        if connection.ended.is_set():  # it broke between being made and being adopted
            return
        if self._closing.is_set():
            connection.abort("closed")
            return
        self._connection = connection
        self._arrived.set()

    def _forget(self, connection: _Connection) -> None:
        """Called by a connection that has just broken, before any of its requests fails."""
        if self._connection is connection:
            self._connection = None
            self._arrived.clear()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort("closed")


@contextlib.asynccontextmanager
async def connect_once(path: str, *, deadline: float = DEADLINE) -> AsyncIterator[CoreClient]:
    """A client over one connection that is not made again when it breaks: for commands that ask and end.

    Args:
        path: the core's socket.
        deadline: seconds a request may wait for its reply.

    Raises:
        CoreUnreachable: nobody listens at the socket.
    """
    client = CoreClient(path, deadline=deadline)
    try:
        connection = await _open(path, deadline, client._forget)  # noqa: SLF001  # the client's other half
    except OSError as error:
        raise CoreUnreachable(error.strerror or str(error)) from error
    client._adopt(connection)  # noqa: SLF001
    try:
        yield client
    finally:
        await client.close()
        await connection.ended.wait()


async def _open(path: str, deadline: float, broken: Callable[[_Connection], None]) -> _Connection:
    """A new connection. Raises OSError (TimeoutError is one)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(deadline):
        _, connection = await loop.create_unix_connection(lambda: _Connection(loop, deadline, broken), path)
    return connection


class _Connection(asyncio.Protocol):
    """One connection: frames out, replies in, every request answered, expired or failed.

    `reason` says why it ended, once `ended` is set; `answered` whether a reply ever came.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadline: float,
        broken: Callable[[_Connection], None],
    ) -> None:
        self.ended = asyncio.Event()
        self.reason = "the connection broke"
        self.answered = False
        self._loop = loop
        self._deadline = deadline
        self._broken = broken
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(MAX_REPLY)
        self._next_id = 0
        # In the order of asking, which is the order of expiry too: every request has the same deadline, so
        # one timer for the oldest is enough, and the hot path pays for none.
        self._waiting: dict[int, tuple[asyncio.Future[bytes], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._queue: list[bytes] = []
        self._queued = 0

    async def request(self, verb: Verb, payload: bytes) -> bytes:
        """Sends one request and waits for its reply's payload, or raises the error that it carries."""
        transport = self._transport
        if transport is None:
            raise CoreUnreachable(self.reason)
        if self._queued + transport.get_write_buffer_size() > MAX_QUEUED:
            raise Overloaded(retry_after=1)
        request_id = self._next_id
        self._next_id = (request_id + 1) & 0xFFFFFFFF
        frame = encode_frame(request_id, verb, payload)
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append(frame)
        self._queued += len(frame)
        future: asyncio.Future[bytes] = self._loop.create_future()
        expiry = self._loop.time() + self._deadline
        self._waiting[request_id] = (future, expiry)
        if self._timer is None:
            self._timer = self._loop.call_at(expiry, self._expire)
        try:
            return await future
        finally:
            # Answered, expired, or the caller was cancelled: a reply that still comes is nobody's.
            self._waiting.pop(request_id, None)

    def abort(self, reason: str) -> None:
        """Ends the connection now; what is in flight fails."""
        self._end(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            for request_id, kind, payload in frames:
                self._settle(request_id, kind, payload)
        except WireError as error:
            # Framing lost is connection lost: whatever follows could be paired with the wrong request.
            self._end(f"the core broke the framing: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc is not None else "the core closed the connection")
        self.ended.set()

    def _settle(self, request_id: int, kind: int, payload: bytes) -> None:
        if kind not in (Kind.OK, Kind.ERROR):
            raise WireError(f"reply of kind {kind}")
        self.answered = True
        waiting = self._waiting.get(request_id)
        if waiting is None or waiting[0].done():  # expired or cancelled meanwhile
            return
        if kind == Kind.OK:
            waiting[0].set_result(payload)
        else:
            waiting[0].set_exception(decode_error(payload))

    def _flush(self) -> None:
        queue, self._queue, self._queued = self._queue, [], 0
        if self._transport is not None and queue:
            self._transport.write(b"".join(queue))

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for future, expiry in self._waiting.values():
            if expiry > now:
                self._timer = self._loop.call_at(expiry, self._expire)
                return
            if not future.done():
                future.set_exception(CoreUnreachable(f"no reply within {self._deadline:g} s"))

    def _end(self, reason: str) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self.reason = reason
        self._broken(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue, self._queued = [], 0
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(CoreUnreachable(reason))
        transport.abort()


def _decoded(decode: Callable[[bytes], _T], payload: bytes) -> _T:
    try:
        return decode(payload)
    except WireError as error:
        raise CoreUnreachable(f"its answer is not understood: {error}") from error
