"""Thousands of simulated logs behind one small HTTP server, in a process of its own.

Their addresses are spread over many hosts of the loopback network, as real logs' are. Every tenth log grows
by a leaf each time that somebody asks for its checkpoint; every second one sends an ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from pathlib import Path
from typing import Any

import yaml

from tests.simulated_log import SimulatedLog
from witness.tlog.tiles import MalformedTile, parse_tile_path

SIZE = 100_000
GROWING = 10
HOSTS = 1000


def origin(number: int) -> str:
    return f"polled.example/log/{number:06d}"


def host(number: int) -> str:
    """A loopback address; a thousand of them."""
    place = number % HOSTS
    return f"127.9.{place // 250}.{place % 250 + 1}"


class _Logs:
    def __init__(self, count: int) -> None:
        self.logs = [SimulatedLog(origin(n), size=SIZE, huge=True) for n in range(count)]
        self.notes: dict[int, bytes] = {}
        self.asked = [0] * count

    def answer(self, target: str, question: str) -> tuple[int, str, bytes]:
        """Status, ETag and body."""
        number, _, path = target.removeprefix("/").partition("/")
        log, at = self.logs[int(number)], int(number)
        if path == "checkpoint":
            self.asked[at] += 1
            if at % GROWING == 0 and self.asked[at] > 1:
                log.append(1)
                self.notes.pop(at, None)
            note = self.notes.setdefault(at, log.checkpoint())
            tag = f'"{hashlib.sha256(note).hexdigest()[:16]}"' if at % 2 else ""
            return (304, tag, b"") if tag and question == tag else (200, tag, note)
        try:
            tile = parse_tile_path(path)
        except MalformedTile:
            return 404, "", b""
        return 200, "", log.tile(tile.level, tile.index, tile.width)


class _Protocol(asyncio.Protocol):
    def __init__(self, logs: _Logs) -> None:
        self._logs = logs
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end].decode("latin-1"), self._buffer[end + 4 :]
            lines = head.split("\r\n")
            question = next((line[15:] for line in lines if line.lower().startswith("if-none-match: ")), "")
            status, tag, body = self._logs.answer(lines[0].split(" ")[1], question)
            etag = f"ETag: {tag}\r\n" if tag else ""
            self._transport.write(
                f"HTTP/1.1 {status} X\r\n{etag}Content-Length: {len(body)}\r\n\r\n".encode() + body
            )


async def _serve(pipe: Any, count: int) -> None:
    logs = _Logs(count)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(logs), "0.0.0.0", 0, backlog=4096)
    vkeys = [str(log.vkeys[0]) for log in logs.logs]
    pipe.send((server.sockets[0].getsockname()[1], vkeys))
    stop = asyncio.Event()

    def asked() -> None:
        try:
            pipe.recv()
            pipe.send(logs.asked)
        except EOFError:
            stop.set()

    loop.add_reader(pipe.fileno(), asked)
    await stop.wait()


def _run(pipe: Any, count: int) -> None:
    asyncio.run(_serve(pipe, count))


class PolledLogs:
    """The server's process."""

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_run, args=(theirs, count), daemon=True)
        self._process.start()
        theirs.close()
        self.count = count
        self.port, self.vkeys = self._pipe.recv()

    def write_list(self, path: Path, interval: float) -> None:
        """Our YAML list of all of them."""
        logs = [
            {
                "origin": origin(n), "vkeys": [vkey], "feeder": "tiles", "interval": interval,
                "url": f"http://{host(n)}:{self.port}/{n}",
            }
            for n, vkey in enumerate(self.vkeys)
        ]  # fmt: skip
        path.write_text(yaml.dump({"logs": logs}, Dumper=yaml.CSafeDumper))

    def asked(self) -> list[int]:
        """How often each log was asked for its checkpoint."""
        self._pipe.send(None)
        found: list[int] = self._pipe.recv()
        return found

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
