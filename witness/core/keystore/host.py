"""`python -m witness.core.keystore.host`: keeps the processes that drive devices.

The core starts it before it gives up the right to start anything. Descriptor 0 is a socket to the core; when
it ends, so does everything here. Each device has a worker process of its own, started when the device is
opened. A worker that does not answer within its request's deadline is killed: native code cannot be told to
stop, and a killed process holds nothing. It has no key of ours and no database; a device's secret passes
through on its way to the worker.

The first message settles which devices there are, and whose user drives them (`keystore.drivers`). It is sent
before the core takes a byte from anybody; what the core asks later cannot name another library or socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from witness.core.keystore.base import KeyAbsent, KeyHung, KeyInvalid
from witness.core.keystore.drivers import HOST_CAPABILITIES, Driver, drivers
from witness.core.keystore.talk import LENGTH, Closed, error_fields, length, pack, tie_to_parent, unpack
from witness.core.lockdown import kernel
from witness.core.lockdown.steps import Account

_WORKER: Final = "witness.core.keystore.worker"
_NOT_THERE: Final = frozenset({KeyAbsent.code, KeyInvalid.code})
"""What a device is told to be that its driver may not reach. A wrong secret is none of these: some count."""


def settle(
    devices: Iterable[tuple[str, Mapping[str, str]]] | None, account: Account | None
) -> dict[str, Any]:
    """The first message to a host; see `HostClient.spawn`."""
    known = None if devices is None else [[backend, dict(settings)] for backend, settings in devices]
    who = None if account is None else [account.name, account.uid, account.gid]
    return {"devices": known, "account": who}


class Worker:
    """The process of one device, driven by the first of the drivers whom the device answers."""

    def __init__(self, candidates: Callable[[Mapping[str, Any]], Sequence[Driver | None]]) -> None:
        self._candidates = candidates
        self._answered: Sequence[Driver | None] = ()  # once one has been answered, nobody else is tried
        self._refusals: list[str] = []  # what those met who were tried before
        self.turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hands a request on; the answer, or that it died or hung."""
        deadline = float(request["deadline"])
        try:
            async with asyncio.timeout(deadline):
                return await (self._open(request) if request["op"] == "open" else self._exchange(request))
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

    async def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        refusals: list[str] = []
        answer: dict[str, Any] = {}
        candidates = self._answered or self._candidates(request)
        for driver in candidates:
            answer = await self._open_as(driver, request, last=driver is candidates[-1])
            if "ok" in answer:
                if not self._answered:
                    self._answered, self._refusals = (driver,), refusals
                answer["ok"]["driver"] = "" if driver is None else str(driver)
                answer["ok"]["refusals"] = self._refusals
                return answer
            code, reason, _ = answer["error"]
            if code not in _NOT_THERE:
                return answer
            refusals.append(f"{driver}: {reason}")
        return answer

    async def _open_as(self, driver: Driver | None, request: dict[str, Any], *, last: bool) -> dict[str, Any]:
        try:
            await self._start()
            return await self._exchange({**request, "driver": None if driver is None else driver.fields()})
        except (Closed, asyncio.IncompleteReadError):
            if last:
                raise
            return {"error": error_fields(KeyAbsent("the process that drives the device ended"))}

    async def _start(self) -> None:
        await self.kill()
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", _WORKER, *sys.argv[1:], stdin=theirs.fileno(), stdout=2
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

    def __init__(self, writer: asyncio.StreamWriter, settled: Mapping[str, Any]) -> None:
        self._writer = writer
        self._devices: list[list[Any]] | None = settled["devices"]
        who = settled["account"]
        self._account = None if who is None else Account(*who)
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
        name = request["device"]
        worker = self._workers.setdefault(name, Worker(self._candidates))
        async with worker.turn:
            answer: dict[str, Any]
            if not self._is_settled(request):
                answer = {"error": error_fields(KeyInvalid(f"the device {name} is not registered so"))}
            elif request["op"] == "close":
                await worker.kill()
                answer = {"ok": {}}
            else:
                answer = await worker.ask(request)
        self._writer.write(pack({**answer, "id": request["id"]}))

    def _is_settled(self, request: Mapping[str, Any]) -> bool:
        if self._devices is None or request["op"] != "open":
            return True
        return [request["backend"], request["settings"]] in self._devices

    def _candidates(self, request: Mapping[str, Any]) -> Sequence[Driver | None]:
        if self._account is None:
            return (None,)
        return tuple(drivers(self._account, request["backend"], request["settings"]))


async def run() -> None:
    """Serves on descriptor 0."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(0)))
    try:
        settled = await read(reader)
    except (asyncio.IncompleteReadError, ConnectionError, Closed):
        return
    if settled["account"] is not None:
        kernel.drop_capabilities(*HOST_CAPABILITIES, inherited=True)
    await Host(writer, settled).serve(reader)


def main() -> int:
    """Runs until the core is gone."""
    tie_to_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the core's end of the socket
    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
