"""Handing a log's entries over: to a command, as JSON lines, or as JSON lines to a file.

A batch is acknowledged when `hand` returns, and only then is the place moved past it. So every entry is
handed over at least once and in order; after a crash between the two, the batch comes again: with a command
one entry, with JSON lines the lines of one bundle at most. An output file is cut back to where the place
says it ended, so that in it every entry stands exactly once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from witness.reading.place import sync_folder

LINES: Final = 256
"""Entries of a batch of JSON lines, at most: those of one bundle."""

_KILL_AFTER: Final = 5.0  # seconds between asking a command to end and ending it


class HandOverFailed(Exception):
    """An entry was not taken: the world failed, and it will be handed over again; `reason` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is in the log.

    Attributes:
        origin: the log's.
        index: its index.
        data: its content.
        leaf_hash: its leaf hash, 32 bytes.
        size: of a tree that contains it, whose checkpoint was accepted.
    """

    origin: str
    index: int
    data: bytes
    leaf_hash: bytes
    size: int

    def line(self) -> bytes:
        """One line of JSON."""
        members = {
            "origin": self.origin,
            "index": self.index,
            "leaf_hash": self.leaf_hash.hex(),
            "size": self.size,
            "entry": base64.b64encode(self.data).decode("ascii"),
        }
        return json.dumps(members, ensure_ascii=False).encode("utf-8") + b"\n"


class HandOver(Protocol):
    """Takes entries."""

    @property
    def batch(self) -> int:
        """The most entries between two moves of the place."""

    def begin(self, written: int | None) -> int | None:
        """Makes ready where the place says that it stands; what `hand` gives, before the first entry.

        Raises:
            HandOverFailed: it does not fit what is there.
            OSError: the file cannot be opened.
        """

    async def hand(self, entries: Sequence[Entry]) -> int | None:
        """Hands entries over; once it returns they are taken. The length of the output file, if there is one.

        Raises:
            HandOverFailed: they were not taken, or not all.
            OSError: they could not be written.
        """


class LinesHandOver:
    """JSON lines to a stream, such as standard output: flushed, and where it is a file, on disk.

    Args:
        stream: takes them; not closed here.
    """

    batch = LINES

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def begin(self, written: int | None) -> int | None:  # noqa: ARG002 - a stream has no length
        """See `HandOver.begin`."""
        return None

    async def hand(self, entries: Sequence[Entry]) -> int | None:
        """See `HandOver.hand`."""
        await asyncio.to_thread(_write, self._stream, b"".join([entry.line() for entry in entries]))
        return None


class FileHandOver:
    """JSON lines to a file of our own, in which every entry stands exactly once.

    Args:
        path: made where it is absent.
    """

    batch = LINES

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = 0

    def begin(self, written: int | None) -> int | None:
        """Cuts off what a crash left beyond the place; a file that is shorter than it should be is refused.

        See `HandOver.begin`.
        """
        self._length = written or 0
        with self._path.open("ab") as file:
            size = file.seek(0, os.SEEK_END)
            if size < self._length:
                reason = f"{self._path} has {size} bytes, and {self._length} were written"
                raise HandOverFailed(f"{reason}: lines were lost")
            if written is None and size:
                raise HandOverFailed(f"{self._path} is not empty, and the place knows nothing of it")
            file.truncate(self._length)
            os.fsync(file.fileno())
        sync_folder(self._path.parent)
        return self._length

    async def hand(self, entries: Sequence[Entry]) -> int | None:
        """See `HandOver.hand`."""
        data = b"".join([entry.line() for entry in entries])
        await asyncio.to_thread(self._append, data)
        self._length += len(data)
        return self._length

    def _append(self, data: bytes) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._length)
            file.truncate()
            _write(file, data)


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        os.fsync(stream.fileno())


class CommandHandOver:
    """A command for each entry: the entry on its standard input, its facts in the environment.

    `WITNESS_ORIGIN`, `WITNESS_INDEX`, `WITNESS_LEAF_HASH` (hex) and `WITNESS_SIZE` say which it is. Exit code
    0 says that it was taken; anything else, that it shall come again.

    Args:
        command: program and arguments; no shell.
        environment: the rest of the environment.
        timeout: seconds that it may run.
    """

    batch = 1

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], timeout: float) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._timeout = timeout

    def begin(self, written: int | None) -> int | None:  # noqa: ARG002 - a command has no length
        """See `HandOver.begin`."""
        return None

    async def hand(self, entries: Sequence[Entry]) -> int | None:
        """See `HandOver.hand`."""
        for entry in entries:
            await self._run(entry)
        return None

    async def _run(self, entry: Entry) -> None:
        facts = {
            "WITNESS_ORIGIN": entry.origin,
            "WITNESS_INDEX": str(entry.index),
            "WITNESS_LEAF_HASH": entry.leaf_hash.hex(),
            "WITNESS_SIZE": str(entry.size),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                env=self._environment | facts,
                # A group of its own: it can be ended with all that it started, and a terminal's Ctrl-C,
                # which asks us to stop after this entry, does not tear it down.
                start_new_session=True,
            )
        except OSError as error:
            raise HandOverFailed(f"{self._command[0]}: {error.strerror or error}") from error
        try:
            async with asyncio.timeout(self._timeout):
                await process.communicate(entry.data)
        except TimeoutError as error:
            raise HandOverFailed(f"{self._command[0]}: not done within {self._timeout:g} s") from error
        finally:
            if process.returncode is None:
                await _end(process)
        if process.returncode:
            raise HandOverFailed(f"{self._command[0]}: entry {entry.index}: {_how(process.returncode)}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a command and all that it started."""
    for sign, patience in ((signal.SIGTERM, _KILL_AFTER), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            continue
        return


def _how(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
