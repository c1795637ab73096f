"""One child of the supervisor's: what it is to be, and one run of it.

Children have sessions of their own, so that a terminal's Ctrl-C reaches the supervisor alone, and hold a pipe
of ours as their standard input: when we die, however we die, it closes and they end.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from witness.cli.watchdog import Ask

_MAX_LINE: Final = 64 * 1024  # bytes of a child's first line


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a program was started anew.

    Attributes:
        ended: because it had ended by itself.
        hung: because it did not answer and was killed.
    """

    ended: int = 0
    hung: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """A child to be.

    Attributes:
        name: what it is called.
        argv: what is run.
        settings: the line that it is told.
        environ: its environment.
        ask: a question that it answers while it is well; None where its silence is not watched.
        again: the line that it is told when it is started anew, where that is another.
    """

    name: str
    argv: tuple[str, ...]
    settings: str
    environ: Mapping[str, str]
    ask: Ask | None = None
    again: Callable[[Restarts], str] | None = None


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


def python(module: str) -> tuple[str, ...]:
    """How a module of ours is run as a process.

    -P: the folder that `witness run` was called in is not searched for modules.
    """
    return (sys.executable, "-P", "-m", module)
