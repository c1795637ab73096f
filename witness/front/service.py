"""The front as one service: listeners up, serve until told to stop, drain, done."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from witness.core.wire import Core
from witness.front.door import Door
from witness.front.feeding import FeederNews, NoFeeders
from witness.front.http import HttpCarrier
from witness.front.listeners import BACKLOG, CannotListen, bind, unlink
from witness.front.metrics import FrontMetrics
from witness.front.reports import Reports
from witness.front.status import FrontState
from witness.front.view import CoreView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from witness.core.wire import LockdownStep
    from witness.front.settings import FrontSettings

_CLOSING = 1.0
"""Seconds for connections to close after the drain."""

_log = logging.getLogger(__name__)


class ConnectedCore(Core, Protocol):
    """The core, and whether it can be reached now: `witness.front.client.CoreClient`."""

    @property
    def connected(self) -> bool:
        """Whether a request would be sent now."""
        ...


@dataclass(frozen=True, slots=True)
class Listening:
    """A bound address, `http://HOST:PORT` or `unix:PATH`; `public` unless it is the operator's alone."""

    url: str
    public: bool


class FrontService:
    """Serves the front's endpoints over a core that somebody else keeps connected.

    `run` belongs in the caller's TaskGroup beside `CoreClient.run`; it must end before the client is closed,
    so that requests in flight get their answers.

    Args:
        settings: the front's.
        core: the core.
        registry: where metrics are registered.
        feeders: how the feeders stand; None where nothing is polled.
        publisher_states: states of the distributors' clients, as frozen dataclasses.
        lockdown: what this process has given up.
        on_listening: called once with the bound addresses, when all listeners are up.
        now: POSIX seconds.
    """

    def __init__(
        self,
        settings: FrontSettings,
        core: ConnectedCore,
        registry: CollectorRegistry,
        *,
        feeders: FeederNews | None = None,
        publisher_states: Callable[[], Mapping[str, object] | Sequence[object]] = tuple,
        lockdown: Callable[[], tuple[LockdownStep, ...]] = tuple,
        on_listening: Callable[[tuple[Listening, ...]], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._core = core
        self._on_listening = on_listening
        self._lockdown = lockdown
        self._started = now()
        self._up = asyncio.Event()
        self._listening: tuple[Listening, ...] = ()
        metrics = FrontMetrics(registry, max_origins=settings.max_origins)
        self._door = Door(core, metrics, max_in_flight=settings.max_in_flight)
        reports = Reports(
            settings,
            CoreView(core, max_origins=settings.max_origins),
            metrics,
            state=self._state,
            feeders=feeders or NoFeeders(),
            publisher_states=publisher_states,
            now=now,
        )
        both = not settings.operator_listen
        self._public = HttpCarrier(
            self._door, reports, settings, public=True, operator=both, prefix=settings.prefix
        )
        self._operator = HttpCarrier(self._door, reports, settings, public=False, operator=True)
        self._bound: tuple[list[socket.socket], list[socket.socket]] | None = None

    @property
    def door(self) -> Door:
        """The core's endpoints with admission and counts, for further carriers (a bastion's)."""
        return self._door

    async def listening(self) -> tuple[Listening, ...]:
        """The bound addresses, once all listeners are up."""
        await self._up.wait()
        return self._listening

    def bind(self) -> None:
        """Takes all addresses, before anything is served: a process may give up its privileges then.

        `run` does it where nobody has.

        Raises:
            CannotListen: an address is taken, or is not ours to listen on.
        """
        public = bind(self._settings.listen)
        try:
            operator = bind(self._operator_addresses())
        except CannotListen:
            for each in public:
                each.close()
            raise
        if self._settings.operator_socket is not None:
            # The folder around it is the operator's alone; this says so once more.
            Path(self._settings.operator_socket).chmod(0o600)
        self._bound = (public, operator)

    def _operator_addresses(self) -> tuple[str, ...]:
        own = self._settings.operator_socket
        return (*self._settings.operator_listen, *(() if own is None else (f"unix:{own}",)))

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set (or the task is cancelled), then drains.

        Draining: nothing new is accepted, requests in flight are answered, connections close. It takes
        `drain_timeout` seconds at most.

        Raises:
            CannotListen: an address is taken, or is not ours to listen on.
        """
        if self._bound is None:
            self.bind()
        assert self._bound is not None
        (public, operator), self._bound = self._bound, None
        serving = [
            _Listeners(self._public, public, public=True),
            _Listeners(self._operator, operator, public=False),
        ]
        try:
            for listener in serving:
                await listener.start()
            self._listening = tuple(each for listener in serving for each in listener.bound())
            self._up.set()
            for listening in self._listening:
                _log.info("listening url=%s public=%s", listening.url, listening.public)
            if self._on_listening is not None:
                self._on_listening(self._listening)
            await stop.wait()
        finally:
            for listener in serving:
                await listener.refuse()
            try:
                async with asyncio.timeout(self._settings.drain_timeout):
                    await self._public.drain()
                    await self._operator.drain()
            except TimeoutError:
                _log.warning("requests still in flight after %g s are cut", self._settings.drain_timeout)
            for listener in serving:
                await listener.close()
            unlink((*self._settings.listen, *self._operator_addresses()))

    def _state(self) -> FrontState:
        return FrontState(
            pid=os.getpid(),
            started=self._started,
            core_connected=self._core.connected,
            in_flight=self._door.in_flight,
            listening=tuple(bound.url for bound in self._listening),
            lockdown=self._lockdown(),
        )


class _Listeners:
    """The listeners of one carrier."""

    def __init__(self, carrier: HttpCarrier, sockets: Sequence[socket.socket], *, public: bool) -> None:
        self._sockets = sockets
        self._public = public
        self._runner = web.ServerRunner(carrier.server(), shutdown_timeout=_CLOSING)

    async def start(self) -> None:
        await self._runner.setup()
        for bound in self._sockets:
            await web.SockSite(self._runner, bound, backlog=BACKLOG).start()

    def bound(self) -> list[Listening]:
        return [Listening(_url(address), self._public) for address in self._runner.addresses]

    async def refuse(self) -> None:
        """Accepts no further connection."""
        for site in self._runner.sites:
            await site.stop()

    async def close(self) -> None:
        """Closes what is open."""
        await self._runner.cleanup()


def _url(address: tuple[str, int] | tuple[str, int, int, int] | str | bytes) -> str:
    if isinstance(address, (str, bytes)):
        return f"unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
