"""Starting the core and the front, watching both, and ending them in order.

Rules of this file:

- A child's death is noticed by the kernel's word (wait), never by polling, and answered by a fresh child:
  the first time at once, then after growing pauses, and too many deaths end everything.
- The core's lock on the state folder decides that there is one core; nothing here believes to know better.
- Children have sessions of their own, so that a terminal's Ctrl-C reaches us alone, and hold our pipe as
  their standard input: when we die, however we die, it closes and they end.
- At the end the front drains first, so that it can still answer what it has accepted; then the core stops.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

Say = Callable[[str], None]
"""Takes one line for the operator."""

_MAX_LINE: Final = 64 * 1024  # bytes of a child's first line


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
    """

    start: float = 60.0
    stop: float = 30.0
    deaths: int = 5
    window: float = 60.0
    first_pause: float = 0.5
    longest_pause: float = 8.0


@dataclass(frozen=True, slots=True)
class Program:
    """A child to be: what it is called, what is run, the line it is told, and its environment."""

    name: str
    argv: tuple[str, ...]
    settings: str
    environ: Mapping[str, str]


class StartFailed(Exception):
    """A child ended, or kept silent, before it was ready.

    Attributes:
        reason: what it said, one line.
        hint: what to do about it, or empty.
    """

    def __init__(self, name: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.hint = hint


class GaveUp(Exception):
    """A child died too often."""

    def __init__(self, name: str, deaths: int, window: float, last: str) -> None:
        super().__init__(f"the {name} ended {deaths} times within {window:g} s, lastly: {last}")


class Child:
    """One run of a program."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process) -> None:
        self._program = program
        self._process = process
        self._drain: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, program: Program, patience: float) -> tuple[Child, dict[str, Any]]:
        """Starts it and waits until it is ready.

        Returns:
            The child, and the line with which it said so.

        Raises:
            StartFailed: it ended, or said nothing within `patience` seconds.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *program.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=dict(program.environ),
                start_new_session=True,
                limit=_MAX_LINE,
            )
        except OSError as error:
            raise StartFailed(program.name, f"cannot be started: {error}") from error
        child = cls(program, process)
        try:
            ready = await child._await_ready(patience)
        except BaseException:
            await child.kill()
            raise
        child._drain = asyncio.create_task(child._discard_output(), name=f"output of the {program.name}")
        return child, ready

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    async def ended(self) -> str:
        """Waits for its end and says how it came, as `exit status 3` or `SIGKILL`."""
        code = await self._process.wait()
        if self._drain is not None:
            self._drain.cancel()
        if code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    async def stop(self, patience: float) -> bool:
        """Asks it to end, waits, and kills it after `patience` seconds; False if that was needed."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(patience):
                await self.ended()
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """Ends it at once. State is safe: the core releases nothing that is not on disk."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self.ended()

    async def _await_ready(self, patience: float) -> dict[str, Any]:
        name = self._program.name
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            async with asyncio.timeout(patience):
                # The pipe stays open after the line: it is the child's life line.
                with suppress(BrokenPipeError, ConnectionResetError):
                    stdin.write(self._program.settings.encode() + b"\n")
                    await stdin.drain()
                line = await stdout.readline()
        except TimeoutError as error:
            raise StartFailed(name, f"was not ready within {patience:g} s") from error
        except ValueError as error:
            raise StartFailed(name, "said something that is not its one line") from error
        if not line:
            raise StartFailed(name, f"ended before it was ready ({await self.ended()})")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or not (said.get("ready") or "error" in said):
            raise StartFailed(name, f"said {line[:200]!r} instead of its one line")
        if "error" in said:
            raise StartFailed(name, str(said["error"]), str(said.get("hint") or ""))
        return said

    async def _discard_output(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while await stdout.read(_MAX_LINE):
            pass


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
            how = await self._child.ended()
            self._child = None
            self._say(f"the {name} ended ({how}) and is started anew")
            while self._child is None:
                await asyncio.sleep(self._pause(how))
                try:
                    self._child, _ = await Child.start(self._program, self._patience.start)
                except StartFailed as error:
                    how = error.reason
                    self._say(f"the {name} did not start: {how}")
            self._say(f"the {name} runs again (process {self._child.pid})")

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
    front: Program,
    *,
    started: Callable[[dict[str, Any]], Awaitable[None]],
    say: Say,
    patience: Patience | None = None,
    chores: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Runs the two until SIGTERM, SIGINT or SIGHUP; then ends them in order.

    A second signal cuts the front's drain short.

    Args:
        core: the core's process.
        front: the front's process.
        started: called once both are ready, with the front's first line.
        say: takes lines for the operator.
        patience: how long, how often.
        chores: runs beside the two once both are ready, and is cancelled at the end.

    Returns:
        Whether both ended by themselves when they were asked to.

    Raises:
        StartFailed: one of them does not start.
        GaveUp: one of them died too often.
    """
    patience = patience or Patience()
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, _signalled, stop, hurry)
    cores, fronts = Keeper(core, patience, say), Keeper(front, patience, say)
    stopping = asyncio.create_task(stop.wait(), name="signals")
    work = asyncio.create_task(_run(cores, fronts, started, chores), name="children")
    try:
        await asyncio.wait({stopping, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, work):
            task.cancel()
        await asyncio.gather(stopping, work, return_exceptions=True)
        ended = await _end(cores, fronts, hurry)
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error
    return ended


def _signalled(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    (hurry if stop.is_set() else stop).set()


async def _run(
    cores: Keeper,
    fronts: Keeper,
    started: Callable[[dict[str, Any]], Awaitable[None]],
    chores: Callable[[], Awaitable[None]] | None,
) -> None:
    await cores.start()
    # From here on each is watched: a core that dies while the front starts is started anew too.
    keeping = [asyncio.create_task(cores.keep(), name="core")]
    try:
        ready = await fronts.start()
        keeping.append(asyncio.create_task(fronts.keep(), name="front"))
        await started(ready)
        if chores is not None:
            keeping.append(asyncio.ensure_future(chores()))
        done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _end(cores: Keeper, fronts: Keeper, hurry: asyncio.Event) -> bool:
    hurried = asyncio.create_task(hurry.wait(), name="hurry")
    draining = asyncio.create_task(fronts.stop(), name="drain")
    await asyncio.wait({hurried, draining}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        await fronts.kill()
    drained = await draining
    return await cores.stop() and drained


def python(module: str) -> tuple[str, ...]:
    """How a module of ours is run as a process.

    -P: the folder that `witness run` was called in is not searched for modules.
    """
    return (sys.executable, "-P", "-m", module)
