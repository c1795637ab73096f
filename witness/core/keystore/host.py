"""`python -m witness.core.keystore.host`: keeps the processes that drive devices.

The core starts it before it gives up the right to start anything. Descriptor 0 is a socket to the core; when
it ends, so does everything here. Each device has a worker process of its own, started when the device is
opened. A worker that does not answer within its request's deadline is killed: native code cannot be told to
stop, and a killed process holds nothing. It has no key of ours and no database; a device's secret passes
through on its way to the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from witness.core.keystore.base import KeyAbsent, KeyHung
from witness.core.keystore.talk import LENGTH, Closed, error_fields, length, pack, tie_to_parent, unpack

_WORKER: Final = "witness.core.keystore.worker"


class Worker:
    """The process of one device."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hands a request on; the answer, or that it died or hung."""
        deadline = float(request["deadline"])
        try:
            async with asyncio.timeout(deadline):
                if request["op"] == "open":
                    await self._start()
                return await self._exchange(request)
        except TimeoutError:
            await self.kill()
            return {"error": error_fields(KeyHung(f"the device did not answer within {deadline:g} s"))}
        except (OSError, Closed, asyncio.IncompleteReadError):
            await self.kill()
            return {"error": error_fields(KeyAbsent("the process that drives the device ended"))}

    async def kill(self) -> None:
        """Ends the process at once, if there is one."""
        process, writer = self._process, self._writer
        self._process = self._reader = self._writer = None
        if writer is not None:
            writer.close()
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> None:
        await self.kill()
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", _WORKER, stdin=theirs.fileno(), stdout=2
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._reader is None or self._writer is None:
            return {"error": error_fields(KeyAbsent("the device is not open"))}
        self._writer.write(pack(request))
        await self._writer.drain()
        return await read(self._reader)


async def read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next message."""
    return unpack(await reader.readexactly(length(await reader.readexactly(LENGTH.size))))


class Host:
    """Serves one core."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._workers: dict[str, Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Takes requests until the core is gone."""
        try:
            while True:
                request = await read(reader)
                task = asyncio.get_running_loop().create_task(self._handle(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError, Closed):
            return
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for worker in self._workers.values():
                await worker.kill()

    async def _handle(self, request: dict[str, Any]) -> None:
        worker = self._workers.setdefault(request["device"], Worker())
        async with worker.turn:
            if request["op"] == "close":
                await worker.kill()
                answer: dict[str, Any] = {"ok": {}}
            else:
                answer = await worker.ask(request)
        self._writer.write(pack({**answer, "id": request["id"]}))


async def run() -> None:
    """Serves on descriptor 0."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(0)))
    await Host(writer).serve(reader)


def main() -> int:
    """Runs until the core is gone."""
    tie_to_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the core's end of the socket
    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
