"""The endpoints that say how the witness is: health, metrics, status, and the pages for people.

Each returns a `Reply` and raises nothing: a core that does not answer is a report too.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from witness.core.refusals import CoreError
from witness.front import endpoints, page, status
from witness.front.endpoints import HTML, JSON, Reply
from witness.front.metrics import CONTENT_TYPE, Snapshot
from witness.front.view import LOGS_AGE, Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from witness.core.wire import CoreStatus
    from witness.front.feeding import FeederNews
    from witness.front.metrics import FrontMetrics
    from witness.front.settings import FrontSettings
    from witness.front.status import FrontState
    from witness.front.view import CoreView, Logs

_UNCACHED = (("Cache-Control", "no-store"),)


class Reports:
    """How the witness is, in the forms that people and programs ask for.

    Args:
        settings: the front's.
        view: the core, asked seldom.
        metrics: the front's counters.
        state: how the front is now.
        feeders: how the feeders stand.
        publisher_states: states of the distributors' clients, as frozen dataclasses.
        now: POSIX seconds.
        clock: seconds, of any epoch.
    """

    def __init__(
        self,
        settings: FrontSettings,
        view: CoreView,
        metrics: FrontMetrics,
        *,
        state: Callable[[], FrontState],
        feeders: FeederNews,
        publisher_states: Callable[[], Mapping[str, object] | Sequence[object]],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._view = view
        self._metrics = metrics
        self._state = state
        self._feeders = feeders
        self._words = Kept(feeders.words, LOGS_AGE, clock)
        self._publisher_states = publisher_states
        self._now = now

    async def healthz(self) -> Reply:
        """`GET /healthz`: 200 once the core answers."""
        try:
            return await endpoints.healthz(self._view)
        except CoreError as error:
            return endpoints.refusal(error)

    async def readyz(self) -> Reply:
        """`GET /readyz`: 200 while the core would sign."""
        try:
            return await endpoints.readyz(self._view)
        except CoreError as error:
            return endpoints.refusal(error)

    async def metrics(self) -> Reply:
        """`GET /metrics`: the front's counters, the core's and the feeders', while they answer."""
        core, logs, _ = await self._ask()
        state = self._state()
        self._metrics.take(Snapshot(state.core_connected, state.in_flight, core, logs))
        # Thousands of series take tens of milliseconds to write out; the loop serves logs meanwhile.
        own, feeders = await asyncio.gather(asyncio.to_thread(self._metrics.expose), self._feeders.metrics())
        return Reply(200, CONTENT_TYPE, own + feeders)

    async def status_json(self) -> Reply:
        """`GET /status.json`: core, front, feeders and distributors in one document."""
        try:
            core, problem = await self._view.status(), None
        except CoreError as error:
            core, problem = None, str(error)
        feeders = await self._feeders.document()
        body = status.document(self._state(), core, problem, feeders, self._publisher_states())
        return Reply(200, JSON, body, _UNCACHED)

    async def front_page(self) -> Reply:
        """`GET /`: the page for people."""
        core, logs, problem = await self._ask()
        known = core or self._view.last_status
        # Where logs are too many to be listed, nobody asks for a word on each.
        listed = logs is not None and logs.listed
        html = page.front_page(
            name=known.name if known is not None else self._settings.name,
            status=known,
            problem=problem,
            logs=logs,
            feeders=await self._words.get() if listed else {},
            rows=self._settings.page_logs,
            now=self._now(),
            operator_links=not self._settings.operator_listen,
        )
        return Reply(200, HTML, html.encode(), page.security_headers())

    async def about(self) -> Reply:
        """`GET /about`: what the witness network asks a witness to say of itself."""
        try:
            core: CoreStatus | None = await self._view.status()
        except CoreError:
            core = self._view.last_status
        html = page.about_page(
            name=core.name if core is not None else self._settings.name,
            status=core,
            about=self._settings.about,
        )
        return Reply(200, HTML, html.encode(), page.security_headers())

    async def _ask(self) -> tuple[CoreStatus | None, Logs | None, str | None]:
        core = None
        try:
            core = await self._view.status()
            return core, await self._view.logs(), None
        except CoreError as error:
            return core, None, str(error)
