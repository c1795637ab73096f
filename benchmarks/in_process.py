"""`python -m benchmarks.in_process STATE PORT`: core and front in one process that is not locked down.

What isolation costs is measured against this: the same parts with nothing between them. The core is made as
`witness.core.process.serve` makes it, guard and all; the front calls it directly instead of through a socket.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from witness.core import process
from witness.core.settings import CoreSettings
from witness.core.status import StatusReporter
from witness.core.wire import Changes, CoreStatus, Cursor, LogPage
from witness.core.witness import Witness
from witness.front.service import FrontService
from witness.front.settings import FrontSettings


class Direct:
    """The core as the front sees it, without a process between."""

    connected = True

    def __init__(self) -> None:
        self.witness: Witness | None = None
        self.reporter: StatusReporter | None = None

    async def add_checkpoint(self, body: bytes) -> bytes:
        assert self.witness is not None
        return await self.witness.add_checkpoint(body)

    async def sign_subtree(self, body: bytes) -> bytes:
        assert self.witness is not None
        return await self.witness.sign_subtree(body)

    async def checkpoint(self, origin_hash: bytes) -> bytes:
        raise NotImplementedError

    async def status(self) -> CoreStatus:
        assert self.reporter is not None
        return self.reporter.status()

    async def logs(self, since: int = 0) -> LogPage:
        return LogPage(change=since, more=False, logs=())

    async def changes(self, cursor: Cursor | None = None) -> Changes:
        return Changes(cursor=cursor or Cursor("", 0), more=False, origins=())


def direct() -> Direct:
    """A `Direct` that takes hold of what the next `serve` makes."""
    core = Direct()

    class HeldWitness(Witness):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            core.witness = self

    class HeldReporter(StatusReporter):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            core.reporter = self

    process.Witness = HeldWitness  # type: ignore[misc]
    process.StatusReporter = HeldReporter  # type: ignore[misc]
    return core


async def run(state: str, port: int) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    core = direct()
    settings = FrontSettings(name="", core_socket="", listen=(f"127.0.0.1:{port}",))
    async with asyncio.TaskGroup() as group:
        group.create_task(process.serve(CoreSettings(state, log_level="WARNING"), ready.set, stop))
        await ready.wait()
        group.create_task(FrontService(settings, core, CollectorRegistry()).run(stop))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(sys.argv[1], int(sys.argv[2])))
