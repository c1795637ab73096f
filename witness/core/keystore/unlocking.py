"""How a running core takes the secret of a device that is locked: a named pipe in the keys folder.

Not the core's socket: whoever stands in the front's place may speak there, and could guess PINs until the
token blocks. Nor another socket: Landlock keeps the front out of the keys folder, but does not keep it from
connecting to a socket by its path. A pipe is opened like any file, so the folder's mode and Landlock hold.

One line of JSON is one try: the device, the secret, and a name for the try, which shows in the key's state
afterwards. A line is at most PIPE_BUF bytes, so that lines never mix. Nothing can be read back.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from witness.core.layout import StateLayout

log = logging.getLogger(__name__)

MAX_LINE: Final = 4096
"""Bytes of a line (PIPE_BUF on Linux)."""
_FIELDS: Final = ("device", "secret", "attempt")


class UnlockPipe:
    """The pipe's reading end.

    Made before the core locks itself down; listened at afterwards. `unlock` is called with device, secret and
    attempt, in a thread of its own: making a key of a passphrase takes half a second.
    """

    def __init__(self, layout: StateLayout, unlock: Callable[[str, str, str], None]) -> None:
        self._path = layout.unlock
        self._unlock = unlock
        self._descriptor = -1
        self._buffer = b""
        self._tasks: set[asyncio.Future[None]] = set()

    def make(self) -> None:
        """Makes the pipe, in place of one left behind (the state folder's lock is held).

        Raises:
            OSError: it cannot be made.
        """
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        # For writing as well: then there is no end of file when a writer closes.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Begins to take lines."""
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    async def close(self) -> None:
        """Takes no more; a try that is under way ends first."""
        if self._descriptor < 0:
            return
        asyncio.get_running_loop().remove_reader(self._descriptor)
        if self._tasks:
            await asyncio.wait(self._tasks)
        os.close(self._descriptor)
        self._descriptor = -1
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            self._buffer += os.read(self._descriptor, MAX_LINE)
        *lines, self._buffer = self._buffer.split(b"\n")
        self._buffer = self._buffer[-MAX_LINE:]
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
            device, secret, attempt = (str(fields[name]) for name in _FIELDS)
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("a line that is no try came through the unlock pipe")
            return
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(None, self._unlock, device, secret, attempt)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        error = task.exception()
        if error is not None:
            log.error("unlocking failed", exc_info=error)


def send(layout: StateLayout, device: str, secret: str, attempt: str) -> bool:
    """Hands a secret to the running core; False if none is there that waits for one.

    Raises:
        OSError: the pipe cannot be written.
        ValueError: the secret is too long.
    """
    line = json.dumps({"device": device, "secret": secret, "attempt": attempt}).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError("the secret is too long")
    try:
        descriptor = os.open(layout.unlock, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENXIO}:  # no pipe, or nobody reads it
            return False
        raise
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return True
