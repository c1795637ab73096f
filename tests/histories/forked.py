"""Cores in processes of their own that start in milliseconds: forked from a server that imported everything.

A history starts a dozen of cores. Each is a real process with the core's own `serve`, its socket, its files
and its locks, and can be killed at any moment. It differs from `python -m witness.core` in that nothing is
imported anew, the self-tests are left out (tests/core/test_selftest.py has them), nothing is locked down,
chores come sooner, and its clock is the machine's with an offset that a test sets while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

import uvloop

from tests.core.processes import DEADLINE
from tests.histories.sabotage import SABOTAGE
from witness.core import process
from witness.core.continuity import guard
from witness.core.layout import StateLayout
from witness.core.settings import CoreSettings

_OFFSET = struct.Struct("d")


class MovableClock:
    """The machine's clock and an offset, which lies in a file that several processes map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_OFFSET.pack(0.0))
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _OFFSET.size)

    def __call__(self) -> float:
        return time.time() + self.offset

    @property
    def offset(self) -> float:
        """Seconds that it is ahead of the machine's."""
        (offset,) = _OFFSET.unpack(self._map[:])
        return float(offset)

    @offset.setter
    def offset(self, seconds: float) -> None:
        self._map[:] = _OFFSET.pack(seconds)


class ForkedCore:
    """One core, as `tests.core.processes.CoreProcess` is one. `error` is why it did not start."""

    def __init__(
        self, layout: StateLayout, clock: MovableClock, sabotage: str | None = None, **settings: Any
    ) -> None:
        self.layout = layout
        self.errors = layout.root / "core.stderr"
        context = _context()
        ready, tell = context.Pipe(duplex=False)
        text = CoreSettings(str(layout.root), **{"log_level": "ERROR", **settings}).to_json()
        self.process = context.Process(target=_run, args=(text, clock.path, tell, sabotage), daemon=True)
        self.process.start()
        tell.close()
        with ready:
            assert ready.poll(DEADLINE), f"the core said nothing: {self.said()}"
            try:
                self.error: str | None = ready.recv()
            except EOFError:
                self.error = f"it died: {self.said()}"
        if self.error is not None:
            self.process.join(DEADLINE)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def said(self) -> str:
        """The last of its log."""
        return self.errors.read_text(errors="replace")[-4000:] if self.errors.exists() else ""

    def stop(self) -> int | None:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        self.process.join(DEADLINE)
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, and reaps it."""
        self.process.kill()
        self.process.join(DEADLINE)
        assert not self.process.is_alive()


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run(text: str, clock: Path, tell: Connection, sabotage: str | None) -> None:
    """The process: as `witness.core.__main__`, but for what the top of this file says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test's own affair; it stops us
    settings = CoreSettings.from_json(text)
    sink = os.open(Path(settings.state_dir) / "core.stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(sink, 2)
    now = MovableClock(clock)
    _arrange(now)
    if sabotage is not None:
        SABOTAGE[sabotage]()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings, lambda: tell.send(None)))
        except process.FORESEEN as error:
            with contextlib.suppress(BrokenPipeError):
                tell.send(str(error))
            sys.exit(3)


def _arrange(now: Callable[[], float]) -> None:
    """Gives this process the test's clock, and shorter pauses between chores."""
    process.Witness = functools.partial(process.Witness, now=now)
    process.Guard = functools.partial(process.Guard, now=now)
    process.selftest.run = lambda: ("in the parent",)
    process.REFRESH_SECONDS = guard.TICK_SECONDS = 0.02


async def _serve(settings: CoreSettings, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    process.install_signals(stop)
    test = parent_process()
    assert test is not None
    asyncio.get_running_loop().add_reader(test.sentinel, stop.set)  # an end without a word to us
    await process.serve(settings, ready, stop)
