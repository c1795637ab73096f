"""Log servers on loopback that count what they are asked for, and fail and lie on command.

async with SimulatedLogServer(log) as server:
    server.url("tiles"), server.url("sumdb"), server.url("serverless")
    server.faults.partials_missing = True
    server.requests   # the paths asked for, in order of arrival
"""

from __future__ import annotations

import asyncio
import base64
import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import web

from witness.tlog import merkle
from witness.tlog.tiles import MalformedTile, parse_tile_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.simulated_log import SimulatedLog

BOMB_SIZE = 64 * 1024 * 1024
"""Bytes that the gzip bomb of `Faults.gzip_bomb` inflates to."""

_BLOCK = bytes(64 * 1024)


@dataclass
class Faults:
    """What the server does wrong, until reset. All of it holds for every request, unless `tiles_only`."""

    tiles_only: bool = False
    """The checkpoint is served well."""
    status: int = 200
    """Every answer has this status instead."""
    partials_missing: bool = False
    """Partial tiles are gone (404), as tlog-tiles allows where the full one is there."""
    wrong_tiles: bool = False
    """Tiles have the right length and the wrong hashes (the first bit of each is flipped)."""
    short_by: int = 0
    """Bodies lack this many bytes at their end."""
    endless: bool = False
    """Bodies never end."""
    trickle: bool = False
    """A body begins, and the rest does not come."""
    gzip: bool = False
    """Bodies are compressed though nobody asked for it."""
    gzip_bomb: bool = False
    """A small body that inflates to `BOMB_SIZE`."""
    redirect: str = ""
    """Every answer redirects to this URL followed by the path."""
    checkpoint: bytes | None = None
    """Served instead of the log's own: an older one, another origin's, or no checkpoint at all."""


class LoopbackServer:
    """Serves what `answer(path)` gives, on 127.0.0.1 and a free port; None is a 404.

    Args:
        answer: the body for a path without its leading slash.
    """

    def __init__(self, answer: Callable[[str], bytes | None]) -> None:
        self._answer = answer
        self._bomb = b""
        self.faults = Faults()
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bytes_sent = 0

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def base(self) -> str:
        """The server's own URL, without a final slash."""
        return f"http://127.0.0.1:{self._port}"

    def forget(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.headers.clear()
        self.bytes_sent = 0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        self.requests.append(path)
        self.headers.append(dict(request.headers))
        is_tile = "/tile/" in f"/{path}"
        faults = self.faults if is_tile or not self.faults.tiles_only else Faults()
        if faults.redirect:
            return web.Response(status=302, headers={"Location": f"{faults.redirect}/{path}"})
        if faults.status != 200:
            return web.Response(status=faults.status, text="no")
        if is_tile and faults.partials_missing and _is_partial(path):
            return web.Response(status=404)
        body = self._answer(path)
        if body is None:
            return web.Response(status=404)
        if not is_tile and self.faults.checkpoint is not None:
            body = self.faults.checkpoint
        if is_tile and faults.wrong_tiles:
            body = _spoilt(body)
        if faults.short_by:
            body = body[: -faults.short_by]
        return await self._send(request, faults, body)

    async def _send(self, request: web.BaseRequest, faults: Faults, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        if faults.gzip_bomb:
            response.headers["Content-Encoding"] = "gzip"
            self._bomb = self._bomb or gzip.compress(bytes(BOMB_SIZE), 9)
            body = self._bomb
        elif faults.gzip:
            response.headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        await response.prepare(request)
        if faults.trickle:
            await response.write(body[:1])
            await asyncio.Event().wait()  # until the client has gone, or the server stops
        while faults.endless:
            await response.write(_BLOCK)
            self.bytes_sent += len(_BLOCK)
        await response.write(body)
        self.bytes_sent += len(body)
        await response.write_eof()
        return response


class FolderServer(LoopbackServer):
    """Serves the files of a folder, such as a real log of the test data."""

    def __init__(self, folder: Path) -> None:
        def answer(path: str) -> bytes | None:
            file = folder / path
            return file.read_bytes() if file.is_file() else None

        super().__init__(answer)


class SimulatedLogServer(LoopbackServer):
    """Serves a simulated log in all layouts at once; `log` may be replaced while it runs."""

    def __init__(self, log: SimulatedLog) -> None:
        self.log = log
        super().__init__(self._serve)

    def url(self, family: str) -> str:
        """The log's URL for `tiles`, `sumdb` or `serverless`."""
        return f"{self.base}/{family}"

    def _serve(self, path: str) -> bytes | None:
        family, _, rest = path.partition("/")
        if rest == ("latest" if family == "sumdb" else "checkpoint"):
            return self.log.checkpoint()
        match family:
            case "tiles":
                return self._raw_tile(rest)
            case "sumdb" if rest.startswith("tile/8/"):
                return self._raw_tile("tile/" + rest.removeprefix("tile/8/"))
            case "serverless":
                return self._text_tile(rest)
        return None

    def _exists(self, level: int, index: int, width: int) -> bool:
        return 256 * index + width <= self.log.size >> 8 * level

    def _raw_tile(self, path: str) -> bytes | None:
        try:
            tile = parse_tile_path(path)
        except MalformedTile:
            return None
        if not self._exists(tile.level, tile.index, tile.width):
            return None
        return self.log.tile(tile.level, tile.index, tile.width)

    def _text_tile(self, path: str) -> bytes | None:
        stem, _, suffix = path.partition(".")
        parts = stem.split("/")
        if len(parts) != 6 or [len(part) for part in parts[1:]] != [2, 4, 2, 2, 2]:
            return None
        level, index, width = int(parts[1], 16), int("".join(parts[2:]), 16), int(suffix or "100", 16)
        if not self._exists(level, index, width):
            return None
        lines = [""] * (2 * width - 1)
        hashes = [self.log.node(8 * level, 256 * index + i) for i in range(width)]
        for height in range(8):
            for i, value in enumerate(hashes):
                lines[(2 << height) * i + (1 << height) - 1] = base64.b64encode(value).decode()
            hashes = [merkle.node_hash(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=False)]
        return "\n".join(["32", str(width), *lines, ""]).encode()


def _is_partial(path: str) -> bool:
    return "." in path


def _spoilt(tile: bytes) -> bytes:
    """A tile with every hash another one, in the same format."""
    if tile.startswith(b"32\n"):
        head, nodes = tile.split(b"\n")[:2], tile.split(b"\n")[2:]
        return b"\n".join(
            [*head, *(line and (b"B" if line[:1] == b"A" else b"A") + line[1:] for line in nodes)]
        )
    return b"".join(bytes([tile[i] ^ 1]) + tile[i + 1 : i + 32] for i in range(0, len(tile), 32))
