"""`python -m witness.cli.front_process`: the front, which serves HTTP and publishes what was cosigned.

How it is started and tied to the supervisor stands in `witness.cli.outward`. Logs are polled by a process
beside it, `witness.cli.feeding_process`.

At the end nothing new is taken, what was accepted is answered, what was cosigned is published, and only then
is the core let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from distributor.http import HttpTarget
from distributor.http import open_session as open_distributors_session
from distributor.protocol import Target
from distributor.publisher import Publisher
from distributor.static import StaticTarget
from feeders.fetch import HttpFetch, open_session
from feeders.protocol import FeedError
from witness.cli import outward
from witness.cli.front_settings import BadSettings, FrontProcessSettings
from witness.core.lockdown import confinement
from witness.front.client import CoreClient
from witness.front.feeding import AskedFeeders
from witness.front.looking import AT_ONCE, MAX_COPY, Looker, monitoring
from witness.front.looking import distributor as copies_at
from witness.front.service import FrontService
from witness.tlog.checkpoint import origin_hash

_log = logging.getLogger("witness.front")


def main() -> int:
    """Runs the front; returns the process's exit status."""
    try:
        settings = FrontProcessSettings.from_json(sys.stdin.readline())
    except BadSettings as error:
        return outward.fail(str(error))
    return outward.run(lambda: _run(settings), settings.lockdown, settings.log_level)


async def _run(settings: FrontProcessSettings) -> None:
    stop = outward.stop_event()
    core = CoreClient(settings.front.core_socket)
    feeders = settings.feeders_socket
    async with asyncio.TaskGroup() as group:
        group.create_task(core.run(), name="core client")
        async with _looking(settings, core) as looker, _publishing(settings, core, looker) as publisher:
            service = FrontService(
                settings.front,
                core,
                CollectorRegistry(),
                feeders=AskedFeeders(feeders) if feeders is not None else None,
                publisher_states=publisher.states if publisher is not None else tuple,
                lockdown=lambda: steps,
            )
            # Everything is open, no thread runs, and no byte from outside has been read.
            service.bind()
            state = Path(settings.front.core_socket).parent
            steps = confinement.confine(
                settings.lockdown, state, writes=settings.writes, reads=outward.reads()
            )
            async with asyncio.TaskGroup() as chores:
                tasks = [chores.create_task(_announce(service, core), name="announcement")]
                if looker is not None:
                    tasks.append(chores.create_task(looker.run(), name="looker"))
                if publisher is not None:
                    tasks.append(chores.create_task(_publish(publisher, core), name="publisher"))
                await service.run(stop)
                # Only now, so that what was cosigned for the last requests is published too.
                for task in tasks:
                    task.cancel()
        await core.close()


async def _announce(service: FrontService, core: CoreClient) -> None:
    """Says that the front is ready: its listeners are up and the core is connected."""
    listening = await service.listening()
    await outward.connected(core)
    outward.say({"ready": True, "listening": [bound.url for bound in listening if bound.public]})


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
        fetch = HttpFetch(session, outward.user_agent(settings.front.name, settings.front.about.contact))

        async def get(url: str) -> bytes | None:
            try:
                return await fetch(url, MAX_COPY)
            except FeedError as error:
                _log.debug("no copy: %s", error)
                return None

        yield Looker(places, core, get, interval=settings.look.interval)


# --- Publishing ---


async def _publish(publisher: Publisher, core: CoreClient) -> None:
    await core.wait_connected()  # before that, its first question could only fail
    await publisher.run()


@contextlib.asynccontextmanager
async def _publishing(
    settings: FrontProcessSettings, core: CoreClient, looker: Looker | None
) -> AsyncIterator[Publisher | None]:
    """The publisher to all targets, and the HTTP session that they share."""
    async with contextlib.AsyncExitStack() as stack:
        name = settings.front.name
        targets: list[Target] = []

        async def checkpoint(origin: str) -> bytes:
            # First what is there already: an old state must not take its place, and the core refuses then.
            if looker is not None:
                await looker.look_at(origin)
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


if __name__ == "__main__":
    sys.exit(main())
