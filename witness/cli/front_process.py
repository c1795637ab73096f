"""`python -m witness.cli.front_process`: the front's process, which is all that talks to the world.

Its standard input brings one line, the settings (`FrontProcessSettings.to_json`), and then stays open as its
life line: at end of file whoever started it is gone, and it ends too. Its standard output carries one line,
`{"ready": true, "listening": […]}` or `{"error": …, "hint": …}`; its log goes to standard error.

Rules of this file:

- Nothing of the store, of keys or of YAML is imported here: the process could not reach them, and would pay
  for them in memory.
- At the end nothing new is taken, what was accepted is answered, what was cosigned is published, and only
  then is the core let go.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import importlib
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import uvloop
from prometheus_client import CollectorRegistry

import distributor
import feeders
import witness
from distributor.http import HttpTarget
from distributor.http import open_session as open_distributors_session
from distributor.protocol import Target
from distributor.publisher import Publisher
from distributor.static import StaticTarget
from feeders.cache import TileCache
from feeders.fetch import HttpFetch, open_session
from feeders.hosts import HostLimits
from feeders.kinds import NOT_POLLED, sources
from feeders.loop import FeederPool, LoopSettings
from feeders.metrics import FeederMetrics
from feeders.protocol import FeedError, FeedLog
from feeders.tools import Tools
from witness.cli.collector import set_aside_what_stays
from witness.cli.front_settings import BadSettings, FrontProcessSettings
from witness.core.lockdown import confinement
from witness.core.lockdown.steps import RequirementUnmet
from witness.core.refusals import CoreError
from witness.core.wire import LogInfo
from witness.front.client import CoreClient
from witness.front.listeners import CannotListen
from witness.front.looking import AT_ONCE, MAX_COPY, Looker, monitoring
from witness.front.looking import distributor as copies_at
from witness.front.service import FrontService
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import MalformedVKey, parse_vkey

RECONCILE_SECONDS: Final = 0.5
"""How often the core is asked which logs are new: what an operator adds is polled within a second."""
CONNECT_SECONDS: Final = 10.0
"""How long readiness waits for the core, which was ready before we were started."""

LATER: Final = ("stringprep",)
"""Modules that the libraries import when they first need them."""
CODECS: Final = ("idna", "punycode", "ascii", "latin-1", "utf-8-sig")
"""Encodings that they use: host names, above all. Python imports an encoding when it is first used."""

_log = logging.getLogger("witness.front")


def main() -> int:
    """Runs the front; returns the process's exit status."""
    try:
        settings = FrontProcessSettings.from_json(sys.stdin.readline())
    except BadSettings as error:
        return _fail(str(error))
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    confinement.prepare(settings.lockdown)
    _preload()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except ExceptionGroup as group:
        fault = _foreseen(group)
        if fault is None:
            raise
        return _fail(str(fault), _hint(fault))
    return 0


def _foreseen(
    group: BaseExceptionGroup[Exception],
) -> CannotListen | BadSettings | RequirementUnmet | None:
    """The one error that can be foreseen, if it is the only one that the task groups gathered."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found if isinstance(found, (CannotListen, BadSettings, RequirementUnmet)) else None


def _preload() -> None:
    """Loads what would be imported later: by then the process may not read where that is."""
    for codec in CODECS:
        codecs.lookup(codec)
    for module in LATER:
        importlib.import_module(module)


async def _run(settings: FrontProcessSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(0, _life_line, stop)
    core = CoreClient(settings.front.core_socket)
    async with asyncio.TaskGroup() as group:
        group.create_task(core.run(), name="core client")
        registry = CollectorRegistry()
        async with (
            _feeding(settings, core, registry) as pool,
            _publishing(settings, core) as publisher,
            _looking(settings, core) as looker,
        ):
            service = FrontService(
                settings.front,
                core,
                registry,
                feeder_states=pool.states if pool is not None else dict,
                publisher_states=publisher.states if publisher is not None else tuple,
                lockdown=lambda: steps,
            )
            # Everything is open, no thread runs, and no byte from outside has been read.
            service.bind()
            state = Path(settings.front.core_socket).parent
            steps = confinement.confine(settings.lockdown, state, writes=settings.writes, reads=_reads())
            async with asyncio.TaskGroup() as chores:
                tasks = [chores.create_task(_announce(service, core), name="announcement")]
                if looker is not None:
                    tasks.append(chores.create_task(looker.run(), name="looker"))
                if publisher is not None:
                    tasks.append(chores.create_task(_publish(publisher, core, looker), name="publisher"))
                feeding: list[asyncio.Task[None]] = []
                if pool is not None:
                    feeding = [
                        chores.create_task(pool.run(), name="feeders"),
                        chores.create_task(_reconcile(core, pool, settings), name="reconcile"),
                        chores.create_task(set_aside_what_stays(pool.count), name="garbage collector"),
                    ]
                chores.create_task(_on(stop, feeding), name="end of feeding")
                await service.run(stop)
                # Only now, so that what was cosigned for the last requests is published too.
                for task in tasks:
                    task.cancel()
        await core.close()


def _reads() -> list[Path]:
    """Our own code, and the certificates that TLS trusts."""
    code = [path for package in (witness, feeders, distributor) for path in package.__path__]
    tls = ssl.get_default_verify_paths()
    certificates = [
        tls.cafile, tls.capath, tls.openssl_cafile, tls.openssl_capath,
        os.environ.get(tls.openssl_cafile_env), os.environ.get(tls.openssl_capath_env),
    ]  # fmt: skip
    return [Path(path) for path in (*code, *certificates) if path]


async def _on(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    await stop.wait()
    for task in tasks:
        task.cancel()


def _life_line(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


async def _announce(service: FrontService, core: CoreClient) -> None:
    """Says that the front is ready: its listeners are up and the core is connected."""
    listening = await service.listening()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            await core.wait_connected()
    _say({"ready": True, "listening": [bound.url for bound in listening if bound.public]})


# --- Feeders ---


@contextlib.asynccontextmanager
async def _feeding(
    settings: FrontProcessSettings, core: CoreClient, registry: CollectorRegistry
) -> AsyncIterator[FeederPool | None]:
    """The pool of feeders, and the HTTP session that all of them share."""
    feeders = settings.feeders
    if not feeders.enabled:
        yield None
        return
    folder = Path(feeders.cache_dir) if feeders.cache_dir is not None else None
    tiles = TileCache(folder=folder, disk=feeders.cache_disk * 1024 * 1024)
    limits = HostLimits(feeders.per_host, float(feeders.rate), burst=feeders.rate)
    async with open_session(feeders.concurrency) as session:
        fetch = HttpFetch(session, _user_agent(settings), limits=limits)
        loop_settings = LoopSettings(
            refresh=feeders.refresh, concurrency=feeders.concurrency, per_host=feeders.per_host
        )
        tools = Tools(fetch, fetch.latest, tiles)
        pool = FeederPool(sources(tools), core.add_checkpoint, settings=loop_settings)
        registry.register(FeederMetrics(pool, fetch, tiles))
        yield pool


def _user_agent(settings: FrontProcessSettings) -> str:
    """Who asks a log's server, and where to complain."""
    about = settings.front.about
    whom = "; ".join(part for part in (settings.front.name, about.contact) if part)
    printable = "".join(c for c in whom if c.isascii() and c.isprintable() and c not in "()\\")
    return f"tlog-witness/{witness.__version__} ({printable})"


async def _reconcile(core: CoreClient, pool: FeederPool, settings: FrontProcessSettings) -> None:
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


# --- Looking for copies of our own ---


@contextlib.asynccontextmanager
async def _looking(settings: FrontProcessSettings, core: CoreClient) -> AsyncIterator[Looker | None]:
    """What fetches back our own checkpoints, where anybody has them."""
    places = [
        *(copies_at(each.url, settings.front.name, each.name) for each in settings.distributors),
        *(monitoring(url) for url in settings.look.monitoring),
    ]
    if not places:
        yield None
        return
    async with open_session(AT_ONCE) as session:
        fetch = HttpFetch(session, _user_agent(settings))

        async def get(url: str) -> bytes | None:
            try:
                return await fetch(url, MAX_COPY)
            except FeedError as error:
                _log.debug("no copy: %s", error)
                return None

        yield Looker(places, core, get, interval=settings.look.interval)


# --- Publishing ---


async def _publish(publisher: Publisher, core: CoreClient, looker: Looker | None) -> None:
    """Publishes, once it is known what is there already: an old state must not take its place."""
    if looker is not None:
        await looker.looked.wait()
    await core.wait_connected()  # before that, its first question could only fail
    await publisher.run()


@contextlib.asynccontextmanager
async def _publishing(settings: FrontProcessSettings, core: CoreClient) -> AsyncIterator[Publisher | None]:
    """The publisher to all targets, and the HTTP session that they share."""
    async with contextlib.AsyncExitStack() as stack:
        name = settings.front.name
        targets: list[Target] = []

        async def checkpoint(origin: str) -> bytes:
            return await core.checkpoint(origin_hash(origin))

        try:
            if settings.distributors:
                session = await stack.enter_async_context(open_distributors_session())
                targets += [
                    HttpTarget(each.url, name, session, name=each.name) for each in settings.distributors
                ]
            if settings.static_dir is not None:
                targets.append(StaticTarget(Path(settings.static_dir), name))
            publisher = Publisher(core.changes, checkpoint, targets) if targets else None
        except ValueError as error:
            raise BadSettings(f"nothing can be published so: {error}") from error
        yield publisher


# --- The one line ---


def _hint(error: BaseException) -> str:
    if isinstance(error, RequirementUnmet):
        return error.hint
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return (
            "another program listens there: stop it, or give another address with --listen or in witness.yaml"
        )
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
        return "choose another address with listen in witness.yaml or --listen"
    return ""


def _fail(error: str, hint: str = "") -> int:
    _say({"error": error, "hint": hint})
    return 3


def _say(line: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)  # noqa: T201 - this line is the interface to whoever started us


if __name__ == "__main__":
    sys.exit(main())
