"""Starting the core and the fronts, watching all of them, and ending them in order.

Rules of this file:

- A child's death is noticed by the kernel's word (wait), never by polling, and answered by a fresh child:
  the first time at once, then after growing pauses, and too many deaths end everything.
- A child that lives and does not answer is killed, and then has died (`witness.cli.watchdog`).
- The core's lock on the state folder decides that there is one core; nothing here believes to know better.
- At the end the fronts drain first, so that they can answer what they have accepted; then the core stops.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from witness.cli.child import Child, Program, Restarts, StartFailed
from witness.cli.watchdog import TICK, until_silent

Say = Callable[[str], None]
"""Takes one line for the operator."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long children may take and how often they may die. Times are seconds.

    Attributes:
        start: for a child to be ready.
        stop: for a child to end after SIGTERM, before it is killed.
        deaths: a child may die within `window`, one more than it may be started anew.
        window: see `deaths`.
        first_pause: before the second start anew; the first comes at once, later pauses double.
        longest_pause: at which that ends.
        silence: a child that does not answer for so long is killed; 0 for never.
        tick: between two looks at a child's silence.
    """

    start: float = 60.0
    stop: float = 30.0
    deaths: int = 5
    window: float = 60.0
    first_pause: float = 0.5
    longest_pause: float = 8.0
    silence: float = 30.0
    tick: float = TICK


class GaveUp(Exception):
    """A child died too often."""

    def __init__(self, name: str, deaths: int, window: float, last: str) -> None:
        super().__init__(f"the {name} ended {deaths} times within {window:g} s, lastly: {last}")


class Keeper:
    """Keeps one program running.

    Args:
        program: what to run.
        patience: how long, how often.
        say: takes lines for the operator.
    """

    def __init__(self, program: Program, patience: Patience, say: Say) -> None:
        self._program = program
        self._patience = patience
        self._say = say
        self._deaths: deque[float] = deque()
        self._restarts = Restarts()
        self._child: Child | None = None

    async def start(self) -> dict[str, Any]:
        """The first start, whose failure is the caller's to tell.

        Raises:
            StartFailed: it does not start.
        """
        self._child, ready = await Child.start(self._program, self._patience.start)
        return ready

    async def keep(self) -> None:
        """Starts it anew whenever it ends, until cancelled.

        Raises:
            GaveUp: it ended too often.
        """
        name = self._program.name
        while self._child is not None:
            how = await self._end_of(self._child)
            self._child = None
            self._say(f"the {name} ended ({how}) and is started anew")
            while self._child is None:
                await asyncio.sleep(self._pause(how))
                try:
                    self._child, _ = await Child.start(self._next(), self._patience.start)
                except StartFailed as error:
                    how = error.reason
                    self._say(f"the {name} did not start: {how}")
            self._say(f"the {name} runs again (process {self._child.pid})")

    async def _end_of(self, child: Child) -> str:
        """Waits until it ends, or brings that about because it is silent; says how it ended."""
        patience, ask = self._patience, self._program.ask
        ended = asyncio.create_task(child.ended(), name=f"end of the {self._program.name}")
        watching: list[asyncio.Task[Any]] = [ended]
        if ask is not None and patience.silence > 0:
            silent = until_silent(ask, patience.silence, tick=patience.tick)
            watching.append(asyncio.create_task(silent, name=f"silence of the {self._program.name}"))
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            if ended in done:
                self._restarts = replace(self._restarts, ended=self._restarts.ended + 1)
                return await ended
            watching[1].result()  # a fault of the asking itself is ours
            self._restarts = replace(self._restarts, hung=self._restarts.hung + 1)
            self._say(f"the {self._program.name} has not answered for {patience.silence:g} s and is killed")
            await child.kill()
            return f"{await ended}, having been silent for {patience.silence:g} s"
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    def _next(self) -> Program:
        program = self._program
        return program if program.again is None else replace(program, settings=program.again(self._restarts))

    async def stop(self) -> bool:
        """Ends it, if it runs; False if it had to be killed."""
        return await self._child.stop(self._patience.stop) if self._child is not None else True

    async def kill(self) -> None:
        """Ends it at once, if it runs."""
        if self._child is not None:
            await self._child.kill()

    def _pause(self, how: str) -> float:
        """Counts a death; the seconds to wait before the next start."""
        patience, now = self._patience, time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - patience.window:
            self._deaths.popleft()
        deaths = len(self._deaths)
        if deaths >= patience.deaths:
            raise GaveUp(self._program.name, deaths, patience.window, how)
        if deaths == 1:
            return 0.0
        return float(min(patience.first_pause * 2 ** (deaths - 2), patience.longest_pause))


async def supervise(
    core: Program,
    fronts: Sequence[Program],
    *,
    started: Callable[[dict[str, Any]], Awaitable[None]],
    say: Say,
    patience: Patience | None = None,
    chores: Callable[[], Awaitable[None]] | None = None,
    stopping: Callable[[], object] = lambda: None,
) -> bool:
    """Runs them all until SIGTERM, SIGINT or SIGHUP; then ends them in order.

    A second signal cuts the fronts' drain short.

    Args:
        core: the core's process.
        fronts: the processes between the core and the world, started side by side once the core is ready.
        started: called once all are ready, with the first front's first line.
        say: takes lines for the operator.
        patience: how long, how often.
        chores: runs beside them once all are ready, and is cancelled at the end.
        stopping: called when the end begins.

    Returns:
        Whether all ended by themselves when they were asked to.

    Raises:
        StartFailed: one of them does not start.
        GaveUp: one of them died too often.
    """
    patience = patience or Patience()
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, _signalled, stop, hurry)
    kept, others = Keeper(core, patience, say), [Keeper(front, patience, say) for front in fronts]
    asked = asyncio.create_task(stop.wait(), name="signals")
    work = asyncio.create_task(_run(kept, others, started, chores), name="children")
    try:
        await asyncio.wait({asked, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping()
        for task in (asked, work):
            task.cancel()
        await asyncio.gather(asked, work, return_exceptions=True)
        ended = await _end(kept, others, hurry)
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error
    return ended


def _signalled(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    (hurry if stop.is_set() else stop).set()


async def _run(
    core: Keeper,
    fronts: Sequence[Keeper],
    started: Callable[[dict[str, Any]], Awaitable[None]],
    chores: Callable[[], Awaitable[None]] | None,
) -> None:
    await core.start()
    # From here on each is watched: a core that dies while the fronts start is started anew too.
    keeping = [asyncio.create_task(core.keep(), name="core")]
    try:
        ready = await _start(fronts)
        keeping += [asyncio.create_task(front.keep(), name="front") for front in fronts]
        await started(ready[0])
        if chores is not None:
            keeping.append(asyncio.ensure_future(chores()))
        done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _start(fronts: Sequence[Keeper]) -> list[dict[str, Any]]:
    """Starts them side by side; the first that fails speaks for all."""
    starting = [asyncio.create_task(front.start(), name="start") for front in fronts]
    try:
        return list(await asyncio.gather(*starting))
    finally:
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)


async def _end(core: Keeper, fronts: Sequence[Keeper], hurry: asyncio.Event) -> bool:
    hurried = asyncio.create_task(hurry.wait(), name="hurry")
    draining = asyncio.create_task(_drain(fronts), name="drain")
    await asyncio.wait({hurried, draining}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        for front in fronts:
            await front.kill()
    drained = await draining
    return await core.stop() and drained


async def _drain(fronts: Sequence[Keeper]) -> bool:
    return all(await asyncio.gather(*(front.stop() for front in fronts)))
