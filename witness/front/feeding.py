"""How the feeders stand, told by their process to the front: over a Unix socket, in three resources.

Feeders run beside the front and not in it (decision 22). What people and programs ask of the front, it asks
here, and never on the way of a request to the core. States are frozen dataclasses of the feeders' own: they
are rendered here field by field and not understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from aiohttp import web

from witness.front.listeners import bind, unlink
from witness.front.status import plain, summary

if TYPE_CHECKING:
    from witness.core.lockdown.steps import Account
    from witness.core.wire import LockdownStep

DEADLINE: Final = 3.0
"""Seconds that the feeders' process has for an answer."""
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one: 100,000 logs with an error each take half of it."""

_OK: Final = 200
_STATES: Final = "/feeders.json"
_WORDS: Final = "/words.json"
_METRICS: Final = "/metrics"
_NO_FEEDERS: Final = b'{"feeding": null, "feeders": {}}'

_log = logging.getLogger(__name__)


class FeederNews(Protocol):
    """How the feeders stand."""

    async def document(self) -> bytes:
        """A JSON object: `feeding`, how their process is (`null`, or why not), and `feeders` by origin."""

    async def words(self) -> Mapping[str, str]:
        """A word on each log's feeder, by origin; empty while nobody answers."""

    async def metrics(self) -> bytes:
        """Their metrics in Prometheus' text format; empty while nobody answers."""


class NoFeeders:
    """Nothing is polled."""

    async def document(self) -> bytes:
        """See `FeederNews`."""
        return _NO_FEEDERS

    async def words(self) -> Mapping[str, str]:
        """See `FeederNews`."""
        return {}

    async def metrics(self) -> bytes:
        """See `FeederNews`."""
        return b""


class AskedFeeders:
    """The feeders of another process.

    Args:
        path: its socket.
        deadline: seconds for an answer.
    """

    def __init__(self, path: str, deadline: float = DEADLINE) -> None:
        self._path = path
        self._timeout = aiohttp.ClientTimeout(total=deadline)

    async def document(self) -> bytes:
        """See `FeederNews`."""
        try:
            found = (await self._ask(_STATES)).strip()
        except (OSError, aiohttp.ClientError, _BadAnswer) as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            return json.dumps({"feeding": {"problem": problem}, "feeders": {}}).encode()
        return found

    async def words(self) -> Mapping[str, str]:
        """See `FeederNews`."""
        try:
            found = json.loads(await self._ask(_WORDS))
        except (OSError, aiohttp.ClientError, _BadAnswer, ValueError) as error:
            _log.debug("the feeders do not answer: %s", error)
            return {}
        return {str(origin): str(word) for origin, word in found.items()} if isinstance(found, dict) else {}

    async def metrics(self) -> bytes:
        """See `FeederNews`."""
        try:
            return await self._ask(_METRICS)
        except (OSError, aiohttp.ClientError, _BadAnswer) as error:
            _log.debug("the feeders do not answer: %s", error)
            return b""

    async def _ask(self, resource: str) -> bytes:
        """One answer. (TimeoutError is an OSError.) A connection an answer: they are asked seldom."""
        connector = aiohttp.UnixConnector(self._path)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session,
            session.get(f"http://feeders{resource}") as response,
        ):
            if response.status != _OK:
                raise _BadAnswer(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise _BadAnswer(f"more than {MAX_ANSWER} bytes")
            return bytes(body)


class _BadAnswer(Exception):
    """It answered something else."""


@dataclass(frozen=True, slots=True)
class FeedingState:
    """How the feeders' process is: `started` is POSIX seconds, `lockdown` what it has given up."""

    pid: int
    started: float
    core_connected: bool
    lockdown: tuple[LockdownStep, ...]


class FeedersDesk:
    """The feeders' side of the socket.

    Args:
        path: where to listen.
        state: how the process is.
        states: each log's feeder state, by origin.
        expose: the feeders' metrics in Prometheus' text format; called in a thread.
    """

    def __init__(
        self,
        path: str,
        *,
        state: Callable[[], FeedingState],
        states: Callable[[], Mapping[str, object]],
        expose: Callable[[], bytes],
    ) -> None:
        self._address = f"unix:{path}"
        self._state = state
        self._states = states
        self._expose = expose
        (self._socket,) = bind([self._address])
        Path(path).chmod(0o600)
        self._answers: dict[str, Callable[[], Awaitable[bytes]]] = {
            _STATES: self._document,
            _WORDS: self._words,
            _METRICS: self._metrics,
        }

    def give_to(self, account: Account) -> None:
        """Lets the front connect where it has a user of its own, whose ours is."""
        os.chown(self._address.removeprefix("unix:"), account.uid, account.gid)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answers during the block."""
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            yield
        finally:
            await runner.cleanup()
            unlink([self._address])

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self._answers.get(request.path)
        if answer is None or request.method != "GET":
            return web.Response(status=404)
        return web.Response(body=await answer())

    async def _document(self) -> bytes:
        whole = {"feeding": self._state(), "feeders": dict(self._states())}
        return await asyncio.to_thread(_encoded, whole)

    async def _words(self) -> bytes:
        states = self._states()
        return await asyncio.to_thread(lambda: _encoded({o: summary(each) for o, each in states.items()}))

    async def _metrics(self) -> bytes:
        return await asyncio.to_thread(self._expose)


def _encoded(value: object) -> bytes:
    return json.dumps(value, default=plain, ensure_ascii=False).encode("utf-8", "backslashreplace")
