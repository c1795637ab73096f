"""`python -m witness.cli.feeding_process`: polls the logs that do not push, beside the front (decision 22).

How it is started and tied to the supervisor stands in `witness.cli.outward`. It is a front like the other
one: it asks the core over the core's socket, and is locked down in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from feeders.cache import TileCache
from feeders.fetch import HttpFetch, open_session
from feeders.hosts import HostLimits
from feeders.kinds import NOT_POLLED, sources
from feeders.loop import FeederPool, LoopSettings
from feeders.metrics import FeederMetrics
from feeders.protocol import FeedLog
from feeders.tools import Tools
from witness.cli import outward
from witness.cli.collector import set_aside_what_stays
from witness.cli.front_settings import BadSettings, FeedingProcessSettings
from witness.core.lockdown import confinement
from witness.core.refusals import CoreError
from witness.core.wire import LogInfo
from witness.front.client import CoreClient
from witness.front.feeding import FeedersDesk, FeedingState
from witness.tlog.note import MalformedVKey, parse_vkey

RECONCILE_SECONDS: Final = 0.5
"""How often the core is asked which logs are new: what an operator adds is polled within a second."""

_log = logging.getLogger("witness.feeders")


def main() -> int:
    """Runs the feeders; returns the process's exit status."""
    try:
        settings = FeedingProcessSettings.from_json(sys.stdin.readline())
    except BadSettings as error:
        return outward.fail(str(error))
    _interrupt_nobody()
    return outward.run(lambda: _run(settings), settings.lockdown, settings.log_level)


def _interrupt_nobody() -> None:
    """Lets the kernel know that this process has its fair share of time, and no hurry to have it.

    Niceness would do more, and too much: on a machine that others keep busy, polls would be missed.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _run(settings: FeedingProcessSettings) -> None:
    stop = outward.stop_event()
    started = time.time()
    core = CoreClient(settings.core_socket)
    registry = CollectorRegistry()
    async with asyncio.TaskGroup() as group:
        group.create_task(core.run(), name="core client")
        async with _feeding(settings, core, registry) as pool:
            desk = FeedersDesk(
                settings.socket,
                state=lambda: FeedingState(os.getpid(), started, core.connected, steps),
                states=pool.states,
                expose=lambda: generate_latest(registry),
            )
            if settings.lockdown.account is not None:
                desk.give_to(settings.lockdown.account)
            # Everything is open, no thread runs, and no byte from outside has been read.
            state = Path(settings.core_socket).parent
            steps = confinement.confine(
                settings.lockdown, state, writes=settings.writes, reads=outward.reads()
            )
            async with desk.open(), asyncio.TaskGroup() as chores:
                tasks = [
                    chores.create_task(pool.run(), name="feeders"),
                    chores.create_task(_reconcile(core, pool, settings), name="reconcile"),
                    chores.create_task(set_aside_what_stays(pool.count), name="garbage collector"),
                ]
                await outward.connected(core)
                outward.say({"ready": True})
                await stop.wait()
                for task in tasks:
                    task.cancel()
        await core.close()


@contextlib.asynccontextmanager
async def _feeding(
    settings: FeedingProcessSettings, core: CoreClient, registry: CollectorRegistry
) -> AsyncIterator[FeederPool]:
    """The pool of feeders, and the HTTP session that all of them share."""
    feeders = settings.feeders
    folder = Path(feeders.cache_dir) if feeders.cache_dir is not None else None
    tiles = TileCache(folder=folder, disk=feeders.cache_disk * 1024 * 1024)
    limits = HostLimits(feeders.per_host, float(feeders.rate), burst=feeders.rate)
    async with open_session(feeders.concurrency) as session:
        fetch = HttpFetch(session, outward.user_agent(settings.name, settings.contact), limits=limits)
        loop_settings = LoopSettings(
            refresh=feeders.refresh, concurrency=feeders.concurrency, per_host=feeders.per_host
        )
        tools = Tools(fetch, fetch.latest, tiles)
        pool = FeederPool(sources(tools), core.add_checkpoint, settings=loop_settings)
        registry.register(FeederMetrics(pool, fetch, tiles))
        yield pool


async def _reconcile(core: CoreClient, pool: FeederPool, settings: FeedingProcessSettings) -> None:
    """Keeps the pool in step with the logs that the core has configured."""
    polled: dict[str, FeedLog] = {}
    change, news = 0, False
    while True:
        try:
            page = await core.logs(change)
        except CoreError as error:
            _log.debug("the logs cannot be asked for: %s", error)
            await asyncio.sleep(RECONCILE_SECONDS)
            continue
        change = page.change
        for info in page.logs:
            log = _feed_log(info, settings.feeders.interval)
            if log is not None:
                polled[info.origin] = log
            else:
                polled.pop(info.origin, None)
            news = True
        if page.more:
            continue
        if news:
            pool.reconcile(polled.values())
            news = False
        await asyncio.sleep(RECONCILE_SECONDS)


def _feed_log(info: LogInfo, interval: float) -> FeedLog | None:
    """The log as a feeder wants it; None where there is nothing to poll."""
    if info.disabled or info.feeder == NOT_POLLED:
        return None
    if info.url is None:
        _log.warning("not polled origin=%r: it has the feeder %s and no url", info.origin, info.feeder)
        return None
    try:
        vkeys = tuple(parse_vkey(vkey) for vkey in info.vkeys)
    except MalformedVKey as error:
        _log.error("not polled origin=%r: its vkey is malformed: %s", info.origin, error.reason)
        return None
    return FeedLog(info.origin, vkeys, info.feeder, info.url, info.interval or interval)


if __name__ == "__main__":
    sys.exit(main())
