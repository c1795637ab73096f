"""The core's door: one Unix socket, framed requests, peer credentials checked.

Whoever connects is taken for hostile. Frames are bounded, verbs are few, and a connection that breaks the
framing is closed. So is everything that a connection can make the core hold: how many there are, what each
has under way, the bodies inside, the answers that nobody reads, and the lines in our own log. What goes
beyond is told to come back later, or closed. Nothing here judges or stores.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from witness.core.continuity.guard import Guard
from witness.core.refusals import (
    CoreError,
    InternalError,
    MalformedRequest,
    NoCheckpoint,
    NotYetCosigned,
    Overloaded,
)
from witness.core.request import Answer
from witness.core.status import StatusReporter
from witness.core.store.base import Store
from witness.core.wire import (
    MAX_REQUEST,
    FrameReader,
    Kind,
    LogInfo,
    LogPage,
    Verb,
    WireError,
    decode_cursor,
    decode_seen,
    decode_since,
    encode_error,
    encode_frame,
    encode_value,
)
from witness.core.witness import Witness

log = logging.getLogger(__name__)

LOGS_PAGE = 1000
"""Logs in one answer about configuration, at most."""
MAX_BUFFERED_REPLIES = 8 * 1024 * 1024
"""Bytes a slow front may leave unread before its connection is closed."""
MAX_UNREAD_REPLIES = 64 * 1024 * 1024
"""Bytes that all fronts together may leave unread before the one that is answered next is closed."""
MAX_CONNECTIONS = 64
"""Connections at a time. A front needs one, and so does a command."""
MAX_UNDER_WAY = 1024
"""Requests of one connection under way, add-checkpoint aside, which the witness bounds itself."""
MAX_PAGES_UNDER_WAY = 8
"""Requests of one connection under way whose answers are long: status, logs, changes."""
MAX_BODIES = 64 * 1024 * 1024
"""Bytes of add-checkpoint and sign-subtree bodies inside, over all connections."""
COMPLAINT_SECONDS = 1.0
"""Between two lines in our log about what fronts do wrong."""
BACKLOG = 64
"""Connections that may wait to be accepted."""
_UCRED = struct.Struct("3i")
_PAGES = frozenset({Verb.STATUS, Verb.LOGS, Verb.CHANGES})


def bind(path: Path, *, others: bool) -> socket.socket:
    """A socket listening at `path`, in place of one left behind there (the state folder's lock is held).

    Args:
        path: where.
        others: whether users besides ours and root may try; the kernel's word on who is there decides, in
            `CoreServer.admit`.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Between bind and chmod nobody else may connect: the umask closes that gap.
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    if others:
        path.chmod(0o666)
    listener.listen(BACKLOG)
    return listener


class CoreServer:
    """Serves one `Witness` on a Unix socket."""

    def __init__(
        self, witness: Witness, store: Store, reporter: StatusReporter, *,
        front_uids: tuple[int, ...] = (), guard: Guard | None = None,
    ) -> None:  # fmt: skip
        """Takes what it serves; `front_uids` are users that may connect besides our own and root."""
        self._witness = witness
        self._store = store
        self._reporter = reporter
        self._guard = guard
        self._allowed = frozenset({os.geteuid(), 0, *front_uids})
        self._readers = ThreadPoolExecutor(1, "reader")
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bodies = 0
        self._next_complaint = 0.0
        self._server: asyncio.Server | None = None
        self._verbs: dict[int, Callable[[bytes], Awaitable[bytes]]] = {
            Verb.SIGN_SUBTREE: witness.sign_subtree,
            Verb.CHECKPOINT: self._checkpoint,
            Verb.STATUS: self._status,
            Verb.LOGS: self._logs,
            Verb.CHANGES: self._changes,
            Verb.SEEN: self._seen,
            Verb.COMPARED: self._compared,
        }

    async def start(self, where: Path | socket.socket) -> None:
        """Listens at a path, or takes connections from a socket that `bind` made."""
        if isinstance(where, Path):
            where = bind(where, others=not self._allowed <= {os.geteuid(), 0})
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Connection(self), sock=where
        )

    async def stop(self) -> None:
        """Takes no further connections, lets running requests end, and closes."""
        if self._server is not None:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._connections):
            connection.flush_and_close()
        self._readers.shutdown()

    def admit(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the peer's user may talk to the core (SO_PEERCRED: the kernel's word, not the peer's)."""
        peer = transport.get_extra_info("socket")
        pid, uid, _gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._allowed:
            self.complain("refused a connection from user %d (process %d)", uid, pid)
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            self.complain("refused a connection beyond %d", MAX_CONNECTIONS)
            return False
        return True

    def complain(self, text: str, *facts: object) -> None:
        """Logs what a front does wrong; not every time, or it could fill the disk with it."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_SECONDS
            log.warning(text, *facts)

    def joined(self, connection: _Connection) -> None:
        """Notes a connection that was admitted."""
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        """Forgets a connection that is gone."""
        self._connections.discard(connection)

    def handle(self, connection: _Connection, request_id: int, verb: int, payload: bytes) -> None:
        """Starts on one request; its answer goes to the connection when it is there."""
        size = len(payload)
        if self._bodies + size > MAX_BODIES:
            self._shed(connection, request_id)
            return
        if verb == Verb.ADD_CHECKPOINT:  # the hot one: no task, no future

            def respond(answer: Answer) -> None:
                self._bodies -= size
                connection.answer(request_id, answer)

            self._bodies += size
            self._witness.submit(payload, respond)
            return
        handler = self._verbs.get(verb)
        if handler is None:
            connection.answer(request_id, MalformedRequest(f"the core knows no verb {verb}"))
            return
        pages = verb in _PAGES
        if connection.under_way >= MAX_UNDER_WAY or (pages and connection.pages >= MAX_PAGES_UNDER_WAY):
            self._shed(connection, request_id)
            return

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._bodies -= size
            connection.under_way -= 1
            connection.pages -= pages

        self._bodies += size
        connection.under_way += 1
        connection.pages += pages
        task = asyncio.get_running_loop().create_task(self._run(handler, connection, request_id, payload))
        self._tasks.add(task)
        task.add_done_callback(done)

    def _shed(self, connection: _Connection, request_id: int) -> None:
        error = Overloaded(retry_after=1)
        self._witness.refusals[error.code] += 1
        connection.answer(request_id, error)

    def unread(self) -> int:
        """Bytes of answers that fronts have not read."""
        return sum(connection.unread for connection in self._connections)

    async def _run(
        self,
        handler: Callable[[bytes], Awaitable[bytes]],
        connection: _Connection,
        request_id: int,
        payload: bytes,
    ) -> None:
        answer: Answer
        try:
            answer = await handler(payload)
        except CoreError as error:
            answer = error
        except WireError as error:
            answer = MalformedRequest(str(error))
        except Exception:  # the core outlives a bug in one request; the bug is logged whole
            log.exception("a request failed")
            answer = InternalError()
        connection.answer(request_id, answer)

    async def _checkpoint(self, payload: bytes) -> bytes:
        cosigned = await asyncio.get_running_loop().run_in_executor(
            self._readers, self._store.cosigned, payload
        )
        if cosigned is None:
            raise NoCheckpoint(payload[:32].hex())
        if not cosigned.cosignatures:
            raise NotYetCosigned(payload[:32].hex())
        return cosigned.note + cosigned.cosignatures

    async def _seen(self, payload: bytes) -> bytes:
        """A front found this in the world. All it can bring about is that signing stops."""
        ours = self._guard is not None and await self._guard.seen(*decode_seen(payload))
        return b"ours" if ours else b""

    async def _compared(self, _payload: bytes) -> bytes:
        if self._guard is not None:
            self._guard.world_compared()
        return b""

    async def _status(self, _payload: bytes) -> bytes:
        return encode_value(self._reporter.status())

    async def _logs(self, payload: bytes) -> bytes:
        since = decode_since(payload)
        page = await asyncio.get_running_loop().run_in_executor(self._readers, self._read_logs, since)
        return encode_value(page)

    def _read_logs(self, since: int) -> LogPage:
        logs: list[LogInfo] = []
        more = False
        # Nothing that the core has not taken over itself: whoever is told of a log may submit for it at once.
        known = self._witness.book.change
        for record, head in self._store.load(since, LOGS_PAGE + 1):
            if record.change > known:
                break
            if len(logs) == LOGS_PAGE:
                more = True
                break
            since = record.change
            logs.append(
                LogInfo(
                    origin=record.origin, vkeys=record.vkeys, disabled=record.disabled, feeder=record.feeder,
                    url=record.url, interval=record.interval, qpd=record.qpd, contact=record.contact,
                    size=head.size if head else -1, timestamp=head.timestamp if head else 0,
                )
            )  # fmt: skip
        return LogPage(change=since, more=more, logs=tuple(logs))

    async def _changes(self, payload: bytes) -> bytes:
        cursor = decode_cursor(payload)
        if self._witness.halted is not None:
            # What we hold may be older than what others have of us: it must not be published in its place.
            raise self._witness.halted.with_traceback(None)
        return encode_value(self._witness.book.changes(cursor))


class _Connection(asyncio.Protocol):
    """One front's connection. Replies of one turn of the loop leave in one write.

    The server counts in it what is under way: all requests but add-checkpoint, and those for long answers.
    """

    def __init__(self, server: CoreServer) -> None:
        self._server = server
        self._reader = FrameReader(MAX_REQUEST)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self.under_way = 0
        self.pages = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport) and not hasattr(transport, "write"):
            raise TypeError("a stream transport was expected")
        if not self._server.admit(transport):
            transport.close()
            return
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport is one by behaviour
        self._server.joined(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        try:
            frames = self._reader.feed(data)
        except WireError as error:
            self._server.complain("a front broke the framing: %s", error)
            self._transport.close()
            return
        for request_id, verb, payload in frames:
            self._server.handle(self, request_id, verb, payload)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._server.left(self)

    def answer(self, request_id: int, answer: Answer) -> None:
        """Queues a reply; a connection that is gone swallows it."""
        if self._transport is None:
            return
        if isinstance(answer, CoreError):
            frame = encode_frame(request_id, Kind.ERROR, encode_error(answer))
        else:
            frame = encode_frame(request_id, Kind.OK, answer)
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
            unread = self.unread
            if unread > MAX_BUFFERED_REPLIES or (unread and self._server.unread() > MAX_UNREAD_REPLIES):
                self._server.complain("a front does not read its answers; its connection is closed")
                self._transport.abort()
        self._out.clear()

    @property
    def unread(self) -> int:
        """Bytes of answers that wait for the front to read."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def flush_and_close(self) -> None:
        """Sends what is queued and closes."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
